//! The translation units that a patch touches: those made from an edited file, those whose text an edited header
//! changes, and those that the patch adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes, words};

use crate::files;
use crate::kbuild::environment::Environment;
use crate::kbuild::estimate::{self, Making};
use crate::kbuild::includes::RustSide;
use crate::kbuild::{Home, IncludeGraph, KbuildUnit, ObjectRule, ObjtoolRule, UnitId, UnitList};
use crate::parallel::each;
use crate::patch::{AppliedPatch, FileEdit};
use crate::patch::{FileKind, classify};
use crate::progress::Progress;
use crate::workspace::{Workspace, rust};

/// A unit, with the facts needed to compile it and to find it in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedUnit {
    /// The unit.
    pub unit: KbuildUnit,
    /// How objtool treats the unit.
    pub objtool: ObjtoolRule,
    /// The kernel objects that the unit is part of: `vmlinux`, or names of modules. Empty for code that runs elsewhere,
    /// such as vDSO code.
    pub objects: Vec<String>,
}

impl TouchedUnit {
    /// A unit of kbuild's list.
    pub fn from_list(list: &UnitList, id: UnitId) -> TouchedUnit {
        let unit = list.unit(id).clone();
        let objects = match &unit.home {
            Home::Vmlinux => vec!["vmlinux".to_owned()],
            Home::Ingredient => Vec::new(),
            Home::Modules(modules) => modules.iter().map(|&module| list.module(module).name()).collect(),
        };
        TouchedUnit { unit, objtool: list.objtool(id).clone(), objects }
    }

    /// The object's path in the build tree.
    pub fn object(&self) -> &str {
        &self.unit.object
    }
}

/// The units that a patch touches, sorted by object.
#[derive(Debug, Default)]
pub struct TouchedUnits {
    pub(crate) units: Vec<TouchedUnit>,
    pub(crate) added: Vec<TouchedUnit>,
    notes: Vec<Note>,
}

impl TouchedUnits {
    /// The touched units that both sources have, sorted by object.
    pub fn units(&self) -> &[TouchedUnit] {
        &self.units
    }

    /// Splits off the wanted units among those that both sources have. The second value keeps the rest and the added
    /// units.
    pub fn split(self, is_wanted: impl Fn(&TouchedUnit) -> bool) -> (Vec<TouchedUnit>, TouchedUnits) {
        let (wanted, units) = self.units.into_iter().partition(is_wanted);
        (wanted, TouchedUnits { units, ..self })
    }

    /// Takes the units that only the patched source has.
    pub fn take_added(&mut self) -> Vec<TouchedUnit> {
        std::mem::take(&mut self.added)
    }

    /// Notes that stop nothing.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The number of touched units.
    pub fn len(&self) -> usize {
        self.units.len() + self.added.len()
    }

    /// Returns true if no unit is touched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The edits of a patch, grouped by their consequences.
#[derive(Default)]
struct PatchEdits<'p> {
    /// Sources that can have their own unit.
    sources: Vec<&'p str>,
    /// Changed sources and headers, which other files may include.
    edited: Vec<&'p str>,
    /// New sources and headers.
    added: Vec<&'p str>,
    /// True if a header is changed.
    headers: bool,
    /// True if a folder's makefile changes, or a source is added or removed.
    folders: bool,
}

impl Workspace {
    /// Finds the units that a patch touches. Compiles nothing. Preprocesses the units that include an edited file, from
    /// both sources.
    ///
    /// # Errors
    /// A file that no unit of this kernel is made from, or whose effect klpx can't follow.
    pub fn touched(
        &self,
        prepared: &AppliedPatch,
        list: &UnitList,
        progress: &dyn Progress,
    ) -> Result<TouchedUnits> {
        let edits = self.edits(prepared)?;
        // A source without its own unit is meant to be included.
        let headers = edits.headers || edits.sources.iter().any(|path| list.by_source(path).is_empty());
        let graph = self.includes(list, headers)?;
        rust::check(RustSide::from_config(self.kernel.config()), &graph, list, prepared)?;
        let mut touched = TouchedUnits::default();
        let mut ids: Vec<UnitId> =
            edits.sources.iter().flat_map(|path| list.by_source(path)).copied().collect();
        let candidates = graph.dependents(&edits.edited, &edits.added, list);
        let candidates: Vec<UnitId> = candidates.into_iter().filter(|id| !ids.contains(id)).collect();
        if !candidates.is_empty() {
            let other = self.with_other_text(prepared, list, &candidates, progress)?;
            touched.notes.extend(included_note(candidates.len(), other.len()));
            ids.extend(other);
        }
        ids.sort_unstable();
        ids.dedup();
        let mut faults = Vec::new();
        for id in ids {
            let unit = list.unit(id);
            let is_edited = unit.source.in_tree().is_some_and(|source| edits.sources.contains(&source));
            if is_edited && list.is_second_copy(id) {
                touched.notes.push(Note::new(&codes::SECOND_COPY, second_copy(unit)));
                continue;
            }
            match (&unit.home, &unit.rule) {
                (_, ObjectRule::C) => touched.units.push(TouchedUnit::from_list(list, id)),
                (_, ObjectRule::Offsets) => faults.push(generated_header(unit)),
                _ => faults.push(not_c(unit)),
            }
        }
        Failure::all(faults)?;
        if edits.folders {
            touched.added = self.added(prepared, list)?;
        }
        if touched.is_empty() {
            return Err(not_compiled(prepared).into());
        }
        let count = touched.len();
        if let Some(time) = estimate::long(Making::Object, count, self.kernel.jobs()) {
            let units = words::plural(count, "unit");
            progress.note(&format!("compiling {units} from both sources takes {time}"));
        }
        Ok(touched)
    }

