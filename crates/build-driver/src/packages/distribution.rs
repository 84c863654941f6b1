//! The names of kernel packages in each distribution and the paths of their files, in one table with one row for each
//! distribution.
//!
//! Names and paths are patterns; [`PatternValues::fill`] replaces the names in braces. Reads no file.

use std::fmt;

use super::banner::Banner;
use super::pattern::{PatternValues, abi};
use super::piece::KernelPiece;
use crate::language;

/// The facts about one distribution.
pub struct Distribution {
    /// Name for people.
    pub name: &'static str,
    /// True if klpx was tried on the distribution's kernels. False if the row comes only from public facts.
    pub tried: bool,
    /// The ID in etc/os-release, with the IDs of derived distributions.
    ids: &'static [&'static str],
    /// Texts that only this distribution's banners have: in the builder, in the version text.
    marks: (&'static str, &'static str),
    /// Suffixes of the distribution's releases, or texts before the architecture.
    releases: &'static [&'static str],
    /// How the release and the banner give the package's version.
    version: VersionRule,
    /// Pieces of a kernel: the path of each and the package that installs it.
    pub(super) places: &'static [(KernelPiece, &'static str, &'static str)],
    /// The package to install for a piece ([`KernelPiece::comes_with`]): the first package that the package manager knows, or
    /// else the last.
    packages: &'static [(KernelPiece, &'static [&'static str])],
    /// Packages of the compilers: GCC, Clang.
    compilers: (&'static str, &'static str),
    /// The start of a command that installs packages. Package names follow.
    pub install: &'static str,
    /// A command that gets the source, if no package installs the source.
    pub source: Option<&'static str>,
    /// A setup step that must come before the packages are found, if there is one.
    pub note: &'static str,
    /// Where to find versions that have left the archive.
    pub old_versions: &'static str,
    /// The package manager's commands, if klpx knows them.
    pub(super) manager: Option<Manager>,
}

/// The interface to a package manager. No command needs root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// apt-cache, apt-get download, dpkg-deb.
    Apt,
}

