//! The facts about arm64 code.

use klpx_normalize::arch::arm64::adr_distance;
use object::elf;

use super::effect::{Effect, Relocated};
use super::encoding::AddressEncoding;
use super::facts::{CodeFacts, RuntimeLoad, Veneer};
use crate::image::Location;

/// arm64.
pub(super) static FACTS: CodeFacts = CodeFacts {
    is_branch: |_, _, _| false,
    encodings: &ENCODINGS,
    zero_extended: elf::R_AARCH64_ABS32.0,
    branch_lengths_vary: false,
    shortened_pair: Some(shortened_pair),
    runtime_load,
    // four pieces of 16 bits
    code_holds_constants: false,
    veneer: Some(&VENEER),
    begins_with_landing_pad,
    straight_code_length,
    filler: 0,
    effects,
    // x0 to x7 (AAPCS64 6.8.2)
    argument_registers: &[0, 1, 2, 3, 4, 5, 6, 7],
    // x19 to x28 (AAPCS64 6.1.1)
    preserved_registers: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28],
    may_branch_to,
    follows_addresses: false,
    finds_linked_users: false,
};

static ENCODINGS: [(u32, AddressEncoding); 18] = [
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

/// The placeholder of `runtime_const_ptr()`, 16 bits per instruction, the low ones first
/// (arch/arm64/include/asm/runtime-const.h): `movz` and three `movk`, without the register.
const PLACEHOLDER: [u32; 4] = [
    0xd280_0000 | 0xcdef << 5,
    0xf2a0_0000 | 0x89ab << 5,
    0xf2c0_0000 | 0x4567 << 5,
    0xf2e0_0000 | 0x0123 << 5,
];
const ADRP: u32 = 0x9000_0000;
const LDR: u32 = 0xf940_0000;
const NOP: u32 = 0xd503_201f;

fn words(code: &[u8]) -> impl Iterator<Item = (usize, u32)> + Clone + '_ {
    code.chunks_exact(4).enumerate().map(|(n, w)| (n * 4, u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
}

/// `adrp x16, symbol; add x16, x16, :lo12:symbol; ret x16`. x16 is free between functions (AAPCS64). Compilers omit the
/// landing pad of a function that is only called directly; unlike `br`, `ret` needs no landing pad.
///
/// If a `bl` does not reach its target, the loader makes an entry in `.plt`, which branches on by `br x16`. The loader
/// can't do this when the patched module arrives: `.plt` is read-only by then, and module_emit_plt_entry
/// (arch/arm64/kernel/module-plts.c) writes there directly. Nor must it do this where BTI is on and the callee has no
/// landing pad.
static VENEER: Veneer = Veneer {
    code: &[0x9000_0010, 0x9100_0210, 0xd65f_0200],
    relocations: &[(0, elf::R_AARCH64_ADR_PREL_PG_HI21.0), (4, elf::R_AARCH64_ADD_ABS_LO12_NC.0)],
};

/// Returns true if code begins with an instruction to which `br x16` may lead under BTI: `bti c`, `bti jc`, `paciasp`,
/// `pacibsp`.
fn begins_with_landing_pad(code: &[u8]) -> bool {
    let first = words(code).next().map(|(_, word)| word);
    matches!(first, Some(0xd503_245f | 0xd503_24df | 0xd503_233f | 0xd503_237f))
}

/// `movz`, `movk`, `movk`, `movk` of one register become `adrp`, `ldr`, `nop`, `nop` of the same register.
fn runtime_load(code: &[u8], place: usize) -> Option<RuntimeLoad> {
    let mut found = words(code.get(place..place + 16)?).map(|(_, word)| word);
    let register = found.clone().next()? & 31;
    // Register 31 is the zero register in a move, but the stack pointer in a load.
    if register == 31 || !PLACEHOLDER.iter().all(|&part| found.next() == Some(part | register)) {
        return None;
    }
    let code = [ADRP | register, LDR | register << 5 | register, NOP, NOP];
    Some(RuntimeLoad {
        at: place,
        bytes: code.iter().flat_map(|word| word.to_le_bytes()).collect(),
        relocations: vec![
            (place, elf::R_AARCH64_ADR_PREL_PG_HI21.0, 0),
            (place + 4, elf::R_AARCH64_LDST64_ABS_LO12_NC.0, 0),
        ],
    })
}

/// The length of code up to the first `b`, `br` or `ret`: these have no condition and no link.
fn straight_code_length(code: &[u8]) -> Option<usize> {
    let ends =
        |w: u32| w >> 26 == 0b00_0101 || w & 0xffff_fc1f == 0xd61f_0000 || w & 0xffff_fc1f == 0xd65f_0000;
    words(code).find(|&(_, word)| ends(word)).map(|(at, _)| at + 4)
}

/// The distance of a `b` or `bl`, in bytes from its place.
fn branch_distance(word: u32) -> i64 {
    i64::from((word << 6) as i32 >> 6) * 4
}

/// `adrp`, `add` of one register that the linker changed to `nop`, `adr` (lld's AArch64Relaxer).
fn shortened_pair(kinds: (u32, u32), witness_code: &[u8], image_code: &[u8]) -> Option<i64> {
    if kinds != (elf::R_AARCH64_ADR_PREL_PG_HI21.0, elf::R_AARCH64_ADD_ABS_LO12_NC.0) {
        return None;
    }
    let pair = |code| {
        let mut found = words(code).map(|(_, word)| word);
        Some((found.next()?, found.next()?))
    };
    let ((adrp, add), (nop, adr)) = (pair(witness_code)?, pair(image_code)?);
    let register = adrp & 31;
    let one = adrp & 0x9f00_0000 == ADRP && add & 0xff80_03ff == 0x9100_0000 | register << 5 | register;
    let distance = adr_distance(adr).filter(|_| nop == NOP && adr & 31 == register)?;
    one.then_some(distance + 4)
}

fn effects(code: &[u8], base: u64, relocated: Relocated<'_>, tell: &mut dyn FnMut(Effect)) {
    for (at, word) in words(code) {
        let place = base.wrapping_add(at as u64);
        let location = relocated(place, place.wrapping_add(4)).map(|(_, location)| location);
        let branch = || location.unwrap_or(Location::At(place.wrapping_add_signed(branch_distance(word))));
        let (to, from) = (word as u8 & 31, (word >> 5) as u8 & 31);
        let set = |address: u64| match location {
            Some(Location::At(address)) => Effect::Set(to, address),
            Some(Location::Undefined(..)) => Effect::Lose(to),
            None => Effect::Set(to, address),
        };
        if word >> 26 == 0b10_0101 {
            tell(Effect::Call(Some(branch())));
        } else if word >> 26 == 0b00_0101 {
            tell(Effect::Leave(Some(branch())));
        } else if word & 0xfe00_0000 == 0xd600_0000 {
            // br, blr, ret, eret and their forms with pointer authentication; blr has 01 in bits 21 and 22
            tell(if word >> 21 & 3 == 1 { Effect::Call(None) } else { Effect::Leave(None) });
        } else if word & 0x9f00_0000 == ADRP {
            let pages = i64::from(((word << 8) as i32 >> 13 << 2) | (word >> 29 & 3) as i32);
            tell(set((place & !0xfff).wrapping_add_signed(pages << 12)));
        } else if let Some(distance) = adr_distance(word) {
            tell(set(place.wrapping_add_signed(distance)));
        } else if word & 0xff80_0000 == 0x9100_0000 {
            // add, with an immediate that may be shifted by 12; with a relocation, the whole address is known already
            let immediate = u64::from(word >> 10 & 0xfff) << (12 * (word >> 22 & 1));
            tell(if location.is_some() { set(0) } else { Effect::Add(to, from, immediate) });
        } else if word & 0xffe0_ffe0 == 0xaa00_03e0 {
            tell(Effect::Add(to, (word >> 16) as u8 & 31, 0));
        } else {
            // Stores and comparisons write no register. To treat them as if they did makes no wrong claim.
            tell(Effect::Lose(to));
            if word & 0x3a00_0000 == 0x2800_0000 {
                tell(Effect::Lose((word >> 10) as u8 & 31));
            }
        }
    }
}

/// Finds `b` and `bl`.
fn may_branch_to(code: &[u8], base: u64, targets: &[u64]) -> Vec<u64> {
    let place = |at: usize| base.wrapping_add(at as u64);
    let leads = |&(at, word): &(usize, u32)| {
        word >> 26 & 0b01_1111 == 0b00_0101
            && targets.contains(&place(at).wrapping_add_signed(branch_distance(word)))
    };
    words(code).filter(leads).map(|(at, _)| place(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_pair_leads_where_its_adr_does() {
        let kinds = (elf::R_AARCH64_ADR_PREL_PG_HI21.0, elf::R_AARCH64_ADD_ABS_LO12_NC.0);
        // adrp x0, .; add x0, x0, #0
        let witness_code = code(&[0x9000_0000, 0x9100_0000]);
        for (adr, distance) in
            [(0x3000_0000, 5), (0x1000_0020, 8), (0x10ff_ffe0, 0), (0x707f_ffe0, 0x10_0003)]
        {
            assert_eq!(shortened_pair(kinds, &witness_code, &code(&[NOP, adr])), Some(distance), "{adr:#x}");
        }
        assert_eq!(
            shortened_pair(kinds, &witness_code, &code(&[NOP, 0x1000_0021])),
            None,
            "another register"
        );
        assert_eq!(
            shortened_pair(kinds, &code(&[0x9000_0000, 0x9100_0001]), &code(&[NOP, 0x1000_0020])),
            None
        );
        assert_eq!(shortened_pair(kinds, &witness_code, &witness_code), None);
        assert_eq!(shortened_pair((kinds.0, 0), &witness_code, &code(&[NOP, 0x1000_0020])), None);
    }

    fn code(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_runtime_constant_becomes_a_load_into_the_same_register() {
        // nop; movz x9, #0xcdef; movk x9, #0x89ab, lsl #16; movk x9, #0x4567, lsl #32; movk x9, #0x123, lsl #48
        let original = code(&[NOP, 0xd299_bde9, 0xf2b1_3569, 0xf2c8_ace9, 0xf2e0_2469]);
        let load = runtime_load(&original, 4).expect("the macro's code");
        // adrp x9, 0; ldr x9, [x9]; nop; nop
        assert_eq!((load.at, load.bytes), (4, code(&[0x9000_0009, 0xf940_0129, NOP, NOP])));
        let kinds: Vec<_> = load.relocations.iter().map(|&(at, kind, _)| (at, kind)).collect();
        let adrp = elf::R_AARCH64_ADR_PREL_PG_HI21.0;
        assert_eq!(kinds, [(4, adrp), (8, elf::R_AARCH64_LDST64_ABS_LO12_NC.0)]);
    }

    #[test]
    fn other_code_is_no_runtime_constant() {
        let mixed = code(&[0xd299_bde9, 0xf2b1_3569, 0xf2c8_ace8, 0xf2e0_2469]);
        assert_eq!(runtime_load(&mixed, 0), None);
        assert_eq!(runtime_load(&code(&[NOP; 4]), 0), None);
        assert_eq!(runtime_load(&mixed[..12], 0), None);
    }

    #[test]
    fn branches_lead_both_ways() {
        assert_eq!(branch_distance(0x9400_0002), 8);
        assert_eq!(branch_distance(0x17ff_ffff), -4);
    }

    #[test]
    fn a_landing_pad_is_a_mark_or_a_signed_return_address() {
        for (word, is_pad) in [
            (0xd503_245f, true),  // bti c
            (0xd503_24df, true),  // bti jc
            (0xd503_233f, true),  // paciasp
            (0xd503_237f, true),  // pacibsp
            (0xd503_249f, false), // bti j
            (NOP, false),
        ] {
            assert_eq!(begins_with_landing_pad(&code(&[word, NOP])), is_pad, "{word:#x}");
        }
        assert!(!begins_with_landing_pad(&[]));
    }

    #[test]
    fn the_zero_register_holds_no_runtime_constant() {
        let of = |register: u32| code(&PLACEHOLDER.map(|word| word | register));
        assert!(runtime_load(&of(30), 0).is_some());
        assert_eq!(runtime_load(&of(31), 0), None);
    }
}
