//! Canonical names: what a symbol is called once the compiler's suffixes are taken off, and which they were.
//!
//! A suffix is dropped only to find the other build's symbol; the module always uses the real name of the kernel.
//! Sources: LLVM's ThinLTO promotion (`.llvm.<hash>`), `-funique-internal-linkage-names` (`.__uniq.<n>`), IR symbol
//! renaming (`.<n>`), function specialisation (`.specialized.<n>`), hot/cold splitting (`.cold`, `.cold.<n>`); GCC's
//! IPA clones (`.isra.<n>`, `.constprop.<n>`, `.part.<n>`, `.lto_priv.<n>`); the kernel's `__UNIQUE_ID_*` and
//! `__initcall__kmod_*` (include/linux/compiler.h, include/linux/init.h).

/// A set of suffix kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffixes(u16);

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
    /// `__initcall__kmod_<module>__<n>_<line>_<function><level>`: numbers in the middle.
    pub const INITCALL: Suffixes = Suffixes(1 << 10);

    /// The kinds that make another function, not another name of the same one.
    const MEANINGFUL: u16 = Self::COLD.0
        | Self::PART.0
        | Self::ISRA.0
        | Self::CONSTPROP.0
        | Self::SPECIALIZED.0
        | Self::INITCALL.0;

    /// True when every kind of `other` is in this set.
    pub fn contains(self, other: Suffixes) -> bool {
        self.0 & other.0 == other.0
    }

    /// The kinds that tell functions apart.
    pub fn meaning(self) -> Suffixes {
        Suffixes(self.0 & Self::MEANINGFUL)
    }

    fn insert(&mut self, other: Suffixes) {
        self.0 |= other.0;
    }
}

/// A name without the suffixes that a compiler put on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Canonical<'d> {
    /// What is left.
    pub base: &'d [u8],
    /// What was taken off.
    pub suffixes: Suffixes,
}

impl<'d> Canonical<'d> {
    /// What two builds' names must share to stand for the same thing.
    pub fn key(&self) -> (&'d [u8], Suffixes) {
        (self.base, self.suffixes.meaning())
    }
}

/// Takes a name apart.
pub fn canonical(name: &[u8]) -> Canonical<'_> {
    let mut base = name;
    let mut suffixes = Suffixes::default();
    if let Some(function) = initcall_function(name) {
        return Canonical { base: function, suffixes: Suffixes::INITCALL };
    }
    while let Some((rest, kind)) = strip_one(base) {
        base = rest;
        suffixes.insert(kind);
    }
    if let Some(rest) = strip_counter(base) {
        base = rest;
        suffixes.insert(Suffixes::COUNTER);
    }
    Canonical { base, suffixes }
}

/// A name without the hash that ThinLTO puts on promoted locals, which is another one in each build directory.
pub fn without_promotion(name: &[u8]) -> &[u8] {
    const MARK: &[u8] = b".llvm.";
    match name.windows(MARK.len()).rposition(|w| w == MARK) {
        Some(at)
            if at > 0
                && at + MARK.len() < name.len()
                && name[at + MARK.len()..].iter().all(u8::is_ascii_digit) =>
        {
            &name[..at]
        }
        _ => name,
    }
}

/// The last suffix of a name, if it has one.
fn strip_one(name: &[u8]) -> Option<(&[u8], Suffixes)> {
    let (rest, last) = split_last_dot(name)?;
    if last == b"cold" {
        return Some((rest, Suffixes::COLD));
    }
    if last.is_empty() || !last.iter().all(u8::is_ascii_digit) {
        return None;
    }
    const NUMBERED: [(&[u8], Suffixes); 8] = [
        (b"llvm", Suffixes::PROMOTED),
        (b"__uniq", Suffixes::UNIQUE_LINKAGE),
        (b"lto_priv", Suffixes::LTO_PRIVATE),
        (b"cold", Suffixes::COLD),
        (b"part", Suffixes::PART),
        (b"isra", Suffixes::ISRA),
        (b"constprop", Suffixes::CONSTPROP),
        (b"specialized", Suffixes::SPECIALIZED),
    ];
    if let Some((shorter, word)) = split_last_dot(rest)
        && let Some(&(_, kind)) = NUMBERED.iter().find(|(known, _)| *known == word)
    {
        return Some((shorter, kind));
    }
    Some((rest, Suffixes::NUMBER))
}

/// Splits at the last dot, if something stands before it.
fn split_last_dot(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    (dot > 0).then(|| (&name[..dot], &name[dot + 1..]))
}

/// `__UNIQUE_ID_x_12` or `f.__UNIQUE_ID_x12` without the number.
fn strip_counter(name: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b"__UNIQUE_ID_";
    name.windows(MARK.len()).position(|w| w == MARK)?;
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let rest = &name[..name.len() - digits];
    let rest = rest.strip_suffix(b"_").unwrap_or(rest);
    (digits > 0).then_some(rest)
}

/// `md_init6` of `__initcall__kmod_md_mod__421_10962_md_init6`, and of the `__initstub__` of LTO builds
/// (include/linux/init.h).
fn initcall_function(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(b"__initcall__kmod_").or_else(|| name.strip_prefix(b"__initstub__kmod_"))?;
    (0..rest.len()).find_map(|at| {
        let numbers = rest[at..].strip_prefix(b"__")?;
        let (_, line) = split_number(numbers)?;
        split_number(line).map(|(_, function)| function)
    })
}

