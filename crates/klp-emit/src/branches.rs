//! Two x86_64 bodies as the same instructions with other branch lengths.
//!
//! Owns the pairing of instructions and of branch targets inside a function. Knows nothing of symbols.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use klpx_normalize::object::ItemId;

/// How offsets in a function of klpx's build become offsets in the kernel's.
pub(crate) struct Shift {
    /// The function.
    pub(crate) item: ItemId,
    /// (our offset, their offset) of every instruction, no-operations left out; `None` when nothing moved.
    moved: Option<Vec<(u64, u64)>>,
}

impl Shift {
    /// Nothing moved.
    pub(crate) fn none(item: ItemId) -> Shift {
        Shift { item, moved: None }
    }

    /// The kernel's offset of one of ours: that of the instruction there, or of the first one after it.
    pub(crate) fn apply(&self, offset: i64) -> Option<i64> {
        let Some(moved) = &self.moved else { return Some(offset) };
        if offset <= 0 {
            return Some(offset);
        }
        let n = moved.partition_point(|&(ours, _)| (ours as i64) < offset);
        moved.get(n).map(|&(_, theirs)| theirs as i64)
    }
}

/// One instruction in both bodies. Offsets are from the entries.
pub(crate) struct Pair {
    /// In klpx's build.
    pub(crate) ours: u64,
    our_end: u64,
    /// In the kernel's.
    pub(crate) theirs: u64,
    their_end: u64,
    /// True for a jump or call with a fixed target.
    pub(crate) branch: bool,
    our_target: i64,
    /// Where the kernel's branch leads, from the entry.
    pub(crate) their_target: i64,
}

impl Pair {
    /// True when a place of our body lies in this instruction.
    pub(crate) fn holds(&self, place: u64) -> bool {
        (self.ours..self.our_end).contains(&place)
    }

    /// Bytes of the kernel's instruction.
    pub(crate) fn their_length(&self) -> u64 {
        self.their_end - self.theirs
    }

    /// True when the bytes outside fields are equal; `field` gives the length of the field that begins at a place.
    pub(crate) fn same_bytes(&self, ours: &[u8], theirs: &[u8], field: impl Fn(u64) -> Option<u64>) -> bool {
        let length = self.our_end - self.ours;
        if length != self.their_end - self.theirs {
            return false;
        }
        let mut n = 0;
        while n < length {
            match field(self.ours + n) {
                Some(skip) if skip > 0 => n += skip,
                _ if ours.get((self.ours + n) as usize) != theirs.get((self.theirs + n) as usize) => {
                    return false;
                }
                _ => n += 1,
            }
        }
        true
    }
}

/// The instructions of two bodies, one by one.
pub(crate) struct Pairs {
    pairs: Vec<Pair>,
}

impl Pairs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter()
    }

    /// The movement of offsets that the pairing means.
    pub(crate) fn shift(&self, item: ItemId) -> Shift {
        Shift { item, moved: Some(self.pairs.iter().map(|p| (p.ours, p.theirs)).collect()) }
    }

    /// True when a branch without relocation leads to the same instruction in both bodies.
    pub(crate) fn same_internal_target(&self, pair: &Pair) -> bool {
        let index = |target: i64, place: &dyn Fn(&Pair) -> u64| {
            self.pairs.partition_point(|p| (place(p) as i64) < target)
        };
        let inside = |target: i64, end: u64| (0..end as i64).contains(&target);
        let (our_end, their_end) = self.pairs.last().map_or((0, 0), |p| (p.our_end, p.their_end));
        inside(pair.our_target, our_end)
            && inside(pair.their_target, their_end)
            && index(pair.our_target, &|p| p.ours) == index(pair.their_target, &|p| p.theirs)
    }
}

/// Pairs two bodies. `None` when they are not the same sequence of operations. `relocated` says whether our body has
/// a relocation in a range; a no-operation with one (an alternative's or a static branch's) is not left out.
pub(crate) fn pair(ours: &[u8], theirs: &[u8], relocated: &dyn Fn(u64, u64) -> bool) -> Option<Pairs> {
    let (a, b) = (decode(ours)?, decode(theirs)?);
    if a.len() != b.len() {
        return None;
    }
    let mut pairs = Vec::with_capacity(a.len());
    for (one, other) in a.iter().zip(&b) {
        let branch = is_branch(one);
        if one.mnemonic() != other.mnemonic() || branch != is_branch(other) {
            return None;
        }
        let (from, to) = (one.ip(), one.next_ip());
        if branch && !relocated(from, to) && one.len() != other.len() && one.mnemonic() == Mnemonic::Call {
            return None;
        }
        pairs.push(Pair {
            ours: from,
            our_end: to,
            theirs: other.ip(),
            their_end: other.next_ip(),
            branch,
            our_target: if branch { one.near_branch_target() as i64 } else { 0 },
            their_target: if branch { other.near_branch_target() as i64 } else { 0 },
        });
    }
    Some(Pairs { pairs })
}

fn is_branch(i: &Instruction) -> bool {
    i.is_jcc_short_or_near()
        || i.is_jmp_short_or_near()
        || i.is_call_near()
        || i.is_jcx_short()
        || i.is_loop()
        || i.is_loopcc()
}

/// The instructions of a body without no-operations; `None` when the bytes are not all instructions.
fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let mut all = Vec::with_capacity(bytes.len() / 4);
    while decoder.can_decode() {
        let i = decoder.decode();
        if i.is_invalid() {
            return None;
        }
        if i.mnemonic() != Mnemonic::Nop {
            all.push(i);
        }
    }
    Some(all)
}
