//! The change set of a patch: reads and compares every pair of objects, and puts the differences into the words of the
//! results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_diff::{Difference, Sources};
use klpx_inline_check::lines::Lines;
use klpx_inline_check::sections::DebugSections;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{Item, ItemId, Object};
use rayon::prelude::*;

use crate::analysis::{self, ChangeKind, Finding};
use crate::build::CompiledPairs;
use crate::causes::{self, Cause, InliningPair};
use crate::edits::SourceEdits;
use crate::holders::OtherHolders;
use klpx_diagnosis::words;

/// The files of both builds of an object, or of one unit of it.
#[derive(Clone, Debug)]
pub(crate) struct PairFiles {
    /// The kernel object: `vmlinux`, or the module's name.
    pub(crate) object: String,
    /// The original compiled with exactly the kernel's flags, where the compared original is compiled with others.
    pub(crate) witness: Option<PathBuf>,
    pub(crate) original: PathBuf,
    pub(crate) patched: PathBuf,
    /// Further facts about a single unit.
    pub(crate) unit: Option<UnitOf>,
}

/// A unit that is compared with the shipped kernel object of which it is a part.
#[derive(Clone, Debug)]
pub(crate) struct UnitOf {
    /// The unit's object file, as a path in the build tree.
    pub(crate) path: String,
    /// The checksums of the unit's exports, as kbuild records them.
    pub(crate) exports: String,
    /// True if the patch adds the unit: the kernel does not have it.
    pub(crate) is_new: bool,
}

/// The files of a pair, open.
pub(crate) struct OpenPair {
    name: String,
    unit: Option<UnitOf>,
    witness: Option<ElfFile>,
    original: ElfFile,
    patched: ElfFile,
}

/// The objects of a pair, read.
pub(crate) struct PairObjects<'f> {
    /// `vmlinux`, or the module's name.
    pub(crate) name: &'f str,
    /// Further facts about a single unit.
    pub(crate) unit: Option<&'f UnitOf>,
    /// The original compiled with exactly the kernel's flags, where the compared original is compiled with others.
    pub(crate) witness: Option<Object<'f>>,
    pub(crate) original: Object<'f>,
    /// The file of `original`.
    pub(crate) original_path: &'f Path,
    pub(crate) patched: Object<'f>,
}

/// Opens the pairs.
pub(crate) fn open(pairs: &[PairFiles]) -> Result<Vec<OpenPair>> {
    let open = |pair: &PairFiles| -> Result<OpenPair> {
        Ok(OpenPair {
            name: pair.object.clone(),
            unit: pair.unit.clone(),
            witness: pair.witness.as_deref().map(ElfFile::open).transpose()?,
            original: ElfFile::open(&pair.original)?,
            patched: ElfFile::open(&pair.patched)?,
        })
    };
    pairs.iter().map(open).collect()
}

/// Reads all objects, in parallel. When they were compiled, their source lay in one of `folders`.
pub(crate) fn read<'f>(pairs: &'f [OpenPair], folders: &[PathBuf]) -> Result<Vec<PairObjects<'f>>> {
    let read = |file: &'f ElfFile| Object::read(file).map(|object| object.compiled_in(folders));
    pairs
        .par_iter()
        .map(|pair| {
            let (original, patched) = rayon::join(|| read(&pair.original), || read(&pair.patched));
            let witness = pair.witness.as_ref().map(read).transpose()?;
            let original_path = pair.original.path();
            Ok(PairObjects {
                name: &pair.name,
                unit: pair.unit.as_ref(),
                witness,
                original: original?,
                original_path,
                patched: patched?,
            })
        })
        .collect()
}

/// The refusal of a patch that changes nothing.
pub(crate) fn unchanged() -> Failure {
    Diagnosis::new(
        &codes::NOTHING_CHANGED,
        "nothing changed",
        "the patched kernel has the same code and data as the original",
        "a comment, a configuration that is off, or dead code: there is nothing to livepatch",
    )
    .into()
}

/// The comparison of every pair.
pub(crate) struct Analysis {
    /// By pair.
    pub(crate) differences: Vec<Difference>,
    /// By pair: the patched functions whose own lines the patch edits, where later steps need to know.
    pub(crate) edited: Vec<BTreeSet<ItemId>>,
    /// By pair: patched functions that differ because of what they inline, with the inlined functions in words.
    pub(crate) inlines: Vec<BTreeMap<ItemId, String>>,
    /// By pair: functions that hold copies of what the patch edits, but are not in the change set.
    pub(crate) others: Vec<OtherHolders>,
    /// By pair: the changed and new functions in words.
    pub(crate) findings: Vec<Vec<Finding>>,
    functions: usize,
    registries: Vec<Diagnosis>,
}

