//! `.eh_frame` as records: the frames that it describes and where each begins.
//!
//! Layout: the LSB's "Exception Frames"; of it, records with 32-bit lengths and the common information right before or
//! further up, as compilers and relocatable links write it. Owns reading only; interprets no frame instruction.

use object::endian::LittleEndian as LE;

use crate::elf::{Elf, Rela, SectionId};

/// The description of one function's frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'d> {
    /// The common information that it refers to, with its length field.
    pub common: &'d [u8],
    /// Itself, with its length field.
    pub bytes: &'d [u8],
    /// Where it begins in the section.
    pub start: u64,
    /// The relocation of the address of the code: [`CODE`] bytes into the record.
    pub code: &'d Rela,
}

/// Where a frame's record has the address of its code, in bytes. Its size follows.
pub const CODE: u64 = 8;

/// The frames of a section. Stops at the first record that is not as described above.
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

/// The record at an offset, with its length field.
fn record(all: &[u8], start: usize) -> Option<&[u8]> {
    let length = word(all, start).filter(|length| (4..0xffff_fff0).contains(length))?;
    all.get(start..start.checked_add(4)?.checked_add(length as usize)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
