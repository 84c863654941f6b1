//! The change set of a patch: compares every pair of objects, and puts the differences into the words of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes, words};
use klpx_diff::{Difference, Sources};
use klpx_inline_check::lines::Lines;
use klpx_inline_check::sections::DebugSections;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{Item, ItemId};

use crate::analysis;
use crate::causes::{self, InliningPair};
use crate::compiled::CompiledPairs;
use crate::edits::SourceEdits;
use crate::finding::{self, Cause, ChangeKind, Finding};
use crate::holders::OtherHolders;
use crate::pairs::PairObjects;

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
        .place(DiagnosisPlace::symbol(finding::name(&pair.patched, change.patched)))
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
