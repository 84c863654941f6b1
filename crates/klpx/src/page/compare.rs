//! Compares two builds of a function side by side: which instructions are the same.
//!
//! A branch within the function counts as the same if it leads to the same instruction, however far away. This
//! comparison is only for display; `klpx-diff` decides what goes into a livepatch.

use std::collections::HashMap;

use klpx_diagnosis::{Offset, words};
use klpx_engine::code::FunctionBody;
use klpx_normalize::arch::Arch;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::disassembly::instructions;

/// How many instructions of a function are compared. In the worst case the time grows with the square of this number.
pub(super) const MOST: usize = 4_000;

/// How many equal instructions are shown before and after a difference.
const AROUND: usize = 3;

/// One instruction.
#[derive(Debug)]
pub(super) struct ListingLine {
    /// Where the instruction begins, in bytes from the entry.
    pub(super) offset: usize,
    pub(super) text: String,
    /// What is compared: the instruction and its references.
    key: (String, Vec<String>),
    /// The branch's target within the function.
    branch: Option<i64>,
}

/// A row of two listings; the numbers are line numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComparedRow {
    /// The lines are the same.
    Same(usize, usize),
    /// The lines differ, or one build lacks the line.
    Differ(Option<usize>, Option<usize>),
    /// This many equal lines that are not shown.
    Equal(usize),
    /// This many lines that are not shown, and how many of them differ.
    Cut(usize, usize),
}

/// The instructions of a function, at most [`MOST`].
pub(super) fn lines(body: &FunctionBody) -> Vec<ListingLine> {
    let mut references = body.references.iter().peekable();
    let all = instructions(body.arch, &body.bytes).take(MOST);
    let line = |one: crate::disassembly::DisassembledInstruction| {
        let end = (one.offset + one.length) as u64;
        let own: Vec<_> =
            std::iter::from_fn(|| references.next_if(|reference| reference.offset < end)).collect();
        let meaning = own.iter().map(|reference| reference.meaning.clone()).collect();
        let to: Vec<&str> = own.iter().map(|reference| reference.to.as_str()).collect();
        let to = to.join(", ");
        let word = match body.arch {
            Arch::X86_64 => one.text.clone(),
            Arch::Arm64 => word(&body.bytes[one.offset..one.offset + one.length]),
        };
        let arrow = if to.is_empty() { String::new() } else { format!(" → {to}") };
        let (text, key, branch) = match (one.branch, body.arch, own.is_empty()) {
            (Some(branch), Arch::X86_64, true) => {
                (format!("{} {}", branch.mnemonic, Offset(branch.target)), branch.fixed, Some(branch.target))
            }
            (Some(branch), Arch::X86_64, false) => {
                (format!("{}{arrow}", branch.mnemonic), branch.fixed, None)
            }
            (Some(branch), Arch::Arm64, true) => (
                format!("{word} {} {}", branch.mnemonic, Offset(branch.target)),
                branch.fixed,
                Some(branch.target),
            ),
            (Some(branch), Arch::Arm64, false) => {
                (format!("{word} {}{arrow}", branch.mnemonic), branch.fixed, None)
            }
            (None, ..) => (format!("{word}{arrow}"), word, None),
        };
        ListingLine { offset: one.offset, text, key: (key, meaning), branch }
    };
    all.map(line).collect()
}

/// An arm64 instruction word in the form that an assembler's `.inst` takes.
fn word(bytes: &[u8]) -> String {
    words::hexadecimal(bytes.iter().rev())
}

/// All rows of two listings.
pub(super) fn compare<'l>(original: &'l [ListingLine], patched: &'l [ListingLine]) -> Vec<ComparedRow> {
    let mut numbers: HashMap<&(String, Vec<String>), usize> = HashMap::new();
    let mut keys = |lines: &'l [ListingLine]| -> Vec<usize> {
        let number = |line: &'l ListingLine| {
            let next = numbers.len();
            *numbers.entry(&line.key).or_insert(next)
        };
        lines.iter().map(number).collect()
    };
    let (old, new) = (keys(original), keys(patched));
    let ops = capture_diff_slices(Algorithm::Myers, &old, &new);
    let place = |lines: &[ListingLine], n: usize| lines.get(n).map(|line| line.offset as i64);
    let mut patched_lines: HashMap<i64, i64> = HashMap::new();
    for op in &ops {
        let pairs = match *op {
            DiffOp::Equal { len, .. } => len,
            DiffOp::Replace { .. } => 1,
            DiffOp::Delete { .. } | DiffOp::Insert { .. } => 0,
        };
        let (old, new) = (op.old_range().start, op.new_range().start);
        let pair = |n: usize| Some((place(original, old + n)?, place(patched, new + n)?));
        patched_lines.extend((0..pairs).filter_map(pair));
    }
    let leads_alike = |old: usize, new: usize| match (original[old].branch, patched[new].branch) {
        (Some(old), Some(new)) => patched_lines.get(&old).map_or(old == new, |known| *known == new),
        _ => true,
    };
    let mut rows = Vec::new();
    for op in &ops {
        let (old, new) = (op.old_range(), op.new_range());
        let equal = matches!(op, DiffOp::Equal { .. });
        for n in 0..old.len().max(new.len()) {
            let at = |range: &std::ops::Range<usize>| (n < range.len()).then_some(range.start + n);
            rows.push(match (at(&old), at(&new)) {
                (Some(old), Some(new)) if equal && leads_alike(old, new) => ComparedRow::Same(old, new),
                (old, new) => ComparedRow::Differ(old, new),
            });
        }
    }
    rows
}

