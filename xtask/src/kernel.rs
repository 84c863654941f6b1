//! The fixture kernels: their origins, and the places of the files that tests need.

mod fixture;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use klpx_guest::KernelModules;

use crate::source::{self, Source};
use crate::workspace::CargoWorkspace;
use crate::{distro, made, stock};

pub(crate) use fixture::{BootMode, FixtureKernel, KernelOrigin, Tier};
pub(crate) use table::{KERNELS, select};

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
