//! Instructions as text, for people to look at. Each architecture has a module of its own.

mod arm64;
mod instruction;
mod x86_64;

use klpx_normalize::arch::Arch;

pub(crate) use instruction::DisassembledInstruction;

/// The instructions of `code`, from the start.
pub(crate) fn instructions(
    arch: Arch,
    code: &[u8],
) -> Box<dyn Iterator<Item = DisassembledInstruction> + '_> {
    match arch {
        Arch::X86_64 => Box::new(x86_64::instructions(code)),
        Arch::Arm64 => Box::new(arm64::instructions(code)),
    }
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
            (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5, 0x40, 0x00, 0x00, 0x54], ("b.eq", 12)),
            (Arch::Arm64, &[0x1f, 0x20, 0x03, 0xd5, 0xe0, 0xff, 0x07, 0x37], ("tbnz w0, #0x0,", 0)),
        ] {
            let last = instructions(arch, code).last().expect("an instruction");
            let branch = last.branch.expect("a branch");
            assert_eq!((branch.text.as_str(), branch.target), wanted, "{code:x?}");
        }
    }

    #[test]
    fn any_bytes_give_an_end() {
        for &arch in Arch::ALL {
            for code in [&[][..], &[0xff; 7], &[0x0f], &[0x06, 0xe8, 1]] {
                let lengths = instructions(arch, code).map(|instruction| instruction.length);
                assert_eq!(lengths.sum::<usize>(), code.len(), "{code:x?}");
            }
        }
    }
}
