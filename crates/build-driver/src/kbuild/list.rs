//! kbuild's own list of units: what is compiled for vmlinux and for each module, from which source, by which target of
//! make. klpx does not parse Makefiles: it asks kbuild itself (`units.mk`). Nothing is made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use super::objtool::ObjtoolRule;
use super::record::FolderRecord;
use crate::process::CallOutcome;

mod builder;

use builder::Builder;

/// The makefile that replaces the kernel's scripts/Makefile.build.
const UNITS_MK: &str = include_str!("units.mk");

/// The index of a unit in its [`UnitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(u32);

/// The index of a module in its [`UnitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId(u32);

/// One translation unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KbuildUnit {
    /// The object, as a path in the build tree: `virt/kvm/kvm_main.o`.
    pub object: String,
    /// The target for make, if it differs from `object`: `arch/x86/kvm/../../../virt/kvm/kvm_main.o`. kbuild gives a
    /// unit its flags only under the name in its folder's Makefile.
    target: Option<String>,
    /// The folder whose Makefile builds the unit: `arch/x86/kvm`.
    pub folder: String,
    /// The rule that makes the object.
    pub rule: ObjectRule,
    /// The source of the unit.
    pub source: UnitSource,
    /// What the unit belongs to.
    pub home: Home,
    /// False if the unit is compiled without `CC_FLAGS_FTRACE`, so that none of its functions can be traced. True for
    /// assembly, unless kbuild says that it is not traced.
    pub traced: bool,
    objtool: u16,
    forced: u16,
}

impl KbuildUnit {
    /// The target with which the kernel's make makes exactly this object.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.object)
    }
}

/// How kbuild makes an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectRule {
    /// Compiled from C.
    C,
    /// Compiled from C to assembly, from which a header is made (`asm-offsets.s`).
    Offsets,
    /// Assembled from `.S`.
    Assembly,
    /// Compiled from Rust.
    Rust,
    /// Made by another rule, with kbuild's name of the rule: `objcopy`, `ld`.
    Other(String),
    /// Unknown rule.
    Unknown,
}

impl ObjectRule {
    /// Converts kbuild's name (scripts/Makefile.build, the same from 6.1 to 7.3). In 7.2, not in 6.12, the C helpers of
    /// Rust code have a rule of their own, which compiles as `cc_o_c` does (rust/Makefile).
    fn from_name(name: &str) -> ObjectRule {
        match name {
            "cc_o_c" | "rust_cc_library" => ObjectRule::C,
            "cc_s_c" => ObjectRule::Offsets,
            "as_o_S" => ObjectRule::Assembly,
            "rustc_o_rs" => ObjectRule::Rust,
            other => ObjectRule::Other(other.to_owned()),
        }
    }

    /// Returns true if a compiler makes the object from one file with `#include` lines.
    pub fn is_compiled(&self) -> bool {
        matches!(self, ObjectRule::C | ObjectRule::Offsets | ObjectRule::Assembly)
    }
}

/// The source of a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnitSource {
    /// A file in the source tree.
    Tree(String),
    /// A file in the build tree that make makes: generated C, another object.
    Generated(String),
    /// Unknown.
    Unknown,
}

impl UnitSource {
    /// The path in the source tree, if the source is in the source tree.
    pub fn in_tree(&self) -> Option<&str> {
        match self {
            UnitSource::Tree(path) => Some(path),
            UnitSource::Generated(_) | UnitSource::Unknown => None,
        }
    }
}

/// What a unit belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Home {
    /// vmlinux. A unit of `drivers/firmware/efi/libstub/lib.a` (arm64) is linked only if another unit needs it.
    Vmlinux,
    /// One or more modules.
    Modules(Vec<ModuleId>),
    /// Not linked itself, but used to make another part of the kernel: a vDSO, a boot image, hypervisor code, a
    /// generated header.
    Ingredient,
}

