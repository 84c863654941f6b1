//! The kinds of suffixes that compilers add to names. One table lists the kinds and the tools that add them: [`KINDS`].

/// A set of suffix kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffixes(u32);

/// A kind of suffix.
#[derive(Clone, Copy, Debug)]
pub struct SuffixKind {
    /// The set of this kind alone.
    pub kind: Suffixes,
    /// A word for the kind.
    pub name: &'static str,
    /// The form of the suffix; `N` is a number.
    pub form: &'static str,
    /// The tool that adds the suffix, and the reason.
    pub source: &'static str,
}

const fn kind(kind: Suffixes, name: &'static str, form: &'static str, source: &'static str) -> SuffixKind {
    SuffixKind { kind, name, form, source }
}

/// Every kind of suffix.
pub const KINDS: [SuffixKind; 16] = [
    kind(
        Suffixes::PROMOTED,
        "promoted",
        ".llvm.N",
        "ThinLTO: a local made global; N is the hash of its module",
    ),
    kind(
        Suffixes::PROMOTED_BY_FILE,
        "promoted-by-file",
        ".llvm.dir_file_c",
        "ThinLTO with -use-source-filename-for-promoted-locals",
    ),
    kind(
        Suffixes::SPLIT,
        "split-module",
        ".<32 hex digits>",
        "ThinLTO with clang's older CFI: a local that both halves of a module need",
    ),
    kind(Suffixes::UNIQUE_LINKAGE, "unique-linkage", ".__uniq.N", "clang -funique-internal-linkage-names"),
    kind(Suffixes::NUMBER, "number", ".N", "LLVM and GCC: keeps equal names of one module or file apart"),
    kind(Suffixes::LTO_PRIVATE, "lto-private", ".lto_priv.N", "GCC LTO: a local of one of several files"),
    kind(Suffixes::COLD, "cold", ".cold, .cold.N", "LLVM and GCC: the unlikely part of a function"),
    kind(
        Suffixes::BLOCKS,
        "blocks",
        ".__part.N",
        "clang -fbasic-block-sections: a cluster of a function's blocks that lies apart",
    ),
    kind(Suffixes::PART, "part", ".part.N", "GCC partial inlining: what is left of a function"),
    kind(Suffixes::ISRA, "isra", ".isra.N", "GCC: parameters were removed or split"),
    kind(Suffixes::CONSTPROP, "constprop", ".constprop.N", "GCC: a parameter became a constant"),
    kind(Suffixes::SPECIALIZED, "specialized", ".specialized.N", "LLVM: a parameter became a constant"),
    kind(Suffixes::ALIAS, "local-alias", ".localalias", "GCC: a name for a global that nothing can replace"),
    kind(
        Suffixes::CFI,
        "cfi",
        ".cfi, .cfi_jt",
        "clang's CFI of Linux up to 6.0: the body and its jump table entry",
    ),
    kind(Suffixes::COUNTER, "counter", "__UNIQUE_ID_x_N", "__COUNTER__ (include/linux/compiler.h)"),
    kind(
        Suffixes::INITCALL,
        "initcall",
        "__initcall__kmod_m__N_line_f6",
        "a counter and a line in the middle (include/linux/init.h)",
    ),
];

impl Suffixes {
    /// `.llvm.<hash>`: a local that ThinLTO promoted to a hidden global.
    pub const PROMOTED: Suffixes = Suffixes(1);
    /// `.__uniq.<n>`: a local named after its file's path.
    pub const UNIQUE_LINKAGE: Suffixes = Suffixes(1 << 1);
    /// `.<n>`: a number that only keeps names apart.
    pub const NUMBER: Suffixes = Suffixes(1 << 2);
    /// `__UNIQUE_ID_*_<n>`: a number from `__COUNTER__`.
    pub const COUNTER: Suffixes = Suffixes(1 << 3);
    /// `.lto_priv.<n>`: GCC's promoted local.
    pub const LTO_PRIVATE: Suffixes = Suffixes(1 << 4);
    /// `.cold` or `.cold.<n>`: the unlikely part of a function.
    pub const COLD: Suffixes = Suffixes(1 << 5);
    /// `.part.<n>`: a part of a function split off by partial inlining.
    pub const PART: Suffixes = Suffixes(1 << 6);
    /// `.isra.<n>`: parameters were removed or split.
    pub const ISRA: Suffixes = Suffixes(1 << 7);
    /// `.constprop.<n>`: a parameter became a constant.
    pub const CONSTPROP: Suffixes = Suffixes(1 << 8);
    /// `.specialized.<n>`: LLVM's function specialisation.
    pub const SPECIALIZED: Suffixes = Suffixes(1 << 9);
    /// `__initcall__kmod_<module>__<n>_<line>_<function><level>`: numbers in the middle of the name.
    pub const INITCALL: Suffixes = Suffixes(1 << 10);
    /// `.llvm.<path>`: a promoted local, named after its file.
    pub const PROMOTED_BY_FILE: Suffixes = Suffixes(1 << 11);
    /// `.localalias`: a local name of a global.
    pub const ALIAS: Suffixes = Suffixes(1 << 12);
    /// `.cfi` or `.cfi_jt`: the two sides of a function under clang's older CFI.
    pub const CFI: Suffixes = Suffixes(1 << 13);

