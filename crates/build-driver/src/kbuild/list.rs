//! kbuild's own list of units: what is compiled for vmlinux and for each module, from what, by which target of make.
//! Never reads a Makefile: kbuild itself is asked (`units.mk`), and nothing is made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Class, Diagnosis, Result};
use serde::{Deserialize, Serialize};

use super::objtool::ObjtoolRule;
use super::record::Record;
use crate::process::Outcome;

mod builder;

use builder::Builder;

/// Stands in for the kernel's scripts/Makefile.build.
const UNITS_MK: &str = include_str!("units.mk");

/// A unit's place in its [`UnitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(u32);

/// A module's place in its [`UnitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId(u32);

/// One translation unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its object, as a path in the build tree: `virt/kvm/kvm_main.o`.
    pub object: String,
    /// How make has to be asked for it, when not by `object`: `arch/x86/kvm/../../../virt/kvm/kvm_main.o`. kbuild gives
    /// a unit its flags only under the name that its folder's Makefile has for it.
    target: Option<String>,
    /// The folder whose Makefile builds it: `arch/x86/kvm`.
    pub folder: String,
    /// How it is made.
    pub rule: Rule,
    /// What it is made from.
    pub source: Source,
    /// What it belongs to.
    pub home: Home,
    /// False when it is compiled without `CC_FLAGS_FTRACE`: none of its functions can be traced. Assembly is `true`
    /// where kbuild does not say otherwise.
    pub traced: bool,
    objtool: u16,
    forced: u16,
}

impl Unit {
    /// The target that makes exactly this object when the kernel's make is asked for it.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.object)
    }
}

/// How kbuild makes an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// Compiled from C.
    C,
    /// Compiled from C to assembly, from which a header is made (`asm-offsets.s`).
    Offsets,
    /// Assembled from `.S`.
    Assembly,
    /// Compiled from Rust.
    Rust,
    /// Made by another rule, by kbuild's name of it: `objcopy`, `ld`.
    Other(String),
    /// No rule is known for it.
    Unknown,
}

impl Rule {
    /// From kbuild's name (scripts/Makefile.build, the same from 6.1 to 7.3).
    fn of(name: &str) -> Rule {
        match name {
            "cc_o_c" => Rule::C,
            "cc_s_c" => Rule::Offsets,
            "as_o_S" => Rule::Assembly,
            "rustc_o_rs" => Rule::Rust,
            other => Rule::Other(other.to_owned()),
        }
    }

    /// True for what a compiler makes from one file with `#include` lines.
    pub fn is_compiled(&self) -> bool {
        matches!(self, Rule::C | Rule::Offsets | Rule::Assembly)
    }
}

/// What a unit is made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A file of the source tree.
    Tree(String),
    /// A file of the build tree, which make makes: generated C, another object.
    Generated(String),
    /// Not known.
    Unknown,
}

impl Source {
    /// The path in the source tree, for what has one.
    pub fn in_tree(&self) -> Option<&str> {
        match self {
            Source::Tree(path) => Some(path),
            Source::Generated(_) | Source::Unknown => None,
        }
    }
}

/// What a unit belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Home {
    /// vmlinux. A unit of `drivers/firmware/efi/libstub/lib.a` (arm64) is linked only when something needs it.
    Vmlinux,
    /// One module, or several.
    Modules(Vec<ModuleId>),
    /// Not linked itself. Something else is made from it that goes into the kernel: a vDSO, a boot image, hypervisor
    /// code, a generated header.
    Ingredient,
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its object: `drivers/md/dm-mod.o`.
    pub object: String,
    /// Its units, in the order of the link.
    pub units: Vec<UnitId>,
    /// True when the module's object is its unit's object. Then kbuild does to the unit what it does to a module.
    pub is_its_unit: bool,
}

impl Module {
    /// The name that the kernel has for it: `dm_mod`.
    pub fn name(&self) -> String {
        let file = self.object.rsplit('/').next().unwrap_or(&self.object);
        file.strip_suffix(".o").unwrap_or(file).replace('-', "_")
    }

