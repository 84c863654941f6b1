//! The source of an external module that is to be patched. kbuild builds it against the kernel (`make M=`), original
//! and patched, in a private copy at one path. Never writes to the user's folder.
//!
//! The file `NAME.mod` that kbuild leaves lists a module's units. kbuild's records show how the units were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes, words};
use walkdir::WalkDir;

use crate::files;
use crate::files::{create_parent, remove_dir, remove_file};
use crate::kbuild::make::{MakeResult, MakeSettings, patched_fails};
use crate::kbuild::objtool;
use crate::kbuild::recorded::RecordedCommands;
use crate::kernel::{SECTION_FLAGS, SectionOrigin};
use crate::patch::AppliedPatch;
use crate::progress::Progress;
use crate::toolchain::Lto;
use crate::tree::{self, SourceFileKind};
use crate::workspace::Workspace;
use crate::workspace::compilation::{exports, redirected};
use crate::workspace::units::copy_object;
use crate::workspace::work_dir::WorkDir;

/// An external module that is to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalSource {
    /// The folder whose Kbuild or Makefile builds the module.
    pub folder: PathBuf,
    /// The kernel's name of the module.
    pub module: String,
}

/// One unit of an external module, compiled from both sources, after objtool.
#[derive(Clone, Debug)]
pub struct ExternalPair {
    /// The unit's object, as a path in the module's folder.
    pub unit: String,
    /// The original as kbuild makes it, if the compared original is compiled with other flags.
    pub witness: Option<PathBuf>,
    /// The compared object of the original source.
    pub original: PathBuf,
    /// The object of the patched source.
    pub patched: PathBuf,
    /// The checksums of its exports, as kbuild records them.
    pub exports: String,
}

/// The units of an external module that the patch changes.
#[derive(Debug)]
pub struct ExternalPairs {
    /// The pairs, in the order of their units' names.
    pub pairs: Vec<ExternalPair>,
    /// The exports of the folder's modules, in the format of `Module.symvers`.
    pub symvers: PathBuf,
    /// The private copy that was compiled.
    pub source: PathBuf,
    work: WorkDir,
}

impl ExternalPairs {
    /// The folder of the objects, for further files that are made from them.
    pub fn work_dir(&self) -> &Path {
        self.work.path()
    }

    /// Keeps the folder when this value is dropped and when the workspace is used again. Returns its path.
    pub fn keep(&mut self) -> &Path {
        self.work.keep = true;
        &self.work.path
    }
}

/// Units by module, as paths in the copy.
type ModuleUnits = BTreeMap<String, Vec<String>>;

