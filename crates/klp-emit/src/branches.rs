//! Matches two x86_64 bodies that have the same instructions but other branch lengths and other padding.
//!
//! Owns the pairing of instructions and of branch targets inside a function. Knows nothing about symbols.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

/// One instruction in both bodies. Offsets are from the entries.
pub(crate) struct InstructionPair {
    /// The offset in klpx's build.
    pub(crate) witness_start: u64,
    witness_end: u64,
    /// The offset in the kernel's.
    pub(crate) image_start: u64,
    image_end: u64,
    /// True for a jump or call with a fixed target.
    pub(crate) branch: bool,
    witness_target: i64,
    /// The target of the kernel's branch, from the entry.
    pub(crate) image_target: i64,
}

impl InstructionPair {
    /// Returns true if a place of the witness lies in this instruction.
    pub(crate) fn holds(&self, place: u64) -> bool {
        (self.witness_start..self.witness_end).contains(&place)
    }

    /// The length of the kernel's instruction in bytes.
    pub(crate) fn image_length(&self) -> u64 {
        self.image_end - self.image_start
    }

    /// Returns true if the bytes outside fields are equal; `field` gives the length of a field that begins at a place.
    pub(crate) fn same_bytes(
        &self,
        witness_code: &[u8],
        image_code: &[u8],
        field: impl Fn(u64) -> Option<u64>,
    ) -> bool {
        let length = self.witness_end - self.witness_start;
        if length != self.image_end - self.image_start {
            return false;
        }
        let mut n = 0;
        while n < length {
            match field(self.witness_start + n) {
                Some(skip) if skip > 0 => n += skip,
                _ if witness_code.get((self.witness_start + n) as usize)
                    != image_code.get((self.image_start + n) as usize) =>
                {
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

    /// Returns true if a branch without a relocation leads to the same instruction in both bodies.
    pub(crate) fn same_internal_target(&self, pair: &InstructionPair) -> bool {
        let (Ok(ours), Ok(theirs)) = (u64::try_from(pair.witness_target), u64::try_from(pair.image_target))
        else {
            return false;
        };
        self.is_same_place(ours, theirs) == Some(true)
    }

    /// Returns true if two offsets lead to the same instruction, or to no-operations before the same instruction. `None`
    /// if the offset in klpx's build lies behind the last instruction.
    pub(crate) fn is_same_place(&self, witness_offset: u64, image_offset: u64) -> Option<bool> {
        let ours = self.place(witness_offset, |pair| (pair.witness_start, pair.witness_end))?;
        let theirs = self.place(image_offset, |pair| (pair.image_start, pair.image_end));
        Some(theirs == Some(ours))
    }

    /// Returns the instruction at an offset, as an index, and the distance from the instruction's start. No-operations
    /// belong to the start of the next instruction.
    fn place(&self, offset: u64, range: impl Fn(&InstructionPair) -> (u64, u64)) -> Option<(usize, u64)> {
        let n = self.pairs.partition_point(|pair| range(pair).1 <= offset);
        let (start, _) = range(self.pairs.get(n)?);
        Some((n, offset.saturating_sub(start)))
    }
}

/// Pairs two bodies. `None` if they are not the same sequence of operations. `relocated` says whether our body has a
/// relocation in a range.
pub(crate) fn pair(
    witness_code: &[u8],
    image_code: &[u8],
    relocated: &dyn Fn(u64, u64) -> bool,
) -> Option<InstructionPairs> {
    let (a, b) = (decode(witness_code)?, decode(image_code)?);
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
            witness_start: from,
            witness_end: to,
            image_start: other.ip(),
            image_end: other.next_ip(),
            branch,
            witness_target: if branch { one.near_branch_target() as i64 } else { 0 },
            image_target: if branch { other.near_branch_target() as i64 } else { 0 },
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
