//! The fixture kernels: which there are, where each comes from, and where what tests want of it lies.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use klpx_guest::Modules;

use crate::distro::{self, Distro};
use crate::machine::{self, Machine};
use crate::made::{self, Recipe, Wanted};
use crate::packages::Need;
use crate::source::{self, Source};
use crate::stock::{self, Shipped};
use crate::workspace::Workspace;

/// One fixture kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// How commands and scenarios call it.
    pub(crate) name: &'static str,
    /// For a person.
    pub(crate) title: &'static str,
    /// Its architecture.
    pub(crate) machine: &'static Machine,
    /// Only `cargo xtask matrix` takes it by itself.
    pub(crate) matrix: bool,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Host packages.
    pub(crate) needs: &'static [Need],
}

/// Where a kernel comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// It is built here.
    Made(Recipe),
    /// A distribution built it.
    Shipped(Shipped),
}

/// Every fixture kernel. The tests take them in this order, those that take long first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        matrix: false,
        origin: Origin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-thinlto.config",
            ],
            llvm: Some("-22"),
            profile: None,
        }),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "gcc",
        title: "GCC, no LTO",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "x86_64.config", "gcc.config"],
            llvm: None,
            profile: None,
        }),
        needs: &[Need::Gcc, Need::Source, Need::Guest],
    },
    Kernel {
        name: "debian-6.12",
        title: "Debian 12, GCC 12, IBT",
        machine: &machine::X86_64,
        matrix: false,
        origin: Origin::Shipped(Shipped {
            series: "6.12",
            release: ["6.12.", "+deb12", "-cloud-amd64"],
            suites: &["bookworm-security"],
            debug_modules: true,
            home: &distro::BOOKWORM,
        }),
        needs: &[Need::Gcc, Need::Gcc12, Need::Source, Need::Guest],
    },
    Kernel {
        name: "arm64-gcc",
        title: "GCC, no LTO",
        machine: &machine::ARM64,
        matrix: false,
        origin: Origin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "arm64.config", "gcc.config"],
            llvm: None,
            profile: None,
        }),
        needs: &[Need::Gcc, Need::Source, Need::Arm64],
    },
    Kernel {
        name: "debian-6.1",
        title: "Debian 12, GCC 12",
        machine: &machine::X86_64,
        matrix: false,
        origin: Origin::Shipped(Shipped {
            series: "6.1",
            release: ["6.1.0-", "", "-cloud-amd64"],
            suites: &["bookworm-security"],
            debug_modules: false,
            home: &distro::BOOKWORM,
        }),
        needs: &[Need::Gcc, Need::Gcc12, Need::Source, Need::Guest],
    },
    Kernel {
        name: "arm64-thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::ARM64,
        matrix: true,
        origin: Origin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &["base.config", "distribution.config", "arm64.config", "clang-thinlto.config"],
            llvm: Some("-22"),
            profile: None,
        }),
        needs: &[Need::Clang, Need::Source, Need::Arm64],
    },
    Kernel {
        name: "thinlto-autofdo",
        title: "clang 22, ThinLTO, AutoFDO",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Made(Recipe {
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
            profile: Some("autofdo.txt"),
        }),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "fulllto",
        title: "clang 22, FullLTO",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Made(Recipe {
            series: &source::CURRENT,
            fragments: &[
                "base.config",
                "distribution.config",
                "network.config",
                "x86_64.config",
                "clang-fulllto.config",
            ],
            llvm: Some("-22"),
            profile: None,
        }),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "6.12-clang19",
        title: "clang 19, ThinLTO",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Made(Recipe {
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
            profile: None,
        }),
        needs: &[Need::Clang19, Need::Source, Need::Guest],
    },
    Kernel {
        name: "6.12-clang22",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Made(Recipe {
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
            profile: None,
        }),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "debian-13",
        title: "Debian 13, GCC 14, IBT",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Shipped(Shipped {
            series: "6.12",
            release: ["6.12.", "+deb13", "-cloud-amd64"],
            suites: &["trixie", "trixie-security"],
            debug_modules: false,
            home: &distro::TRIXIE,
        }),
        needs: &[Need::Guest],
    },
    Kernel {
        name: "debian-13-backports",
        title: "Debian 13, GCC 14, IBT, Rust",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Shipped(Shipped {
            series: "7.3",
            release: ["7.3.", "+deb13", "-cloud-amd64"],
            suites: &["trixie-backports"],
            debug_modules: false,
            home: &distro::TRIXIE,
        }),
        needs: &[Need::Guest],
    },
    Kernel {
        name: "debian-sid",
        title: "Debian sid, GCC 16, IBT, Rust",
        machine: &machine::X86_64,
        matrix: true,
        origin: Origin::Shipped(Shipped {
            series: "7.2",
            release: ["7.2.", "+deb14", "-cloud-amd64"],
            suites: &["sid"],
            debug_modules: false,
            home: &distro::SID,
        }),
        needs: &[Need::Guest],
    },
];

