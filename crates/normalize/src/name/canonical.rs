//! Splits a name into its base and the compiler's suffixes.

use super::promotion::is_module;
use super::suffix::Suffixes;

/// A name, split into its base and the compiler's suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Canonical<'d> {
    /// The name without its suffixes.
    pub base: &'d [u8],
    /// The kinds of the removed suffixes.
    pub suffixes: Suffixes,
}

impl<'d> Canonical<'d> {
    /// Returns the key that the names of two builds must share to stand for the same thing.
    pub fn key(&self) -> (&'d [u8], Suffixes) {
        (self.base, self.suffixes.meaning())
    }
}

/// Splits a name into its base and its suffixes.
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

/// Returns true for the name of a piece of a function's body that lies apart from its entry: `f.cold`, `f.__part.1`.
pub fn is_apart(name: &[u8]) -> bool {
    name.contains(&b'.') && canonical(name).suffixes.is_apart()
}

/// Returns the name of the whole function: `f` for `f.cold` and `f.llvm.12` for `f.llvm.12.cold.1`. Any other name is
/// returned unchanged.
pub fn whole(name: &[u8]) -> &[u8] {
    let mut whole = name;
    while is_apart(whole) {
        let Some((rest, _)) = strip_one(whole) else { break };
        whole = rest;
    }
    whole
}

/// Suffixes that end with a number.
const NUMBERED: [(&[u8], Suffixes); 10] = [
    (b"llvm", Suffixes::PROMOTED),
    (b"__uniq", Suffixes::UNIQUE_LINKAGE),
    (b"lto_priv", Suffixes::LTO_PRIVATE),
    (b"cold", Suffixes::COLD),
    (b"__part", Suffixes::BLOCKS),
    (b"part", Suffixes::PART),
    (b"isra", Suffixes::ISRA),
    (b"constprop", Suffixes::CONSTPROP),
    (b"specialized", Suffixes::SPECIALIZED),
    (b"localalias", Suffixes::ALIAS),
];

/// Suffixes that are a word without a number.
const WORDS: [(&[u8], Suffixes); 4] = [
    (b"cold", Suffixes::COLD),
    (b"localalias", Suffixes::ALIAS),
    (b"cfi", Suffixes::CFI),
    (b"cfi_jt", Suffixes::CFI),
];

/// Removes the last suffix of a name, if there is one.
fn strip_one(name: &[u8]) -> Option<(&[u8], Suffixes)> {
    let (rest, last) = split_last_dot(name)?;
    if let Some(&(_, kind)) = WORDS.iter().find(|(word, _)| *word == last) {
        return Some((rest, kind));
    }
    if last.len() == 32 && last.iter().all(u8::is_ascii_hexdigit) {
        return Some((rest, Suffixes::SPLIT));
    }
    let before = split_last_dot(rest);
    if last.is_empty() || !last.iter().all(u8::is_ascii_digit) {
        let (shorter, _) = before.filter(|&(_, word)| word == b"llvm" && is_module(last))?;
        return Some((shorter, Suffixes::PROMOTED_BY_FILE));
    }
    if let Some((shorter, word)) = before
        && let Some(&(_, kind)) = NUMBERED.iter().find(|(known, _)| *known == word)
    {
        return Some((shorter, kind));
    }
    Some((rest, Suffixes::NUMBER))
}

