//! Reads a relocated field of a linked image, by architecture and relocation type.
//!
//! Owns only bit layouts, in one table per architecture. The layouts are from the x86-64 psABI, table 4.9, and the Arm
//! architecture's encodings of ADR, ADD (immediate), LDR/STR (unsigned immediate), B, TBZ and MOVZ, named by the
//! AArch64 ELF ABI.

use klpx_normalize::arch::{Arch, FieldKind, RelocationKind};
use object::elf;

/// The target of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValue {
    /// A whole address.
    Address(u64),
    /// The 4 KiB page of an address.
    Page(u64),
    /// Some bits of an address.
    Bits {
        /// The bits, at their positions.
        bits: u64,
        /// The mask of these bits.
        mask: u64,
    },
}

impl FieldValue {
    /// Returns true if the field could have been written for this address.
    pub(crate) fn is(self, address: u64) -> bool {
        match self {
            FieldValue::Address(a) => a == address,
            FieldValue::Page(page) => page == address & !0xfff,
            FieldValue::Bits { bits, mask } => bits == address & mask,
        }
    }
}

/// How an arm64 instruction holds an address.
#[derive(Clone, Copy)]
enum AddressEncoding {
    /// Branch displacement in words: position, width.
    Words(u32, u32),
    /// ADR's split displacement in bytes.
    Adr,
    /// ADRP's split displacement in pages.
    Adrp,
    /// The low 12 bits, scaled by this power of two.
    Low(u32),
    /// 16 bits of the address, starting at this bit.
    Part(u32),
}

const ARM64: [(u32, AddressEncoding); 18] = [
    (elf::R_AARCH64_MOVW_UABS_G0_NC.0, AddressEncoding::Part(0)),
    (elf::R_AARCH64_MOVW_UABS_G1_NC.0, AddressEncoding::Part(16)),
    (elf::R_AARCH64_MOVW_UABS_G2_NC.0, AddressEncoding::Part(32)),
    (elf::R_AARCH64_MOVW_UABS_G3.0, AddressEncoding::Part(48)),
    (elf::R_AARCH64_LD_PREL_LO19.0, AddressEncoding::Words(5, 19)),
    (elf::R_AARCH64_ADR_PREL_LO21.0, AddressEncoding::Adr),
    (elf::R_AARCH64_ADR_PREL_PG_HI21.0, AddressEncoding::Adrp),
    (elf::R_AARCH64_ADR_PREL_PG_HI21_NC.0, AddressEncoding::Adrp),
    (elf::R_AARCH64_ADD_ABS_LO12_NC.0, AddressEncoding::Low(0)),
    (elf::R_AARCH64_LDST8_ABS_LO12_NC.0, AddressEncoding::Low(0)),
    (elf::R_AARCH64_LDST16_ABS_LO12_NC.0, AddressEncoding::Low(1)),
    (elf::R_AARCH64_LDST32_ABS_LO12_NC.0, AddressEncoding::Low(2)),
    (elf::R_AARCH64_LDST64_ABS_LO12_NC.0, AddressEncoding::Low(3)),
    (elf::R_AARCH64_LDST128_ABS_LO12_NC.0, AddressEncoding::Low(4)),
    (elf::R_AARCH64_TSTBR14.0, AddressEncoding::Words(5, 14)),
    (elf::R_AARCH64_CONDBR19.0, AddressEncoding::Words(5, 19)),
    (elf::R_AARCH64_JUMP26.0, AddressEncoding::Words(0, 26)),
    (elf::R_AARCH64_CALL26.0, AddressEncoding::Words(0, 26)),
];

fn hold(kind: &RelocationKind) -> Option<AddressEncoding> {
    ARM64.iter().find(|(code, _)| *code == kind.code).map(|&(_, hold)| hold)
}

impl AddressEncoding {
    /// The field's bits within the instruction.
    fn mask(self) -> u32 {
        match self {
            AddressEncoding::Words(at, width) => ((1 << width) - 1) << at,
            AddressEncoding::Adr | AddressEncoding::Adrp => 0x60ff_ffe0,
            AddressEncoding::Low(_) => 0xfff << 10,
            AddressEncoding::Part(_) => 0xffff << 5,
        }
    }

