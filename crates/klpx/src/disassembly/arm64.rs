//! arm64 instructions, in the syntax of the architecture's manual.

use klpx_diagnosis::words;
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

use super::instruction::{Branch, DisassembledInstruction};

/// Branches by their fixed bits: mask, value, and the lowest bit and the width of the field that holds the distance in
/// words (Arm Architecture Reference Manual, C4.1).
const BRANCHES: [(u32, u32, u32, u32); 4] = [
    // b, bl
    (0x7c00_0000, 0x1400_0000, 0, 26),
    // b.cond
    (0xff00_0010, 0x5400_0000, 5, 19),
    // cbz, cbnz
    (0x7e00_0000, 0x3400_0000, 5, 19),
    // tbz, tbnz
    (0x7e00_0000, 0x3600_0000, 5, 14),
];

/// The mark before a distance in the text of an instruction.
const DISTANCE: char = '$';

/// The instructions of the code, from the start.
pub(super) fn instructions(code: &[u8]) -> impl Iterator<Item = DisassembledInstruction> {
    code.chunks(4).enumerate().map(|(n, bytes)| {
        let text = InstDecoder::default()
            .decode(&mut U8Reader::new(bytes))
            .map_or_else(|_| in_digits(bytes), |instruction| instruction.to_string());
        let (fixed, branch) = match distance(bytes) {
            None => (in_digits(bytes), None),
            Some((distance, rest)) => {
                let before = text.split(DISTANCE).next().unwrap_or(&text).trim_end();
                let target = (n as i64 + i64::from(distance)) * 4;
                (format!("{rest:08x}"), Some(Branch { text: before.to_owned(), target }))
            }
        };
        DisassembledInstruction { offset: n * 4, length: bytes.len(), text, fixed, branch }
    })
}

/// An instruction word in the form that an assembler's `.inst` takes. The code may end within a word.
fn in_digits(bytes: &[u8]) -> String {
    words::hexadecimal(bytes.iter().rev())
}

/// The distance of a branch in words, and the branch's word without the distance.
fn distance(bytes: &[u8]) -> Option<(i32, u32)> {
    let word = u32::from_le_bytes(bytes.try_into().ok()?);
    let is = |&&(mask, value, ..): &&(u32, u32, u32, u32)| word & mask == value;
    let &(.., low, width) = BRANCHES.iter().find(is)?;
    // Shifting the distance to the top of the word and back down extends its sign.
    let distance = (word << (32 - low - width)).cast_signed() >> (32 - width);
    Some((distance, word & !(((1 << width) - 1) << low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_has_a_text() {
        // nop; add w0, w0, #1; no instruction; and a piece of a word
        let code = [0x1f, 0x20, 0x03, 0xd5, 0, 4, 0, 0x11, 0xff, 0xff, 0xff, 0xff, 1, 2];
        let texts: Vec<String> = instructions(&code).map(|one| one.text).collect();
        assert_eq!(texts, ["nop", "add w0, w0, #0x1", "ffffffff", "0201"]);
    }

    #[test]
    fn a_branch_of_another_register_is_another_branch() {
        let fixed = |code: [u8; 4]| instructions(&code).next().expect("an instruction").fixed;
        assert_eq!(fixed([0x40, 0, 0, 0x34]), fixed([0x80, 0, 0, 0x34]));
        assert_ne!(fixed([0x40, 0, 0, 0x34]), fixed([0x41, 0, 0, 0x34]));
    }
}
