//! The trial of a livepatch in a guest: load it before and after the modules that it patches, disable it, unload it,
//! load it again, replace an earlier livepatch with it, and check the fix by commands or a script.

use std::collections::BTreeSet;

use crate::Task;

const WORDS: &str = include_str!("script/trial.sh");

/// A livepatch that is to be tried, and its expected behaviour.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The kernel's name of the livepatch.
    pub name: String,
    /// The module.
    pub module: Vec<u8>,
    /// The replaced functions: object, and name with position as in sysfs (`vmlinux`, `f,1`).
    pub functions: Vec<(String, String)>,
    /// The modules that the livepatch patches. A module may have only callbacks.
    pub targets: BTreeSet<String>,
    /// An earlier livepatch that this one replaces: name and module.
    pub previous: Option<(String, Vec<u8>)>,
    /// Commands that run before the livepatch is loaded.
    pub before: Vec<Expectation>,
    /// Commands that run while the livepatch is loaded.
    pub after: Vec<Expectation>,
    /// A script that runs while the livepatch is loaded, with the functions of `guest.sh`.
    pub script: Option<String>,
}

/// A command and its expected output, a shell pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The command, for busybox's shell.
    pub command: String,
    /// The pattern.
    pub output: String,
}

impl std::str::FromStr for Expectation {
    type Err = String;

    /// Parses `COMMAND => OUTPUT`.
    fn from_str(text: &str) -> Result<Expectation, String> {
        let (command, output) = text.rsplit_once("=>").ok_or("write COMMAND => OUTPUT")?;
        let (command, output) = (command.trim().to_owned(), output.trim().to_owned());
        match command.is_empty() || [&command, &output].iter().any(|text| text.contains(['\n', '\t'])) {
            true => Err("COMMAND and OUTPUT are one line each, without tabs".to_owned()),
            false => Ok(Expectation { command, output }),
        }
    }
}

impl Trial {
    /// The tasks of the trial, in order.
    pub fn tasks(&self) -> Vec<Task> {
        let has_targets = !self.targets.is_empty();
        let mut scripts = vec![("loaded, disabled, unloaded", "load\nunload\n")];
        if has_targets {
            scripts.push(("loaded before what it patches", "load\ntargets\npatched\nunload\n"));
            scripts.push(("loaded behind what it patches", "targets\nload\nunload\n"));
        }
        scripts.push(("loaded again", "targets\nload\nunload\nload\nunload\n"));
        if self.previous.is_some() {
            scripts.push((
                "in the place of an earlier one",
                "targets\n(NAME=$PREVIOUS; folder=/sys/kernel/livepatch/$NAME; insmod previous.ko && ended \"$folder\" && \
                 pass \"the earlier one is loaded\" || fail \"the earlier one is not loaded\")\nload\n\
                 check \"the earlier one is gone\" \"\" \"$(ls -d \"/sys/kernel/livepatch/$PREVIOUS\" 2>/dev/null)\"\n\
                 remove \"$PREVIOUS\" && pass \"rmmod of the earlier one\"\nunload\n",
            ));
        }
        if self.checks_fix() {
            scripts.push((
                "the fix",
                "targets\nsays before\nload\nsays after\n[ -f fix.sh ] && . ./fix.sh\nunload\n",
            ));
        }
        let numbered = scripts.into_iter().enumerate();
        numbered.map(|(n, (title, script))| self.task(&format!("{} {title}", n + 1), script)).collect()
    }

    fn checks_fix(&self) -> bool {
        self.script.is_some() || !self.before.is_empty() || !self.after.is_empty()
    }

    fn task(&self, name: &str, script: &str) -> Task {
        let lines =
            |lines: &mut dyn Iterator<Item = String>| lines.map(|line| line + "\n").collect::<String>();
        let expected = |all: &[Expectation]| {
            lines(&mut all.iter().map(|one| format!("{}\t{}", one.command, one.output))).into_bytes()
        };
        let functions = lines(&mut self.functions.iter().map(|(object, name)| format!("{object}/{name}")));
        let mut files = vec![
            ("livepatch.ko".to_owned(), self.module.clone()),
            ("functions".to_owned(), functions.into_bytes()),
            ("targets".to_owned(), lines(&mut self.targets.iter().cloned()).into_bytes()),
            ("trial.sh".to_owned(), WORDS.as_bytes().to_vec()),
        ];
        let mut names = format!("NAME={}\n", self.name);
        if let Some((name, module)) = &self.previous {
            names.push_str(&format!("PREVIOUS={name}\n"));
            files.push(("previous.ko".to_owned(), module.clone()));
        }
        for (name, all) in [("before", &self.before), ("after", &self.after)] {
            if !all.is_empty() {
                files.push((name.to_owned(), expected(all)));
            }
        }
        files.extend(self.script.clone().map(|text| ("fix.sh".to_owned(), text.into_bytes())));
        let script = format!("{names}. ./trial.sh\n{script}true\n");
        Task { name: name.to_owned(), script, files, console: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(trial: &Trial) -> Vec<String> {
        let tasks = trial.tasks();
        tasks.iter().filter_map(|task| Some(task.name.split_once(' ')?.1.to_owned())).collect()
    }

    #[test]
    fn what_is_tried_follows_from_what_it_patches_and_what_is_expected() {
        let of = |object: &str| (object.to_owned(), "f,1".to_owned());
        let mut trial =
            Trial { name: "livepatch_a".to_owned(), functions: vec![of("vmlinux")], ..Trial::default() };
        assert_eq!(titles(&trial), ["loaded, disabled, unloaded", "loaded again"]);
        trial.functions.push(of("md_mod"));
        trial.targets.insert("md_mod".to_owned());
        trial.previous = Some(("livepatch_b".to_owned(), Vec::new()));
        trial.after = vec!["uname => Linux".parse().expect("an expectation")];
        assert_eq!(
            titles(&trial),
            [
                "loaded, disabled, unloaded",
                "loaded before what it patches",
                "loaded behind what it patches",
                "loaded again",
                "in the place of an earlier one",
                "the fix"
            ]
        );
        let fix = trial.tasks().pop().expect("a task");
        let file =
            |name: &str| fix.files.iter().find(|(file, _)| file == name).map(|(_, data)| data.as_slice());
        assert_eq!(file("after"), Some(&b"uname\tLinux\n"[..]));
        assert_eq!(file("targets"), Some(&b"md_mod\n"[..]));
        assert_eq!(file("functions"), Some(&b"vmlinux/f,1\nmd_mod/f,1\n"[..]));
        assert_eq!(file("before"), None);
    }

    #[test]
    fn an_expectation_is_a_command_and_one_line() {
        let read = |text: &str| text.parse::<Expectation>().map(|e| (e.command, e.output));
        let both = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(read("cat /proc/version => Linux*"), both("cat /proc/version", "Linux*"));
        assert_eq!(read("echo 'a => b' => a => b"), both("echo 'a => b' => a", "b"));
        assert_eq!(read("true =>"), both("true", ""));
        for bad in ["cat /proc/version", "=> Linux", "a\tb => c", "a => b\nc"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
