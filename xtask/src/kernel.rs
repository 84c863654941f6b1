//! The fixture kernels: the list of them, their origins, and the places of the files that tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use klpx_guest::KernelModules;

use crate::distro::{self, Distro};
use crate::machine::{self, Machine};
use crate::made::{self, Recipe, WantedFixture};
use crate::packages::Need;
use crate::source::{self, Source};
use crate::stock::{self, Shipped};
use crate::workspace::CargoWorkspace;

/// One fixture kernel.
#[derive(Debug)]
pub(crate) struct FixtureKernel {
    /// The kernel's name in commands and scenarios.
    pub(crate) name: &'static str,
    /// The title for people.
    pub(crate) title: &'static str,
    /// The kernel's architecture.
    pub(crate) machine: &'static Machine,
    /// Which command uses the kernel by default.
    pub(crate) tier: Tier,
    /// The kernel's origin.
    pub(crate) origin: KernelOrigin,
    /// The modes in which a guest boots. Whatever runs in a guest runs once in each.
    pub(crate) boot_modes: &'static [BootMode],
    /// Host packages.
    pub(crate) needs: &'static [Need],
}

/// Which command uses a kernel that no option names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask matrix`.
    Matrix,
    /// `cargo xtask matrix --large`.
    Large,
}

/// Parameters with which a guest boots.
#[derive(Debug)]
pub(crate) struct BootMode {
    /// Kernel parameters.
    pub(crate) parameters: &'static str,
    /// A part of the line by which the kernel confirms the parameters on its console.
    pub(crate) confirmation: &'static str,
}

/// One boot without parameters.
const PLAIN: &[BootMode] = &[BootMode { parameters: "", confirmation: "" }];

/// Where a kernel comes from.
#[derive(Debug)]
pub(crate) enum KernelOrigin {
    /// The kernel is built here.
    Made(Recipe),
    /// A distribution built the kernel.
    Shipped(Shipped),
}

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
            BootMode { parameters: "cfi=kcfi", confirmation: "CFI: Using retpoline kCFI" },
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

impl FixtureKernel {
    /// Returns the words by which test data may name the kernel, the most exact first: its name, its origin and
    /// architecture, its origin alone, its architecture alone.
    pub(crate) fn words(&self) -> [String; 4] {
        let origin = match self.origin {
            KernelOrigin::Made(_) => "made",
            KernelOrigin::Shipped(_) => "stock",
        };
        let machine = self.machine.name;
        [self.name.to_owned(), format!("{origin}-{machine}"), origin.to_owned(), machine.to_owned()]
    }

    /// Returns true if this word of test data stands for this kernel.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.words().iter().any(|own| own == word)
    }

    /// Returns the recipe of a kernel that is made here.
    pub(crate) fn recipe(&self) -> Option<&Recipe> {
        match &self.origin {
            KernelOrigin::Made(recipe) => Some(recipe),
            KernelOrigin::Shipped(_) => None,
        }
    }

    /// Returns true if modules with debug information are among the kernel's files.
    pub(crate) fn has_debug_modules(&self) -> bool {
        !matches!(&self.origin, KernelOrigin::Shipped(shipped) if !shipped.debug_modules)
    }

    fn shipped(&self) -> Result<&Shipped> {
        match &self.origin {
            KernelOrigin::Shipped(shipped) => Ok(shipped),
            KernelOrigin::Made(_) => bail!("the {} kernel is made here, no distribution ships it", self.name),
        }
    }

    /// Returns the kernel's tree under a name.
    fn wanted<'a>(&'a self, name: &'a str, recipe: &'a Recipe) -> WantedFixture<'a> {
        WantedFixture { name, title: self.title, machine: self.machine, recipe }
    }

    /// Returns the release of Debian from which a shipped kernel comes.
    pub(crate) fn distro(&self) -> Option<&'static Distro> {
        match &self.origin {
            KernelOrigin::Shipped(shipped) => Some(shipped.home),
            KernelOrigin::Made(_) => None,
        }
    }

    /// Returns the compiler of a kernel that is made here.
    pub(crate) fn compiler(&self) -> Option<String> {
        self.recipe().map(|recipe| recipe.compiler(self.machine))
    }

    /// Returns true for a kernel that klpx stabilises.
    pub(crate) fn is_thin_lto(&self) -> bool {
        self.recipe().is_some_and(Recipe::is_thin_lto)
    }
}

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