/// Keeps the rows around differences.
pub(super) fn fold(rows: &[ComparedRow]) -> Vec<ComparedRow> {
    let differs = |row: &ComparedRow| matches!(row, ComparedRow::Differ(..));
    let mut near = vec![false; rows.len()];
    for n in (0..rows.len()).filter(|&n| differs(&rows[n])) {
        near[n.saturating_sub(AROUND)..(n + AROUND + 1).min(rows.len())].fill(true);
    }
    let mut folded = Vec::new();
    for (row, near) in rows.iter().zip(near) {
        match (near, folded.last_mut()) {
            (true, _) => folded.push(*row),
            (false, Some(ComparedRow::Equal(n))) => *n += 1,
            (false, _) => folded.push(ComparedRow::Equal(1)),
        }
    }
    folded
}

/// Keeps at most `most` rows, followed by a count of the rest.
pub(super) fn cut(rows: &[ComparedRow], most: usize) -> Vec<ComparedRow> {
    if rows.len() <= most {
        return rows.to_vec();
    }
    let (shown, rest) = rows.split_at(most);
    let count = |row: &ComparedRow| match row {
        ComparedRow::Equal(n) => (*n, 0),
        ComparedRow::Cut(n, differ) => (*n, *differ),
        ComparedRow::Same(..) => (1, 0),
        ComparedRow::Differ(..) => (1, 1),
    };
    let (all, differ) = rest.iter().map(count).fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    shown.iter().copied().chain([ComparedRow::Cut(all, differ)]).collect()
}

#[cfg(test)]
mod tests {
    use klpx_engine::code::{CodeReference, Filled};

    use super::*;

    fn body(bytes: &[u8], references: &[(u64, &str, &str)]) -> FunctionBody {
        let references = references.iter().map(|&(offset, to, meaning)| CodeReference {
            offset,
            to: to.into(),
            meaning: meaning.into(),
            filled: Filled::Own,
        });
        FunctionBody { arch: Arch::X86_64, bytes: bytes.to_vec(), references: references.collect() }
    }

    fn rows(original: &FunctionBody, patched: &FunctionBody) -> Vec<ComparedRow> {
        compare(&lines(original), &lines(patched))
    }

    #[test]
    fn a_branch_over_new_code_is_the_same() {
        // test %eax,%eax; je to ret; nop; ret. The patched code has another nop before ret.
        let original = body(&[0x85, 0xc0, 0x74, 0x01, 0x90, 0xc3], &[]);
        let patched = body(&[0x85, 0xc0, 0x74, 0x02, 0x90, 0x90, 0xc3], &[]);
        let rows = rows(&original, &patched);
        let differing: Vec<&ComparedRow> =
            rows.iter().filter(|row| matches!(row, ComparedRow::Differ(..))).collect();
        assert_eq!(differing.len(), 1, "{rows:?}");
        assert!(matches!(differing[0], ComparedRow::Differ(None, Some(_))), "{rows:?}");
        // A branch with another target differs.
        let patched = body(&[0x85, 0xc0, 0x74, 0x00, 0x90, 0xc3], &[]);
        assert_eq!(compare(&lines(&original), &lines(&patched))[1], ComparedRow::Differ(Some(1), Some(1)));
    }

    #[test]
    fn references_are_compared_by_what_they_mean() {
        let call = [0xe8, 0, 0, 0, 0, 0xc3];
        let to = |to, meaning| body(&call, &[(1, to, meaning)]);
        assert_eq!(
            rows(&to("f.1", "f.1"), &to("f.2", "f.1")),
            [ComparedRow::Same(0, 0), ComparedRow::Same(1, 1)]
        );
        assert_eq!(rows(&to("f", "f"), &to("g", "g"))[0], ComparedRow::Differ(Some(0), Some(0)));
        assert_eq!(lines(&to("f", "f"))[0].text, "call → f");
    }

    #[test]
    fn what_is_far_from_a_difference_is_counted() {
        let mut all: Vec<ComparedRow> = (0..20).map(|n| ComparedRow::Same(n, n)).collect();
        all[10] = ComparedRow::Differ(Some(10), None);
        let folded = fold(&all);
        assert_eq!(folded.len(), 9);
        assert_eq!((folded[0], folded[8]), (ComparedRow::Equal(7), ComparedRow::Equal(6)));
        assert_eq!(cut(&folded, 2)[2], ComparedRow::Cut(2 + 1 + 3 + 6, 1));
        assert_eq!(cut(&folded, 9), folded);
    }

    #[test]
    fn any_bytes_are_compared() {
        let (a, b) = (body(&[0xff; 9], &[(3, "x", "x"), (90, "y", "y")]), body(&[], &[]));
        assert_eq!(rows(&a, &b).len(), lines(&a).len());
        let words = FunctionBody { arch: Arch::Arm64, ..body(&[0x1f, 0x20, 0x03, 0xd5, 1], &[]) };
        assert_eq!(lines(&words)[0].text, "d503201f");
        assert_eq!(lines(&words)[1].text, "01");
    }
}
