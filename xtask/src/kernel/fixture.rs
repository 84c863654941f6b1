//! The properties of a fixture kernel.

use anyhow::{Result, bail};

use crate::distro::Distro;
use crate::machine::Machine;
use crate::made::{Recipe, WantedFixture};
use crate::packages::Need;
use crate::stock::Shipped;

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

/// Where a kernel comes from.
#[derive(Debug)]
pub(crate) enum KernelOrigin {
    /// The kernel is built here.
    Made(Recipe),
    /// A distribution built the kernel.
    Shipped(Shipped),
}

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

    /// Returns which kernel of a distribution this is.
    pub(super) fn shipped(&self) -> Result<&Shipped> {
        match &self.origin {
            KernelOrigin::Shipped(shipped) => Ok(shipped),
            KernelOrigin::Made(_) => bail!("the {} kernel is made here, no distribution ships it", self.name),
        }
    }

    /// Returns the kernel's tree under a name.
    pub(super) fn wanted<'a>(&'a self, name: &'a str, recipe: &'a Recipe) -> WantedFixture<'a> {
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
