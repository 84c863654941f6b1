//! Packages of Debian that are unpacked, not installed: other suites and other architectures, from the machine's own
//! mirror.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::os_release;
use crate::process;

/// Names that mark the stanza of the main archive besides the running release's own.
const MAIN_SUITES: &[&str] = &["stable", "testing", "unstable", "sid", "bookworm", "trixie", "forky"];

/// Downloads the newest version of a package that one of the suites has (none named: the machine's own release), for
/// another architecture if one is named, and returns the directory in `scratch` where its files lie.
pub(crate) fn fetch(
    scratch: &Path,
    package: &str,
    architecture: Option<&str>,
    suites: &[&str],
) -> Result<PathBuf> {
    let archive = main_archive().context("no Debian archive is configured here")?;
    let codename = os_release("VERSION_CODENAME").unwrap_or_default();
    let own = [codename.as_str()];
    let sources = scratch.join("klpx.sources");
    fs::write(&sources, archive.stanza(if suites.is_empty() { &own } else { suites }))?;
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    let apt = Apt { scratch, sources: &sources, architecture };
    // A mirror may lack one of the suites: what counts is whether the package turns up.
    let update = process::output(apt.command("apt-get").arg("update"));
    let versions = process::output(apt.command("apt-cache").args(["madison", package]))?;
    let versions = versions.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let Some(newest) = versions.max_by(|a, b| compare_versions(a, b)).map(str::to_owned) else {
        let cause = update.err().map(|error| format!("\n{error:#}")).unwrap_or_default();
        bail!("the configured mirror has no {package}{cause}");
    };
    process::output(apt.command("apt-get").args(["download", &format!("{package}={newest}")]))?;
    let deb = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    let files = scratch.join("files");
    process::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&files))?;
    fs::remove_file(&deb)?;
    Ok(files)
}

/// Debian's order of versions.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let holds = |operator: &str| {
        Command::new("dpkg")
            .args(["--compare-versions", a, operator, b])
            .status()
            .is_ok_and(|status| status.success())
    };
    if holds("lt") {
        Ordering::Less
    } else if holds("gt") {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Apt with its own sources, lists and cache: the machine's package state is neither used nor changed.
struct Apt<'a> {
    scratch: &'a Path,
    sources: &'a Path,
    architecture: Option<&'a str>,
}

impl Apt<'_> {
    fn command(&self, program: &str) -> Command {
        let scratch = self.scratch.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={}", self.sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={scratch}/lists"),
            format!("Dir::Cache={scratch}/cache"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if let Some(architecture) = self.architecture {
            for option in ["APT::Architecture", "APT::Architectures"] {
                command.args(["-o", &format!("{option}={architecture}")]);
            }
        }
        command.current_dir(self.scratch).env("LC_ALL", "C");
        command
    }
}

/// One archive of the machine's apt sources.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Archive {
    /// A deb822 stanza for other suites of the same archive.
    fn stanza(&self, suites: &[&str]) -> String {
        let mut text =
            format!("Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n", self.uris, suites.join(" "));
        if let Some(signed_by) = &self.signed_by {
            text.push_str(&format!("Signed-By: {signed_by}\n"));
        }
        text
    }

    /// True for the archive that the release itself comes from, not its security or other side archives.
    fn is_main(&self, codename: &str) -> bool {
        let suite = |name: &String| name == codename || MAIN_SUITES.contains(&name.as_str());
        self.suites.iter().any(suite) && self.components.iter().any(|component| component == "main")
    }
}

/// The archive that serves this machine's own release.
fn main_archive() -> Result<Archive> {
    if os_release("ID").as_deref() != Some("debian") {
        bail!("this is not Debian");
    }
    let codename = os_release("VERSION_CODENAME").unwrap_or_default();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(directory) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(directory.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let archives = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => continue,
        };
        if let Some(archive) = archives.into_iter().find(|archive| archive.is_main(&codename)) {
            return Ok(archive);
        }
    }
    bail!("no entry of /etc/apt/sources.list or sources.list.d serves {codename} main")
}

/// The `deb` stanzas of a deb822 file (sources.list(5)).
fn deb822(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
                (true, _, Some((_, value))) => value.push_str(&format!("\n{line}")),
                (false, Some((key, value)), _) => {
                    fields.push((key.to_ascii_lowercase(), value.trim().to_owned()))
                }
                _ => {}
            }
        }
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let words = |name: &str| {
            field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        if words("types").iter().any(|kind| kind == "deb") && field("enabled").as_deref() != Some("no") {
            archives.push(Archive {
                uris: words("uris").join(" "),
                suites: words("suites"),
                components: words("components"),
                signed_by: field("signed-by"),
            });
        }
    }
    archives
}

/// The `deb` lines of a one-line-style file (sources.list(5)).
fn one_line(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.split('#').next().unwrap_or_default().trim();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest.trim()),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (Some(uris), Some(suite)) = (words.next(), words.next()) else { continue };
        archives.push(Archive {
            uris,
            suites: vec![suite],
            components: words.collect(),
            signed_by: options
                .split_whitespace()
                .find_map(|option| Some(option.strip_prefix("signed-by=")?.to_owned())),
        });
    }
    archives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_not_the_security_one() {
        let text = "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\nComponents: main\n\n\
                    # a comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\n\
                    Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n";
        let archives = deb822(text);
        let main: Vec<_> = archives.iter().filter(|archive| archive.is_main("trixie")).collect();
        assert_eq!(main.len(), 1);
        assert_eq!(
            main[0].stanza(&["sid"]),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main\n\
             Signed-By: /usr/share/keyrings/k.gpg\n"
        );
    }

    #[test]
    fn an_inline_key_stays_whole() {
        let text = "Types: deb\nURIs: u\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n";
        assert!(deb822(text)[0].stanza(&["sid"]).ends_with("Signed-By: \n -----BEGIN\n .\n abc\n"));
    }

    #[test]
    fn disabled_stanzas_and_source_lines_do_not_count() {
        assert!(deb822("Types: deb\nEnabled: no\nURIs: u\nSuites: sid\nComponents: main\n").is_empty());
        assert!(deb822("Types: deb-src\nURIs: u\nSuites: sid\nComponents: main\n").is_empty());
        assert!(one_line("deb-src http://mirror.example/debian sid main\n# deb u sid main\n").is_empty());
    }

    #[test]
    fn one_line_options_are_read() {
        let archives =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main # x\n");
        assert_eq!(archives[0].signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(archives[0].components, ["main"]);
        assert!(archives[0].is_main("bookworm"));
    }
}
