//! Why a function is in the change set, as far as debug information tells: the patch edits it, it holds a copy of what the patch edits,
//! its code rests on another function that changed, or the compiler decided otherwise. Explains; never decides what changed.

use std::path::{Path, PathBuf};

use klpx_build_driver::Prepared;
use klpx_diff::{Change, Difference};
use klpx_inline_check::extent::{self, Extent};
use klpx_inline_check::inlined::{self, Copy};
use klpx_inline_check::lines::Position;
use klpx_normalize::name;
use klpx_normalize::object::{ItemId, Object, Target};
use rayon::prelude::*;
use serde::Serialize;

use crate::analysis::{self, Finding};
use crate::change_set::Objects;

/// Why a function differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// The patch edits its lines.
    Edited,
    /// It holds an inlined copy of a function whose lines the patch edits.
    Inlines,
    /// It was inlined into a function that changed, and no longer is.
    InlinedNoLonger,
    /// It refers to a function that changed, and the compiler knew something of it that no longer holds.
    ReliesOn,
    /// A function that changed refers to it: its arguments, or whether it is called from elsewhere, may be others.
    CalledBy,
    /// Nothing above: a decision of the compiler, or a change of a macro, a type or a datum.
    Otherwise,
}

/// The lines that the patch edits.
#[derive(Clone, Copy)]
pub(crate) struct Edits<'a> {
    pub(crate) prepared: &'a Prepared,
    /// The private source, which the compiler was given.
    pub(crate) source: &'a Path,
}

impl Edits<'_> {
    /// True when the patch edits one of these lines, or the file is not known in the tree.
    pub(crate) fn touch(&self, extent: &Extent) -> bool {
        let Some(file) = in_tree(&extent.file, self.source) else { return true };
        self.prepared.edits(&file).iter().any(|lines| lines.start <= extent.last && lines.end > extent.first)
    }

    fn shown(&self, position: &Position) -> String {
        let file = in_tree(&position.file, self.source).unwrap_or_else(|| position.file.clone());
        format!("{file}:{}", position.line)
    }
}

/// A compiler's path as one in the tree.
fn in_tree(file: &str, source: &Path) -> Option<String> {
    let path = Path::new(file);
    let relative: PathBuf = path.strip_prefix(source).unwrap_or(path).to_owned();
    let normal = relative.components().filter(|c| matches!(c, std::path::Component::Normal(_)));
    normal.collect::<PathBuf>().to_str().map(str::to_owned)
}

/// Adds to each finding why it is there. `findings` stand in the order of the changed functions.
pub(crate) fn explain(
    pair: &Objects<'_>,
    difference: &Difference,
    edits: Edits<'_>,
    findings: &mut [Finding],
) {
    let changes = &difference.functions;
    let facts: Vec<Facts> = changes.par_iter().map(|change| Facts::of(pair, change)).collect();
    for ((change, own), finding) in changes.iter().zip(&facts).zip(findings) {
        let Some(extent) = &own.extent else { continue };
        let cause = if edits.touch(extent) {
            Cause::Edited
        } else if let Some(copy) =
            own.copies().find(|copy| copy.extent.as_ref().is_some_and(|e| edits.touch(e)))
        {
            let place = copy.call.as_ref().map_or(String::new(), |call| format!(" at {}", edits.shown(call)));
            finding.why = format!("inlines {}{place}, which the patch edits", copy.name);
            Cause::Inlines
        } else if let Some(holder) = held_before(pair, change, changes, &facts) {
            finding.why = format!("new: was inlined into {holder}, no longer is");
            Cause::InlinedNoLonger
        } else if let Some(name) = neighbour(pair, change, changes, true) {
            finding.why = format!("{}; relies on {name}, which changed", finding.why);
            Cause::ReliesOn
        } else if let Some(name) = neighbour(pair, change, changes, false) {
            finding.why = format!("{}; {name}, which changed, calls it", finding.why);
            Cause::CalledBy
        } else {
            Cause::Otherwise
        };
        finding.cause = Some(cause);
    }
}

/// What debug information says of a changed function.
struct Facts {
    extent: Option<Extent>,
    before: Vec<Copy>,
    now: Vec<Copy>,
}

impl Facts {
    fn of(pair: &Objects<'_>, change: &Change) -> Facts {
        let copies = |object: &Object<'_>, item: ItemId| {
            let item = object.item(item);
            inlined::copies(&object.elf, item.section, item.entry).unwrap_or_default()
        };
        let item = pair.patched.item(change.patched);
        Facts {
            extent: extent::extent(&pair.patched.elf, item.section, item.entry),
            before: change.original.map_or_else(Vec::new, |item| copies(&pair.original, item)),
            now: copies(&pair.patched, change.patched),
        }
    }

    /// Copies that the function holds now, then those that it held.
    fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.now.iter().chain(&self.before)
    }
}

/// The changed function that a new one was inlined into.
fn held_before(pair: &Objects<'_>, change: &Change, changes: &[Change], facts: &[Facts]) -> Option<String> {
    if change.original.is_some() {
        return None;
    }
    let base = name::canonical(pair.patched.item_name(change.patched)).base;
    let holds = |facts: &&Facts| facts.before.iter().any(|copy| copy.name.as_bytes() == base);
    let at = facts.iter().position(|facts| holds(&facts))?;
    Some(analysis::name(&pair.patched, changes[at].patched))
}

/// A function of the change set that this one refers to (`outward`), or that refers to it.
fn neighbour(pair: &Objects<'_>, change: &Change, changes: &[Change], outward: bool) -> Option<String> {
    let refers = |from: &Change, to: &Change| {
        let in_patched = refers_to(&pair.patched, from.patched, to.patched);
        let in_original = || {
            let (Some(from), Some(to)) = (from.original, to.original) else { return false };
            refers_to(&pair.original, from, to)
        };
        in_patched || in_original()
    };
    let others = changes.iter().filter(|other| other.patched != change.patched);
    let mut found =
        others.filter(|other| if outward { refers(change, other) } else { refers(other, change) });
    found.next().map(|other| analysis::name(&pair.patched, other.patched))
}

fn refers_to(object: &Object<'_>, from: ItemId, to: ItemId) -> bool {
    let section = object.item(from).section;
    object
        .item_relocations(from)
        .iter()
        .any(|rela| matches!(object.resolve(section, rela), Target::Item { item, .. } if item == to))
}