/// How a kernel shows the version of its package.
enum VersionRule {
    /// The word after this word in the version text: `Debian 6.12.115-2~deb12u1`.
    After(&'static str),
    /// The ABI version and the upload number: `6.8.0-45` and `#45-Ubuntu` give `6.8.0-45.45`.
    AbiAndUpload,
    /// The release without the architecture suffix.
    Release,
    /// The release without its flavour. The archive appends a rebuild count.
    Abi,
}

/// Every distribution that klpx knows.
pub static DISTRIBUTIONS: [Distribution; 4] = [
    // Tried: 6.1 and 6.12 of bookworm, 6.12 of trixie and its 7.3 backport. (Debian kernel handbook, chapter 3.)
    Distribution {
        name: "Debian",
        tried: true,
        ids: &["debian"],
        marks: ("debian-kernel@", " Debian "),
        releases: &["-amd64", "-arm64"],
        version: VersionRule::After("Debian"),
        places: &[
            (KernelPiece::Headers, "usr/src/linux-headers-{release}", "linux-headers-{release}"),
            // From 7.x on, linux-image-R only depends on linux-base-R, linux-binary-R and linux-modules-R.
            (KernelPiece::Config, "usr/lib/modules/{release}/config", "linux-base-{release}"),
            (KernelPiece::Config, "boot/config-{release}", "linux-image-{release}"),
            (KernelPiece::Vmlinux, "usr/lib/debug/boot/vmlinux-{release}", "linux-image-{release}-dbg"),
            (KernelPiece::Vmlinux, "usr/lib/debug/vmlinux-{release}", "linux-image-{release}-dbg"),
            (KernelPiece::DebugModules, "usr/lib/debug/lib/modules/{release}", "linux-image-{release}-dbg"),
            (
                KernelPiece::DebugModules,
                "usr/lib/debug/usr/lib/modules/{release}",
                "linux-image-{release}-dbg",
            ),
            (KernelPiece::BootImage, "boot/vmlinuz-{release}", "linux-image-{release}"),
            (KernelPiece::BootImage, "usr/lib/modules/{release}/vmlinuz", "linux-binary-{release}"),
            (KernelPiece::Modules, "lib/modules/{release}", "linux-image-{release}"),
            (KernelPiece::Modules, "usr/lib/modules/{release}", "linux-modules-{release}"),
            (KernelPiece::Source, "usr/src/linux-source-{series}", "linux-source-{series}"),
            (KernelPiece::Source, "usr/src/linux-source-{series}.tar.xz", "linux-source-{series}"),
        ],
        packages: &[
            (KernelPiece::Headers, &["linux-headers-{release}"]),
            (KernelPiece::Vmlinux, &["linux-image-{release}-dbg"]),
            (KernelPiece::Modules, &["linux-modules-{release}", "linux-image-{release}"]),
            (KernelPiece::Source, &["linux-source-{series}"]),
        ],
        compilers: ("gcc-{major}", "clang-{major} lld-{major} llvm-{major}"),
        install: "apt install",
        source: None,
        note: "",
        old_versions: "https://snapshot.debian.org/package/linux/{package}/",
        manager: Some(Manager::Apt),
    },
    // Not tried. (kpatch-build; Ubuntu wiki, "Debug Symbol Packages": a separate archive has the debug symbols.)
    Distribution {
        name: "Ubuntu",
        tried: false,
        ids: &["ubuntu", "linuxmint", "pop", "neon"],
        marks: ("buildd@", "-Ubuntu"),
        releases: &[
            "-generic",
            "-generic-64k",
            "-lowlatency",
            "-aws",
            "-azure",
            "-gcp",
            "-gke",
            "-ibm",
            "-kvm",
            "-nvidia",
            "-oem",
            "-oracle",
            "-raspi",
            "-realtime",
        ],
        version: VersionRule::AbiAndUpload,
        places: &[
            (KernelPiece::Headers, "usr/src/linux-headers-{release}", "linux-headers-{release}"),
            (KernelPiece::Config, "boot/config-{release}", "linux-modules-{release}"),
            (KernelPiece::Vmlinux, "usr/lib/debug/boot/vmlinux-{release}", "linux-image-{release}-dbgsym"),
            (
                KernelPiece::DebugModules,
                "usr/lib/debug/lib/modules/{release}",
                "linux-image-{release}-dbgsym",
            ),
            (KernelPiece::BootImage, "boot/vmlinuz-{release}", "linux-image-{release}"),
            (KernelPiece::Modules, "lib/modules/{release}", "linux-modules-{release}"),
            (KernelPiece::Modules, "usr/lib/modules/{release}", "linux-modules-{release}"),
            (KernelPiece::Source, "usr/src/linux-source-{base}", "linux-source-{base}"),
            (
                KernelPiece::Source,
                "usr/src/linux-source-{base}/linux-source-{base}.tar.bz2",
                "linux-source-{base}",
            ),
            (KernelPiece::Source, "usr/src/linux-source-{base}.tar.bz2", "linux-source-{base}"),
        ],
        packages: &[
            (KernelPiece::Headers, &["linux-headers-{release}"]),
            (
                KernelPiece::Vmlinux,
                &["linux-image-unsigned-{release}-dbgsym", "linux-image-{release}-dbgsym"],
            ),
            (KernelPiece::Modules, &["linux-modules-{release}"]),
            (KernelPiece::Source, &["linux-source-{base}"]),
        ],
        compilers: ("gcc-{major}", "clang-{major} lld-{major} llvm-{major}"),
        install: "apt install",
        source: None,
        note: "debug symbols come from http://ddebs.ubuntu.com: add that archive to apt's sources first",
        old_versions: "https://launchpad.net/ubuntu/+source/linux/{package}",
        manager: Some(Manager::Apt),
    },
    // Not tried. (kernel.spec: the debug package has the whole vmlinux, usr/src/kernels the headers, and the modules'
    // folder the configuration.)
    Distribution {
        name: "Fedora and Red Hat",
        tried: false,
        ids: &["fedora", "rhel", "centos", "almalinux", "rocky", "ol"],
        marks: ("mockbuild@", ""),
        releases: &[".x86_64", ".aarch64"],
        version: VersionRule::Release,
        places: &[
            (KernelPiece::Headers, "usr/src/kernels/{release}", "kernel-devel-{release}"),
            (KernelPiece::Config, "lib/modules/{release}/config", "kernel-core-{release}"),
            (
                KernelPiece::Vmlinux,
                "usr/lib/debug/lib/modules/{release}/vmlinux",
                "kernel-debuginfo-{release}",
            ),
            (
                KernelPiece::Vmlinux,
                "usr/lib/debug/usr/lib/modules/{release}/vmlinux",
                "kernel-debuginfo-{release}",
            ),
            (KernelPiece::DebugModules, "usr/lib/debug/lib/modules/{release}", "kernel-debuginfo-{release}"),
            (
                KernelPiece::DebugModules,
                "usr/lib/debug/usr/lib/modules/{release}",
                "kernel-debuginfo-{release}",
            ),
            (KernelPiece::BootImage, "lib/modules/{release}/vmlinuz", "kernel-core-{release}"),
            (KernelPiece::BootImage, "usr/lib/modules/{release}/vmlinuz", "kernel-core-{release}"),
            (KernelPiece::Modules, "lib/modules/{release}", "kernel-modules-{release}"),
            (KernelPiece::Modules, "usr/lib/modules/{release}", "kernel-modules-{release}"),
        ],
        packages: &[
            (KernelPiece::Headers, &["kernel-devel-{release}"]),
            (KernelPiece::Vmlinux, &["kernel-debuginfo-{release}"]),
            (KernelPiece::Modules, &["kernel-modules-{release}"]),
        ],
        compilers: ("gcc", "clang lld llvm"),
        install: "dnf --enablerepo='*debug*' install",
        source: Some(
            "dnf download --source kernel-{package} && rpm -i kernel-{package}.src.rpm && rpmbuild -bp ~/rpmbuild/SPECS/kernel.spec",
        ),
        note: "the source package has patches to be applied: name the prepared tree with --source",
        old_versions: "https://koji.fedoraproject.org/koji/search?type=build&terms=kernel-{package}",
        manager: None,
    },
    // Not tried. (README.SUSE of kernel-source; kernel-binary.spec: the debug package has symbols without code.)
    Distribution {
        name: "SUSE",
        tried: false,
        ids: &["opensuse-tumbleweed", "opensuse-leap", "sles", "sled", "suse"],
        marks: ("geeko@", ""),
        releases: &["-default", "-rt", "-longterm", "-vanilla", "-64kb"],
        version: VersionRule::Abi,
        places: &[
            (KernelPiece::Headers, "usr/src/linux-{abi}-obj/{machine}/{flavour}", "kernel-{flavour}-devel"),
            (KernelPiece::Config, "usr/lib/modules/{release}/config", "kernel-{flavour}"),
            (
                KernelPiece::Vmlinux,
                "usr/lib/debug/boot/vmlinux-{release}.debug",
                "kernel-{flavour}-debuginfo",
            ),
            (
                KernelPiece::Vmlinux,
                "usr/lib/debug/usr/lib/modules/{release}/vmlinux.debug",
                "kernel-{flavour}-debuginfo",
            ),
            (
                KernelPiece::DebugModules,
                "usr/lib/debug/usr/lib/modules/{release}",
                "kernel-{flavour}-debuginfo",
            ),
            (KernelPiece::DebugModules, "usr/lib/debug/lib/modules/{release}", "kernel-{flavour}-debuginfo"),
            (KernelPiece::BootImage, "usr/lib/modules/{release}/vmlinuz", "kernel-{flavour}"),
            (KernelPiece::BootImage, "boot/vmlinuz-{release}", "kernel-{flavour}"),
            (KernelPiece::Modules, "usr/lib/modules/{release}", "kernel-{flavour}"),
            (KernelPiece::Modules, "lib/modules/{release}", "kernel-{flavour}"),
            (KernelPiece::Source, "usr/src/linux-{abi}", "kernel-source"),
        ],
        packages: &[
            (KernelPiece::Headers, &["kernel-{flavour}-devel"]),
            (KernelPiece::Vmlinux, &["kernel-{flavour}-debuginfo"]),
            (KernelPiece::Modules, &["kernel-{flavour}"]),
            (KernelPiece::Source, &["kernel-source"]),
        ],
        compilers: ("gcc{major}", "clang{major} lld{major} llvm{major}"),
        install: "zypper --plus-content debug install",
        source: None,
        note: "zypper takes the newest version: name that of the kernel (NAME=VERSION; zypper search -s NAME lists them)",
        old_versions: "",
        manager: None,
    },
];

impl Distribution {
    /// The packages that may contain a piece of a kernel, in order of preference.
    pub(super) fn packages(&self, piece: KernelPiece, kernel: &PatternValues<'_>) -> Vec<String> {
        let of = self.packages.iter().filter(|(of, _)| *of == piece.comes_with());
        of.flat_map(|(_, names)| names.iter().map(|name| kernel.fill(name))).collect()
    }