/// A kernel with all files that belong to it.
#[derive(Clone, Debug)]
pub(crate) struct BuiltKernel {
    /// Which kernel.
    pub(crate) kernel: &'static FixtureKernel,
    /// The source from which the kernel was built.
    pub(crate) source: Source,
    /// The `O=` tree, or the unpacked packages.
    pub(crate) tree: PathBuf,
    /// The release in the names of its packages, if the kernel comes from packages.
    pub(crate) release: Option<String>,
    /// The root directory in which klpx runs; `None` for this machine's.
    pub(crate) root: Option<PathBuf>,
}

impl BuiltKernel {
    /// Returns the linked kernel with debug information.
    pub(crate) fn vmlinux(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::vmlinux(&self.tree, release),
            None => self.tree.join("vmlinux"),
        }
    }

    /// Returns the image that QEMU boots.
    pub(crate) fn image(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::image(&self.tree, release),
            None => self.tree.join(self.kernel.machine.image),
        }
    }

    /// Returns the configuration.
    pub(crate) fn config(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::config(&self.tree, release),
            None => self.tree.join(".config"),
        }
    }

    /// Returns the headers folder, if the kernel comes from packages.
    pub(crate) fn headers(&self) -> Option<PathBuf> {
        self.release.as_ref().map(|release| stock::headers(&self.tree, release))
    }

    /// Returns the folder of `modules.order`, from which its lines name the modules.
    pub(crate) fn modules_root(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::modules(&self.tree, release),
            None => self.tree.clone(),
        }
    }

    /// Returns the folder of the modules with symbols and debug information. Some or all may be missing.
    pub(crate) fn debug_modules_root(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::debug_modules(&self.tree, release),
            None => self.tree.clone(),
        }
    }

    /// Returns the file of any module with debug information, if there is one.
    pub(crate) fn debug_module(&self) -> Result<Option<PathBuf>> {
        // Not every debug package has a modules.order.
        let modules = KernelModules::read(&self.modules_root())?.under(&self.debug_modules_root());
        Ok(modules.names().iter().find_map(|name| modules.file(name).ok()))
    }

    /// Returns the options that tell `klpx build` the kernel.
    pub(crate) fn options(&self, vmlinux: Option<&Path>) -> Vec<PathBuf> {
        let mut words: Vec<PathBuf> = vec!["--source".into(), self.source.tree.clone()];
        match &self.release {
            // klpx finds all files at a user's places.
            Some(release) if self.root.is_some() => return vec!["--kernel".into(), release.into()],
            Some(release) => {
                words.extend(["--sysroot".into(), self.tree.clone(), "--kernel".into(), release.into()]);
                words.extend(vmlinux.into_iter().flat_map(|file| ["--vmlinux".into(), file.to_path_buf()]));
            }
            None => {
                let vmlinux = vmlinux.map_or_else(|| self.vmlinux(), Path::to_path_buf);
                words.extend(["--build-dir".into(), self.tree.clone(), "--vmlinux".into(), vmlinux]);
            }
        }
        words
    }

    /// Returns `make` for this kernel with another output tree, which exists.
    pub(crate) fn make(&self, output: &Path) -> Result<Command> {
        self.make_with(output, None)
    }

    /// Returns `make` with a folder of tools that come before all others.
    pub(crate) fn make_with(&self, output: &Path, tools: Option<&Path>) -> Result<Command> {
        let recipe = self.kernel.recipe();
        let recipe = recipe.with_context(|| format!("the {} kernel is not made here", self.kernel.name))?;
        recipe.make(self.kernel.machine, &self.source, output, tools)
    }
}

