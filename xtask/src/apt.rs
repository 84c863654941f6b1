//! Unpacks Debian packages without installing them, including packages of other suites and other architectures. They
//! come from the machine's own mirror.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages::os_release;
use crate::process;

/// Suites that mark the stanza of the main archive, besides the running release's own codename.
const MAIN_SUITES: &[&str] = &["stable", "testing", "unstable", "sid", "bookworm", "trixie", "forky"];
/// The ending of the security archive's suites.
const SECURITY: &str = "-security";

/// Downloads the newest version of a package that one of the suites has, for another architecture if one is named.
/// Without suites, uses the machine's own release. Returns the directory in `scratch` with the package's files.
pub(crate) fn fetch(
    scratch: &Path,
    package: &str,
    architecture: Option<&str>,
    suites: &[&str],
) -> Result<PathBuf> {
    let repository = Repository::open(scratch, architecture, suites)?;
    let newest = repository.newest(package)?;
    let deb = repository.download(scratch, package, &newest)?;
    let files = scratch.join("files");
    unpack(&deb, &files, &[])?;
    fs::remove_file(&deb)?;
    Ok(files)
}

/// Unpacks a package into a directory, without the files that match one of tar's patterns.
pub(crate) fn unpack(deb: &Path, directory: &Path, without: &[String]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut files = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn()?;
    let stdout = files.stdout.take().context("dpkg-deb's output is piped")?;
    let mut tar = Command::new("tar");
    // Where /lib is a link to /usr/lib, as on every machine by now, the link stays.
    tar.args(["--extract", "--file=-", "--no-same-owner", "--keep-directory-symlink"]);
    tar.args(without.iter().map(|pattern| format!("--exclude={pattern}")));
    tar.arg("--directory").arg(directory).stdin(stdout);
    let result = tar.output()?;
    let read = files.wait()?;
    if !read.success() || !result.status.success() {
        bail!("can't unpack {}: {}", deb.display(), String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(())
}

/// Compares versions in Debian's order.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
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

/// Some suites of the machine's archives, read through apt with separate sources, lists and cache. The machine's
/// package state is neither used nor changed.
pub(crate) struct Repository<'a> {
    scratch: &'a Path,
    architecture: Option<&'a str>,
    /// The reason why the lists could not be refreshed. A mirror may lack one of the suites; only a missing package
    /// counts.
    stale: Option<String>,
}

impl<'a> Repository<'a> {
    /// Reads the lists of the suites, or of the machine's own release if none is named.
    pub(crate) fn open(
        scratch: &'a Path,
        architecture: Option<&'a str>,
        suites: &[&str],
    ) -> Result<Repository<'a>> {
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(scratch.join(directory))?;
        }
        let codename = os_release("VERSION_CODENAME").unwrap_or_default();
        let own = [codename.as_str()];
        let suites = if suites.is_empty() { &own } else { suites };
        let mut repository = Repository { scratch, architecture, stale: None };
        fs::write(repository.sources(), sources(suites)?)?;
        let update = process::output(repository.command("apt-get").arg("update"));
        repository.stale = update.err().map(|error| format!("{error:#}"));
        Ok(repository)
    }

    fn sources(&self) -> PathBuf {
        self.scratch.join("klpx.sources")
    }

    /// Returns the names of packages that begin like this.
    pub(crate) fn names(&self, beginning: &str) -> Result<Vec<String>> {
        let names = process::output(self.command("apt-cache").args(["pkgnames", beginning]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Returns every version of a package that the suites have.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let versions = process::output(self.command("apt-cache").args(["madison", package]))?;
        let versions = versions.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// Returns the newest version of a package.
    pub(crate) fn newest(&self, package: &str) -> Result<String> {
        let newest = self.versions(package)?.into_iter().max_by(|a, b| compare_versions(a, b));
        newest.with_context(|| format!("the configured mirror has no {package}{}", self.excuse()))
    }

    /// Returns the reason why a package may be missing.
    pub(crate) fn excuse(&self) -> String {
        self.stale.iter().map(|why| format!("\n{why}")).collect()
    }

    /// Returns the names of the packages on which a package depends, including alternatives.
    pub(crate) fn dependencies(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let what = format!("{package}={version}");
        let record = process::output(self.command("apt-cache").args(["show", "--no-all-versions", &what]))?;
        let depends = record.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or_default();
        let names = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next());
        Ok(names.map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect())
    }

    /// Downloads one version of a package into a directory, which may have the package already.
    pub(crate) fn download(&self, directory: &Path, package: &str, version: &str) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.current_dir(directory).args(["download", &format!("{package}={version}")]);
        process::output(&mut command)?;
        // In file names, the colon of an epoch is escaped.
        let start = format!("{package}_{}_", version.replace(':', "%3a"));
        let is_it = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with(&start) && name.ends_with(".deb")
        };
        let mut files = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
        files.find(is_it).with_context(|| format!("apt-get download left no {start}*.deb"))
    }

    fn command(&self, program: &str) -> Command {
        let scratch = self.scratch.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={}", self.sources().display()),
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
    /// Returns a deb822 stanza for other suites of the same archive.
    fn stanza(&self, suites: &[&str]) -> String {
        let mut text =
            format!("Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n", self.uris, suites.join(" "));
        if let Some(signed_by) = &self.signed_by {
            text.push_str(&format!("Signed-By: {signed_by}\n"));
        }
        text
    }

    /// Returns true for the archive of the release itself, but not for its security or other side archives.
    fn is_main(&self, codename: &str) -> bool {
        let suite = |name: &String| name == codename || MAIN_SUITES.contains(&name.as_str());
        self.suites.iter().any(suite) && self.components.iter().any(|component| component == "main")
    }

    /// Returns true for the archive of security updates.
    fn is_security(&self) -> bool {
        let suite = |name: &String| name.ends_with(SECURITY) || name.ends_with("/updates");
        self.suites.iter().any(suite) && self.components.iter().any(|component| component == "main")
    }
}

