//! What the debug information of one build of an object says of inlining: which functions the patch edits, and which
//! functions hold inlined copies of them.
//!
//! Missing debug information does not prove that no copy exists: compilers leave out a copy if no instruction belongs
//! to it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use klpx_build_driver::{AppliedPatch, PlacedHunk};
use klpx_diagnosis::{Note, Result, codes};
use klpx_inline_check::survey::{
    CopyId, Function, FunctionId, Inlined, InlinedId, OutOfLine, Survey, TextId,
};
use klpx_normalize::elf::{ElfFile, SectionId};
use klpx_normalize::name::without_promotion;
use klpx_normalize::object::{Item, ItemId, Object};
use serde::Serialize;

/// An inlined call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InlinedCall {
    /// The function that was inlined.
    pub function: String,
    /// The file of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl fmt::Display for InlinedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " at {file}:{line}"),
            (Some(file), None) => write!(f, " in {file}"),
            (None, _) => Ok(()),
        }
    }
}

/// An inlined copy of a function that the patch edits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Inlines {
    /// The inlined calls that lead to the edited function, the holder's own call first. Empty if the holder calls the
    /// edited function itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_way_of: Vec<InlinedCall>,
    /// The call of the edited function itself.
    #[serde(flatten)]
    pub call: InlinedCall,
}

impl fmt::Display for Inlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inlines {}", self.call)?;
        for (n, around) in self.by_way_of.iter().enumerate() {
            write!(f, "{} {around}", if n == 0 { " by way of" } else { "," })?;
        }
        Ok(())
    }
}

/// The source file and name of a function.
pub(crate) type DeclaredFunction<'i> = (&'i str, &'i str);

/// The inlining in one build of an object.
pub(crate) struct Inlining {
    survey: Survey,
    /// By function: whether the patch edits it.
    edited: Vec<bool>,
    /// Out-of-line copies, by their address.
    copies: HashMap<(SectionId, u64), CopyId>,
    /// Inlined copies of edited functions, by the out-of-line copy that holds them.
    held: BTreeMap<CopyId, Vec<InlinedId>>,
}

/// A function that holds inlined copies of edited ones.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'i> {
    inlining: &'i Inlining,
    copy: &'i OutOfLine,
    calls: &'i [InlinedId],
}

impl Inlining {
    /// For the original: a function is edited if the patch replaces lines of it.
    pub(crate) fn of_original(survey: Survey, prepared: &AppliedPatch) -> Inlining {
        let touched: BTreeSet<&str> = prepared.paths().collect();
        let functions: Vec<&Function> = survey.functions().map(|(_, function)| function).collect();
        let mut edited = vec![false; functions.len()];
        // Functions are sorted by file and line. Going backwards, the line of the file's next function is known.
        let (mut here, mut next): (Option<(TextId, u32)>, Option<u32>) = (None, None);
        for (function, edited) in functions.iter().zip(&mut edited).rev() {
            next = match here {
                Some((file, line)) if file == function.file && line == function.line => next,
                Some((file, line)) if file == function.file => Some(line),
                _ => None,
            };
            here = Some((function.file, function.line));
            let file = survey.text(function.file);
            // If debug information does not say a function's line, any line of the file may be the function's.
            *edited = touched.contains(file)
                && (function.line == 0 || prepared.edits_function(file, function.line, next));
        }
        Inlining::new(survey, edited)
    }

    /// For the patched build: a function is edited if the original's function of this name is edited, or if the
    /// original has none and the patch adds the function's line.
    pub(crate) fn of_patched(survey: Survey, original: &Inlining, prepared: &AppliedPatch) -> Inlining {
        let edited = |function: &Function| {
            let (file, name) = (survey.text(function.file), survey.text(function.name));
            let known: Vec<bool> =
                original.survey.declared(file, name).map(|(id, _)| original.edited[id.index()]).collect();
            match known.is_empty() {
                true => prepared.edits(file).iter().any(|lines| lines.contains(&function.line)),
                false => known.contains(&true),
            }
        };
        let edited = survey.functions().map(|(_, function)| edited(function)).collect();
        Inlining::new(survey, edited)
    }

