//! Installed livepatches: files in `/usr/lib/modules/RELEASE/livepatch`.

use std::fs;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_normalize::compressed::plain_name;
use klpx_terminal::render;
use serde_json::{Value, json};

use crate::file::{self, Livepatch, Opened};
use crate::host::{Host, is_name, is_release};
use crate::loaded;
use crate::report::CommandOutput;
use crate::{files, mark};

/// The parent of the folders of all releases.
const RELEASES: &str = "/usr/lib/modules";

fn folder(release: &str) -> String {
    format!("{RELEASES}/{release}/livepatch")
}

/// An installed livepatch, or the reason why its file can't be read.
type OpenedResult = Result<Opened>;

/// The livepatch files of a release, sorted by name.
pub(crate) fn files_of(host: &Host, release: &str) -> Vec<PathBuf> {
    let folder = folder(release);
    let names = host.names(&folder).into_iter().filter(|name| name_of(name).is_some());
    names.map(|name| host.at(&folder).join(name)).collect()
}

/// The livepatches of a release, sorted by file.
pub(crate) fn open_all(host: &Host, release: &str) -> Vec<OpenedResult> {
    files_of(host, release).iter().map(|path| file::open(path)).collect()
}

/// `a` for `a.ko` or `a.ko.xz`.
fn name_of(file: &str) -> Option<&str> {
    plain_name(file).strip_suffix(".ko").filter(|name| is_name(name))
}

/// Releases with a folder for livepatches, sorted.
fn releases(host: &Host) -> Vec<String> {
    let names = host.names(RELEASES).into_iter().filter(|name| is_release(name));
    names.filter(|release| host.has(&folder(release))).collect()
}

/// The file of an installed livepatch.
///
/// # Errors
/// `klpx::not-installed`.
pub(crate) fn find(host: &Host, release: &str, name: &str) -> Result<PathBuf> {
    let files = files_of(host, release);
    let is_it = |path: &&PathBuf| path.file_name().and_then(|file| name_of(file.to_str()?)) == Some(name);
    let file = files.iter().find(is_it);
    Ok(file.cloned().ok_or_else(|| {
        Diagnosis::new(
            &codes::NOT_INSTALLED,
            "no such livepatch is installed",
            format!("{} has no {name}.ko", folder(release)),
            "klpx-host list lists those that are; name a file with its folder: ./NAME.ko",
        )
        .place(DiagnosisPlace::symbol(name))
    })?)
}

/// Installs a livepatch in the folder of its kernel's modules.
///
/// # Errors
/// `klpx::kernel-not-installed`, or the error of the system.
pub(crate) fn install(host: &Host, path: &Path, report: &mut CommandOutput<'_>) -> Result<()> {
    let opened = file::open(path)?;
    let Livepatch { name, release, .. } = &opened.livepatch;
    if !host.has(&format!("{RELEASES}/{release}")) {
        let what = "the kernel that the livepatch is for is not installed";
        return Err(Diagnosis::new(
            &codes::KERNEL_NOT_INSTALLED,
            what,
            format!("there is no {RELEASES}/{release}"),
            format!("install the kernel {release} first"),
        )
        .place(DiagnosisPlace::symbol(name.clone()))
        .into());
    }
    let place = format!("{}/{name}.ko", folder(release));
    files::put(&host.at(&place), opened.unpacked.as_deref().unwrap_or(&opened.bytes))?;
    report.line(&format!("{name} is installed for {release}: {place}"))?;
    report.result(json!({"name": name, "release": release, "file": place}))
}

/// Removes an installed livepatch.
///
/// # Errors
/// `klpx::not-installed`, or the error of the system.
pub(crate) fn uninstall(
    host: &Host,
    release: &str,
    name: &str,
    report: &mut CommandOutput<'_>,
) -> Result<()> {
    let path = find(host, release, name)?;
    files::remove(&path)?;
    if host.release().is_ok_and(|running| running == release) {
        mark::clear(host, name)?;
    }
    // The folder stays if it holds another file.
    let _ = fs::remove_dir(host.at(&folder(release)));
    report.line(&format!("{name} is not installed for {release} any more"))
}

