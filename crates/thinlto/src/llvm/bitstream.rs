//! Reads LLVM's bitstream container (llvm.org/docs/BitCodeFormat.html): bits in little-endian order, blocks that begin
//! with their length in 32-bit words, records with and without abbreviations. A damaged file gives `None`, not a panic.
//!
//! The format, with a dump: `docs/formats/bitcode.md`.

pub(crate) const MAGIC: [u8; 4] = [b'B', b'C', 0xc0, 0xde];

pub(crate) const END_BLOCK: u64 = 0;
const ENTER_SUBBLOCK: u64 = 1;
const DEFINE_ABBREV: u64 = 2;
pub(crate) const UNABBREV_RECORD: u64 = 3;

/// The width of an abbreviation number outside all blocks, in bits.
const TOP_WIDTH: u32 = 2;

/// The contents of a block, in bytes from the start of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) id: u64,
    /// The width of an abbreviation number in the block, in bits.
    pub(crate) width: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// An entry of a block.
pub(crate) enum BlockEntry {
    Block(Block),
    Record(Record),
}

/// A record: its code and its operands.
pub(crate) struct Record {
    /// The place of the record's abbreviation number, in bits from the start of the file.
    pub(crate) at: usize,
    /// True if the record has no abbreviation.
    pub(crate) plain: bool,
    pub(crate) code: u64,
    pub(crate) operands: Vec<OperandField>,
    /// The bytes of a blob, which is always the last operand.
    pub(crate) blob: Option<std::ops::Range<usize>>,
}

/// One operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperandField {
    pub(crate) value: u64,
    /// The operand's place, in bits from the start of the file.
    pub(crate) at: usize,
    /// How many of the operand's lowest bits are contiguous at `at`; 0 if the abbreviation gives the value.
    pub(crate) low_bits: u32,
}

/// One operand of an abbreviation.
#[derive(Clone, Copy)]
enum Operand {
    Literal(u64),
    Fixed(u32),
    Vbr(u32),
    Array,
    Char6,
    Blob,
}

impl Operand {
    fn takes_bits(&self) -> bool {
        match *self {
            Operand::Fixed(width) | Operand::Vbr(width) => width > 0,
            Operand::Char6 => true,
            Operand::Literal(_) | Operand::Array | Operand::Blob => false,
        }
    }
}

/// The top-level blocks of a file. `None` if the file is no bitstream.
pub(crate) fn blocks(bytes: &[u8]) -> Option<Vec<Block>> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let mut bits = Bits { bytes, at: 32 };
    let mut found = Vec::new();
    while bits.at / 8 + 4 <= bytes.len() {
        if bits.fixed(TOP_WIDTH)? != ENTER_SUBBLOCK {
            return None;
        }
        let block = bits.block()?;
        bits.at = block.end * 8;
        found.push(block);
    }
    Some(found)
}

/// Reads the blocks and records of one block. Abbreviations from a BLOCKINFO block are not supported: no block that
/// klpx reads has any.
pub(crate) struct BlockReader<'d> {
    bits: Bits<'d>,
    block: Block,
    abbreviations: Vec<Vec<Operand>>,
    ended: bool,
}

impl<'d> BlockReader<'d> {
    pub(crate) fn new(bytes: &'d [u8], block: Block) -> BlockReader<'d> {
        BlockReader {
            bits: Bits { bytes, at: block.start * 8 },
            block,
            abbreviations: Vec::new(),
            ended: false,
        }
    }

    /// The next block or record. `Some(None)` at the end of the block; `None` if the entry is not understood.
    pub(crate) fn next(&mut self) -> Option<Option<BlockEntry>> {
        while !self.ended && self.bits.at < self.block.end * 8 {
            let at = self.bits.at;
            match self.bits.fixed(self.block.width)? {
                END_BLOCK => self.ended = true,
                ENTER_SUBBLOCK => {
                    let block = self.bits.block()?;
                    self.bits.at = block.end * 8;
                    return Some(Some(BlockEntry::Block(block)));
                }
                DEFINE_ABBREV => self.abbreviations.push(self.bits.abbreviation()?),
                UNABBREV_RECORD => return Some(Some(BlockEntry::Record(self.bits.plain_record(at)?))),
                number => {
                    let index = usize::try_from(number - 4).ok()?;
                    let operands = self.abbreviations.get(index)?;
                    return Some(Some(BlockEntry::Record(self.bits.record(at, operands)?)));
                }
            }
        }
        Some(None)
    }
}

struct Bits<'d> {
    bytes: &'d [u8],
    /// The position, in bits.
    at: usize,
}