impl Workspace {
    /// Builds a module from both sources. `symvers` lists the kernel's exports.
    ///
    /// # Errors
    /// A kernel with LTO, a source that does not build or does not build the module, a patch that also changes other
    /// modules or adds a unit, an interrupt.
    pub fn external_pairs(
        &self,
        external: &ExternalSource,
        prepared: &AppliedPatch,
        symvers: &Path,
        progress: &dyn Progress,
    ) -> Result<ExternalPairs> {
        if self.kernel.toolchain().lto != Lto::None {
            let what = "an external module of a kernel with LTO";
            return Err(Diagnosis::new(
                &codes::EXTERNAL_LTO,
                what,
                "its units are no native code before the module is linked",
                "klpx patches external modules of kernels without LTO",
            )
            .into());
        }
        let work = self.work_dir()?;
        let source = self.dir.join("external");
        self.copy_external(&external.folder, &source)?;
        let source = source.canonicalize().map_err(|error| Diagnosis::io("open", &source, &error))?;
        progress.step("compiling the module");
        self.prepare_modules(symvers)?;
        self.make_modules(&source, module_does_not_build)?;
        let modules = self.modules_of(&source)?;
        let Some(units) = modules.get(&external.module) else {
            return Err(no_such_module(external, &modules));
        };
        let side = |name: &str| work.path().join(name);
        for unit in modules.values().flatten() {
            keep(&source, unit, &side("built"))?;
        }
        progress.step("compiling the patched module");
        let originals: Vec<ExternalOriginal> =
            units.iter().map(|unit| ExternalOriginal::read(&source, unit)).collect::<Result<_>>()?;
        if self.kernel.sections() == SectionOrigin::WhereCompared {
            for original in &originals {
                self.compile_external(&source, original, &side("original"))?;
            }
        }
        for change in &prepared.changes {
            let path = source.join(&change.path);
            match &change.patched {
                Some(text) => {
                    create_parent(&path)?;
                    std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
                }
                None => remove_file(&path)?,
            }
        }
        self.make_modules(&source, patched_fails)?;
        let patched_modules = self.modules_of(&source)?;
        let changed = changed(&source, &patched_modules, &side("built"))?;
        refuse_others(external, &modules, &patched_modules, &changed)?;
        let objtool = objtool_of(&source, &external.module)?;
        let mut pairs = Vec::new();
        for original in originals.into_iter().filter(|original| changed.contains(&original.unit)) {
            let unit = &original.unit;
            let witness =
                (self.kernel.sections() == SectionOrigin::WhereCompared).then(|| side("built").join(unit));
            let patched = side("patched").join(unit);
            match &witness {
                Some(_) => self.compile_external(&source, &original, &side("patched"))?,
                None => {
                    keep(&source, unit, &side("patched"))?;
                    copy_to(&side("built").join(unit), &side("original").join(unit))?;
                }
            }
            let compared = side("original").join(unit);
            for object in witness.iter().chain([&compared, &patched]) {
                self.finish_external(objtool.as_deref(), unit, object)?;
            }
            let (unit, exports) = (original.unit, original.exports);
            pairs.push(ExternalPair { unit, witness, original: compared, patched, exports });
        }
        Ok(ExternalPairs { pairs, symvers: source.join("Module.symvers"), source, work })
    }

    /// Makes a fresh copy of a folder, without build products.
    fn copy_external(&self, from: &Path, to: &Path) -> Result<()> {
        remove_dir(to)?;
        std::fs::create_dir_all(to).map_err(|error| Diagnosis::io("create", to, &error))?;
        for entry in tree::files(from)? {
            let (from, to) = (from.join(&entry.path), to.join(&entry.path));
            create_parent(&to)?;
            let copied = match &entry.kind {
                SourceFileKind::Link(target) => std::os::unix::fs::symlink(target, &to),
                SourceFileKind::File { executable, .. } => files::copy(&from, &to, *executable),
            };
            copied.map_err(|error| Diagnosis::io("copy", &from, &error))?;
        }
        Ok(())
    }

    /// The modules and their units, from kbuild's `.mod` files.
    fn modules_of(&self, source: &Path) -> Result<ModuleUnits> {
        let mut modules = ModuleUnits::new();
        for entry in WalkDir::new(source).sort_by_file_name() {
            let entry = entry.map_err(|error| Diagnosis::io("read", source, &error.into()))?;
            let path = entry.path();
            if path.extension().is_none_or(|ending| ending != "mod") {
                continue;
            }
            let text = std::fs::read_to_string(path).map_err(|error| Diagnosis::io("read", path, &error))?;
            let folder = path.parent().unwrap_or(source);
            let unit = |word: &str| {
                let places = [PathBuf::from(word), folder.join(word), source.join(word)];
                let found = places.into_iter().filter_map(|place| place.canonicalize().ok());
                found.filter_map(|place| Some(place.strip_prefix(source).ok()?.to_str()?.to_owned())).next()
            };
            let units: Option<Vec<String>> = text.split_whitespace().map(unit).collect();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            match units {
                Some(units) => modules.insert(name, units),
                None => return Err(not_understood(path, &text)),
            };
        }
        Ok(modules)
    }

