//! The release of the kernel to be patched: as the build tree records it, and as the source would build it.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::config::Config;
use crate::tree::SourceTree;

/// The `localversion*` files of a folder, in the order of scripts/setlocalversion.
pub(super) fn localversion_files(dir: &Path) -> Vec<(String, String)> {
    let Ok(listing) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<(String, String)> = listing
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let wanted = name.starts_with("localversion") && !name.contains('~');
            wanted.then(|| klpx_input::text(&entry.path()).ok().map(|text| (name, text)))?
        })
        .collect();
    files.sort();
    files
}

/// The release string of the kernel to be patched, and the LOCALVERSION with which a rebuild has the same release.
pub(super) fn release(
    source: &SourceTree,
    build_dir: &Path,
    config: &Config,
    local_files: &[(String, String)],
) -> Result<(String, String)> {
    let in_source = localversion_files(source.root());
    let mut base = source.version().to_string();
    for (_, text) in local_files.iter().chain(&in_source) {
        base.push_str(text.trim_end_matches('\n'));
    }
    base.push_str(config.value("LOCALVERSION").unwrap_or_default());
    let Some(release) = recorded_release(build_dir) else { return Ok((base, String::new())) };
    match release.strip_prefix(&base) {
        Some(rest) => Ok((release.clone(), rest.to_owned())),
        None => {
            let what = format!("the build tree is of Linux {release}, the source would build {base}");
            Err(Diagnosis::new(
                &codes::RELEASE_MISMATCH,
                what,
                "a livepatch's vermagic must be that of the running kernel",
                "name the source and the configuration that the build tree was made from",
            )
            .into())
        }
    }
}

/// The release that a build tree records.
fn recorded_release(build_dir: &Path) -> Option<String> {
    let line = klpx_input::text(&build_dir.join("include/config/kernel.release")).ok();
    if let Some(text) = line.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
        return Some(text);
    }
    let header = klpx_input::text(&build_dir.join("include/generated/utsrelease.h")).ok()?;
    let (_, rest) = header.split_once("UTS_RELEASE \"")?;
    rest.split_once('"').map(|(release, _)| release.to_owned()).filter(|release| !release.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        let files = [
            ("Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\nEXTRAVERSION =\n"),
            ("Kconfig", ""),
            ("scripts/Kbuild.include", ""),
            ("init/main.c", ""),
            ("include/linux/kernel.h", ""),
        ];
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        dir
    }

    #[test]
    fn the_local_version_makes_up_for_what_the_release_has_more() {
        let cases = [
            (None, "", "7.2.13", ""),
            (Some("7.2.13"), "", "7.2.13", ""),
            (Some("7.2.13+"), "", "7.2.13+", "+"),
            (Some("7.2.13-cfg-g1234"), "-cfg", "7.2.13-cfg-g1234", "-g1234"),
            (None, "-cfg", "7.2.13-cfg", ""),
        ];
        for (recorded, local, release_wanted, rest_wanted) in cases {
            let dir = tree();
            let build = tempfile::tempdir().expect("dir");
            if let Some(text) = recorded {
                std::fs::create_dir_all(build.path().join("include/config")).expect("mkdir");
                std::fs::write(build.path().join("include/config/kernel.release"), format!("{text}\n"))
                    .expect("write");
            }
            let config = Config::parse(&format!("CONFIG_LOCALVERSION=\"{local}\"\n"));
            let source = SourceTree::open(dir.path()).expect("tree");
            let got = release(&source, build.path(), &config, &[]).expect("release");
            assert_eq!(got, (release_wanted.to_owned(), rest_wanted.to_owned()));
        }
    }

    #[test]
    fn a_build_tree_of_another_source_is_refused() {
        let dir = tree();
        let build = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(build.path().join("include/generated")).expect("mkdir");
        std::fs::write(
            build.path().join("include/generated/utsrelease.h"),
            "#define UTS_RELEASE \"6.1.0-9-amd64\"\n",
        )
        .expect("write");
        let source = SourceTree::open(dir.path()).expect("tree");
        let failure = release(&source, build.path(), &Config::default(), &[]).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::release-mismatch");
    }

    #[test]
    fn localversion_files_count() {
        let dir = tree();
        std::fs::write(dir.path().join("localversion-rt"), "-rt5\n").expect("write");
        std::fs::write(dir.path().join("localversion-rt~"), "-old\n").expect("write");
        let source = SourceTree::open(dir.path()).expect("tree");
        let got = release(&source, Path::new("/nonexistent"), &Config::default(), &[]).expect("release");
        assert_eq!(got.0, "7.2.13-rt5");
    }
}