    /// The C units whose source contains a word, sorted by object. Headers are not searched.
    pub fn units_with_word(&self, list: &UnitList, word: &[u8]) -> Vec<TouchedUnit> {
        let source = self.source_dir();
        let finder = memchr::memmem::Finder::new(word);
        let of_word = |byte: Option<&u8>| byte.is_some_and(|&b| b == b'_' || b.is_ascii_alphanumeric());
        let has_word = |text: &[u8]| {
            finder.find_iter(text).any(|at| {
                !of_word(at.checked_sub(1).and_then(|before| text.get(before)))
                    && !of_word(text.get(at + word.len()))
            })
        };
        let units: Vec<(UnitId, &KbuildUnit)> =
            list.units().filter(|(_, unit)| unit.rule == ObjectRule::C).collect();
        let found = each(self.kernel.jobs(), units.len(), |at| {
            let path = units[at].1.source.in_tree().map(|path| source.join(path));
            path.and_then(|path| std::fs::read(path).ok()).is_some_and(|text| has_word(&text))
        });
        let found = units.iter().zip(found).filter(|(_, found)| *found);
        let mut units: Vec<TouchedUnit> =
            found.map(|((id, _), _)| TouchedUnit::from_list(list, *id)).collect();
        units.sort_by(|a, b| a.object().cmp(b.object()));
        units
    }

    fn edits<'p>(&self, prepared: &'p AppliedPatch) -> Result<PatchEdits<'p>> {
        let mut edits = PatchEdits::default();
        let mut faults = Vec::new();
        for change in &prepared.changes {
            let path = change.path.as_str();
            let kind = classify(path, self.kernel.arch());
            if kind.is_c() {
                if change.original.is_some() { &mut edits.edited } else { &mut edits.added }.push(path);
            }
            match kind {
                FileKind::Header | FileKind::Included => edits.headers = true,
                FileKind::Source if change.original.is_none() || change.patched.is_none() => {
                    edits.folders = true
                }
                FileKind::Source => edits.sources.push(path),
                FileKind::BuildFile if changes_flags(change) => faults.push(flags(change)),
                FileKind::BuildFile => edits.folders = true,
                _ => faults.push(not_followed(change)),
            }
        }
        Failure::all(faults)?;
        Ok(edits)
    }

    /// The graph of includes, read from the source once for a kernel. For a header, generated files are also read.
    fn includes(&self, list: &UnitList, headers: bool) -> Result<IncludeGraph> {
        let path = self.dir.join(if headers { "graph-of-all.json" } else { "graph.json" });
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(graph) = kept {
            return Ok(graph);
        }
        if headers {
            self.make_generated(list)?;
        }
        let rust = RustSide::from_config(self.kernel.config());
        let graph = IncludeGraph::scan(&self.source_dir(), &self.build_dir(), list, rust);
        let text = serde_json::to_vec(&graph).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&path, &text)?;
        Ok(graph)
    }

    /// Makes files that are generated on the way to units, as far as possible, so that they can be read. A file that
    /// can't be made counts as a file that may include everything.
    fn make_generated(&self, list: &UnitList) -> Result<()> {
        let build = self.build_dir();
        let mut folders: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for made in
            list.generated().iter().filter(|made| made.is_source() && !build.join(&made.path).exists())
        {
            folders.entry(&made.folder).or_default().push(PathBuf::from(&made.path));
        }
        let environment = Environment::read(&self.dir)?;
        self.with_make(|make| {
            for (folder, files) in &folders {
                let built = environment.make(make, folder, files, &mut |_| {})?;
                tracing::debug!(folder, success = built.success, "generated files");
            }
            Ok(())
        })
    }

    /// The units that only the patched source has.
    fn added(&self, prepared: &AppliedPatch, list: &UnitList) -> Result<Vec<TouchedUnit>> {
        let environment = Environment::read(&self.dir)?;
        let patched = self.while_patched(prepared, |_| self.with_make(|make| environment.units(make)))?;
        let mut added = Vec::new();
        let mut faults = Vec::new();
        for (id, unit) in patched.units() {
            if list.by_object(&unit.object).is_some() {
                continue;
            }
            let new = TouchedUnit::from_list(&patched, id);
            let of_new_module = |name: &String| {
                name != "vmlinux" && !list.modules().any(|(_, module)| module.name() == *name)
            };
            match new.objects.iter().find(|name| of_new_module(name)) {
                Some(module) => faults.push(new_module(module)),
                None => added.push(new),
            }
        }
        Failure::all(faults)?;
        Ok(added)
    }
}