impl Analysis {
    /// Compares all pairs.
    pub(crate) fn new(objects: &[PairObjects<'_>], compiled: &mut CompiledPairs<'_>) -> Analysis {
        let mut analysis = Analysis {
            differences: Vec::new(),
            edited: Vec::new(),
            inlines: Vec::new(),
            others: Vec::new(),
            findings: Vec::new(),
            functions: objects
                .iter()
                .map(|p| p.patched.items().iter().filter(|item| item.code).count())
                .sum(),
            registries: Vec::new(),
        };
        for pair in objects {
            analysis.add(pair, compiled);
        }
        causes::explain_across(objects, &analysis.differences, &mut analysis.findings);
        analysis
    }

    fn add(&mut self, pair: &PairObjects<'_>, compiled: &mut CompiledPairs<'_>) {
        let CompiledPairs { originals, remade, moved, tree, .. } = compiled;
        let prepared = originals.prepared();
        let edits = SourceEdits::new(prepared, tree);
        let sources = Sources::Edited(&edits);
        let difference = klpx_diff::compare_unit(&pair.original, &pair.patched, moved, sources);
        let place = |item: &Item| (item.section, item.entry);
        let changes = || difference.functions.iter().map(|change| change.patched);
        let places: Vec<_> = changes().map(|item| place(pair.patched.item(item))).collect();
        let path = pair.original_path;
        // The counterpart of a unit that the patch adds is compiled from an empty file.
        let known = pair.unit.is_none_or(|unit| !unit.is_new).then_some(path);
        let patched = known.and_then(|path| originals.patched(&pair.patched, &places, path));
        let both = known.and_then(|path| originals.inlining(path)).zip(patched.as_ref());
        let both = both.map(|(original, patched)| InliningPair { prepared, original, patched });

        let findings = findings(pair, &difference, both, tree);
        let holds = changes().zip(&findings).filter(|(_, finding)| finding.cause == Some(Cause::Inlines));
        self.inlines.push(holds.map(|(item, finding)| (item, finding.why.clone())).collect());
        self.edited.push(edited(pair, &difference, both));
        let others = known
            .and_then(|path| originals.inlining(path))
            .map(|original| OtherHolders::find(pair, &difference, original, remade));
        self.others.push(others.unwrap_or_default());
        self.registries.extend(registries(pair, &difference));
        self.findings.push(findings);
        self.differences.push(difference);
    }

    /// `27,012 functions: 1 changed, 1 new`.
    pub(crate) fn summary(&self) -> String {
        let functions = || self.findings.iter().flatten().filter(|finding| !finding.is_apart());
        let count = |kind| functions().filter(|finding| finding.kind == kind).count();
        format!(
            "{}: {} changed, {} new",
            words::plural(self.functions, "function"),
            words::count(count(ChangeKind::Changed)),
            words::count(count(ChangeKind::New))
        )
    }

    /// Refuses what can be refused before anything is emitted.
    pub(crate) fn check(&self) -> Result<()> {
        if self.differences.iter().all(Difference::is_empty) {
            return Err(unchanged());
        }
        Failure::all(self.registries.clone())
    }
}

fn findings(
    pair: &PairObjects<'_>,
    difference: &Difference,
    both: Option<InliningPair<'_>>,
    tree: &Path,
) -> Vec<Finding> {
    let (strip, sections) = (tree.display().to_string(), DebugSections::of_lines(&pair.patched.elf));
    let lines = Lines::read(&sections);
    let mut findings = analysis::findings(pair.name, &strip, &pair.patched, &lines, &difference.functions);
    if let Some(both) = both {
        causes::explain(pair, difference, both, &mut findings);
    }
    findings
}

/// Functions in sections that are gone after boot, whose own lines the patch edits or may edit. For all other functions
/// this does not matter.
fn edited(
    pair: &PairObjects<'_>,
    difference: &Difference,
    both: Option<InliningPair<'_>>,
) -> BTreeSet<ItemId> {
    let goes = |item: ItemId| {
        Lifetime::of(pair.patched.elf.section_name(pair.patched.item(item).section)) != Lifetime::Kept
    };
    let changes = difference.functions.iter().filter(|change| goes(change.patched));
    let edited = changes.filter(|change| both.and_then(|both| both.is_edited(pair, change)).unwrap_or(true));
    edited.map(|change| change.patched).collect()
}

/// Refuses changed initcalls, parameters and other entries that only a boot or a module load reads, and changed tables
/// whose entries have no names.
fn registries(pair: &PairObjects<'_>, difference: &Difference) -> Vec<Diagnosis> {
    let when = if pair.name == "vmlinux" { "the kernel booted" } else { "the module was loaded" };
    let entries = difference.registries.iter().map(|change| {
        let item = pair.patched.item(change.patched);
        let table = String::from_utf8_lossy(pair.patched.elf.section_name(item.section)).into_owned();
        let what = if change.original.is_some() { "changes" } else { "adds" };
        Diagnosis::new(
            &codes::REGISTRY,
            format!("the patch {what} an entry of a table that is read only once"),
            format!("{table} was read when {when}"),
            "leave this part of the patch out, or do its work in a pre-patch callback",
        )
        .place(DiagnosisPlace::symbol(analysis::name(&pair.patched, change.patched)))
    });
    let tables = difference.tables.iter().map(|table| {
        Diagnosis::new(
            &codes::UNNAMED_TABLE,
            "the patch changes a table whose entries have no names",
            "the kernel finds the table by its section, and has its own; a livepatch can't add \
             to it or replace it",
            "leave this part of the patch out, or do its work in a pre-patch callback",
        )
        .place(DiagnosisPlace::symbol(table.clone()))
    });
    entries.chain(tables).collect()
}
