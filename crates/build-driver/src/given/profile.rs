//! Profiles that a kernel was compiled with (CONFIG_AUTOFDO_CLANG, CONFIG_PROPELLER_CLANG). klpx finds them in the
//! build tree's records of units, so that the user need not name them.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Note, Result, codes};

use super::Given;
use crate::config::Config;

/// A way to compile a kernel with a profile.
struct ProfileKind {
    /// The Kconfig option.
    option: &'static str,
    /// The make variable that names the profile.
    variable: &'static str,
    /// The part of a unit's command with a profile: the compiler's option, and the suffix that the makefile appends to
    /// the file's name.
    with: (&'static str, &'static str),
    /// The options in a unit's command without a profile.
    without: &'static [&'static str],
}

/// As in scripts/Makefile.autofdo and scripts/Makefile.propeller.
const KINDS: [ProfileKind; 2] = [
    ProfileKind {
        option: "AUTOFDO_CLANG",
        variable: "CLANG_AUTOFDO_PROFILE",
        with: ("-fprofile-sample-use=", ""),
        without: &["-fdebug-info-for-profiling"],
    },
    ProfileKind {
        option: "PROPELLER_CLANG",
        variable: "CLANG_PROPELLER_PROFILE_PREFIX",
        with: ("-fbasic-block-sections=list=", "_cc_profile.txt"),
        without: &["-fbasic-block-address-map", "-fbasic-block-sections=labels"],
    },
];

/// Folders whose units do not belong to the kernel.
const OTHERS: [&str; 4] = ["scripts", "tools", "usr", "samples"];

/// The result of reading the records.
#[derive(Debug, PartialEq, Eq)]
enum ProfileRecords {
    /// The kernel was compiled with a profile at this path.
    With(PathBuf),
    /// The kernel was compiled without a profile.
    Without,
    /// No record of a kernel unit tells.
    Nothing,
}

/// Adds the profiles that the kernel was compiled with, unless the user gave them.
///
/// # Errors
/// `klpx::profile-missing` if a profile is not at the recorded path.
pub(crate) fn complete(given: &mut Given, config: &Config, build_dir: &Path) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    for kind in KINDS.iter().filter(|kind| config.is(kind.option)) {
        if given.get(kind.variable).is_some() {
            continue;
        }
        match kind.recorded(build_dir) {
            ProfileRecords::Without => {}
            ProfileRecords::With(profile) => {
                given
                    .add(kind.variable, &profile)
                    .map_err(|failure| kind.missing(&profile, &failure.to_string()))?;
                let text = format!("the build tree records {}={}", kind.variable, profile.display());
                notes.push(Note::new(&codes::PROFILE_FOUND, text));
            }
            ProfileRecords::Nothing => {
                let text = format!(
                    "CONFIG_{} is on, and nothing tells whether the kernel was built with a profile; if it was, give it \
                     with --make {}=PATH",
                    kind.option, kind.variable
                );
                notes.push(Note::new(&codes::PROFILE_UNKNOWN, text));
            }
        }
    }
    Ok(notes)
}

impl ProfileKind {
    fn missing(&self, profile: &Path, why: &str) -> Diagnosis {
        let what = format!("the kernel was built with the profile {}", profile.display());
        Diagnosis::new(
            &codes::PROFILE_MISSING,
            what,
            why.to_owned(),
            format!("name the profile where it is now: --make {}=PATH", self.variable),
        )
    }

    /// Reads the build tree's records of units.
    fn recorded(&self, build_dir: &Path) -> ProfileRecords {
        let folders = walkdir::WalkDir::new(build_dir).sort_by_file_name().into_iter();
        let is_kernel = |entry: &walkdir::DirEntry| {
            entry.depth() != 1 || !OTHERS.iter().any(|other| entry.file_name() == *other)
        };
        let is_record = |entry: &walkdir::DirEntry| {
            let name = entry.file_name().to_str();
            entry.file_type().is_file()
                && name.is_some_and(|name| name.starts_with('.') && name.ends_with(".o.cmd"))
        };
        let records = folders.filter_entry(is_kernel).flatten().filter(is_record);
        let record = records
            .filter_map(|entry| self.read_record(&klpx_input::text(entry.path()).ok()?, build_dir))
            .next();
        record.unwrap_or(ProfileRecords::Nothing)
    }