    /// `.<MD5>`: a local of a split module, made global.
    pub const SPLIT: Suffixes = Suffixes(1 << 14);
    /// `.__part.<n>`: a cluster of a function's blocks, in the order of a Propeller profile.
    pub const BLOCKS: Suffixes = Suffixes(1 << 15);

    /// The kinds that mark a different function, not a different name of the same function.
    const MEANINGFUL: u32 = Self::COLD.0
        | Self::BLOCKS.0
        | Self::PART.0
        | Self::ISRA.0
        | Self::CONSTPROP.0
        | Self::SPECIALIZED.0
        | Self::ALIAS.0
        | Self::CFI.0
        | Self::INITCALL.0;

    /// The kinds whose number depends on the rest of the unit: an equal name may stand for something else in another
    /// build.
    const UNSTEADY: u32 = Self::NUMBER.0 | Self::LTO_PRIVATE.0 | Self::COUNTER.0;

    /// The kinds of which a function may have several.
    const VERSIONS: u32 =
        Self::COLD.0 | Self::BLOCKS.0 | Self::PART.0 | Self::ISRA.0 | Self::CONSTPROP.0 | Self::SPECIALIZED.0;

    /// The kinds of a piece of a function's body that lies apart from the entry.
    const APART: u32 = Self::COLD.0 | Self::BLOCKS.0;

    /// Returns true if every kind of `other` is in this set.
    pub fn contains(self, other: Suffixes) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns true for a name of a ThinLTO promotion, in either form.
    pub fn promoted(self) -> bool {
        self.0 & (Self::PROMOTED.0 | Self::PROMOTED_BY_FILE.0) != 0
    }

    /// Returns true if another build may give this name to something else.
    pub fn unsteady(self) -> bool {
        self.0 & Self::UNSTEADY != 0
    }

    /// Returns true if the function may have several versions of this kind. A number tells the versions apart, in the
    /// order in which they were made.
    pub fn is_version(self) -> bool {
        self.0 & Self::VERSIONS != 0
    }

    /// Returns true for a piece of a function's body that lies apart from the entry. The function and its pieces jump
    /// to each other; no other code jumps to a piece.
    pub fn is_apart(self) -> bool {
        self.0 & Self::APART != 0
    }

    /// Returns true if the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the kinds in the set, in the order of [`KINDS`].
    pub fn kinds(self) -> impl Iterator<Item = &'static SuffixKind> {
        KINDS.iter().filter(move |kind| self.contains(kind.kind))
    }

    /// Returns the kinds of the set that tell functions apart.
    pub fn meaning(self) -> Suffixes {
        Suffixes(self.0 & Self::MEANINGFUL)
    }

    /// Returns the kinds of both sets.
    pub const fn with(self, other: Suffixes) -> Suffixes {
        Suffixes(self.0 | other.0)
    }

    /// Adds the kinds of another set.
    pub(super) fn insert(&mut self, other: Suffixes) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_table_once() {
        let all = KINDS.iter().fold(0, |seen, kind| {
            assert_eq!((kind.kind.0.count_ones(), seen & kind.kind.0), (1, 0), "{}", kind.name);
            seen | kind.kind.0
        });
        assert_eq!(all, (1 << KINDS.len()) - 1);
    }
}