    fn new(survey: Survey, edited: Vec<bool>) -> Inlining {
        let place = |copy: &OutOfLine| (copy.section_id, copy.address);
        let copies = survey.out_of_line().map(|(id, copy)| (place(copy), id)).collect();
        let mut held: BTreeMap<CopyId, Vec<InlinedId>> = BTreeMap::new();
        for (_, function) in survey.functions().filter(|(id, _)| edited[id.index()]) {
            for call in survey.inlined_ids(function) {
                held.entry(survey.inlined_copy(call).holder).or_default().push(call);
            }
        }
        Inlining { survey, edited, copies, held }
    }

    /// The out-of-line copy that belongs to an item; `None` if the debug information does not have the item.
    fn copy(&self, item: &Item) -> Option<CopyId> {
        self.copies.get(&(item.section, item.entry)).copied()
    }

    /// Whether the patch edits a function; `None` if the debug information does not have the function.
    pub(crate) fn is_edited(&self, item: &Item) -> Option<bool> {
        Some(self.edited[self.survey.copy(self.copy(item)?).function.index()])
    }

    /// Where the source declares a function.
    pub(crate) fn declared(&self, item: &Item) -> Option<DeclaredFunction<'_>> {
        Some(self.declaration(self.survey.copy(self.copy(item)?).function))
    }

    fn declaration(&self, id: FunctionId) -> DeclaredFunction<'_> {
        let function = self.survey.function(id);
        (self.survey.text(function.file), self.survey.text(function.name))
    }

    /// The functions that a function inlines, and how often.
    pub(crate) fn callees_in(&self, item: &Item) -> BTreeMap<DeclaredFunction<'_>, usize> {
        let mut callees = BTreeMap::new();
        let Some(holder) = self.copy(item) else { return callees };
        for (id, function) in self.survey.functions() {
            let count = self.survey.inlined(function).iter().filter(|call| call.holder == holder).count();
            if count > 0 {
                *callees.entry(self.declaration(id)).or_insert(0) += count;
            }
        }
        callees
    }

    /// Where the functions that hold an inlined copy of a function begin.
    pub(crate) fn places_of_holders(&self, file: &str, name: &str) -> Vec<(SectionId, u64)> {
        let functions = self.survey.declared(file, name);
        let holders = functions.flat_map(|(_, function)| self.survey.holders(function));
        holders.map(|id| self.survey.copy(id)).map(|copy| (copy.section_id, copy.address)).collect()
    }

    /// The inlined copies of edited functions that a function holds, the least nested first.
    pub(crate) fn inlines(&self, item: &Item) -> Vec<Inlines> {
        let calls = self.copy(item).and_then(|copy| self.held.get(&copy));
        self.inlines_of(calls.map_or(&[], Vec::as_slice))
    }

    /// The edited functions among a function and those of which it holds copies.
    fn edited_in(&self, item: &Item) -> BTreeSet<FunctionId> {
        let Some(copy) = self.copy(item) else { return BTreeSet::new() };
        let held = self.held.get(&copy).into_iter().flatten();
        let all = held.map(|&id| self.survey.inlined_copy(id).function);
        all.chain([self.survey.copy(copy).function]).filter(|id| self.edited[id.index()]).collect()
    }

    /// The hunks that edit a function, or functions of which it holds copies. `original` is the original build of the
    /// same object, which may be `self`.
    pub(crate) fn hunks(
        &self,
        item: &Item,
        original: &Inlining,
        prepared: &AppliedPatch,
    ) -> BTreeSet<PlacedHunk> {
        let survey = &original.survey;
        let mut hunks = BTreeSet::new();
        for id in self.edited_in(item) {
            let function = self.survey.function(id);
            let (file, name) = (self.survey.text(function.file), self.survey.text(function.name));
            let known: Vec<(FunctionId, &Function)> =
                survey.declared(file, name).filter(|(id, _)| original.edited[id.index()]).collect();
            if known.is_empty() {
                hunks.extend(prepared.hunks_of_line(file, function.line).into_iter().cloned());
            }
            for (id, function) in known {
                // Functions are sorted by file and line.
                let below = survey.functions().skip(id.index() + 1).map(|(_, other)| other);
                let below = below.take_while(|other| other.file == function.file);
                let next = below.map(|other| other.line).find(|&line| line > function.line);
                hunks.extend(prepared.hunks_of_function(file, function.line, next).into_iter().cloned());
            }
        }
        hunks
    }

    /// All functions that hold copies of edited functions.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder<'_>> {
        self.held.iter().map(|(&copy, calls)| Holder { inlining: self, copy: self.survey.copy(copy), calls })
    }

    fn inlines_of(&self, calls: &[InlinedId]) -> Vec<Inlines> {
        let inlines = |&id: &InlinedId| {
            let call = self.survey.inlined_copy(id);
            let around = self.survey.chain(call).into_iter().map(|call| self.call(call));
            Inlines { by_way_of: around.collect(), call: self.call(call) }
        };
        sorted(calls.iter().map(inlines).collect())
    }

    fn call(&self, call: &Inlined) -> InlinedCall {
        InlinedCall {
            function: self.survey.text(self.survey.function(call.function).name).to_owned(),
            file: call.file.map(|file| self.survey.text(file).to_owned()),
            line: (call.line != 0).then_some(call.line),
        }
    }
}