    /// The packages of a compiler's major version.
    pub(super) fn compiler(&self, clang: bool, major: u64) -> String {
        let (gcc, llvm) = self.compilers;
        if clang { llvm } else { gcc }.replace("{major}", &major.to_string())
    }

    /// The version of the kernel's package, as exactly as the release and the banner show it.
    pub(super) fn package_version(&self, release: &str, banner: Option<&Banner>) -> Option<String> {
        let version = self.stated_version(release, banner);
        version.filter(|version| language::is_package_version(version))
    }

    fn stated_version(&self, release: &str, banner: Option<&Banner>) -> Option<String> {
        let text = banner.map(|banner| banner.version.as_str());
        match self.version {
            VersionRule::After(word) => {
                let mut words = text?.split_whitespace();
                words.find(|found| *found == word)?;
                words.next().map(str::to_owned)
            }
            VersionRule::AbiAndUpload => {
                let upload = text?.strip_prefix('#')?.split_once("-Ubuntu")?.0;
                Some(format!("{}.{upload}", abi(release)))
            }
            VersionRule::Release => release.rsplit_once('.').map(|(version, _)| version.to_owned()),
            VersionRule::Abi => Some(abi(release).to_owned()),
        }
    }

    fn has_release(&self, release: &str) -> bool {
        self.releases.iter().any(|end| release.ends_with(end))
    }

