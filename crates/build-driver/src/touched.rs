//! Which translation units a patch touches: those made from an edited file, those whose text an edited header changes,
//! and those that the patch adds.

use klpx_diagnosis::{Class, Diagnosis, Failure, Place, Result};

use crate::apply::{Change, Prepared};
use crate::kbuild::{Home, ObjtoolRule, Rule, Unit, UnitId, UnitList};
use crate::patch::{FileKind, classify};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// A unit, with all that is needed to compile it and to find it in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedUnit {
    /// The unit.
    pub unit: Unit,
    /// What objtool does to it.
    pub objtool: ObjtoolRule,
    /// The kernel objects that it is part of: `vmlinux`, or names of modules.
    pub objects: Vec<String>,
}

impl TouchedUnit {
    /// A unit of kbuild's list.
    pub fn of(list: &UnitList, id: UnitId) -> TouchedUnit {
        let unit = list.unit(id).clone();
        let objects = match &unit.home {
            Home::Vmlinux | Home::Ingredient => vec!["vmlinux".to_owned()],
            Home::Modules(modules) => modules.iter().map(|&module| list.module(module).name()).collect(),
        };
        TouchedUnit { unit, objtool: list.objtool(id).clone(), objects }
    }

    /// The object's path in the build tree.
    pub fn object(&self) -> &str {
        &self.unit.object
    }
}

/// The units that a patch touches, by object.
#[derive(Debug, Default)]
pub struct Touched {
    pub(crate) units: Vec<TouchedUnit>,
    pub(crate) added: Vec<TouchedUnit>,
    notes: Vec<String>,
}

impl Touched {
    /// Units that both sources have, by object.
    pub fn units(&self) -> &[TouchedUnit] {
        &self.units
    }

    /// Units that only the patched source has, by object.
    pub fn added(&self) -> &[TouchedUnit] {
        &self.added
    }

    /// Things to know that stop nothing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many units.
    pub fn len(&self) -> usize {
        self.units.len() + self.added.len()
    }

    /// True when no unit is touched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Workspace {
    /// Finds the units that a patch touches. Compiles nothing, but for an edited header the candidates are
    /// preprocessed.
    ///
    /// # Errors
    /// A file that no unit of this kernel is made from, or one that klpx can't follow.
    pub fn touched(&self, prepared: &Prepared, list: &UnitList, _: &dyn Progress) -> Result<Touched> {
        let arch = self.kernel.arch();
        let mut faults = Vec::new();
        let mut ids = Vec::new();
        for change in &prepared.changes {
            match classify(&change.path, arch) {
                FileKind::Source => ids.extend_from_slice(list.by_source(&change.path)),
                _ => faults.push(not_followed(change)),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Failure::all(faults)?;
        let mut touched = Touched::default();
        for id in ids {
            let unit = list.unit(id);
            match (&unit.home, &unit.rule) {
                (Home::Ingredient, _) => faults_of_ingredient(unit)?,
                (_, Rule::C) => touched.units.push(TouchedUnit::of(list, id)),
                _ => return Err(not_c(unit).into()),
            }
        }
        if touched.is_empty() {
            return Err(not_compiled(prepared).into());
        }
        Ok(touched)
    }
}

fn not_followed(change: &Change) -> Diagnosis {
    Diagnosis::new(
        "klpx::generated-source",
        Class::NotLivepatchable,
        "klpx can't tell what is made from this file",
    )
    .place(Place::file(change.path.clone(), None))
    .why("it is neither C nor a header, and what kbuild makes of it can be anywhere in the kernel")
    .remedy("leave this file out of the patch, or make the change in the C code")
}

fn faults_of_ingredient(unit: &Unit) -> Result<()> {
    Err(Diagnosis::new(
        "klpx::not-linked",
        Class::NotLivepatchable,
        "the patch changes what is not kernel code itself",
    )
    .place(Place::file(unit.object.clone(), None))
    .why("something else is made of this object: a boot image, a vdso, hypervisor code or a generated header")
    .remedy("leave this file out of the patch")
    .into())
}

fn not_c(unit: &Unit) -> Diagnosis {
    Diagnosis::new(
        "klpx::not-c",
        Class::NotLivepatchable,
        "the patch changes a unit that is not compiled from C",
    )
    .place(Place::file(unit.object.clone(), None))
    .remedy("leave this file out of the patch")
}

fn not_compiled(prepared: &Prepared) -> Diagnosis {
    Diagnosis::new("klpx::nothing-changed", Class::Unchanged, "the patch changes nothing of this kernel")
        .why(
            "no unit of vmlinux or of a module is made from the files that it edits, with this configuration",
        )
        .remedy("there is nothing to livepatch in this kernel")
        .detail(prepared.paths().map(str::to_owned))
}
