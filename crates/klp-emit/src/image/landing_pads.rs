//! The functions of x86_64 that indirect calls can't reach: their landing pad is missing, or the kernel removes it.

use object::elf;

use super::kernel_object::{Image, Location};

/// The section in which objtool lists unneeded landing pads.
const SEALS: &[u8] = b".ibt_endbr_seal";

/// The landing pad of x86_64.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

impl Image<'_> {
    /// Returns true for a kernel that removes the landing pads of functions whose address is not taken
    /// (CONFIG_X86_KERNEL_IBT, apply_seal_endbr in arch/x86/kernel/alternative.c).
    pub(crate) fn seals_functions(&self) -> bool {
        self.linked && self.elf.section_by_name(SEALS).is_some()
    }

    /// Returns true for code whose landing pad is missing or is removed.
    pub(crate) fn is_sealed(&self, address: u64) -> bool {
        let Some(section) = self.section_of(address) else { return false };
        let flags = self.elf.section_flags(section);
        let (runs, writable) = (flags & elf::SHF_EXECINSTR.0 != 0, flags & elf::SHF_WRITE.0 != 0);
        // The final link of x86_64 puts code into `.data`.
        let code = runs && (!writable || self.function_at(address).is_some());
        let begins = self.bytes_from(address).is_some_and(|code| code.starts_with(&ENDBR64));
        code && (!begins || self.seals().any(|sealed| sealed == address))
    }

    /// The addresses of landing pads that are removed. The table holds distances from its own places.
    fn seals(&self) -> impl Iterator<Item = u64> + '_ {
        let section = self.elf.section_by_name(SEALS);
        let start = section.map_or(0, |section| self.section_address(section));
        let bytes =
            section.filter(|_| self.linked).map_or(&[][..], |section| self.elf.section_bytes(section));
        let distances =
            bytes.chunks_exact(4).map(|d| i64::from(i32::from_le_bytes([d[0], d[1], d[2], d[3]])));
        let linked = distances.enumerate().map(move |(n, d)| (start + 4 * n as u64).wrapping_add_signed(d));
        let table = section.filter(|_| !self.linked).map_or(&[][..], |section| self.elf.relocations(section));
        linked.chain(table.iter().filter_map(|rela| match self.target(rela) {
            Some(Location::At(address)) => Some(address),
            _ => None,
        }))
    }
}