/// Splits at the last dot, if something stands before it.
pub(super) fn split_last_dot(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    (dot > 0).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Removes the number of `__UNIQUE_ID_x_12` or `f.__UNIQUE_ID_x12`.
fn strip_counter(name: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b"__UNIQUE_ID_";
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || !name.windows(MARK.len()).any(|w| w == MARK) {
        return None;
    }
    let rest = &name[..name.len() - digits];
    let rest = rest.strip_suffix(b"_").unwrap_or(rest);
    Some(rest)
}

/// Returns `md_init6` for `__initcall__kmod_md_mod__421_10962_md_init6`, and for the `__initstub__` name of LTO builds
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_told_by_kind() {
        let cases: [(&str, &str, Suffixes); 24] = [
            ("md_run", "md_run", Suffixes::default()),
            ("reboot_notifier_list.llvm.14714292017924923542", "reboot_notifier_list", Suffixes::PROMOTED),
            (".str.1.llvm.77", ".str", Suffixes::PROMOTED.with(Suffixes::NUMBER)),
            ("helper.4", "helper", Suffixes::NUMBER),
            ("fn.n.2", "fn.n", Suffixes::NUMBER),
            ("f.cold", "f", Suffixes::COLD),
            ("f.cold.1", "f", Suffixes::COLD),
            ("f.constprop.0", "f", Suffixes::CONSTPROP),
            ("f.constprop.0.isra.0", "f", Suffixes::CONSTPROP.with(Suffixes::ISRA)),
            ("f.part.0", "f", Suffixes::PART),
            ("f.__part.2", "f", Suffixes::BLOCKS),
            ("f.specialized.1", "f", Suffixes::SPECIALIZED),
            ("f.__uniq.123.llvm.9", "f", Suffixes::UNIQUE_LINKAGE.with(Suffixes::PROMOTED)),
            ("__UNIQUE_ID_ddebug_417", "__UNIQUE_ID_ddebug", Suffixes::COUNTER),
            ("__initcall__kmod_md_mod__421_10962_md_init6", "md_init6", Suffixes::INITCALL),
            ("__initstub__kmod_a__b__7_8_c_init6", "c_init6", Suffixes::INITCALL),
            ("f.lto_priv.3", "f", Suffixes::LTO_PRIVATE),
            ("f.llvm.drivers_md_md_c", "f", Suffixes::PROMOTED_BY_FILE),
            ("f.llvm.12.cold", "f", Suffixes::PROMOTED.with(Suffixes::COLD)),
            ("f.localalias", "f", Suffixes::ALIAS),
            ("f.localalias.1", "f", Suffixes::ALIAS),
            ("f.cfi_jt", "f", Suffixes::CFI),
            ("f.cfi", "f", Suffixes::CFI),
            ("f.0088daec1a3c5e7fe339045132fc0730.cfi", "f", Suffixes::SPLIT.with(Suffixes::CFI)),
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
    fn a_cold_part_is_not_its_function() {
        assert_ne!(canonical(b"f.cold").key(), canonical(b"f").key());
        assert_eq!(canonical(b"f.llvm.1").key(), canonical(b"f").key());
    }

    #[test]
    fn what_lies_apart_from_its_function_is_told_by_name() {
        for (name, function) in [
            ("f.cold", Some("f")),
            ("f.cold.1", Some("f")),
            ("f.__part.12", Some("f")),
            ("f.llvm.12.cold", Some("f.llvm.12")),
            ("f.part.0.cold", Some("f.part.0")),
            ("f.part.0", None),
            ("f.isra.0", None),
            ("f.__part", None),
            ("f.cold.", None),
            ("cold", None),
            ("cold.1", None),
            ("f", None),
        ] {
            assert_eq!(is_apart(name.as_bytes()), function.is_some(), "{name}");
            assert_eq!(whole(name.as_bytes()), function.unwrap_or(name).as_bytes(), "{name}");
        }
    }

    #[test]
    fn numbers_of_a_build_are_unsteady_and_names_of_promotion_are_known() {
        let of = |name: &str| {
            let suffixes = canonical(name.as_bytes()).suffixes;
            (suffixes.unsteady(), suffixes.promoted())
        };
        for (name, expected) in [
            ("f", (false, false)),
            ("n.0", (true, false)),
            ("f.lto_priv.3", (true, false)),
            ("__UNIQUE_ID_ddebug_417", (true, false)),
            ("f.constprop.0", (false, false)),
            ("f.llvm.12", (false, true)),
            ("f.llvm.drivers_md_md_c", (false, true)),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
    }
}