/// A module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KbuildModule {
    /// The module's object: `drivers/md/dm-mod.o`.
    pub object: String,
    /// The module's units, in link order.
    pub units: Vec<UnitId>,
    /// True if the module's object is also its unit's object. kbuild then treats the unit as a module.
    pub is_its_unit: bool,
}

impl KbuildModule {
    /// The kernel's name of the module: `dm_mod`.
    pub fn name(&self) -> String {
        let file = self.object.rsplit('/').next().unwrap_or(&self.object);
        file.strip_suffix(".o").unwrap_or(file).replace('-', "_")
    }

    /// The module's path among the kernel's modules: `drivers/md/dm-mod.ko`.
    pub fn ko(&self) -> String {
        format!("{}.ko", self.object.strip_suffix(".o").unwrap_or(&self.object))
    }
}

/// A file that make makes from other files on the way to a unit: a table, a header. Objects do not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generated {
    /// The path in the build tree. The file may not exist yet.
    pub path: String,
    /// The folder whose Makefile makes the file.
    pub folder: String,
    /// The files that the file is made from.
    pub from: Vec<UnitSource>,
}

impl Generated {
    /// Returns true if the file can be included or compiled.
    pub fn is_source(&self) -> bool {
        [".h", ".c", ".S", ".inc"].iter().any(|end| self.path.ends_with(end))
    }
}

/// All units of a kernel, sorted by object. The same kernel gives the same list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitList {
    units: Vec<KbuildUnit>,
    modules: Vec<KbuildModule>,
    /// Units sorted by source. Only units with a source in the source tree.
    by_source: Vec<UnitId>,
    rules: Vec<ObjtoolRule>,
    /// The sets of files that command lines include first.
    forced: Vec<Vec<UnitSource>>,
    searched: Vec<UnitSource>,
    generated: Vec<Generated>,
    /// Variables that folders inherit, by folder. Most folders inherit none.
    inherited: BTreeMap<String, Vec<(String, String)>>,
    objtool: Option<String>,
    arch: String,
}

