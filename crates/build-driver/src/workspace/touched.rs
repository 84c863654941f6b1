//! Which translation units a patch touches: those made from an edited file, those whose text an edited header changes,
//! and those that the patch adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use klpx_diagnosis::{Class, Diagnosis, Failure, Note, Place, Result, words};

use crate::files;
use crate::kbuild::environment::Environment;
use crate::kbuild::estimate::{self, Making};
use crate::kbuild::{Home, IncludeGraph, ObjtoolRule, Rule, Unit, UnitId, UnitList};
use crate::parallel::each;
use crate::patch::apply::{Change, Prepared};
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
    /// The kernel objects that it is part of: `vmlinux`, or names of modules; none for code that runs elsewhere, such as
    /// the vdso's.
    pub objects: Vec<String>,
}

impl TouchedUnit {
    /// A unit of kbuild's list.
    pub fn of(list: &UnitList, id: UnitId) -> TouchedUnit {
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

/// The units that a patch touches, by object.
#[derive(Debug, Default)]
pub struct Touched {
    pub(crate) units: Vec<TouchedUnit>,
    pub(crate) added: Vec<TouchedUnit>,
    notes: Vec<Note>,
}

impl Touched {
    /// Units that both sources have, by object.
    pub fn units(&self) -> &[TouchedUnit] {
        &self.units
    }

    /// Those of the units that both sources have that are wanted, and the rest, with the units that are added.
    pub fn split(self, is_wanted: impl Fn(&TouchedUnit) -> bool) -> (Vec<TouchedUnit>, Touched) {
        let (wanted, units) = self.units.into_iter().partition(is_wanted);
        (wanted, Touched { units, ..self })
    }

    /// Takes the units that only the patched source has.
    pub fn take_added(&mut self) -> Vec<TouchedUnit> {
        std::mem::take(&mut self.added)
    }

    /// Things to know that stop nothing.
    pub fn notes(&self) -> &[Note] {
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

/// What a patch edits, by what follows from an edit.
#[derive(Default)]
struct Edits<'p> {
    /// Sources of units of their own.
    sources: Vec<&'p str>,
    /// Sources and headers, which others may include.
    edited: Vec<&'p str>,
    /// New ones.
    added: Vec<&'p str>,
    /// Some of them are headers.
    headers: bool,
    /// Makefiles of folders, and sources that come or go.
    folders: bool,
}

impl Workspace {
    /// Finds the units that a patch touches. Compiles nothing; units that include an edited file are preprocessed, from
    /// both sources.
    ///
    /// # Errors
    /// A file that no unit of this kernel is made from, or one that klpx can't follow.
    pub fn touched(&self, prepared: &Prepared, list: &UnitList, progress: &dyn Progress) -> Result<Touched> {
        let edits = self.edits(prepared)?;
        // A source without a unit of its own is made to be included.
        let headers = edits.headers || edits.sources.iter().any(|path| list.by_source(path).is_empty());
        let graph = self.includes(list, headers)?;
        let mut touched = Touched::default();
        let mut ids: Vec<UnitId> =
            edits.sources.iter().flat_map(|path| list.by_source(path)).copied().collect();
        let candidates = graph.dependents(&edits.edited, &edits.added, list);
        let candidates: Vec<UnitId> = candidates.into_iter().filter(|id| !ids.contains(id)).collect();
        if !candidates.is_empty() {
            let other = self.with_other_text(prepared, list, &candidates, progress)?;
            touched.notes.extend(told(candidates.len(), other.len()));
            ids.extend(other);
        }
        ids.sort_unstable();
        ids.dedup();
        let mut faults = Vec::new();
        for id in ids {
            let unit = list.unit(id);
            let is_edited = unit.source.in_tree().is_some_and(|source| edits.sources.contains(&source));
            if is_edited && list.is_second_copy(id) {
                touched.notes.push(Note::new("klpx::second-copy", second_copy(unit)));
                continue;
            }
            match (&unit.home, &unit.rule) {
                (_, Rule::C) => touched.units.push(TouchedUnit::of(list, id)),
                (_, Rule::Offsets) => faults.push(generated_header(unit)),
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

    /// The units of C whose source has a word in it, by object. What their headers hold is not looked at.
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
        let units: Vec<(UnitId, &Unit)> = list.units().filter(|(_, unit)| unit.rule == Rule::C).collect();
        let found = each(self.kernel.jobs(), units.len(), |at| {
            let path = units[at].1.source.in_tree().map(|path| source.join(path));
            path.and_then(|path| std::fs::read(path).ok()).is_some_and(|text| has_word(&text))
        });
        let found = units.iter().zip(found).filter(|(_, found)| *found);
        let mut units: Vec<TouchedUnit> = found.map(|((id, _), _)| TouchedUnit::of(list, *id)).collect();
        units.sort_by(|a, b| a.object().cmp(b.object()));
        units
    }

    fn edits<'p>(&self, prepared: &'p Prepared) -> Result<Edits<'p>> {
        let mut edits = Edits::default();
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

    /// Who includes whom; read from the source once for a kernel. For a header, what is generated has to be read too.
    fn includes(&self, list: &UnitList, headers: bool) -> Result<IncludeGraph> {
        let path = self.dir.join(if headers { "includes-of-all.json" } else { "includes.json" });
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(graph) = kept {
            return Ok(graph);
        }
        if headers {
            self.make_generated(list)?;
        }
        let graph = IncludeGraph::scan(&self.source_dir(), &self.build_dir(), list);
        let text = serde_json::to_vec(&graph).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&path, &text)?;
        Ok(graph)
    }

    /// Makes what is generated on the way to units, as far as it can be made: what is there can be read. What can't be
    /// made counts as a file that may include everything.
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
    fn added(&self, prepared: &Prepared, list: &UnitList) -> Result<Vec<TouchedUnit>> {
        let environment = Environment::read(&self.dir)?;
        let patched = self.while_patched(prepared, |_| self.with_make(|make| environment.units(make)))?;
        let mut added = Vec::new();
        let mut faults = Vec::new();
        for (id, unit) in patched.units() {
            if list.by_object(&unit.object).is_some() {
                continue;
            }
            let new = TouchedUnit::of(&patched, id);
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

fn second_copy(unit: &Unit) -> String {
    let source = unit.source.in_tree().unwrap_or_default();
    format!(
        "{} is made from {source} too, and stays as it is: its code runs outside of the kernel, and the kernel has the \
         finished image",
        unit.object
    )
}

/// `12 units include an edited file, 2 of them are changed by it`.
fn told(candidates: usize, other: usize) -> Option<Note> {
    (candidates > 0).then(|| {
        let verb = if candidates == 1 { "includes" } else { "include" };
        let units = words::plural(candidates, "more unit");
        let other = words::count(other);
        let text = format!("{units} {verb} an edited file; the text of {other} differs");
        Note::new("klpx::included-file", text)
    })
}

/// True when a Makefile's edit may change how units that were there before are compiled: it names flags, or holds words
/// that look like some.
fn changes_flags(change: &Change) -> bool {
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

fn flags(change: &Change) -> Diagnosis {
    Diagnosis::new("klpx::build-flags", Class::NotLivepatchable, "the patch changes how units are compiled")
        .place(Place::file(change.path.clone(), None))
        .why("every unit of the folder may come out as other code, changed by the patch or not")
        .remedy("leave the flags out of the patch")
}

fn new_module(name: &str) -> Diagnosis {
    Diagnosis::new("klpx::new-module", Class::NotLivepatchable, "the patch adds a module")
        .place(Place::symbol(name))
        .why("a livepatch replaces functions of what is there")
        .remedy("build and load the new module on its own, and leave it out of the patch")
}

fn generated_header(unit: &Unit) -> Diagnosis {
    Diagnosis::new("klpx::generated-header", Class::NotLivepatchable, "the patch changes a generated header")
        .place(Place::file(unit.source.in_tree().unwrap_or(&unit.object), None))
        .why(
            "offsets and sizes of structures go from there into assembly, which a livepatch does not replace",
        )
        .remedy("keep the layout of structures as it is; keep new state in a shadow variable")
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