/// Returns a deb822 file that provides the suites from the machine's own archives.
pub(crate) fn sources(suites: &[&str]) -> Result<String> {
    stanzas(&archives()?, suites, &os_release("VERSION_CODENAME").unwrap_or_default())
}

/// Returns stanzas that provide the suites from the machine's archives that have them.
fn stanzas(archives: &[Archive], suites: &[&str], codename: &str) -> Result<String> {
    let (security, main): (Vec<&str>, Vec<&str>) = suites.iter().partition(|suite| suite.ends_with(SECURITY));
    let mut text = String::new();
    if !main.is_empty() {
        let archive = archives.iter().find(|archive| archive.is_main(codename));
        let archive = archive.with_context(|| format!("no entry of apt's sources serves {codename} main"))?;
        text = archive.stanza(&main);
    }
    if !security.is_empty() {
        match archives.iter().find(|archive| archive.is_security()) {
            Some(archive) => text.push_str(&format!("\n{}", archive.stanza(&security))),
            // The other suites may have the wanted packages.
            None if !main.is_empty() => {}
            None => bail!("no entry of apt's sources serves security updates of {codename}"),
        }
    }
    Ok(text)
}

/// Returns the archives of this machine's packages.
fn archives() -> Result<Vec<Archive>> {
    if os_release("ID").as_deref() != Some("debian") {
        bail!("this is not Debian");
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(directory) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(directory.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut archives = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => archives.extend(deb822(&text)),
            Some("list") => archives.extend(one_line(&text)),
            _ => {}
        }
    }
    Ok(archives)
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
        let both = stanzas(&archives, &["sid", "bookworm-security"], "trixie").expect("both are there");
        assert!(both.contains("/debian\nSuites: sid\n"), "{both}");
        assert!(both.contains("/debian-security\nSuites: bookworm-security\n"), "{both}");
        assert!(stanzas(&archives[1..], &["bookworm-security"], "trixie").is_err());
        assert!(stanzas(&archives[..1], &["sid"], "trixie").is_err());
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
