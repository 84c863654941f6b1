//! `.eh_frame` as records: the frames that the section describes, and the place of each.
//!
//! Layout: "Exception Frames" of the LSB. Covers records with 32-bit lengths whose common information lies before them,
//! as compilers and relocatable links write. Only reads; interprets no frame instruction.

use object::endian::LittleEndian as LE;

use crate::elf::{Elf, Rela, SectionId};

/// The description of one function's frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'d> {
    /// The common information that the frame refers to, with its length field.
    pub common: &'d [u8],
    /// The frame's own record, with its length field.
    pub bytes: &'d [u8],
    /// The record's offset in the section.
    pub start: u64,
    /// The relocation of the code's address, [`CODE`] bytes into the record.
    pub code: &'d Rela,
}

/// The offset of the code's address in a frame's record, in bytes. The code's size follows the address.
pub const CODE: u64 = 8;

/// Returns the frames of a section. Skips records of other forms, and stops at the first record without a valid 32-bit
/// length.
pub fn frames<'d>(elf: &'d Elf<'_>, section: SectionId) -> Vec<Frame<'d>> {
    let all = elf.section_bytes(section);
    let relocations = elf.relocations(section);
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(bytes) = record(all, start) {
        let pointer = word(bytes, 4).filter(|&back| back != 0);
        let common = pointer.and_then(|back| record(all, (start + 4).checked_sub(back as usize)?));
        let place = start as u64 + CODE;
        let at = relocations.partition_point(|rela| rela.r_offset.get(LE) < place);
        let code = relocations.get(at).filter(|rela| rela.r_offset.get(LE) == place);
        if let (Some(common), Some(code)) = (common, code) {
            found.push(Frame { common, bytes, start: start as u64, code });
        }
        start += bytes.len();
    }
    found
}

/// Returns the record at an offset, with its length field.
fn record(all: &[u8], start: usize) -> Option<&[u8]> {
    let length = word(all, start).filter(|length| (4..0xffff_fff0).contains(length))?;
    all.get(start..start.checked_add(4)?.checked_add(length as usize)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
