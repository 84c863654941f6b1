//! The scripts that run when a package is installed and removed. Their parts are shell files in `script/`. The names
//! that are inserted have been checked.

use crate::livepatch::PackagedLivepatch;

const RUNNING: &str = include_str!("script/running.sh");
const INSTALLED: &str = include_str!("script/installed.sh");
const REMOVING: &str = include_str!("script/removing.sh");
const REMOVED: &str = include_str!("script/removed.sh");

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// After the files of this version were installed.
    Installed,
    /// Before the package is removed. The files are still there.
    Removing,
    /// After the files of this version were removed.
    Removed,
}

/// Maintainer scripts of dpkg: the file's name, when it runs, and its first argument at that time (deb-postinst(5)).
pub(crate) const DEBIAN: [(&str, When, &str); 3] = [
    ("postinst", When::Installed, "configure"),
    ("prerm", When::Removing, "remove"),
    ("postrm", When::Removed, "remove|upgrade"),
];

/// A script for dpkg.
pub(crate) fn debian(livepatch: &PackagedLivepatch, when: When, argument: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\n{}case \"$1\" in\n{argument}) ;;\n*) exit 0 ;;\nesac\n{}",
        head(livepatch, when),
        body(when)
    )
}

/// A script for rpm. Its first argument is the number of versions that will remain.
pub(crate) fn rpm(livepatch: &PackagedLivepatch, when: When) -> String {
    let only = match when {
        When::Removing => "[ \"$1\" = 0 ] || exit 0\n",
        When::Installed | When::Removed => "",
    };
    format!("{}{only}{}exit 0\n", head(livepatch, when), body(when))
}

fn head(livepatch: &PackagedLivepatch, when: When) -> String {
    let PackagedLivepatch { name, release, build_id, .. } = livepatch;
    let names = format!("NAME='{name}'\nRELEASE='{release}'\n");
    match when {
        When::Removed => names,
        When::Installed => {
            format!("{names}BUILD_ID='{build_id}'\nFOLDER='{}'\n{RUNNING}", livepatch.folder())
        }
        When::Removing => format!("{names}BUILD_ID='{build_id}'\n{RUNNING}"),
    }
}

fn body(when: When) -> &'static str {
    match when {
        When::Installed => INSTALLED,
        When::Removing => REMOVING,
        When::Removed => REMOVED,
    }
}

#[cfg(test)]
mod tests {
    use klpx_testkit as tools;

    use super::*;
    use crate::plan::tests::livepatch;

    #[test]
    fn every_script_is_shell() {
        let livepatch = livepatch("livepatch_a", "6.12.1+x");
        let debian = DEBIAN.map(|(_, when, argument)| debian(&livepatch, when, argument));
        let rpm = DEBIAN.map(|(_, when, _)| rpm(&livepatch, when));
        for script in debian.iter().chain(&rpm) {
            tools::run(tools::command("sh").args(["-n", "-c", script]));
        }
    }

    /// This machine runs another kernel: every script succeeds and prints nothing.
    #[test]
    fn nothing_is_done_for_another_kernel() {
        let livepatch = livepatch("livepatch_a", "6.12.1+x");
        for (_, when, argument) in DEBIAN {
            let argument = argument.split('|').next().unwrap_or_default();
            for (script, argument) in
                [(debian(&livepatch, when, argument), argument), (rpm(&livepatch, when), "0")]
            {
                let output = tools::run(tools::command("sh").args(["-c", &script, "script", argument]));
                assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{when:?}: {output:?}");
            }
        }
    }
}