    /// Compiles a unit from the current source, with sections, below a folder.
    fn compile_external(&self, source: &Path, original: &ExternalOriginal, below: &Path) -> Result<()> {
        let to = below.join(&original.unit);
        create_parent(&to)?;
        let words = original.record.compilation().unwrap_or_default();
        let target = words.iter().skip_while(|word| *word != "-o").nth(1).cloned().unwrap_or_default();
        let mut words = redirected(words, &target, &to);
        words.extend(SECTION_FLAGS.split(' ').map(str::to_owned));
        // kbuild compiles in its build tree or, since 6.13, in the module's folder, and uses paths relative to that
        // folder.
        let dir = if Path::new(&target).is_absolute() { self.build_dir() } else { source.to_owned() };
        let outcome = self.run_in(&dir, &words)?;
        if outcome.success {
            return Ok(());
        }
        self.with_make(|make| {
            Err(patched_fails(make, &MakeResult { success: false, units: 0, lines: outcome.lines }))
        })
    }

    /// Runs objtool on a unit's object, if the module's units have such a run.
    fn finish_external(&self, command: Option<&[String]>, unit: &str, object: &Path) -> Result<()> {
        let Some(command) = command else { return Ok(()) };
        let words: Vec<String> = command.iter().cloned().chain([object.display().to_string()]).collect();
        let outcome = self.run_in(&self.build_dir(), &words)?;
        if outcome.success {
            return Ok(());
        }
        Err(objtool::failure("objtool", unit, outcome.lines).into())
    }
}

/// objtool's arguments for the whole module, without the object. `None` if kbuild runs objtool on units, which are then
/// finished.
fn objtool_of(source: &Path, module: &str) -> Result<Option<Vec<String>>> {
    let is_list = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".mod").is_some_and(|name| name.replace('-', "_") == module)
    };
    let list = WalkDir::new(source).into_iter().flatten().find(|entry| is_list(entry.path()));
    let object = list.map(|entry| entry.path().with_extension("o")).unwrap_or_default();
    let relative = object.strip_prefix(source).unwrap_or(&object);
    let Some(record) = RecordedCommands::read(source, relative) else {
        return Err(not_understood(&object, ""));
    };
    if record.compilation().is_some() {
        return Ok(None); // The module is its unit, and kbuild has run objtool on that.
    }
    let is_objtool = |words: &&Vec<String>| words.first().is_some_and(|word| word.ends_with("/objtool"));
    let words = record.commands.iter().find(is_objtool).cloned();
    Ok(words.map(|mut words| {
        words.pop();
        words
    }))
}

/// A unit as kbuild made it from the original source.
struct ExternalOriginal {
    unit: String,
    record: RecordedCommands,
    exports: String,
}

impl ExternalOriginal {
    fn read(source: &Path, unit: &str) -> Result<ExternalOriginal> {
        let record =
            RecordedCommands::read(source, Path::new(unit)).filter(|record| record.compilation().is_some());
        let name = Path::new(unit).file_name().unwrap_or_default().to_string_lossy();
        let command = source.join(unit).with_file_name(format!(".{name}.cmd"));
        let text =
            std::fs::read_to_string(&command).map_err(|error| Diagnosis::io("read", &command, &error))?;
        let record = record.ok_or_else(|| not_understood(&command, &text))?;
        Ok(ExternalOriginal { unit: unit.to_owned(), record, exports: exports(&text) })
    }
}

fn keep(source: &Path, unit: &str, below: &Path) -> Result<()> {
    copy_to(&source.join(unit), &below.join(unit))
}

fn copy_to(from: &Path, to: &Path) -> Result<()> {
    create_parent(to)?;
    copy_object(from, to)
}

/// The units whose objects differ from the kept objects.
fn changed(source: &Path, modules: &ModuleUnits, kept: &Path) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for unit in modules.values().flatten() {
        let before = kept.join(unit);
        let same = before.is_file()
            && files::same(&before, &source.join(unit))
                .map_err(|error| Diagnosis::io("read", &before, &error))?;
        if !same {
            changed.push(unit.clone());
        }
    }
    changed.sort();
    changed.dedup();
    Ok(changed)
}