    fn has_banner(&self, banner: &Banner) -> bool {
        let (builder, version) = self.marks;
        let builder = !builder.is_empty() && banner.builder.starts_with(builder);
        let version = version.is_empty() || banner.version.contains(version);
        builder && version && self.has_release(&banner.release)
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Distribution {
    fn eq(&self, other: &Distribution) -> bool {
        self.name == other.name
    }
}

/// The distribution of a kernel, by its banner. Without a banner, by its release, if only one distribution (or the
/// distribution of this system) has such releases. A self-made kernel belongs to no distribution.
pub(super) fn of_kernel(
    release: &str,
    banner: Option<&Banner>,
    system: Option<&str>,
) -> Option<&'static Distribution> {
    // Headers without compile.h do not name the builder.
    if let Some(banner) = banner.filter(|banner| banner.builder != "@") {
        return DISTRIBUTIONS.iter().find(|distribution| distribution.has_banner(banner));
    }
    let mut all = DISTRIBUTIONS.iter().filter(|distribution| distribution.has_release(release));
    let own = all.clone().find(|distribution| system.is_some_and(|id| distribution.ids.contains(&id)));
    match (own, all.next(), all.next()) {
        (Some(own), _, _) => Some(own),
        (None, Some(only), None) => Some(only),
        _ => None,
    }
}

/// The ID in an os-release file.
pub(super) fn system_id(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| line.strip_prefix("ID=")).map(|id| id.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Release, banner, distribution, package version.
    const KERNELS: [(&str, &str, Option<&str>, Option<&str>); 7] = [
        (
            "6.12.115+deb12-cloud-amd64",
            "Linux version 6.12.115+deb12-cloud-amd64 (debian-kernel@lists.debian.org) (x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.12.115-2~deb12u1 (2026-11-04)",
            Some("Debian"),
            Some("6.12.115-2~deb12u1"),
        ),
        (
            "6.1.0-56-cloud-amd64",
            "Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)",
            Some("Debian"),
            Some("6.1.192-2"),
        ),
        (
            "6.8.0-45-generic",
            "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0, GNU ld (GNU Binutils for Ubuntu) 2.42) #45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024",
            Some("Ubuntu"),
            Some("6.8.0-45.45"),
        ),
        (
            "6.8.0-45-generic",
            "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-075) (x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0, GNU ld (GNU Binutils for Ubuntu) 2.38) #45~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC Wed Sep 11 15:25:05 UTC 2",
            Some("Ubuntu"),
            Some("6.8.0-45.45~22.04.1"),
        ),
        (
            "6.11.4-301.fc41.x86_64",
            "Linux version 6.11.4-301.fc41.x86_64 (mockbuild@be03da54f8364b379359fe70f52a8f23) (gcc (GCC) 14.2.1 20240912 (Red Hat 14.2.1-3), GNU ld version 2.43.1-2.fc41) #1 SMP PREEMPT_DYNAMIC Sun Oct 20 15:02:33 UTC 2024",
            Some("Fedora and Red Hat"),
            Some("6.11.4-301.fc41"),
        ),
        (
            "6.4.0-150600.23.25-default",
            "Linux version 6.4.0-150600.23.25-default (geeko@buildhost) (gcc (SUSE Linux) 7.5.0, GNU ld (GNU Binutils; SUSE Linux Enterprise 15) 2.41.0.20230908-150100.7.46) #1 SMP PREEMPT_DYNAMIC Tue Oct  1 10:54:01 UTC 2024 (ea7c56d)",
            Some("SUSE"),
            Some("6.4.0-150600.23.25"),
        ),
        (
            "7.2.13",
            "Linux version 7.2.13 (me@here) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #3 SMP Thu Jan 1 00:00:00 UTC 2026",
            None,
            None,
        ),
    ];

    #[test]
    fn each_row_knows_its_kernels_by_the_banner() {
        for (release, text, name, version) in KERNELS {
            let banner = Banner::parse(text).expect(text);
            assert_eq!(banner.release, release);
            let found = of_kernel(release, Some(&banner), Some("debian"));
            assert_eq!(found.map(|row| row.name), name, "{release}");
            let told = found.and_then(|row| row.package_version(release, Some(&banner)));
            assert_eq!(told.as_deref(), version, "{release}");
        }
    }

    #[test]
    fn without_a_banner_the_release_tells_and_the_system_decides() {
        let cases = [
            ("6.12.115+deb12-cloud-amd64", None, Some("Debian")),
            ("6.12.115+deb12-cloud-amd64", Some("fedora"), Some("Debian")),
            ("6.8.0-45-generic", None, Some("Ubuntu")),
            ("5.14.0-503.11.1.el9_5.x86_64", Some("rocky"), Some("Fedora and Red Hat")),
            ("6.11.3-1-default", None, Some("SUSE")),
            ("6.18.44-fc-v657", Some("debian"), None),
            ("7.2.13", Some("debian"), None),
        ];
        for (release, system, name) in cases {
            assert_eq!(of_kernel(release, None, system).map(|row| row.name), name, "{release}");
        }
    }

    #[test]
    fn each_row_names_the_packages_of_its_kernels() {
        let cases = [
            ("Debian", "6.1.0-56-cloud-amd64", KernelPiece::Source, "linux-source-6.1"),
            ("Debian", "6.12.115+deb12-cloud-amd64", KernelPiece::Source, "linux-source-6.12"),
            ("Debian", "7.3.4+deb13-amd64", KernelPiece::DebugModules, "linux-image-7.3.4+deb13-amd64-dbg"),
            ("Debian", "6.1.0-56-cloud-amd64", KernelPiece::ModulesOrder, "linux-image-6.1.0-56-cloud-amd64"),
            ("Debian", "6.1.0-56-cloud-amd64", KernelPiece::Symvers, "linux-headers-6.1.0-56-cloud-amd64"),
            ("Ubuntu", "6.8.0-45-generic", KernelPiece::Source, "linux-source-6.8.0"),
            ("Ubuntu", "6.8.0-45-generic", KernelPiece::Vmlinux, "linux-image-6.8.0-45-generic-dbgsym"),
            (
                "Fedora and Red Hat",
                "6.11.4-301.fc41.x86_64",
                KernelPiece::Headers,
                "kernel-devel-6.11.4-301.fc41.x86_64",
            ),
            ("SUSE", "6.4.0-150600.23.25-default", KernelPiece::Headers, "kernel-default-devel"),
        ];
        for (name, release, piece, package) in cases {
            let row = DISTRIBUTIONS.iter().find(|row| row.name == name).expect(name);
            let kernel = PatternValues { release, package: "" };
            assert_eq!(row.packages(piece, &kernel).last().map(String::as_str), Some(package), "{release}");
        }
    }

    #[test]
    fn each_row_has_ids_as_os_release_has_them() {
        for row in &DISTRIBUTIONS {
            assert!(row.ids.iter().all(|id| *id == id.to_lowercase()));
        }
    }
}
