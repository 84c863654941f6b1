//! Facts about instructions that verification needs: where instructions end, which of them branch, and the two pieces
//! of code that klpx writes itself. The facts come from the architecture and the kernel, not from the code that wrote
//! the module. Each architecture has one table of facts, in a module of its own.

mod arm64;
mod facts;
mod x86_64;

use klpx_normalize::arch::Arch;

use facts::CodeFacts;
pub(crate) use facts::{ConstantLoad, Instruction, VeneerCode};

fn facts(arch: Arch) -> &'static CodeFacts {
    match arch {
        Arch::X86_64 => &x86_64::FACTS,
        Arch::Arm64 => &arm64::FACTS,
    }
}

/// Returns the instructions of a function whose entry is `entry` bytes behind the start. Bytes before the entry are
/// padding.
pub(crate) fn instructions(arch: Arch, bytes: &[u8], entry: usize) -> Vec<Instruction> {
    let code = bytes.get(entry..).unwrap_or(&[]);
    (facts(arch).instructions)(code, entry)
}

/// Returns how far behind its field a PC-relative reference starts to count. `end` is the end of the field's
/// instruction, if it is known.
pub(crate) fn counted_from(arch: Arch, field: usize, end: Option<usize>) -> i64 {
    match (facts(arch).counted_from_end, end) {
        (None, _) => 0,
        (Some(_), Some(end)) => end as i64 - field as i64,
        (Some(usual), None) => usual,
    }
}

/// Returns the code by which a copy reads the runtime constant whose placeholder is at `place` of `code`. `None` if there
/// is no placeholder.
pub(crate) fn runtime_load(arch: Arch, code: &[u8], place: usize) -> Option<ConstantLoad> {
    (facts(arch).runtime_load)(code, place)
}

/// The start of the names of veneers.
pub(crate) const VENEER: &[u8] = b"__klpx_veneer_";

/// Returns the code of veneers; `None` if branches always reach.
pub(crate) fn veneer(arch: Arch) -> Option<&'static VeneerCode> {
    facts(arch).veneer.as_ref()
}