fn second_copy(unit: &KbuildUnit) -> String {
    let source = unit.source.in_tree().unwrap_or_default();
    format!(
        "{} is made from {source} too, and stays as it is: its code runs outside of the kernel, and the kernel has the \
         finished image",
        unit.object
    )
}

/// `12 more units include an edited file; the text of 2 differs`.
fn included_note(candidates: usize, other: usize) -> Option<Note> {
    (candidates > 0).then(|| {
        let verb = if candidates == 1 { "includes" } else { "include" };
        let units = words::plural(candidates, "more unit");
        let other = words::count(other);
        let text = format!("{units} {verb} an edited file; the text of {other} differs");
        Note::new(&codes::INCLUDED_FILE, text)
    })
}

/// Returns true if the edit of a Makefile may change the compilation of existing units: a changed line names flags, or
/// has words that look like flags.
fn changes_flags(change: &FileEdit) -> bool {
    let lines = |text: &Option<Vec<u8>>| -> BTreeSet<String> {
        String::from_utf8_lossy(text.as_deref().unwrap_or_default()).lines().map(str::to_owned).collect()
    };
    let (original, patched) = (lines(&change.original), lines(&change.patched));
    let is_flag = |word: &str| word.starts_with('-') && word.len() > 1;
    original.symmetric_difference(&patched).any(|line| {
        let code = line.split('#').next().unwrap_or_default();
        code.to_ascii_lowercase().contains("flags") || code.split_whitespace().any(is_flag)
    })
}

fn flags(change: &FileEdit) -> Diagnosis {
    Diagnosis::new(
        &codes::BUILD_FLAGS,
        "the patch changes how units are compiled",
        "every unit of the folder may come out as other code, changed by the patch or not",
        "leave the flags out of the patch",
    )
    .place(DiagnosisPlace::file(change.path.clone(), None))
}

fn new_module(name: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NEW_MODULE,
        "the patch adds a module",
        "a livepatch replaces functions of what is there",
        "build and load the new module on its own, and leave it out of the patch",
    )
    .place(DiagnosisPlace::symbol(name))
}

fn generated_header(unit: &KbuildUnit) -> Diagnosis {
    Diagnosis::new(
        &codes::GENERATED_HEADER,
        "the patch changes a generated header",
        "offsets and sizes of structures go from there into assembly, which a livepatch does not replace",
        "keep the layout of structures as it is; keep new state in a shadow variable",
    )
    .place(DiagnosisPlace::file(unit.source.in_tree().unwrap_or(&unit.object), None))
}

fn not_followed(change: &FileEdit) -> Diagnosis {
    Diagnosis::new(
        &codes::GENERATED_SOURCE,
        "klpx can't tell what is made from this file",
        "it is neither C nor a header, and what kbuild makes of it can be anywhere in the kernel",
        "leave this file out of the patch, or make the change in the C code",
    )
    .place(DiagnosisPlace::file(change.path.clone(), None))
}

fn not_c(unit: &KbuildUnit) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_C,
        "the patch changes a unit that is not compiled from C",
        "klpx compares the code that compilers make of C, and can't tell whether the change \
         reaches this unit",
        "leave this file out of the patch",
    )
    .place(DiagnosisPlace::file(unit.object.clone(), None))
}

fn not_compiled(prepared: &AppliedPatch) -> Diagnosis {
    Diagnosis::new(
        &codes::NOTHING_CHANGED,
        "the patch changes nothing of this kernel",
        "no unit of vmlinux or of a module is made from the files that it edits, with this configuration",
        "there is nothing to livepatch in this kernel",
    )
    .detail(prepared.paths().map(str::to_owned))
}
