//! The shape of an architecture's table of facts about code, and the types of its rows. Knows no architecture.

/// One instruction of a run of bytes.
pub(crate) struct Instruction {
    /// First byte.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// True for a call or a jump to a fixed place.
    pub(crate) branch: bool,
    /// The distance in a branch's field.
    pub(crate) distance: Option<Distance>,
}

/// The distance that a branch leads.
pub(crate) struct Distance {
    /// First byte of the branch's field.
    pub(crate) field: usize,
    /// Size of the field in bytes.
    pub(crate) width: usize,
    /// Bytes from the instruction's end to the target.
    pub(crate) bytes: i64,
    /// The relocation type for the field.
    pub(crate) kind: u32,
}

/// The code that reads a runtime constant in place of code that boot code would have patched (asm/runtime-const.h): its
/// first byte in the run, its bytes, and its relocations by byte of the run and type.
pub(crate) struct ConstantLoad {
    pub(crate) at: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) relocations: Vec<(u64, u32)>,
}

/// A veneer: instructions, and relocations on them by offset and type.
pub(crate) struct VeneerCode {
    pub(crate) words: [u32; 3],
    pub(crate) relocations: [(u64, u32); 2],
}

/// The facts about an architecture that verification needs. Every architecture has one table.
pub(super) struct CodeFacts {
    /// Returns the instructions of the code, which begins at this byte of a run.
    pub(super) instructions: fn(&[u8], usize) -> Vec<Instruction>,
    /// The usual distance from a PC-relative field to the end of its instruction, where the processor starts to count;
    /// `None` if the processor counts from the place of the relocation.
    pub(super) counted_from_end: Option<i64>,
    /// Returns the code by which a copy reads the runtime constant whose placeholder is at this byte of the code. `None`
    /// if there is no placeholder.
    pub(super) runtime_load: fn(&[u8], usize) -> Option<ConstantLoad>,
    /// The code that reaches any distance; `None` if branches always reach.
    pub(super) veneer: Option<VeneerCode>,
}