/// Each inlined copy once, the least nested first.
pub(crate) fn sorted(mut inlines: Vec<Inlines>) -> Vec<Inlines> {
    inlines.sort_by(|a, b| (a.by_way_of.len(), a).cmp(&(b.by_way_of.len(), b)));
    inlines.dedup();
    inlines
}

impl<'i> Holder<'i> {
    /// The holder's name, without a `.llvm.<hash>`.
    pub(crate) fn name(&self) -> &'i str {
        let symbol = self.inlining.survey.text(self.copy.symbol);
        std::str::from_utf8(without_promotion(symbol.as_bytes())).unwrap_or(symbol)
    }

    /// The holder's item in its object.
    pub(crate) fn item(&self, object: &Object<'_>) -> Option<ItemId> {
        let section = Some(self.copy.section_id).filter(|id| id.index() < object.elf.section_count())?;
        object
            .items_of(section)
            .find(|&id| object.item(id).code && object.item(id).entry == self.copy.address)
    }

    /// Returns true if a symbol names the holder.
    pub(crate) fn is_named(&self) -> bool {
        self.copy.named
    }

    /// The edited functions that the holder inlines, the least nested first.
    pub(crate) fn inlines(&self) -> Vec<Inlines> {
        self.inlining.inlines_of(self.calls)
    }

    /// For each inlined copy, the source file of the unit from which it was taken.
    pub(crate) fn units(&self) -> impl Iterator<Item = &'i str> + use<'i> {
        let survey = &self.inlining.survey;
        self.calls.iter().map(move |&id| survey.text(survey.inlined_copy(id).home))
    }
}

/// The original builds of the objects, as their debug information describes them. The debug information of vmlinux is
/// read while the kernel is built.
pub(crate) struct OriginalInlinings<'a> {
    prepared: &'a AppliedPatch,
    tree: PathBuf,
    early: Option<(PathBuf, JoinHandle<Result<Survey>>)>,
    read: BTreeMap<PathBuf, Option<Inlining>>,
    notes: Vec<Note>,
}