/// Lists the installed livepatches of every release, each with its state.
///
/// # Errors
/// The error of the system.
pub(crate) fn list(host: &Host, report: &mut CommandOutput<'_>) -> Result<()> {
    let running = host.release()?;
    let mut rows =
        vec![["release", "livepatch", "version", "cumulative", "state", "CVEs"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for release in releases(host) {
        for (path, found) in files_of(host, &release).iter().zip(open_all(host, &release)) {
            let opened = match found {
                Ok(opened) => opened,
                Err(failure) => {
                    report.note(format!("{}: {failure}", path.display()))?;
                    continue;
                }
            };
            let state = state(host, &running, &release, &opened.livepatch);
            let livepatch = &opened.livepatch;
            rows.push(vec![
                release.clone(),
                livepatch.name.clone(),
                livepatch.version.clone().unwrap_or_default(),
                if livepatch.replace == Some(true) { "yes" } else { "no" }.to_owned(),
                state.to_owned(),
                livepatch.cves.join(" "),
            ]);
            values.push(value(&release, livepatch, state));
        }
    }
    match rows.len() {
        1 => report.line("no livepatch is installed")?,
        _ => report.text(&render::table(&rows))?,
    }
    report.result(json!({"running": running, "livepatches": values}))
}

fn value(release: &str, livepatch: &Livepatch, state: &str) -> Value {
    let mut value = json!(livepatch);
    value["installed_for"] = json!(release);
    value["state"] = json!(state);
    value
}

/// The state of an installed livepatch in the running kernel.
fn state(host: &Host, running: &str, release: &str, livepatch: &Livepatch) -> &'static str {
    if release != running {
        return "other kernel";
    }
    match loaded::find_loaded(host, &livepatch.name) {
        Some(loaded) if loaded.is_of(livepatch) => loaded.state.word(),
        Some(_) => "another of its name is loaded",
        None => "not loaded",
    }
}

/// The livepatches to load at boot, in order, and the names of the rest. The newest cumulative livepatch supersedes all
/// older ones. Newer livepatches, which are not cumulative, go on top.
pub(crate) fn plan(mut livepatches: Vec<Opened>) -> (Vec<Opened>, Vec<String>) {
    livepatches.sort_by(|a, b| age(a).cmp(&age(b)));
    let newest = livepatches.iter().rposition(|opened| opened.livepatch.replace == Some(true));
    let wanted = livepatches.split_off(newest.unwrap_or(0));
    (wanted, livepatches.into_iter().map(|opened| opened.livepatch.name).collect())
}

/// The sort key of a livepatch: version, time of the file, name.
fn age(opened: &Opened) -> (Vec<VersionPart>, Option<std::time::SystemTime>, &str) {
    let Livepatch { name, version, .. } = &opened.livepatch;
    let time = opened.file.metadata().and_then(|meta| meta.modified()).ok();
    (parts(version.as_deref().unwrap_or_default()), time, name)
}

/// A part of a version: a number, sorted by value, or a text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum VersionPart {
    Text(String),
    /// The count of digits, and the digits, both without leading zeros. The number with more digits is larger.
    Number(usize, String),
}

fn parts(version: &str) -> Vec<VersionPart> {
    let mut parts = Vec::new();
    let mut rest = version;
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (part, more) = rest.split_at(end);
        parts.push(match is_number {
            true => {
                let digits = part.trim_start_matches('0');
                VersionPart::Number(digits.len(), digits.to_owned())
            }
            false => VersionPart::Text(part.to_owned()),
        });
        rest = more;
    }
    parts
}

/// The path, if the user named a file rather than a livepatch.
pub(crate) fn as_file(text: &Path) -> Option<&Path> {
    let is_file = text.components().count() > 1
        || text.to_str().is_none_or(|text| text.contains('/') || plain_name(text).ends_with(".ko"));
    is_file.then_some(text)
}

/// The readable livepatches of a release, and the failures of the others.
pub(crate) fn readable(host: &Host, release: &str) -> (Vec<Opened>, Vec<Failure>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for found in open_all(host, release) {
        match found {
            Ok(opened) => good.push(opened),
            Err(failure) => bad.push(failure),
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::livepatch;

    fn opened(name: &str, version: &str, replace: bool) -> Opened {
        let version = (!version.is_empty()).then(|| version.to_owned());
        Opened {
            path: PathBuf::new(),
            livepatch: Livepatch { version, replace: Some(replace), ..livepatch(name, &[]) },
            file: fs::File::open("/dev/null").unwrap(),
            bytes: Vec::new(),
            unpacked: None,
        }
    }

    #[test]
    fn the_newest_cumulative_one_stands_for_all_before_it() {
        type Row = (&'static [(&'static str, &'static str, bool)], &'static [&'static str]);
        let rows: [Row; 6] = [
            (&[], &[]),
            (&[("a", "", true)], &["a"]),
            (&[("a", "", true), ("b", "", true)], &["b"]),
            (&[("a", "10", true), ("b", "9", true)], &["a"]),
            (&[("a", "2", false), ("b", "1.10", true), ("c", "1.9", true), ("d", "1", false)], &["b", "a"]),
            (&[("b", "", false), ("a", "", false)], &["a", "b"]),
        ];
        for (given, expected) in rows {
            let given: Vec<Opened> = given.iter().map(|(n, v, r)| opened(n, v, *r)).collect();
            let count = given.len();
            let (wanted, others) = plan(given);
            let names: Vec<&str> = wanted.iter().map(|one| one.livepatch.name.as_str()).collect();
            assert_eq!(names, expected);
            assert_eq!(wanted.len() + others.len(), count);
        }
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let rising = ["", "1", "1.2", "1.10", "1.10a", "2", "10", "010.1", "99999999999999999999999"];
        for pair in rising.windows(2) {
            assert!(parts(pair[0]) < parts(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn a_file_has_a_folder_or_a_modules_ending() {
        for (text, is_file) in [
            ("a", false),
            ("livepatch-a", false),
            ("./a", true),
            ("/x/a", true),
            ("a.ko", true),
            ("a.ko.xz", true),
        ] {
            assert_eq!(as_file(Path::new(text)).is_some(), is_file, "{text}");
        }
    }
}