    /// The module's path among the kernel's modules: `drivers/md/dm-mod.ko`.
    pub fn ko(&self) -> String {
        format!("{}.ko", self.object.strip_suffix(".o").unwrap_or(&self.object))
    }
}

/// A file that make makes from others on the way to a unit: a table, a header. Objects are none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generated {
    /// Its path in the build tree. It need not be there yet.
    pub path: String,
    /// The folder whose Makefile makes it.
    pub folder: String,
    /// What it is made from.
    pub from: Vec<Source>,
}

impl Generated {
    /// True for a file that others can include, or that is compiled.
    pub fn is_source(&self) -> bool {
        [".h", ".c", ".S", ".inc"].iter().any(|end| self.path.ends_with(end))
    }
}

/// All units of a kernel. Sorted by object, so the same kernel gives the same list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitList {
    units: Vec<Unit>,
    modules: Vec<Module>,
    /// Unit by source. Only units whose source is in the source tree.
    by_source: Vec<UnitId>,
    rules: Vec<ObjtoolRule>,
    /// What command lines include before anything else.
    forced: Vec<Vec<Source>>,
    searched: Vec<Source>,
    generated: Vec<Generated>,
    /// What folders inherit, by folder. Most inherit nothing.
    inherited: BTreeMap<String, Vec<(String, String)>>,
    objtool: Option<String>,
    arch: String,
}

impl UnitList {
    /// Asks kbuild.
    ///
    /// The build tree must be prepared. `make` runs make there with the words given, in the environment in which the
    /// kernel's Makefile calls for the root folder. make variables that switch parts of the configuration off
    /// (`CONFIG_DEBUG_INFO_BTF=`) take units away: leave them out here, nothing is made. In the source nothing is
    /// written, in the build tree folders for objects.
    ///
    /// # Errors
    /// make fails (`klpx::kbuild-units`), or says what klpx does not understand.
    pub fn ask(
        src: &Path,
        build: &Path,
        make: &mut dyn FnMut(&[OsString]) -> Result<Outcome>,
    ) -> Result<UnitList> {
        let io = |doing: &'static str| move |error: std::io::Error| Diagnosis::io(doing, build, &error);
        let scratch = tempfile::Builder::new()
            .prefix(".klpx-units.")
            .tempdir_in(build)
            .map_err(io("make a folder in"))?;
        let (mk, records) = (scratch.path().join("units.mk"), scratch.path().join("records"));
        std::fs::write(&mk, UNITS_MK).map_err(io("write to"))?;
        std::fs::create_dir(&records).map_err(io("make a folder in"))?;
        let outcome = make(&question(&mk, &records))?;
        if !outcome.success {
            return Err(Diagnosis::new("klpx::kbuild-units", Class::Build, "kbuild does not list its units")
                .why("make failed when it was asked what it would compile")
                .detail(outcome.lines.into_iter().filter(|line| line.contains("***")))
                .into());
        }
        UnitList::read(src, build, &records)
    }

