//! arm64 instructions: the word of each, and the kind of a branch.

use klpx_diagnosis::Offset;

use super::instruction::{Branch, DisassembledInstruction};

/// Branches by their fixed bits: mask, value, name, and the lowest bit and the width of the field that holds the
/// distance in words (Arm Architecture Reference Manual, C4.1).
const BRANCHES: [(u32, u32, &str, u32, u32); 7] = [
    (0xfc00_0000, 0x1400_0000, "b", 0, 26),
    (0xfc00_0000, 0x9400_0000, "bl", 0, 26),
    (0xff00_0010, 0x5400_0000, "b.cond", 5, 19),
    (0x7f00_0000, 0x3400_0000, "cbz", 5, 19),
    (0x7f00_0000, 0x3500_0000, "cbnz", 5, 19),
    (0x7f00_0000, 0x3600_0000, "tbz", 5, 14),
    (0x7f00_0000, 0x3700_0000, "tbnz", 5, 14),
];

/// The instructions of the code, from the start.
pub(super) fn instructions(code: &[u8]) -> impl Iterator<Item = DisassembledInstruction> {
    code.chunks(4).enumerate().map(|(n, bytes)| {
        let word = <[u8; 4]>::try_from(bytes).ok().map(u32::from_le_bytes);
        let branch = word.and_then(|word| branch(word, n));
        let text = match &branch {
            Some(branch) => format!("{} {}", branch.text, Offset(branch.target)),
            None => in_digits(bytes),
        };
        DisassembledInstruction { offset: n * 4, length: bytes.len(), text, branch }
    })
}

/// An instruction word in the form that an assembler's `.inst` takes. The code may end within a word.
fn in_digits(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

/// The branch that a word is, where `n` words precede it.
fn branch(word: u32, n: usize) -> Option<Branch> {
    let is = |&&(mask, value, ..): &&(u32, u32, &str, u32, u32)| word & mask == value;
    let &(.., name, low, width) = BRANCHES.iter().find(is)?;
    // Shifting the distance to the top of the word and back down extends its sign.
    let distance = (word << (32 - low - width)).cast_signed() >> (32 - width);
    let fixed = word & !(((1 << width) - 1) << low);
    Some(Branch {
        text: format!("{word:08x} {name}"),
        fixed: format!("{fixed:08x}"),
        target: (n as i64 + i64::from(distance)) * 4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_has_a_text() {
        // nop; b.eq .+8; and a piece of a word
        let code = [0x1f, 0x20, 0x03, 0xd5, 0x40, 0, 0, 0x54, 1, 2];
        let texts: Vec<String> = instructions(&code).map(|one| one.text).collect();
        assert_eq!(texts, ["d503201f", "54000040 b.cond +0xc", "0201"]);
    }

    #[test]
    fn a_branch_of_another_register_is_another_branch() {
        let fixed =
            |code: [u8; 4]| instructions(&code).next().and_then(|one| one.branch).expect("a branch").fixed;
        assert_eq!(fixed([0x40, 0, 0, 0x34]), fixed([0x80, 0, 0, 0x34]));
        assert_ne!(fixed([0x40, 0, 0, 0x34]), fixed([0x41, 0, 0, 0x34]));
    }
}
