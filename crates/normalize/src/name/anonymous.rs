//! Objects that have no identity, by their names.

use super::canonical::{Canonical, canonical, split_last_dot};
use super::suffix::Suffixes;

/// The reason why an object has no identity: two builds need not agree on its name, and a copy serves as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// A constant that the compiler named: `.L*`, `.str*`, `switch.table.*`, `CSWTCH.*`, `__const.*`,
    /// `.compoundliteral`.
    CompilerConstant,
    /// `__func__` and similar names.
    FunctionName,
    /// `__already_done`, `__warned`, `__print_once`: flags for "only once"; a replaced function may warn once more.
    Once,
    /// Rate limit state, such as that of `printk_ratelimited`.
    RateLimit,
    /// `__key`: a lockdep class.
    LockdepKey,
    /// A dynamic debug descriptor.
    DebugDescriptor,
    /// A trace event string, `__msg` of netlink, and other texts that a macro wraps in a static.
    MacroText,
    /// `__UNIQUE_ID_*`: a name made with a counter.
    Counter,
}

/// The base names that have no identity, without the function's name that Clang puts before them.
const ANONYMOUS: [(&[u8], Anonymous); 23] = [
    (b"__func__", Anonymous::FunctionName),
    (b"__FUNCTION__", Anonymous::FunctionName),
    (b"__PRETTY_FUNCTION__", Anonymous::FunctionName),
    (b"__already_done", Anonymous::Once),
    (b"__warned", Anonymous::Once),
    (b"__print_once", Anonymous::Once),
    (b"_rs", Anonymous::RateLimit),
    (b"__key", Anonymous::LockdepKey),
    (b"descriptor", Anonymous::DebugDescriptor),
    (b"___tp_str", Anonymous::MacroText),
    (b"__tp_str", Anonymous::MacroText),
    (b"__msg", Anonymous::MacroText),
    (b"_entry", Anonymous::MacroText),
    (b"_entry_ptr", Anonymous::MacroText),
    (b"__flags", Anonymous::MacroText),
    (b"CSWTCH", Anonymous::CompilerConstant),
    (b".compoundliteral", Anonymous::CompilerConstant),
    (b"__compound_literal", Anonymous::CompilerConstant),
    (b".str", Anonymous::CompilerConstant),
    (b"switch.table", Anonymous::CompilerConstant),
    (b"__const", Anonymous::CompilerConstant),
    (b"reltable", Anonymous::CompilerConstant),
    (b"__unnamed", Anonymous::CompilerConstant),
];

impl Anonymous {
    /// Returns true if data of this kind lies in the given section. A name alone is no proof: the author of a driver
    /// may call a variable `descriptor`. Writable data in any other section is somebody's state.
    pub fn lies_in(self, section: &[u8], writable: bool) -> bool {
        let in_one_of = |sections: &[&[u8]]| sections.iter().any(|start| section.starts_with(start));
        match self {
            Anonymous::FunctionName => !writable,
            Anonymous::CompilerConstant => !writable || in_one_of(&[b".data.rel.ro"]),
            // include/linux/once_lite.h, include/linux/rcupdate.h; one dot less before Linux 6.12
            Anonymous::Once => {
                in_one_of(&[b".data..once", b".data.once", b".data..unlikely", b".data.unlikely"])
            }
            // include/linux/dynamic_debug.h
            Anonymous::DebugDescriptor => in_one_of(&[b"__dyndbg"]),
            // include/linux/tracepoint.h, include/linux/printk.h
            Anonymous::MacroText => !writable || in_one_of(&[b"__tracepoint_str", b".printk_index"]),
            Anonymous::Counter => !writable || in_one_of(&[b"__dyndbg", b".data..once", b".data.once"]),
            // Both are writable and lie in .data or .bss. They guard a message or lockdep's own tables.
            Anonymous::RateLimit | Anonymous::LockdepKey => true,
        }
    }
}

/// Returns the reason why a data object of this name has no identity, if it lies in a section for such objects
/// ([`Anonymous::lies_in`]).
pub fn anonymous(name: &[u8]) -> Option<Anonymous> {
    anonymous_as(name, canonical(name))
}

