//! Reads a relocated field of a linked image, by architecture and relocation type.
//!
//! Owns fields of whole bytes (x86-64 psABI, table 4.9). [`arch::AddressEncoding`] has the layouts of fields in instructions.

use klpx_normalize::arch::{Arch, FieldKind, RelocationKind};

use crate::arch;
pub(crate) use crate::arch::FieldValue;

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
            return Some(arch::encoding(arch, kind.code)?.value(word, place));
        }
        FieldKind::Bytes(4) => {
            let raw = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
            if kind.code == arch::zero_extended(arch) { u64::from(raw) } else { i64::from(raw as i32) as u64 }
        }
        FieldKind::Bytes(8) => u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
        FieldKind::Bytes(_) => return None,
    };
    Some(FieldValue::Address(if kind.pc_relative { place.wrapping_add(number) } else { number }))
}

/// Returns true if two fields agree in the bits that the relocation does not write.
pub(crate) fn rest_agrees(arch: Arch, kind: &RelocationKind, one: &[u8], other: &[u8]) -> bool {
    match (kind.field, arch::encoding(arch, kind.code)) {
        (FieldKind::Bytes(_), _) => true,
        (FieldKind::Instruction, None) => false,
        (FieldKind::Instruction, Some(encoding)) => {
            let word = |b: &[u8]| b.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            word(one).map(|w| w & !encoding.mask()) == word(other).map(|w| w & !encoding.mask())
        }
    }
}

#[cfg(test)]
mod tests {
    use object::elf;

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
