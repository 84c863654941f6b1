//! Differences between two builds that change nothing.

/// A difference between two builds that is not a change of the function.
#[derive(Clone, Copy, Debug)]
pub struct Equivalence {
    /// The equivalence's name in this code.
    pub name: &'static str,
    /// The reason why nothing depends on the difference.
    pub reason: &'static str,
}

/// Every equivalence that a comparison grants.
pub const EQUIVALENCES: [Equivalence; 11] = [
    Equivalence {
        name: "relocated-field",
        reason: "with RELA the bytes under a relocation are overwritten when it is applied",
    },
    Equivalence {
        name: "direct-branch",
        reason: "the distance that the assembler wrote between items of one section; what lies there is compared",
    },
    Equivalence {
        name: "none-relocation",
        reason: "R_*_NONE does nothing; objtool turns fentry calls into it (tools/objtool/check.c)",
    },
    Equivalence {
        name: "procedure-linkage",
        reason: "R_X86_64_PLT32 and PC32 mean the same without a PLT; assemblers take the one for globals, the other for locals",
    },
    Equivalence {
        name: "correlated-target",
        reason: "two symbols that were correlated are the same object, whatever suffix the compiler gave them",
    },
    Equivalence {
        name: "literal-content",
        reason: "a string or unnamed constant has no identity: equal contents serve equally",
    },
    Equivalence {
        name: "text-placement",
        reason: "hot, unlikely and plain .text only order functions in the image",
    },
    Equivalence {
        name: "allocation-line",
        reason: "the line in an allocation's tag is for people (include/linux/codetag.h); the kernel counts in its own tag",
    },
    Equivalence {
        name: "check-location",
        reason: "line and column of a sanitizer's check are only printed (struct source_location, lib/ubsan.h)",
    },
    Equivalence {
        name: "type-place",
        reason: "the place of a type without a name is only printed (struct type_descriptor, lib/ubsan.h)",
    },
    Equivalence {
        name: "padding",
        reason: "no-operations and traps between two functions are never executed",
    },
];
