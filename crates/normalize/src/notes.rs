//! Notes of an ELF file: the build ID, which tells two builds of one kernel apart.

use object::elf;

use crate::elf::Elf;

/// The owner of the linker's notes.
const GNU: &[u8] = b"GNU\0";

/// Returns the build ID that the linker gave a file (`NT_GNU_BUILD_ID`). `/sys/kernel/notes` holds that of the kernel's
/// image.
pub fn build_id<'d>(elf: &Elf<'d>) -> Option<&'d [u8]> {
    let notes = elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_NOTE.0);
    notes.into_iter().find_map(|id| in_notes(elf.section_bytes(id)))
}

/// Returns the build ID among notes. `bytes` are a section of notes, or `/sys/kernel/notes`.
///
/// A note is three words (size of the name, size of the description, type), then the name and the description, each
/// padded to four bytes (`Elf64_Nhdr`, include/uapi/linux/elf.h).
pub fn in_notes(mut bytes: &[u8]) -> Option<&[u8]> {
    let filled = |size: usize| size.checked_next_multiple_of(4);
    loop {
        let (words, rest) = bytes.split_at_checked(12)?;
        let word = |n: usize| {
            words[4 * n..4 * n + 4].iter().rev().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte))
        };
        let (name_size, size) = (word(0) as usize, word(1) as usize);
        let (name, rest) = (rest.get(..name_size)?, rest.get(filled(name_size)?..)?);
        let description = rest.get(..size)?;
        if name == GNU && word(2) == elf::NT_GNU_BUILD_ID.0 {
            return Some(description);
        }
        bytes = rest.get(filled(size)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, description.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes_and_nothing_is_read_past_the_end() {
        let id = note(GNU, 3, &[1, 2, 3, 4, 5]);
        let all = [note(b"Linux\0", 3, b"xyz"), note(GNU, 5, b"property"), id.clone()].concat();
        assert_eq!(in_notes(&all), Some(&[1, 2, 3, 4, 5][..]));
        for length in 0..all.len() - 3 {
            assert_eq!(in_notes(&all[..length]), None, "{length} bytes");
        }
        let mut long = id;
        long[4..8].fill(0xff);
        assert_eq!(in_notes(&long), None);
    }
}