impl Bits<'_> {
    fn fixed(&mut self, width: u32) -> Option<u64> {
        let mut value = 0;
        let mut have = 0;
        while have < width {
            let byte = *self.bytes.get(self.at / 8)?;
            let (from, take) = ((self.at % 8) as u32, (8 - self.at as u32 % 8).min(width - have));
            let part = u64::from(byte >> from) & ((1 << take) - 1);
            value |= part.checked_shl(have)?;
            have += take;
            self.at += take as usize;
        }
        Some(value)
    }

    fn vbr(&mut self, width: u32) -> Option<u64> {
        let more = 1_u64.checked_shl(width.checked_sub(1)?)?;
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let part = self.fixed(width)?;
            value |= (part & (more - 1)).checked_shl(shift)?;
            if part & more == 0 {
                return Some(value);
            }
            shift += width - 1;
        }
    }

    fn align(&mut self) {
        self.at = self.at.div_ceil(32) * 32;
    }

    /// Reads the head of a block after its abbreviation number.
    fn block(&mut self) -> Option<Block> {
        let id = self.vbr(8)?;
        let width = u32::try_from(self.vbr(4)?).ok()?;
        self.align();
        let words = usize::try_from(self.fixed(32)?).ok()?;
        let start = self.at / 8;
        let end = words.checked_mul(4)?.checked_add(start)?;
        (end <= self.bytes.len() && (2..=32).contains(&width)).then_some(Block { id, width, start, end })
    }

    fn abbreviation(&mut self) -> Option<Vec<Operand>> {
        let count = self.vbr(5)?;
        let mut operands = Vec::new();
        for _ in 0..count {
            operands.push(match self.fixed(1)? {
                1 => Operand::Literal(self.vbr(8)?),
                _ => match self.fixed(3)? {
                    1 => Operand::Fixed(u32::try_from(self.vbr(5)?).ok()?),
                    2 => Operand::Vbr(u32::try_from(self.vbr(5)?).ok()?),
                    3 => Operand::Array,
                    4 => Operand::Char6,
                    5 => Operand::Blob,
                    _ => return None,
                },
            });
        }
        Some(operands)
    }

    /// Reads a record without an abbreviation.
    fn plain_record(&mut self, at: usize) -> Option<Record> {
        let (code, count) = (self.vbr(6)?, self.vbr(6)?);
        let mut operands = Vec::new();
        for _ in 0..count {
            operands.push(self.scalar(Operand::Vbr(6))?);
        }
        Some(Record { at, plain: true, code, operands, blob: None })
    }

    /// Reads a record with an abbreviation.
    fn record(&mut self, at: usize, abbreviation: &[Operand]) -> Option<Record> {
        let mut operands = Vec::new();
        let mut blob = None;
        let mut forms = abbreviation.iter();
        while let Some(&form) = forms.next() {
            match form {
                Operand::Array => {
                    // Elements without bits are refused: the file could claim any number of them.
                    let element = *forms.next().filter(|element| element.takes_bits())?;
                    for _ in 0..self.vbr(6)? {
                        operands.push(self.scalar(element)?);
                    }
                }
                Operand::Blob => {
                    let size = usize::try_from(self.vbr(6)?).ok()?;
                    self.align();
                    let start = self.at / 8;
                    let end = size.checked_add(start).filter(|&end| end <= self.bytes.len())?;
                    blob = Some(start..end);
                    self.at = end * 8;
                    self.align();
                }
                scalar => operands.push(self.scalar(scalar)?),
            }
        }
        if operands.is_empty() {
            return None;
        }
        let code = operands.remove(0).value;
        Some(Record { at, plain: false, code, operands, blob })
    }

    fn scalar(&mut self, form: Operand) -> Option<OperandField> {
        let at = self.at;
        let (value, low_bits) = match form {
            Operand::Literal(value) => (value, 0),
            Operand::Fixed(0) | Operand::Vbr(0) => (0, 0),
            Operand::Fixed(width) => (self.fixed(width)?, width),
            Operand::Vbr(width) => (self.vbr(width)?, width - 1),
            Operand::Char6 => (self.fixed(6)?, 6),
            Operand::Array | Operand::Blob => return None,
        };
        Some(OperandField { value, at, low_bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs values of the given widths into bits.
    fn written(fields: &[(u64, u32)]) -> Vec<u8> {
        let bits: Vec<u64> =
            fields.iter().flat_map(|&(value, width)| (0..width).map(move |at| value >> at & 1)).collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8)));
        bytes
    }

    /// The first record of a file with one block: `abbreviation` are the bits of its definition, `record` the record's
    /// bits after the abbreviation number.
    fn first_record(abbreviation: &[(u64, u32)], record: &[(u64, u32)]) -> Option<Record> {
        // A block of two words with abbreviation numbers of 3 bits.
        let head = [(ENTER_SUBBLOCK, TOP_WIDTH), (8, 8), (3, 4), (0, 18), (2, 32)];
        let file = written(
            &[&head[..], &[(DEFINE_ABBREV, 3)], abbreviation, &[(4, 3)], record, &[(0, 25)]].concat(),
        );
        let block = blocks(&file).expect("a bitstream")[0];
        match BlockReader::new(&file, block).next() {
            Some(Some(BlockEntry::Record(record))) => Some(record),
            _ => None,
        }
    }

    #[test]
    fn a_file_without_the_magic_number_is_no_bitstream() {
        let file = written(&[(ENTER_SUBBLOCK, TOP_WIDTH), (8, 8), (3, 4), (0, 18), (0, 32)]);
        assert_eq!(blocks(&file).map(|blocks| blocks.len()), Some(1));
        for at in 0..MAGIC.len() {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(blocks(&other).is_none(), "byte {at}");
        }
    }

    #[test]
    fn only_the_bits_before_the_sign_that_more_follow_lie_side_by_side() {
        // The literal 1, a number in groups of 6 bits, a number in groups of 7 bits.
        let abbreviation = [(3, 5), (1, 1), (1, 8), (0, 1), (2, 3), (6, 5), (0, 1), (1, 3), (7, 5)];
        let record =
            first_record(&abbreviation, &[(0b1_00011, 6), (0b0_00001, 6), (0x55, 7)]).expect("a record");
        let found: Vec<(u64, u32)> =
            record.operands.iter().map(|field| (field.value, field.low_bits)).collect();
        assert_eq!(found, [(0b1_00011, 5), (0x55, 7)]);
    }

    #[test]
    fn elements_of_an_array_take_bits() {
        let first_of = |width: u64| {
            // The literal 1, and an array of numbers of `width` bits; the record claims 31 elements.
            let abbreviation = [(3, 5), (1, 1), (1, 8), (0, 1), (3, 3), (0, 1), (1, 3), (width, 5)];
            first_record(&abbreviation, &[(31, 6)]).map(|record| record.operands.len())
        };
        assert_eq!(first_of(0), None, "31 of nothing");
        assert_eq!(first_of(1), None, "more than the file holds");
    }
}
