//! Instructions that lead out of their code without a relocation. The assembler writes the distance itself where both
//! ends lie in one section.

/// An instruction that leads out of its code without a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escape {
    /// First byte of the instruction.
    pub at: usize,
    /// The target, in bytes from the start of the code.
    pub target: i64,
    /// The field where a relocation would stand; `None` if the instruction does not reach all of a module.
    pub field: Option<BranchField>,
}

/// The field of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchField {
    /// The first byte of the field.
    pub at: usize,
    /// The relocation type for the field.
    pub kind: u32,
    /// The addend of a relocation to the target.
    pub addend: i64,
}