impl UnitList {
    /// Asks kbuild for its units.
    ///
    /// The build tree must be prepared. `make` runs make in the build tree with the given words, in the environment in
    /// which the kernel's Makefile calls for the root folder. Leave out make variables that switch off parts of the
    /// configuration (`CONFIG_DEBUG_INFO_BTF=`): they remove units, and nothing is made here anyway. The source tree
    /// stays unchanged; folders for objects may appear in the build tree.
    ///
    /// # Errors
    /// If make fails (`klpx::kbuild-units`), or its answer is not understood.
    pub fn ask(
        src: &Path,
        build: &Path,
        make: &mut dyn FnMut(&[OsString]) -> Result<CallOutcome>,
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
            return Err(Diagnosis::new(
                &codes::KBUILD_UNITS,
                "kbuild does not list its units",
                "make failed when it was asked what it would compile",
                "run make -n in the kernel's source to see whether its makefiles work; klpx knows \
                 kbuild from Linux 6.1 to 7.3",
            )
            .detail(outcome.lines.into_iter().filter(|line| line.contains("***")))
            .into());
        }
        UnitList::read(src, build, &records)
    }

    /// Combines the records of all folders.
    pub(super) fn read(src: &Path, build: &Path, records: &Path) -> Result<UnitList> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(records)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(|error| Diagnosis::io("read", records, &error))?;
        paths.sort();
        let mut parsed = Vec::with_capacity(paths.len());
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|error| Diagnosis::io("read", path, &error))?;
            parsed.push(FolderRecord::parse(&text).map_err(not_understood)?);
        }
        let absolute = |path: &Path| path.canonicalize().map_err(|error| Diagnosis::io("read", path, &error));
        let list = Builder::new(absolute(src)?, absolute(build)?, &parsed).build(&parsed);
        list.map_err(|what| not_understood(&what).into())
    }

    /// The unit with this index.
    pub fn unit(&self, id: UnitId) -> &KbuildUnit {
        &self.units[id.0 as usize]
    }

    /// The module with this index.
    pub fn module(&self, id: ModuleId) -> &KbuildModule {
        &self.modules[id.0 as usize]
    }

    /// All units, sorted by object.
    pub fn units(&self) -> impl ExactSizeIterator<Item = (UnitId, &KbuildUnit)> {
        self.units.iter().enumerate().map(|(n, unit)| (UnitId(index(n)), unit))
    }

    /// All modules, sorted by object.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = (ModuleId, &KbuildModule)> {
        self.modules.iter().enumerate().map(|(n, module)| (ModuleId(index(n)), module))
    }

    /// The unit with this object, a path in the build tree.
    pub fn by_object(&self, object: &str) -> Option<UnitId> {
        let at = self.units.binary_search_by(|unit| unit.object.as_str().cmp(object)).ok()?;
        Some(UnitId(index(at)))
    }

    /// The module with this object (`drivers/md/dm-mod.o`).
    pub fn module_by_object(&self, object: &str) -> Option<ModuleId> {
        let at = self.modules.binary_search_by(|module| module.object.as_str().cmp(object)).ok()?;
        Some(ModuleId(index(at)))
    }

    /// The units that are compiled from this file of the source tree, sorted by object. A file may be compiled several
    /// times.
    pub fn by_source(&self, source: &str) -> &[UnitId] {
        let of = |id: &UnitId| self.unit(*id).source.in_tree().unwrap_or_default();
        let start = self.by_source.partition_point(|id| of(id) < source);
        let count = self.by_source[start..].partition_point(|id| of(id) == source);
        &self.by_source[start..start + count]
    }

    /// Returns true if the unit is not linked itself ([`Home::Ingredient`]) and another unit from the same source is
    /// linked into vmlinux or a module.
    pub fn is_second_copy(&self, id: UnitId) -> bool {
        let of_kernel = |other: &UnitId| self.unit(*other).home != Home::Ingredient;
        let source = self.unit(id).source.in_tree();
        let others = source.map(|source| self.by_source(source)).unwrap_or_default();
        self.unit(id).home == Home::Ingredient && others.iter().any(of_kernel)
    }

    /// How objtool treats a unit.
    pub fn objtool(&self, id: UnitId) -> &ObjtoolRule {
        &self.rules[usize::from(self.unit(id).objtool)]
    }

    /// The files that the unit's command line includes (`-include`).
    pub fn forced(&self, id: UnitId) -> &[UnitSource] {
        &self.forced[usize::from(self.unit(id).forced)]
    }

    /// The folders of both trees in which the kernel's compilations search for included files. Empty if the folders of
    /// a compilation are unknown.
    pub fn searched(&self) -> &[UnitSource] {
        &self.searched
    }

    /// Files that are made on the way to units, sorted by path.
    pub fn generated(&self) -> &[Generated] {
        &self.generated
    }

    /// The variables whose value in a folder differs from the root folder, because a parent folder adds flags for all
    /// folders below (`subdir-ccflags-y`). `scripts/Makefile.build` needs the variables for this folder. Lists only
    /// such folders.
    pub fn inherited(&self) -> impl Iterator<Item = (&str, &[(String, String)])> {
        self.inherited.iter().map(|(folder, variables)| (folder.as_str(), &variables[..]))
    }

    /// kbuild's name of the architecture (`SRCARCH`): the folder in `arch`.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The path of objtool in the build tree. `None` for a kernel without objtool.
    pub fn objtool_program(&self) -> Option<&str> {
        self.objtool.as_deref()
    }
}

/// The words for make: the makefile that replaces scripts/Makefile.build, also where rules call another folder by
/// `$(build)` (scripts/Kbuild.include), and the variables of that makefile.
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
    Diagnosis::new(
        &codes::KBUILD_UNITS,
        "kbuild's list of units is not understood",
        what.lines().next().unwrap_or_default(),
        "klpx knows kbuild from Linux 6.1 to 7.3",
    )
}

/// kbuild has far fewer than 2^32 units.
fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