impl<'a> OriginalInlinings<'a> {
    /// `tree` is the source tree that was given to the compiler; `vmlinux` is the object that most patches change.
    pub(crate) fn begin(prepared: &'a AppliedPatch, tree: PathBuf, vmlinux: &Path) -> OriginalInlinings<'a> {
        let (object, folder) = (vmlinux.to_owned(), tree.clone());
        let early = std::thread::spawn(move || survey(&object, &folder));
        let early = Some((vmlinux.to_owned(), early));
        OriginalInlinings { prepared, tree, early, read: BTreeMap::new(), notes: Vec::new() }
    }

    /// Starts with nothing read.
    pub(crate) fn new(prepared: &'a AppliedPatch, tree: PathBuf) -> OriginalInlinings<'a> {
        OriginalInlinings { prepared, tree, early: None, read: BTreeMap::new(), notes: Vec::new() }
    }

    /// The patch set.
    pub(crate) fn prepared(&self) -> &'a AppliedPatch {
        self.prepared
    }

    /// The inlining in an object; `None` if its debug information can't be read.
    pub(crate) fn inlining(&mut self, object: &Path) -> Option<&Inlining> {
        if !self.read.contains_key(object) {
            let surveyed = match self.early.take_if(|(path, _)| path.as_path() == object) {
                Some((_, early)) => early.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                None => survey(object, &self.tree),
            };
            let read = match surveyed {
                Ok(survey) => Some(Inlining::of_original(survey, self.prepared)),
                Err(failure) => {
                    let name = object.file_name().unwrap_or_default().to_string_lossy();
                    let text = format!("{name}: who inlined what is not known: {failure}");
                    self.notes.push(Note::new(&codes::INLINING_UNKNOWN, text));
                    None
                }
            };
            self.read.insert(object.to_owned(), read);
        }
        self.read.get(object)?.as_ref()
    }

    /// Notes on objects whose debug information could not be read.
    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The inlining in the patched build of an object, limited to the units of the functions at `places`.
    pub(crate) fn patched(
        &mut self,
        object: &Object<'_>,
        places: &[(SectionId, u64)],
        original: &Path,
    ) -> Option<Inlining> {
        let survey = Survey::read_units(&object.elf, &self.tree, places).ok()?;
        let prepared = self.prepared;
        Some(Inlining::of_patched(survey, self.inlining(original)?, prepared))
    }
}

fn survey(object: &Path, tree: &Path) -> Result<Survey> {
    Survey::read_in(&ElfFile::open(object)?.parse()?, tree)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    impl Inlining {
        /// An `Inlining` in which the named functions are edited.
        pub(crate) fn with_edited(survey: Survey, names: &[&str]) -> Inlining {
            let is_edited = |(_, function): (_, &Function)| names.contains(&survey.text(function.name));
            let edited = survey.functions().map(is_edited).collect();
            Inlining::new(survey, edited)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, line: u32) -> InlinedCall {
        InlinedCall { function: function.into(), file: Some("drivers/md/md.c".into()), line: Some(line) }
    }

    #[test]
    fn a_chain_is_told_from_the_holders_own_call_on() {
        let direct = Inlines { by_way_of: Vec::new(), call: call("md_run", 4123) };
        assert_eq!(direct.to_string(), "inlines md_run at drivers/md/md.c:4123");
        let by_way_of = vec![call("outer", 9), call("inner", 5)];
        let nested = Inlines { by_way_of, call: InlinedCall { line: None, ..call("md_run", 0) } };
        let text = "inlines md_run in drivers/md/md.c by way of outer at drivers/md/md.c:9, inner at drivers/md/md.c:5";
        assert_eq!(nested.to_string(), text);
        assert_eq!(sorted(vec![nested.clone(), direct.clone(), nested.clone()]), [direct, nested]);
    }

    #[test]
    fn json_has_the_call_and_what_is_around_it() {
        let inlines = Inlines { by_way_of: vec![call("outer", 9)], call: call("md_run", 4123) };
        let json = serde_json::to_value(&inlines).expect("JSON");
        let file = "drivers/md/md.c";
        let around = serde_json::json!([{ "function": "outer", "file": file, "line": 9 }]);
        let wanted =
            serde_json::json!({ "function": "md_run", "file": file, "line": 4123, "by_way_of": around });
        assert_eq!(json, wanted);
    }
}
