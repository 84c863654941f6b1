//! Matches two x86_64 bodies that have the same instructions but other branch lengths.
//!
//! Owns the pairing of instructions and of branch targets inside a function. Knows nothing about symbols.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use klpx_normalize::object::ItemId;

/// Converts offsets in a function of klpx's build to offsets in the kernel's function.
pub(crate) struct Shift {
    /// The function.
    pub(crate) item: ItemId,
    /// (our offset, their offset) of every instruction except no-operations; `None` if nothing moved.
    moved: Option<Vec<(u64, u64)>>,
}

impl Shift {
    /// A shift in which nothing moved.
    pub(crate) fn none(item: ItemId) -> Shift {
        Shift { item, moved: None }
    }

    /// The kernel's offset for one of ours: that of the instruction there, or of the first one after it.
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
pub(crate) struct InstructionPair {
    /// The offset in klpx's build.
    pub(crate) ours: u64,
    our_end: u64,
    /// The offset in the kernel's.
    pub(crate) theirs: u64,
    their_end: u64,
    /// True for a jump or call with a fixed target.
    pub(crate) branch: bool,
    our_target: i64,
    /// The target of the kernel's branch, from the entry.
    pub(crate) their_target: i64,
}

impl InstructionPair {
    /// Returns true if a place of our body lies in this instruction.
    pub(crate) fn holds(&self, place: u64) -> bool {
        (self.ours..self.our_end).contains(&place)
    }

    /// The length of the kernel's instruction in bytes.
    pub(crate) fn their_length(&self) -> u64 {
        self.their_end - self.theirs
    }

    /// Returns true if the bytes outside fields are equal; `field` gives the length of a field that begins at a place.
    pub(crate) fn same_bytes(
        &self,
        own_code: &[u8],
        other_code: &[u8],
        field: impl Fn(u64) -> Option<u64>,
    ) -> bool {
        let length = self.our_end - self.ours;
        if length != self.their_end - self.theirs {
            return false;
        }
        let mut n = 0;
        while n < length {
            match field(self.ours + n) {
                Some(skip) if skip > 0 => n += skip,
                _ if own_code.get((self.ours + n) as usize) != other_code.get((self.theirs + n) as usize) => {
                    return false;
                }
                _ => n += 1,
            }
        }
        true
    }
}

/// The paired instructions of two bodies.
pub(crate) struct InstructionPairs {
    pairs: Vec<InstructionPair>,
}

impl InstructionPairs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &InstructionPair> {
        self.pairs.iter()
    }

    /// The shift of offsets that the pairing implies.
    pub(crate) fn shift(&self, item: ItemId) -> Shift {
        Shift { item, moved: Some(self.pairs.iter().map(|p| (p.ours, p.theirs)).collect()) }
    }

    /// Returns true if a branch without a relocation leads to the same instruction in both bodies.
    pub(crate) fn same_internal_target(&self, pair: &InstructionPair) -> bool {
        let index = |target: i64, place: &dyn Fn(&InstructionPair) -> u64| {
            self.pairs.partition_point(|p| (place(p) as i64) < target)
        };
        let inside = |target: i64, end: u64| (0..end as i64).contains(&target);
        let (our_end, their_end) = self.pairs.last().map_or((0, 0), |p| (p.our_end, p.their_end));
        inside(pair.our_target, our_end)
            && inside(pair.their_target, their_end)
            && index(pair.our_target, &|p| p.ours) == index(pair.their_target, &|p| p.theirs)
    }
}

/// Pairs two bodies. `None` if they are not the same sequence of operations. `relocated` says whether our body has a
/// relocation in a range. A no-operation with a relocation (of an alternative or a static branch) is not left out.
pub(crate) fn pair(
    own_code: &[u8],
    other_code: &[u8],
    relocated: &dyn Fn(u64, u64) -> bool,
) -> Option<InstructionPairs> {
    let (a, b) = (decode(own_code)?, decode(other_code)?);
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
        pairs.push(InstructionPair {
            ours: from,
            our_end: to,
            theirs: other.ip(),
            their_end: other.next_ip(),
            branch,
            our_target: if branch { one.near_branch_target() as i64 } else { 0 },
            their_target: if branch { other.near_branch_target() as i64 } else { 0 },
        });
    }
    Some(InstructionPairs { pairs })
}

fn is_branch(i: &Instruction) -> bool {
    i.is_jcc_short_or_near()
        || i.is_jmp_short_or_near()
        || i.is_call_near()
        || i.is_jcx_short()
        || i.is_loop()
        || i.is_loopcc()
}

/// The instructions of a body except no-operations; `None` if the bytes are not all instructions.
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