/// Returns a kernel that is ready for use: adopted, cached, or made or fetched now.
pub(crate) fn ensure(workspace: &CargoWorkspace, kernel: &'static FixtureKernel) -> Result<BuiltKernel> {
    match &kernel.origin {
        KernelOrigin::Made(recipe) => {
            let (source, tree) = made::ensure(workspace, kernel.wanted(kernel.name, recipe))?;
            Ok(BuiltKernel { kernel, source, tree, release: None, root: None })
        }
        KernelOrigin::Shipped(shipped) => {
            let (source, tree, release) = stock::ensure(workspace, kernel.name, shipped)?;
            of_packages(workspace, kernel, source, tree, release)
        }
    }
}

/// Returns a kernel and the source of the next release of its series. For a stock kernel, this is the distribution's
/// next release.
pub(crate) fn pair(
    workspace: &CargoWorkspace,
    kernel: &'static FixtureKernel,
) -> Result<(BuiltKernel, Source)> {
    match &kernel.origin {
        KernelOrigin::Made(recipe) => {
            let known = source::releases(workspace, recipe.series)?;
            let wanted = workspace.releases.iter().find_map(|wanted| known.iter().position(|r| r == wanted));
            let older = wanted.or(known.len().checked_sub(2));
            let pair = older.and_then(|older| known.get(older..older + 2));
            let [older, newer] = pair.context("the archive has no two releases of this kernel")? else {
                bail!("two releases")
            };
            let source = source::at_release(workspace, recipe.series, older)?;
            // The tests' kernel has a different name, because a newer tree replaces an older one of the same name.
            let name = format!("{}@{older}", kernel.name);
            let tree = made::of_source(workspace, kernel.wanted(&name, recipe), &source)?;
            let next = source::at_release(workspace, recipe.series, newer)?;
            Ok((BuiltKernel { kernel, source, tree, release: None, root: None }, next))
        }
        KernelOrigin::Shipped(shipped) => {
            let [older, newer] = stock::pair(workspace, shipped)?;
            let source = stock::source(workspace, shipped, &newer)?;
            Ok((at_release(workspace, kernel, &older)?, Source { version: newer, ..source }))
        }
    }
}

/// Returns the kernel of the tests and the source of an earlier release of its series: the release that the options
/// name, else the previous one.
pub(crate) fn pair_back(
    workspace: &CargoWorkspace,
    kernel: &'static FixtureKernel,
) -> Result<(BuiltKernel, Source)> {
    let KernelOrigin::Made(recipe) = &kernel.origin else {
        bail!("the {} kernel is not made here", kernel.name)
    };
    let built = ensure(workspace, kernel)?;
    let known = source::releases(workspace, recipe.series)?;
    let wanted = workspace.releases.iter().find(|wanted| known.contains(wanted));
    let before = known.iter().take_while(|release| **release != built.source.version).last();
    let earlier = wanted.or(before).context("the archive has no earlier release of this kernel")?;
    Ok((built, source::at_release(workspace, recipe.series, earlier)?))
}

/// Returns one release of a stock kernel.
pub(crate) fn at_release(
    workspace: &CargoWorkspace,
    kernel: &'static FixtureKernel,
    release: &str,
) -> Result<BuiltKernel> {
    let (source, tree) = stock::at_release(workspace, kernel.name, kernel.shipped()?, release)?;
    of_packages(workspace, kernel, source, tree, release.to_owned())
}

fn of_packages(
    workspace: &CargoWorkspace,
    kernel: &'static FixtureKernel,
    source: Source,
    tree: PathBuf,
    release: String,
) -> Result<BuiltKernel> {
    let away = kernel.distro().filter(|distro| !distro.is_here());
    let root = away.map(|distro| distro::ensure(workspace, distro)).transpose()?;
    Ok(BuiltKernel { kernel, source, tree, release: Some(release), root })
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