/// Refuses a patch that also changes another module of the folder, or the list of a module's units.
fn refuse_others(
    external: &ExternalSource,
    before: &ModuleUnits,
    patched_modules: &ModuleUnits,
    changed: &[String],
) -> Result<()> {
    if before != patched_modules {
        let what = "the patch changes which units the module has";
        return Err(Diagnosis::new(
            &codes::EXTERNAL_UNITS,
            what,
            "klpx compares unit by unit, and each unit must be in both builds",
            "put new code into a file that the module has already",
        )
        .into());
    }
    let own = before.get(&external.module).map_or(&[][..], Vec::as_slice);
    let others: Vec<&String> = changed.iter().filter(|unit| !own.contains(unit)).collect();
    let Some(first) = others.first() else { return Ok(()) };
    Err(Diagnosis::new(
        &codes::ANOTHER_MODULE,
        "the patch changes another module too",
        format!("{} of other modules than {} differ", words::plural(others.len(), "unit"), external.module),
        "make a patch and a livepatch for each module",
    )
    .place(DiagnosisPlace::file(first.as_str(), None))
    .into())
}

fn module_does_not_build(make: &MakeSettings<'_>, built: &MakeResult) -> klpx_diagnosis::Failure {
    let what = "the module's unpatched source does not build";
    let remedy = "build it by hand against the kernel's headers to see whether it does";
    make.failure(built, &codes::ORIGINAL_SOURCE_DOES_NOT_BUILD, what, remedy)
}

fn no_such_module(external: &ExternalSource, modules: &ModuleUnits) -> klpx_diagnosis::Failure {
    let names: Vec<&str> = modules.keys().map(String::as_str).collect();
    let what = format!("{} builds no module {}", external.folder.display(), external.module);
    Diagnosis::new(
        &codes::NO_SUCH_MODULE,
        what,
        match names.is_empty() {
            true => "it builds no module at all".to_owned(),
            false => format!("it builds {}", names.join(", ")),
        },
        "name the folder of the module's own source with --module-source",
    )
    .into()
}

fn not_understood(path: &Path, text: &str) -> klpx_diagnosis::Failure {
    Diagnosis::new(
        &codes::NO_COMMAND,
        "kbuild's record can't be understood",
        "klpx makes the patched module with the commands of the original one",
        "report this file and the kernel's version",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), None))
    .detail(text.lines().map(str::to_owned))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(before: &ModuleUnits, patched_modules: &ModuleUnits, changed: &[&str]) -> Option<&'static str> {
        let external = ExternalSource { folder: "m".into(), module: "one".into() };
        let changed: Vec<String> = changed.iter().map(|unit| (*unit).to_owned()).collect();
        let failure = refuse_others(&external, before, patched_modules, &changed).err()?;
        failure.diagnoses().next().map(|diagnosis| diagnosis.code)
    }

    #[test]
    fn a_patch_is_for_one_module_and_keeps_its_units() {
        let of = |list: &[(&str, &[&str])]| -> ModuleUnits {
            let units = |units: &[&str]| units.iter().map(|unit| (*unit).to_owned()).collect();
            list.iter().map(|(module, all)| ((*module).to_owned(), units(all))).collect()
        };
        let both = of(&[("one", &["a.o", "shared.o"]), ("two", &["b.o", "shared.o"])]);
        assert_eq!(code(&both, &both, &["a.o", "shared.o"]), None);
        assert_eq!(code(&both, &both, &["a.o", "b.o"]), Some("klpx::another-module"));
        let more = of(&[("one", &["a.o", "new.o", "shared.o"]), ("two", &["b.o", "shared.o"])]);
        assert_eq!(code(&both, &more, &["a.o"]), Some("klpx::external-units"));
    }
}
