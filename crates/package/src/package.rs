//! A package: its name, version and texts, in the words of both formats.

use klpx_normalize::arch::Arch;

use crate::livepatch::PackagedLivepatch;

/// The longest line of a description, in bytes.
const WIDTH: usize = 78;

/// The format of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For dpkg.
    Deb,
    /// For rpm.
    Rpm,
}

/// Facts that all packages of a run share.
#[derive(Clone, Debug)]
pub struct About {
    /// The version. `None` for the version in each module's modinfo.
    pub version: Option<String>,
    /// The maintainer of the packages, `Name <address>`.
    pub maintainer: String,
    /// The changes, one line for each.
    pub changes: Vec<String>,
    /// The time of the packages, in seconds since 1970. A package contains no other time.
    pub date: u64,
}

/// A package that is to be written.
#[derive(Clone, Debug)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// The livepatch in the package.
    pub livepatch: PackagedLivepatch,
    pub(crate) about: About,
}

/// The names that package managers have for an architecture.
struct ArchNames {
    /// dpkg's.
    deb: &'static str,
    /// rpm's.
    rpm: &'static str,
}

impl Package {
    /// The file name of the package.
    pub fn file_name(&self, format: Format) -> String {
        let Package { name, version, .. } = self;
        match format {
            Format::Deb => format!("{name}_{version}_{}.deb", self.architecture(format)),
            Format::Rpm => format!("{name}-{version}-1.{}.rpm", self.architecture(format)),
        }
    }

    pub(crate) fn architecture(&self, format: Format) -> &'static str {
        let names = match self.livepatch.arch {
            Arch::X86_64 => ArchNames { deb: "amd64", rpm: "x86_64" },
            Arch::Arm64 => ArchNames { deb: "arm64", rpm: "aarch64" },
        };
        match format {
            Format::Deb => names.deb,
            Format::Rpm => names.rpm,
        }
    }

    /// The one-line description for lists of packages.
    pub(crate) fn summary(&self) -> String {
        format!("Livepatch for Linux {}", self.livepatch.release)
    }

    /// The description, one string for each paragraph.
    pub(crate) fn description(&self) -> Vec<String> {
        let module = &self.livepatch.module;
        let described = module.info("description").filter(|text| !text.is_empty());
        let of = |key| module.info.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str());
        let mut cves: Vec<&str> = of("cve").collect();
        cves.sort_unstable();
        let mut paragraphs: Vec<String> = described.map(str::to_owned).into_iter().collect();
        if !cves.is_empty() {
            paragraphs.push(format!("It mends {}.", cves.join(", ")));
        }
        paragraphs.push(
            "The livepatch replaces functions of the running kernel, and is loaded only where the kernel is this very \
             build. A newer version takes its place without a gap."
                .to_owned(),
        );
        paragraphs
    }
}

/// Folds a paragraph into lines of limited width. Each line begins with `before`.
pub(crate) fn folded(paragraph: &str, before: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in paragraph.split_whitespace() {
        if !line.is_empty() && before.len() + line.len() + 1 + word.len() > WIDTH {
            text.push_str(&format!("{before}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    format!("{text}{before}{line}\n")
}