    /// Puts the records of all folders together.
    pub(super) fn read(src: &Path, build: &Path, records: &Path) -> Result<UnitList> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(records)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(|error| Diagnosis::io("read", records, &error))?;
        paths.sort();
        let mut parsed = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|error| Diagnosis::io("read", path, &error))?;
            parsed.push(Record::parse(&text).map_err(not_understood)?);
        }
        let absolute = |path: &Path| path.canonicalize().map_err(|error| Diagnosis::io("read", path, &error));
        let list = Builder::new(absolute(src)?, absolute(build)?, &parsed).build(&parsed);
        list.map_err(|what| not_understood(&what).into())
    }

    /// The unit at a place.
    pub fn unit(&self, id: UnitId) -> &Unit {
        &self.units[id.0 as usize]
    }

    /// The module at a place.
    pub fn module(&self, id: ModuleId) -> &Module {
        &self.modules[id.0 as usize]
    }

    /// All units, by object.
    pub fn units(&self) -> impl ExactSizeIterator<Item = (UnitId, &Unit)> {
        self.units.iter().enumerate().map(|(n, unit)| (UnitId(index(n)), unit))
    }

    /// All modules, by object.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = (ModuleId, &Module)> {
        self.modules.iter().enumerate().map(|(n, module)| (ModuleId(index(n)), module))
    }

    /// The unit of an object, by its path in the build tree.
    pub fn by_object(&self, object: &str) -> Option<UnitId> {
        let at = self.units.binary_search_by(|unit| unit.object.as_str().cmp(object)).ok()?;
        Some(UnitId(index(at)))
    }

    /// The module of an object (`drivers/md/dm-mod.o`).
    pub fn module_by_object(&self, object: &str) -> Option<ModuleId> {
        let at = self.modules.binary_search_by(|module| module.object.as_str().cmp(object)).ok()?;
        Some(ModuleId(index(at)))
    }

    /// The units that are compiled from a file of the source tree, by object. A file may be compiled several times.
    pub fn by_source(&self, source: &str) -> &[UnitId] {
        let of = |id: &UnitId| self.unit(*id).source.in_tree().unwrap_or_default();
        let start = self.by_source.partition_point(|id| of(id) < source);
        let count = self.by_source[start..].partition_point(|id| of(id) == source);
        &self.by_source[start..start + count]
    }

    /// True for a unit that is not linked itself ([`Home::Ingredient`]), when one of the kernel is made from the same
    /// source.
    pub fn is_second_copy(&self, id: UnitId) -> bool {
        let of_kernel = |other: &UnitId| self.unit(*other).home != Home::Ingredient;
        let source = self.unit(id).source.in_tree();
        let others = source.map(|source| self.by_source(source)).unwrap_or_default();
        self.unit(id).home == Home::Ingredient && others.iter().any(of_kernel)
    }

    /// What objtool does to a unit.
    pub fn objtool(&self, id: UnitId) -> &ObjtoolRule {
        &self.rules[usize::from(self.unit(id).objtool)]
    }

    /// The files that a unit's command line includes (`-include`).
    pub fn forced(&self, id: UnitId) -> &[Source] {
        &self.forced[usize::from(self.unit(id).forced)]
    }

    /// The folders of both trees in which a compilation of this kernel searches for included files. Empty when one of the
    /// compilations does not say.
    pub fn searched(&self) -> &[Source] {
        &self.searched
    }

    /// Files that are made on the way to units, by path.
    pub fn generated(&self) -> &[Generated] {
        &self.generated
    }

    /// Variables that have another value in a folder than in the root folder, because the folders above it add flags for
    /// all below (`subdir-ccflags-y`): what `scripts/Makefile.build` needs to be given for it. Only such folders.
    pub fn inherited(&self) -> impl Iterator<Item = (&str, &[(String, String)])> {
        self.inherited.iter().map(|(folder, variables)| (folder.as_str(), &variables[..]))
    }

    /// kbuild's name of the architecture (`SRCARCH`): the folder in `arch`.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// objtool's path in the build tree. `None` for a kernel without objtool.
    pub fn objtool_program(&self) -> Option<&str> {
        self.objtool.as_deref()
    }
}

/// make's words: the makefile in the place of scripts/Makefile.build, also where rules call for another folder by
/// `$(build)` (scripts/Kbuild.include), and what that makefile is to know.
fn question(mk: &Path, records: &Path) -> [OsString; 5] {
    let variable = |name: &str, value: &Path| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    let build = "build=-f $(klpx-mk) obj".into();
    ["-f".into(), mk.into(), build, variable("klpx-mk", mk), variable("klpx-out", records)]
}

fn not_understood(what: &str) -> Diagnosis {
    Diagnosis::new("klpx::kbuild-units", Class::Build, "kbuild's list of units is not understood")
        .why(what.lines().next().unwrap_or_default())
        .remedy("klpx knows kbuild from Linux 6.1 to 7.3")
}

/// kbuild has far fewer than 2^32 units.
fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
