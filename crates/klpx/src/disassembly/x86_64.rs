//! x86_64 instructions, in AT&T syntax.

use iced_x86::{Formatter, OpKind};

use super::instruction::{Branch, DisassembledInstruction};

/// The instructions of the code, from the start.
pub(super) fn instructions(code: &[u8]) -> impl Iterator<Item = DisassembledInstruction> {
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
                Branch { text: mnemonic, target: instruction.near_branch_target().cast_signed() }
            });
            let fixed = branch.as_ref().map_or_else(|| text.clone(), |branch| branch.text.clone());
            DisassembledInstruction {
                offset: usize::try_from(instruction.ip()).unwrap_or(usize::MAX),
                length: instruction.len(),
                text,
                fixed,
                branch,
            }
        })
    })
}