/// Does the same as [`anonymous`] for a name that is already split.
pub fn anonymous_as(name: &[u8], canonical: Canonical<'_>) -> Option<Anonymous> {
    if name.starts_with(b".L") {
        return Some(Anonymous::CompilerConstant);
    }
    if canonical.suffixes.contains(Suffixes::COUNTER) {
        return Some(Anonymous::Counter);
    }
    if is_gcc_constant(name) {
        return Some(Anonymous::CompilerConstant);
    }
    let base = canonical.base;
    ANONYMOUS.iter().find_map(|&(known, why)| {
        let whole = base == known;
        let of_function =
            base.len() > known.len() && base.ends_with(known) && base[base.len() - known.len() - 1] == b'.';
        let constant = why == Anonymous::CompilerConstant
            && base.starts_with(known)
            && matches!(base.get(known.len()), Some(b'.' | b'_'));
        (whole || of_function || constant).then_some(why)
    })
}

/// Returns true for GCC's initial value of a local array or structure: `C.12.345`. A function's static `C` has one
/// number.
fn is_gcc_constant(name: &[u8]) -> bool {
    let numbers = name.strip_prefix(b"C.").and_then(|rest| split_last_dot(rest));
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    numbers.is_some_and(|(first, second)| number(first) && number(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_without_identity_are_known_by_name() {
        for name in [
            "__func__.12",
            "do_it.__func__",
            ".L__const.f.x",
            ".str.3.llvm.8",
            "__key.7",
            "f.__already_done",
            "switch.table.foo",
            "CSWTCH.12",
            "C.0.0",
            "f.__UNIQUE_ID_ddebug_3",
            "descriptor.0",
        ] {
            assert!(anonymous(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "count",
            "C.0",
            "C.x.1",
            "counter.0",
            "f.count",
            "my_key",
            "strings",
            "__func__x",
            "f.descriptors",
        ] {
            assert!(anonymous(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn data_without_identity_lies_where_its_macro_puts_it() {
        use Anonymous::*;
        const KINDS: [Anonymous; 8] = [
            CompilerConstant,
            FunctionName,
            Once,
            RateLimit,
            LockdepKey,
            DebugDescriptor,
            MacroText,
            Counter,
        ];
        for (section, writable, kinds) in [
            (
                ".rodata",
                false,
                &[CompilerConstant, FunctionName, RateLimit, LockdepKey, MacroText, Counter][..],
            ),
            (".data", true, &[RateLimit, LockdepKey]),
            (".bss", true, &[RateLimit, LockdepKey]),
            (".data.rel.ro", true, &[CompilerConstant, RateLimit, LockdepKey]),
            (".data.once", true, &[Once, RateLimit, LockdepKey, Counter]),
            (".data..once", true, &[Once, RateLimit, LockdepKey, Counter]),
            (".data..unlikely", true, &[Once, RateLimit, LockdepKey]),
            ("__dyndbg", true, &[RateLimit, LockdepKey, DebugDescriptor, Counter]),
            ("__tracepoint_str", true, &[RateLimit, LockdepKey, MacroText]),
            (".printk_index", true, &[RateLimit, LockdepKey, MacroText]),
        ] {
            let found: Vec<Anonymous> =
                KINDS.into_iter().filter(|kind| kind.lies_in(section.as_bytes(), writable)).collect();
            assert_eq!(found, kinds, "{section}");
        }
    }

    #[test]
    fn only_compiler_constants_go_on_behind_their_name() {
        for name in ["switch.table.f", "CSWTCH.12", "__const.f.x", "__compound_literal.3", "reltable.f"] {
            assert_eq!(anonymous(name.as_bytes()), Some(Anonymous::CompilerConstant), "{name}");
        }
        for name in
            ["_rs_state", "__key_size", "descriptor_count", "__func___", "__msg_queue", "_entry_count"]
        {
            assert_eq!(anonymous(name.as_bytes()), None, "{name}");
        }
    }
}