impl Kernel {
    /// How test data may call it, the most exact word first: its name, its origin and architecture, these alone.
    pub(crate) fn words(&self) -> [String; 4] {
        let origin = match self.origin {
            Origin::Made(_) => "made",
            Origin::Shipped(_) => "stock",
        };
        let machine = self.machine.name;
        [self.name.to_owned(), format!("{origin}-{machine}"), origin.to_owned(), machine.to_owned()]
    }

    /// True when test data that says this word means this kernel.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.words().iter().any(|own| own == word)
    }

    /// How it is made, if it is made here.
    pub(crate) fn recipe(&self) -> Option<&Recipe> {
        match &self.origin {
            Origin::Made(recipe) => Some(recipe),
            Origin::Shipped(_) => None,
        }
    }

    /// True where modules with debug information are part of the kernel's files.
    pub(crate) fn has_debug_modules(&self) -> bool {
        !matches!(&self.origin, Origin::Shipped(shipped) if !shipped.debug_modules)
    }

    fn shipped(&self) -> Result<&Shipped> {
        match &self.origin {
            Origin::Shipped(shipped) => Ok(shipped),
            Origin::Made(_) => bail!("the {} kernel is made here, no distribution ships it", self.name),
        }
    }

    /// Its tree under a name.
    fn wanted<'a>(&'a self, name: &'a str, recipe: &'a Recipe) -> Wanted<'a> {
        Wanted { name, title: self.title, machine: self.machine, recipe }
    }

    /// The release of Debian that it is for, if it comes from one.
    pub(crate) fn distro(&self) -> Option<&'static Distro> {
        match &self.origin {
            Origin::Shipped(shipped) => Some(shipped.home),
            Origin::Made(_) => None,
        }
    }

    /// The compiler that makes it, if it is made here.
    pub(crate) fn compiler(&self) -> Option<String> {
        self.recipe().map(|recipe| recipe.compiler(self.machine))
    }

    /// True for a kernel that klpx stabilises.
    pub(crate) fn is_thin_lto(&self) -> bool {
        self.recipe().is_some_and(Recipe::is_thin_lto)
    }
}

/// The kernels with these names; without names, those of the tests.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().filter(|kernel| !kernel.matrix).collect());
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

/// A kernel with all that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Which kernel.
    pub(crate) kernel: &'static Kernel,
    /// The source it was built from.
    pub(crate) source: Source,
    /// The `O=` tree, or the unpacked packages.
    pub(crate) tree: PathBuf,
    /// The release that its packages are called by, if it comes from packages.
    pub(crate) release: Option<String>,
    /// The root directory that klpx runs in, if not this machine's.
    pub(crate) root: Option<PathBuf>,
}