    /// Reads one record. kbuild compiles in the build tree, so relative paths start there.
    fn read_record(&self, text: &str, build_dir: &Path) -> Option<ProfileRecords> {
        let command = text.lines().find(|line| line.starts_with("savedcmd_"))?;
        let words = shlex::split(command)?;
        let (option, ending) = self.with;
        if let Some(path) = words.iter().find_map(|word| word.strip_prefix(option)) {
            return Some(ProfileRecords::With(build_dir.join(path.strip_suffix(ending).unwrap_or(path))));
        }
        words.iter().any(|word| self.without.contains(&word.as_str())).then_some(ProfileRecords::Without)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A build tree with records of units.
    fn tree(records: &[(&str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().expect("a folder");
        for (path, command) in records {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(
                path,
                format!("savedcmd_x.o := clang {command} -c -o x.o x.c\n\nsource_x.o := x.c\n"),
            )
            .expect("a record");
        }
        tree
    }

    fn codes(given: &mut Given, config: &str, tree: &Path) -> Result<Vec<&'static str>> {
        let notes = complete(given, &Config::parse(config), tree)?;
        Ok(notes.iter().map(|note| note.code).collect())
    }

    const AUTOFDO: &str = "CONFIG_AUTOFDO_CLANG=y\n";
    const PROPELLER: &str = "CONFIG_PROPELLER_CLANG=y\n";

    #[test]
    fn a_profile_is_found_in_the_record_of_a_unit() {
        let with = "-fdebug-info-for-profiling -fprofile-sample-use=profiles/k.afdo";
        let records =
            [("kernel/.a.o.cmd", "-O2"), ("kernel/.b.o.cmd", with), ("scripts/mod/.empty.o.cmd", "-O2")];
        let tree = tree(&records);
        let mut given = Given::default();
        let failure = codes(&mut given, AUTOFDO, tree.path()).expect_err("it is not there");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::profile-missing");
        std::fs::create_dir(tree.path().join("profiles")).expect("a folder");
        std::fs::write(tree.path().join("profiles/k.afdo"), "f:1:1\n").expect("a profile");
        assert_eq!(codes(&mut given, AUTOFDO, tree.path()).expect("found"), ["klpx::profile-found"]);
        let file = given.variables()[0].files().next().expect("a file").path().to_owned();
        assert_eq!(file, tree.path().join("profiles/k.afdo"));
        assert!(codes(&mut given, AUTOFDO, tree.path()).expect("known").is_empty(), "it was given");
        assert!(codes(&mut Given::default(), "", tree.path()).expect("off").is_empty(), "the option is off");
    }

    #[test]
    fn both_files_of_a_prefix_are_found() {
        let tree = tree(&[("fs/.a.o.cmd", "-fbasic-block-sections=list=pre_cc_profile.txt")]);
        std::fs::write(tree.path().join("pre_cc_profile.txt"), "v1\n").expect("a profile");
        assert!(codes(&mut Given::default(), PROPELLER, tree.path()).is_err(), "the other file is not there");
        std::fs::write(tree.path().join("pre_ld_profile.txt"), "f\n").expect("a profile");
        let mut given = Given::default();
        assert_eq!(codes(&mut given, PROPELLER, tree.path()).expect("found"), ["klpx::profile-found"]);
        assert_eq!(given.variables()[0].files().count(), 2);
    }

    #[test]
    fn a_kernel_without_a_profile_is_told_from_one_of_which_nothing_is_known() {
        let unit = |flags: &str| [("init/.main.o.cmd".to_owned(), flags.to_owned())];
        for (config, flags, wanted) in [
            (AUTOFDO, "-fdebug-info-for-profiling", None),
            (PROPELLER, "-fbasic-block-address-map", None),
            (PROPELLER, "-fbasic-block-sections=labels", None),
            (AUTOFDO, "-O2", Some("klpx::profile-unknown")),
            (PROPELLER, "-O2", Some("klpx::profile-unknown")),
        ] {
            let records = unit(flags);
            let records: Vec<_> =
                records.iter().map(|(path, flags)| (path.as_str(), flags.as_str())).collect();
            let found =
                codes(&mut Given::default(), config, tree(&records).path()).expect("no profile is missing");
            assert_eq!(found.first().copied(), wanted, "{flags}");
        }
        let others = tree(&[("scripts/mod/.empty.o.cmd", "-fdebug-info-for-profiling")]);
        assert_eq!(
            codes(&mut Given::default(), AUTOFDO, others.path()).expect("nothing is missing"),
            ["klpx::profile-unknown"]
        );
    }
}
