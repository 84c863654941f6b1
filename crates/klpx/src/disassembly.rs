//! Instructions as text: AT&T syntax for x86_64; for arm64 only the kind of a branch.

use iced_x86::{Formatter, OpKind};
use klpx_normalize::arch::Arch;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DisassembledInstruction {
    /// Where the instruction begins, in bytes from the start of the code.
    pub(crate) offset: usize,
    /// The instruction's length in bytes.
    pub(crate) length: usize,
    /// The assembler text; empty where klpx does not disassemble.
    pub(crate) text: String,
    /// The branch, if the instruction is one that names its target by a distance.
    pub(crate) branch: Option<Branch>,
}

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// The branch's mnemonic.
    pub(crate) mnemonic: String,
    /// Everything but the distance: equal for the same branch at another place.
    pub(crate) fixed: String,
    /// The branch's target, in bytes from the start of the code.
    pub(crate) target: i64,
}

/// The instructions of `code`, from the start.
pub(crate) fn instructions(
    arch: Arch,
    code: &[u8],
) -> Box<dyn Iterator<Item = DisassembledInstruction> + '_> {
    match arch {
        Arch::X86_64 => Box::new(of_x86_64(code)),
        Arch::Arm64 => Box::new(of_arm64(code)),
    }
}

fn of_x86_64(code: &[u8]) -> impl Iterator<Item = DisassembledInstruction> {
    let mut decoder = iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE);
    let mut formatter = iced_x86::GasFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    std::iter::from_fn(move || {
        decoder.can_decode().then(|| {
            let instruction = decoder.decode();
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            let near = matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            );
            let branch = near.then(|| {
                let mut mnemonic = String::new();
                formatter.format_mnemonic(&instruction, &mut mnemonic);
                Branch {
                    fixed: mnemonic.clone(),
                    mnemonic,
                    target: instruction.near_branch_target().cast_signed(),
                }
            });
            DisassembledInstruction {
                offset: usize::try_from(instruction.ip()).unwrap_or(usize::MAX),
                length: instruction.len(),
                text,
                branch,
            }
        })
    })
}

/// Branches by their fixed bits: mask, value, name, and the lowest bit and the width of the field that holds the
/// distance in words (Arm Architecture Reference Manual, C4.1).
const ARM64_BRANCHES: [(u32, u32, &str, u32, u32); 7] = [
    (0xfc00_0000, 0x1400_0000, "b", 0, 26),
    (0xfc00_0000, 0x9400_0000, "bl", 0, 26),
    (0xff00_0010, 0x5400_0000, "b.cond", 5, 19),
    (0x7f00_0000, 0x3400_0000, "cbz", 5, 19),
    (0x7f00_0000, 0x3500_0000, "cbnz", 5, 19),
    (0x7f00_0000, 0x3600_0000, "tbz", 5, 14),
    (0x7f00_0000, 0x3700_0000, "tbnz", 5, 14),
];

fn of_arm64(code: &[u8]) -> impl Iterator<Item = DisassembledInstruction> {
    code.chunks(4).enumerate().map(|(n, bytes)| {
        let word = <[u8; 4]>::try_from(bytes).ok().map(u32::from_le_bytes);
        let branch = word.and_then(|word| {
            let is = |&&(mask, value, ..): &&(u32, u32, &str, u32, u32)| word & mask == value;
            let &(.., name, low, width) = ARM64_BRANCHES.iter().find(is)?;
            // Shifting the distance to the top of the word and back down extends its sign.
            let distance = (word << (32 - low - width)).cast_signed() >> (32 - width);
            let fixed = word & !(((1 << width) - 1) << low);
            Some(Branch {
                mnemonic: name.to_owned(),
                fixed: format!("{fixed:08x}"),
                target: (n as i64 + i64::from(distance)) * 4,
            })
        });
        DisassembledInstruction { offset: n * 4, length: bytes.len(), text: String::new(), branch }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_their_targets() {
        for (arch, code, wanted) in [
            (Arch::X86_64, &[0x90, 0x75, 0xfd][..], ("jne", 0)),
            (Arch::X86_64, &[0x90, 0xe8, 0, 0, 0, 0], ("call", 6)),
            (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5, 0xff, 0xff, 0xff, 0x17], ("b", 0)),
            (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5, 0x40, 0x00, 0x00, 0x54], ("b.cond", 12)),
            (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5, 0xe0, 0xff, 0x07, 0x37], ("tbnz", 0)),
        ] {
            let last = instructions(arch, code).last().expect("an instruction");
            let branch = last.branch.expect("a branch");
            assert_eq!((branch.mnemonic.as_str(), branch.target), wanted, "{code:x?}");
        }
    }

    #[test]
    fn a_branch_of_another_register_is_another_branch() {
        let fixed =
            |code: [u8; 4]| of_arm64(&code).next().and_then(|one| one.branch).expect("a branch").fixed;
        assert_eq!(fixed([0x40, 0, 0, 0x34]), fixed([0x80, 0, 0, 0x34]));
        assert_ne!(fixed([0x40, 0, 0, 0x34]), fixed([0x41, 0, 0, 0x34]));
    }

    #[test]
    fn any_bytes_give_an_end() {
        for arch in [Arch::X86_64, Arch::Arm64] {
            for code in [&[][..], &[0xff; 7], &[0x0f], &[0x06, 0xe8, 1]] {
                let lengths = instructions(arch, code).map(|instruction| instruction.length);
                assert_eq!(lengths.sum::<usize>(), code.len(), "{code:x?}");
            }
        }
    }
}