impl Built {
    /// The kernel as linked, with debug information.
    pub(crate) fn vmlinux(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::vmlinux(&self.tree, release),
            None => self.tree.join("vmlinux"),
        }
    }

    /// The image that QEMU boots.
    pub(crate) fn image(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::image(&self.tree, release),
            None => self.tree.join(self.kernel.machine.image),
        }
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::config(&self.tree, release),
            None => self.tree.join(".config"),
        }
    }

    /// The headers folder, if it comes from packages.
    pub(crate) fn headers(&self) -> Option<PathBuf> {
        self.release.as_ref().map(|release| stock::headers(&self.tree, release))
    }

    /// Where `modules.order` lies, and the modules by its lines.
    pub(crate) fn modules_root(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::modules(&self.tree, release),
            None => self.tree.clone(),
        }
    }

    /// Where the modules lie with their symbols and debug information, as far as they are there.
    pub(crate) fn debug_modules_root(&self) -> PathBuf {
        match &self.release {
            Some(release) => stock::debug_modules(&self.tree, release),
            None => self.tree.clone(),
        }
    }

    /// The file of a module with debug information, if there is one.
    pub(crate) fn debug_module(&self) -> Result<Option<PathBuf>> {
        // Not every debug package has a modules.order.
        let modules = Modules::read(&self.modules_root())?.under(&self.debug_modules_root());
        Ok(modules.names().iter().find_map(|name| modules.file(name).ok()))
    }

    /// What tells `klpx build` which kernel is meant.
    pub(crate) fn options(&self, vmlinux: Option<&Path>) -> Vec<PathBuf> {
        let mut words: Vec<PathBuf> = vec!["--source".into(), self.source.tree.clone()];
        match &self.release {
            // All is found where a user has it.
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

    /// `make` on this kernel with another output tree, which exists.
    pub(crate) fn make(&self, output: &Path) -> Result<Command> {
        self.make_with(output, None)
    }

    /// The same with a folder of tools that come before all others.
    pub(crate) fn make_with(&self, output: &Path, tools: Option<&Path>) -> Result<Command> {
        let recipe = self.kernel.recipe();
        let recipe = recipe.with_context(|| format!("the {} kernel is not made here", self.kernel.name))?;
        recipe.make(self.kernel.machine, &self.source, output, tools)
    }
}

/// A kernel, ready for use: adopted, cached, or made or fetched now.
pub(crate) fn ensure(workspace: &Workspace, kernel: &'static Kernel) -> Result<Built> {
    match &kernel.origin {
        Origin::Made(recipe) => {
            let (source, tree) = made::ensure(workspace, kernel.wanted(kernel.name, recipe))?;
            Ok(Built { kernel, source, tree, release: None, root: None })
        }
        Origin::Shipped(shipped) => {
            let (source, tree, release) = stock::ensure(workspace, kernel.name, shipped)?;
            of_packages(workspace, kernel, source, tree, release)
        }
    }
}

/// A kernel, and the source of the next release of its series: of a stock kernel the distribution's next one.
pub(crate) fn pair(workspace: &Workspace, kernel: &'static Kernel) -> Result<(Built, Source)> {
    match &kernel.origin {
        Origin::Made(recipe) => {
            let known = source::releases(workspace, recipe.series)?;
            let wanted = workspace.releases.iter().find_map(|wanted| known.iter().position(|r| r == wanted));
            let older = wanted.or(known.len().checked_sub(2));
            let pair = older.and_then(|older| known.get(older..older + 2));
            let [older, newer] = pair.context("the archive has no two releases of this kernel")? else {
                bail!("two releases")
            };
            let source = source::at_release(workspace, recipe.series, older)?;
            // Not the name of the tests' kernel, whose tree a newer one replaces.
            let name = format!("{}@{older}", kernel.name);
            let tree = made::of_source(workspace, kernel.wanted(&name, recipe), &source)?;
            let next = source::at_release(workspace, recipe.series, newer)?;
            Ok((Built { kernel, source, tree, release: None, root: None }, next))
        }
        Origin::Shipped(shipped) => {
            let [older, newer] = stock::pair(workspace, shipped)?;
            let source = stock::source(workspace, shipped, &newer)?;
            Ok((at_release(workspace, kernel, &older)?, Source { version: newer, ..source }))
        }
    }
}

/// The kernel of the tests, and the source of an earlier release of its series: what the options name, else the one
/// before.
pub(crate) fn pair_back(workspace: &Workspace, kernel: &'static Kernel) -> Result<(Built, Source)> {
    let Origin::Made(recipe) = &kernel.origin else { bail!("the {} kernel is not made here", kernel.name) };
    let built = ensure(workspace, kernel)?;
    let known = source::releases(workspace, recipe.series)?;
    let wanted = workspace.releases.iter().find(|wanted| known.contains(wanted));
    let before = known.iter().take_while(|release| **release != built.source.version).last();
    let earlier = wanted.or(before).context("the archive has no earlier release of this kernel")?;
    Ok((built, source::at_release(workspace, recipe.series, earlier)?))
}

/// One release of a stock kernel.
pub(crate) fn at_release(workspace: &Workspace, kernel: &'static Kernel, release: &str) -> Result<Built> {
    let (source, tree) = stock::at_release(workspace, kernel.name, kernel.shipped()?, release)?;
    of_packages(workspace, kernel, source, tree, release.to_owned())
}

fn of_packages(
    workspace: &Workspace,
    kernel: &'static Kernel,
    source: Source,
    tree: PathBuf,
    release: String,
) -> Result<Built> {
    let away = kernel.distro().filter(|distro| !distro.is_here());
    let root = away.map(|distro| distro::ensure(workspace, distro)).transpose()?;
    Ok(Built { kernel, source, tree, release: Some(release), root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name() {
        assert!(select(&[]).expect("those of the tests").iter().all(|kernel| !kernel.matrix));
        assert_eq!(select(&["arm64-gcc".to_owned()]).expect("a kernel of that name")[0].name, "arm64-gcc");
        assert_eq!(select(&["gcc".to_owned()]).expect("gcc")[0].name, "gcc");
        assert!(select(&["icc".to_owned()]).is_err());
    }
}
