//! Plans the packages for a set of livepatches: names, versions, and what can't be packaged.

use std::collections::BTreeMap;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::livepatch::PackagedLivepatch;
use crate::package::{About, Format, Package};
use crate::{deb, rpm};

impl Package {
    /// Plans one package for each kernel, sorted by package name.
    ///
    /// # Errors
    /// `klpx::not-packaged` for two livepatches of one kernel, and for an invalid version.
    pub fn plan(livepatches: Vec<PackagedLivepatch>, about: &About) -> Result<Vec<Package>> {
        let mut packages: BTreeMap<String, Package> = BTreeMap::new();
        for livepatch in livepatches {
            let name = name(&livepatch.release);
            if let Some(other) = packages.get(&name) {
                let what = format!("two livepatches are for Linux {}", livepatch.release);
                return Err(Diagnosis::new(
                    &codes::NOT_PACKAGED,
                    what,
                    "a package holds one livepatch, which takes the place of the one before",
                    "build one livepatch from all patches: klpx build FIRST.patch SECOND.patch",
                )
                .detail([other.livepatch.name.clone(), livepatch.name])
                .into());
            }
            let version = version(&livepatch, about)?;
            packages.insert(name.clone(), Package { name, version, livepatch, about: about.clone() });
        }
        Ok(packages.into_values().collect())
    }

    /// The bytes of the package.
    ///
    /// # Errors
    /// If the program that makes the package is missing or fails.
    pub fn make(&self, format: Format, scratch: &Path) -> Result<Vec<u8>> {
        match format {
            Format::Deb => deb::make(self, scratch),
            Format::Rpm => rpm::make(self),
        }
    }
}

/// The package name. Debian's names have lower-case letters, digits, plus, minus and dot (deb-control(5)); rpm allows
/// them.
fn name(release: &str) -> String {
    let fit =
        |c: char| if c.is_ascii_alphanumeric() || "+-.".contains(c) { c.to_ascii_lowercase() } else { '-' };
    format!("livepatch-{}", release.chars().map(fit).collect::<String>())
}

/// The version of a package. dpkg and rpm both accept it and sort it alike.
fn version(livepatch: &PackagedLivepatch, about: &About) -> Result<String> {
    let given = about.version.as_deref().or(livepatch.module.info("version"));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
    let fits = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(plain);
    if let Some(version) = given.filter(fits) {
        return Ok(version.to_owned());
    }
    let what = match given {
        Some(text) => format!("{text:?} can't be the version of a package"),
        None => format!("the package of {} has no version", livepatch.name),
    };
    Err(Diagnosis::new(
        &codes::NOT_PACKAGED,
        what,
        "a version begins with a digit and has letters, digits, dots, pluses and tildes; \
         hosts take the highest",
        "give one with --version, or build the livepatch with --module-version",
    )
    .into())
}

#[cfg(test)]
pub(crate) mod tests {
    use klpx_normalize::arch::Arch;
    use klpx_verify::inspect::Module;

    use super::*;

    /// A livepatch without its own file.
    pub(crate) fn livepatch(name: &str, release: &str) -> PackagedLivepatch {
        let info =
            [("version", "3"), ("cve", "CVE-2026-1"), ("cve", "CVE-2026-2"), ("description", "two fixes")];
        PackagedLivepatch {
            name: name.to_owned(),
            release: release.to_owned(),
            build_id: "0123456789abcdef".to_owned(),
            arch: Arch::X86_64,
            module: Module {
                info: info.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
                replace: Some(true),
                ..Module::default()
            },
            bytes: b"a module".to_vec(),
            report: None,
        }
    }

    pub(crate) fn about(version: Option<&str>) -> About {
        About {
            version: version.map(str::to_owned),
            maintainer: "Kernel Team <kernel@example.org>".to_owned(),
            changes: vec!["two fixes".to_owned()],
            date: 1_790_000_000,
        }
    }

    #[test]
    fn each_kernel_has_its_package() {
        let all = vec![livepatch("b", "6.12.1-x"), livepatch("a", "6.1.0_X")];
        let packages = Package::plan(all, &about(None)).unwrap();
        let names: Vec<String> = packages.iter().map(|package| package.file_name(Format::Deb)).collect();
        assert_eq!(names, ["livepatch-6.1.0-x_3_amd64.deb", "livepatch-6.12.1-x_3_amd64.deb"]);
        assert_eq!(packages[0].file_name(Format::Rpm), "livepatch-6.1.0-x-3-1.x86_64.rpm");
        assert!(packages[0].description().iter().any(|text| text == "It mends CVE-2026-1, CVE-2026-2."));
    }

    #[test]
    fn two_of_one_kernel_and_odd_versions_are_refused() {
        let two = vec![livepatch("a", "6.1"), livepatch("b", "6.1")];
        let failure = Package::plan(two, &about(None)).unwrap_err();
        assert!(failure.to_string().contains("two livepatches are for Linux 6.1"), "{failure}");
        for bad in ["", "v1", "1-2", "1:2", "1 2", "1/../2"] {
            assert!(Package::plan(vec![livepatch("a", "6.1")], &about(Some(bad))).is_err(), "{bad}");
        }
        let mut without = livepatch("a", "6.1");
        without.module.info.clear();
        assert!(Package::plan(vec![without], &about(None)).is_err());
    }
}