    fn value(self, word: u32, place: u64) -> FieldValue {
        let signed = |raw: u32, width: u32| i64::from((raw << (32 - width)) as i32 >> (32 - width));
        let split = signed((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3, 21);
        match self {
            AddressEncoding::Words(at, width) => FieldValue::Address(
                place.wrapping_add_signed(signed(word >> at & ((1 << width) - 1), width) * 4),
            ),
            AddressEncoding::Adr => FieldValue::Address(place.wrapping_add_signed(split)),
            AddressEncoding::Adrp => FieldValue::Page((place & !0xfff).wrapping_add_signed(split << 12)),
            AddressEncoding::Low(scale) => FieldValue::Bits {
                bits: u64::from(word >> 10 & 0xfff) << scale & 0xfff,
                mask: 0xfff & !((1 << scale) - 1),
            },
            AddressEncoding::Part(at) => {
                FieldValue::Bits { bits: u64::from(word >> 5 & 0xffff) << at, mask: 0xffff << at }
            }
        }
    }
}

/// The number of bytes from a relocation's place to the end of its field.
pub(crate) fn length(kind: &RelocationKind) -> u64 {
    match kind.field {
        FieldKind::Bytes(n) => u64::from(n),
        FieldKind::Instruction => 4,
    }
}

/// The target of a field that a linker wrote. `bytes` begin at the place.
pub(crate) fn value(arch: Arch, kind: &RelocationKind, bytes: &[u8], place: u64) -> Option<FieldValue> {
    let number = match kind.field {
        FieldKind::Instruction => {
            let word = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
            return Some(hold(kind)?.value(word, place));
        }
        FieldKind::Bytes(4) => {
            let raw = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
            let zero_extended = arch == Arch::X86_64 && kind.code == elf::R_X86_64_32.0
                || kind.code == elf::R_AARCH64_ABS32.0;
            if zero_extended { u64::from(raw) } else { i64::from(raw as i32) as u64 }
        }
        FieldKind::Bytes(8) => u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
        FieldKind::Bytes(_) => return None,
    };
    Some(FieldValue::Address(if kind.pc_relative { place.wrapping_add(number) } else { number }))
}

/// Returns true if two fields agree in the bits that the relocation does not write.
pub(crate) fn rest_agrees(kind: &RelocationKind, one: &[u8], other: &[u8]) -> bool {
    match (kind.field, hold(kind)) {
        (FieldKind::Bytes(_), _) => true,
        (FieldKind::Instruction, None) => false,
        (FieldKind::Instruction, Some(hold)) => {
            let word = |b: &[u8]| b.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            word(one).map(|w| w & !hold.mask()) == word(other).map(|w| w & !hold.mask())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arch: Arch, code: u32, bytes: &[u8], place: u64) -> FieldValue {
        let kind = arch.relocation(code).expect("a known type");
        value(arch, kind, bytes, place).expect("enough bytes")
    }

    #[test]
    fn x86_fields_are_read() {
        let x = |code, bytes: &[u8]| read(Arch::X86_64, code, bytes, 0xffff_ffff_8100_0000);
        assert_eq!(
            x(elf::R_X86_64_PC32.0, &[0xfc, 0xff, 0xff, 0xff]),
            FieldValue::Address(0xffff_ffff_80ff_fffc)
        );
        assert_eq!(x(elf::R_X86_64_32S.0, &[0, 0, 0, 0x81]), FieldValue::Address(0xffff_ffff_8100_0000));
        assert_eq!(x(elf::R_X86_64_32.0, &[0, 0, 0, 0x81]), FieldValue::Address(0x8100_0000));
        assert_eq!(
            x(elf::R_X86_64_64.0, &[1, 2, 3, 4, 5, 6, 7, 8]),
            FieldValue::Address(0x0807_0605_0403_0201)
        );
    }

    #[test]
    fn arm64_fields_are_read() {
        // bl .+8; adrp x0, .+0x1000 (from page 0x8000); add x0, x0, #0x123; ldr x1, [x0, #8]
        let a = |code, word: u32, place| read(Arch::Arm64, code, &word.to_le_bytes(), place);
        assert_eq!(a(elf::R_AARCH64_CALL26.0, 0x9400_0002, 0x8000), FieldValue::Address(0x8008));
        assert_eq!(a(elf::R_AARCH64_JUMP26.0, 0x17ff_ffff, 0x8000), FieldValue::Address(0x7ffc));
        assert_eq!(a(elf::R_AARCH64_ADR_PREL_PG_HI21.0, 0xb000_0000, 0x8234), FieldValue::Page(0x9000));
        assert_eq!(
            a(elf::R_AARCH64_ADD_ABS_LO12_NC.0, 0x9104_8c00, 0),
            FieldValue::Bits { bits: 0x123, mask: 0xfff }
        );
        assert_eq!(
            a(elf::R_AARCH64_LDST64_ABS_LO12_NC.0, 0xf940_0401, 0),
            FieldValue::Bits { bits: 8, mask: 0xff8 }
        );
    }
}
