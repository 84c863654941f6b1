//! The table of fixture kernels.

use anyhow::{Context, Result};

use super::fixture::{BootMode, FixtureKernel, KernelOrigin, Tier};
use crate::made::{self, Recipe};
use crate::packages::Need;
use crate::stock::Shipped;
use crate::{distro, machine, source};

/// One boot without parameters.
const PLAIN: &[BootMode] = &[BootMode { parameters: "", confirmation: "" }];

/// Every fixture kernel. The tests take the kernels in this order, so those that take long come first.
pub(crate) const KERNELS: &[FixtureKernel] = &[
    FixtureKernel {
        name: "thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        tier: Tier::Test,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "gcc",
        title: "GCC, no LTO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "x86_64.config", "gcc.config"],
            llvm: None,
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Gcc, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "debian-6.12",
        title: "Debian 12, GCC 12, IBT",
        machine: &machine::X86_64,
        tier: Tier::Test,
        origin: KernelOrigin::Shipped(Shipped {
            series: "6.12",
            release: ["6.12.", "+deb12", "-cloud-amd64"],
            suites: &["bookworm-security"],
            debug_modules: true,
            home: &distro::BOOKWORM,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Gcc, Need::Gcc12, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "arm64-gcc",
        title: "GCC, no LTO",
        machine: &machine::ARM64,
        tier: Tier::Test,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "arm64.config", "gcc.config"],
            llvm: None,
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Gcc, Need::Source, Need::Arm64],
    },
    FixtureKernel {
        name: "debian-6.1",
        title: "Debian 12, GCC 12",
        machine: &machine::X86_64,
        tier: Tier::Test,
        origin: KernelOrigin::Shipped(Shipped {
            series: "6.1",
            release: ["6.1.0-", "", "-cloud-amd64"],
            suites: &["bookworm-security"],
            debug_modules: false,
            home: &distro::BOOKWORM,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Gcc, Need::Gcc12, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "arm64-thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::ARM64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "arm64.config", "clang-thinlto.config"],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Arm64],
    },
    FixtureKernel {
        name: "clang",
        title: "clang 22, no LTO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "thinlto-cfi",
        title: "clang 22, ThinLTO, kCFI, FineIBT",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
                "cfi.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: &[
            BootMode { parameters: "cfi=kcfi", confirmation: "retpoline kCFI" },
            BootMode { parameters: "cfi=fineibt", confirmation: "FineIBT" },
        ],
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "arm64-cfi",
        title: "clang 19, ThinLTO, kCFI, BTI, PAC, shadow call stack",
        machine: &machine::ARM64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "arm64.config",
                "clang-thinlto.config",
                "cfi.config",
                "arm64-hardening.config",
            ],
            // Linux 7.2 has no BTI in the kernel with clang 21 and later (arch/arm64/Kconfig, ARM64_BTI_KERNEL).
            llvm: Some("-19"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang19, Need::Source, Need::Arm64],
    },
    FixtureKernel {
        name: "thinlto-autofdo",
        title: "clang 22, ThinLTO, AutoFDO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
                "autofdo.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: Some("autofdo.txt"),
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "fulllto",
        title: "clang 22, FullLTO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-fulllto.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "6.12-clang19",
        title: "clang 19, ThinLTO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::LINUX_6_12,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
                "6.12.config",
            ],
            llvm: Some("-19"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang19, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "6.12-clang22",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Made(Recipe {
            series: &source::LINUX_6_12,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
                "6.12.config",
            ],
            llvm: Some("-22"),
            base: None,
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "cloud-thinlto",
        title: "clang 22, ThinLTO, Debian's cloud configuration",
        machine: &machine::X86_64,
        tier: Tier::Large,
        origin: KernelOrigin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["clang-thinlto.config", "cloud.config"],
            llvm: Some("-22"),
            base: Some(&made::CLOUD),
            profile: None,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    FixtureKernel {
        name: "debian-13",
        title: "Debian 13, GCC 14, IBT",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Shipped(Shipped {
            series: "6.12",
            release: ["6.12.", "+deb13", "-cloud-amd64"],
            suites: &["trixie", "trixie-security"],
            debug_modules: false,
            home: &distro::TRIXIE,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Guest],
    },
    FixtureKernel {
        name: "debian-13-backports",
        title: "Debian 13, GCC 14, IBT, Rust",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Shipped(Shipped {
            series: "7.3",
            release: ["7.3.", "+deb13", "-cloud-amd64"],
            suites: &["trixie-backports"],
            debug_modules: false,
            home: &distro::TRIXIE,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Guest],
    },
    FixtureKernel {
        name: "debian-sid",
        title: "Debian sid, GCC 16, IBT, Rust",
        machine: &machine::X86_64,
        tier: Tier::Matrix,
        origin: KernelOrigin::Shipped(Shipped {
            series: "7.2",
            release: ["7.2.", "+deb14", "-cloud-amd64"],
            suites: &["sid"],
            debug_modules: false,
            home: &distro::SID,
        }),
        boot_modes: PLAIN,
        needs: &[Need::Guest],
    },
];

/// Returns the kernels with these names; without names, the kernels of the tests.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static FixtureKernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().filter(|kernel| kernel.tier == Tier::Test).collect());
    }
    let known = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            let kernel = KERNELS.iter().find(|kernel| kernel.name == name);
            kernel.with_context(|| format!("no fixture kernel '{name}', there are: {}", known()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name() {
        assert!(select(&[]).expect("those of the tests").iter().all(|kernel| kernel.tier == Tier::Test));
        assert_eq!(select(&["arm64-gcc".to_owned()]).expect("a kernel of that name")[0].name, "arm64-gcc");
        assert_eq!(select(&["gcc".to_owned()]).expect("gcc")[0].name, "gcc");
        assert!(select(&["icc".to_owned()]).is_err());
    }
}
