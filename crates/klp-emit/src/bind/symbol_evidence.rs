//! The kinds of evidence that two symbols are the same.

/// The evidence that two symbols are the same. The variants are in the order of the steps; an earlier one is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolEvidence {
    /// A global of the same name: a link has only one.
    Global,
    /// The only local of this name in the same file.
    FileAndName,
    /// One of several locals of this name in the same file, matched by their order; all sizes agree.
    FileAndOrder,
    /// In a symbol table without files: the only local of this name, or one of several, matched by their order.
    Name,
    /// As `Name`, but only among the symbols between those of the same unit.
    Neighbours,
    /// Promoted from the same file: the file's other promoted names carry the same two hashes.
    PromotedTogether,
    /// The only remaining symbol of this name without the compiler's suffixes, in the same file if the file is known.
    CanonicalName,
    /// As `CanonicalName`, among several: the only one of this size.
    Size,
    /// As `Size`, among several: the only one with these contents.
    Contents,
    /// One of several that no evidence above settles: code that is the same in both builds refers to it.
    Reference,
}