/// Splits `12_rest`.
fn split_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    (digits > 0 && text.get(digits) == Some(&b'_')).then(|| (&text[..digits], &text[digits + 1..]))
}

/// Why an object has no identity of its own: two builds need not agree on its name, and a copy serves as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// A constant that the compiler named: `.L*`, `.str*`, `switch.table.*`, `CSWTCH.*`, `__const.*`, `.compoundliteral`.
    CompilerConstant,
    /// `__func__` and its like.
    FunctionName,
    /// `__already_done`, `__warned`, `__print_once`: "only once" flags; a replaced function may warn once more.
    Once,
    /// Rate limit state of a `printk_ratelimited` and the like.
    RateLimit,
    /// `__key`: a lockdep class.
    LockdepKey,
    /// A dynamic debug descriptor.
    DebugDescriptor,
    /// A trace event string, `__msg` of netlink, and other texts that a macro wraps in a static.
    MacroText,
    /// `__UNIQUE_ID_*`: named by a counter.
    Counter,
}

/// The base names (without a function's name before them, as Clang puts it) that have no identity.
const ANONYMOUS: [(&[u8], Anonymous); 25] = [
    (b"__func__", Anonymous::FunctionName),
    (b"__FUNCTION__", Anonymous::FunctionName),
    (b"__PRETTY_FUNCTION__", Anonymous::FunctionName),
    (b"__already_done", Anonymous::Once),
    (b"__warned", Anonymous::Once),
    (b"__print_once", Anonymous::Once),
    (b"___done", Anonymous::Once),
    (b"___once_key", Anonymous::Once),
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

/// Whether a data object of this name has no identity, and why.
pub fn anonymous(name: &[u8]) -> Option<Anonymous> {
    if name.starts_with(b".L") {
        return Some(Anonymous::CompilerConstant);
    }
    let canonical = canonical(name);
    if canonical.suffixes.contains(Suffixes::COUNTER) {
        return Some(Anonymous::Counter);
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

/// arm64 mapping symbols: `$x`, `$d` and their numbered forms.
pub fn is_mapping_symbol(name: &[u8]) -> bool {
    matches!(name, [b'$', b'x' | b'd'] | [b'$', b'x' | b'd', b'.', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_told_by_kind() {
        let cases: [(&str, &str, Suffixes); 16] = [
            ("md_run", "md_run", Suffixes::default()),
            ("reboot_notifier_list.llvm.14714292017924923542", "reboot_notifier_list", Suffixes::PROMOTED),
            (".str.1.llvm.77", ".str", Suffixes(Suffixes::PROMOTED.0 | Suffixes::NUMBER.0)),
            ("helper.4", "helper", Suffixes::NUMBER),
            ("fn.n.2", "fn.n", Suffixes::NUMBER),
            ("f.cold", "f", Suffixes::COLD),
            ("f.cold.1", "f", Suffixes::COLD),
            ("f.constprop.0", "f", Suffixes::CONSTPROP),
            ("f.constprop.0.isra.0", "f", Suffixes(Suffixes::CONSTPROP.0 | Suffixes::ISRA.0)),
            ("f.part.0", "f", Suffixes::PART),
            ("f.specialized.1", "f", Suffixes::SPECIALIZED),
            ("f.__uniq.123.llvm.9", "f", Suffixes(Suffixes::UNIQUE_LINKAGE.0 | Suffixes::PROMOTED.0)),
            ("__UNIQUE_ID_ddebug_417", "__UNIQUE_ID_ddebug", Suffixes::COUNTER),
            ("__initcall__kmod_md_mod__421_10962_md_init6", "md_init6", Suffixes::INITCALL),
            ("__initstub__kmod_a__b__7_8_c_init6", "c_init6", Suffixes::INITCALL),
            ("f.lto_priv.3", "f", Suffixes::LTO_PRIVATE),
        ];
        for (name, base, suffixes) in cases {
            let got = canonical(name.as_bytes());
            assert_eq!((got.base, got.suffixes), (base.as_bytes(), suffixes), "{name}");
        }
    }

    #[test]
    fn names_without_a_suffix_stay_whole() {
        for name in ["a.b", ".text", "x.", "f.llvm", "f.coldish", "f.cold.", "12"] {
            assert_eq!(canonical(name.as_bytes()).base, name.as_bytes());
        }
    }

    #[test]
    fn only_the_hash_of_a_promotion_is_dropped() {
        for (name, rest) in [
            ("f.llvm.12", "f"),
            ("f.1.llvm.12", "f.1"),
            ("f.llvm.", "f.llvm."),
            ("f.llvm.1.cold", "f.llvm.1.cold"),
        ] {
            assert_eq!(without_promotion(name.as_bytes()), rest.as_bytes());
        }
    }

    #[test]
    fn a_cold_part_is_not_its_function() {
        assert_ne!(canonical(b"f.cold").key(), canonical(b"f").key());
        assert_eq!(canonical(b"f.llvm.1").key(), canonical(b"f").key());
    }

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
            "f.__UNIQUE_ID_ddebug_3",
            "descriptor.0",
        ] {
            assert!(anonymous(name.as_bytes()).is_some(), "{name}");
        }
        for name in ["count", "counter.0", "f.count", "my_key", "strings", "__func__x", "f.descriptors"] {
            assert!(anonymous(name.as_bytes()).is_none(), "{name}");
        }
    }
}
