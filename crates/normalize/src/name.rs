//! Canonical names: a symbol's name without the compiler's suffixes, and the kinds of the removed suffixes.
//!
//! A suffix is dropped only to find the other build's symbol; the module always uses the kernel's real name. One table
//! lists the kinds and the tools that add them: [`KINDS`].

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

    fn insert(&mut self, other: Suffixes) {
        self.0 |= other.0;
    }
}

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

/// Returns a name without the hash that ThinLTO adds to a promoted local. The hash differs between build directories.
pub fn without_promotion(name: &[u8]) -> &[u8] {
    match split_promotion(name) {
        Some((base, _, [])) => base,
        _ => name,
    }
}

/// The mark that every promoted name contains.
pub const PROMOTED: &[u8] = b".llvm.";

/// Returns the origin that ThinLTO named a promoted local after: the hash of its module, or its file.
pub fn promotion(name: &[u8]) -> Option<&[u8]> {
    split_promotion(name).map(|(_, module, _)| module)
}

/// Splits `f.llvm.12.cold` into `f`, `12` and `.cold`.
fn split_promotion(name: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const MARK: &[u8] = b".llvm";
    let mut end = name.len();
    // Most names have no dot, so the search starts at the end and takes one part at a time.
    while let Some(dot) = name[..end].iter().rposition(|&b| b == b'.') {
        let (before, module) = (&name[..dot], &name[dot + 1..end]);
        if let Some(base) = before.strip_suffix(MARK) {
            return (!base.is_empty() && is_module(module)).then_some((base, module, &name[end..]));
        }
        end = dot;
    }
    None
}

/// Returns true for text that may follow `.llvm.`: a number, or a path in which `_` replaced all but letters and
/// digits.
fn is_module(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
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
fn split_last_dot(name: &[u8]) -> Option<(&[u8], &[u8])> {
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

/// Returns `__BTF_ID__func__f__` for `__BTF_ID__func__f__120622886`. The symbol is a place for the number of a type,
/// which tools/bpf/resolve_btfids fills in after the link. A counter and a line follow the name
/// (include/linux/btf_ids.h). Returns `None` for any other name, including the name of a set.
pub fn type_id(name: &[u8]) -> Option<&[u8]> {
    const KINDS: [&[u8]; 4] = [b"struct__", b"union__", b"typedef__", b"func__"];
    let rest = name.strip_prefix(b"__BTF_ID__")?;
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let kind = KINDS.iter().any(|kind| rest.starts_with(kind));
    let base = &name[..name.len() - digits];
    (kind && digits > 0 && base.ends_with(b"__")).then_some(base)
}

/// Splits `12_rest`.
fn split_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    (digits > 0 && text.get(digits) == Some(&b'_')).then(|| (&text[..digits], &text[digits + 1..]))
}

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

/// Returns the mark at the start of a prefix function's name: of call padding (`--prefix` of tools/objtool) or of
/// kCFI's type hash.
pub fn prefix_mark(name: &[u8]) -> Option<&[u8]> {
    name.first_chunk::<6>().filter(|mark| PREFIXES.contains(mark)).map(|mark| &mark[..])
}

const PREFIXES: [&[u8; 6]; 2] = [b"__pfx_", b"__cfi_"];

/// Returns true for arm64 mapping symbols: `$x`, `$d` and their numbered forms.
pub fn is_mapping_symbol(name: &[u8]) -> bool {
    matches!(name, [b'$', b'x' | b'd'] | [b'$', b'x' | b'd', b'.', ..])
}

/// The prefix of the object of a class of trace events, `struct trace_event_class`.
pub const EVENT_CLASS: &[u8] = b"event_class_";
/// The prefix of the object of a trace event, `struct trace_event_call`.
pub const EVENT: &[u8] = b"event_";
/// The prefixes of all names that the definition of a class of trace events makes (include/trace/trace_events.h,
/// perf.h, bpf_probe.h; the same from 6.1 to 7.3).
const MADE_FOR_EVENT: [&[u8]; 14] = [
    EVENT_CLASS,
    EVENT,
    b"trace_event_raw_event_",
    b"do_trace_event_raw_event_",
    b"perf_trace_",
    b"do_perf_trace_",
    b"__bpf_trace_",
    b"trace_raw_output_",
    b"trace_event_get_offsets_",
    b"trace_event_fields_",
    b"trace_event_type_funcs_",
    b"trace_event_data_offsets_",
    b"trace_event_raw_",
    b"print_fmt_",
];

/// Returns the names of the classes of trace events whose definition can have made this name.
pub fn made_for_event(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    MADE_FOR_EVENT.iter().filter_map(|prefix| name.strip_prefix(*prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_told_by_kind() {
        let cases: [(&str, &str, Suffixes); 24] = [
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
            ("f.__part.2", "f", Suffixes::BLOCKS),
            ("f.specialized.1", "f", Suffixes::SPECIALIZED),
            ("f.__uniq.123.llvm.9", "f", Suffixes(Suffixes::UNIQUE_LINKAGE.0 | Suffixes::PROMOTED.0)),
            ("__UNIQUE_ID_ddebug_417", "__UNIQUE_ID_ddebug", Suffixes::COUNTER),
            ("__initcall__kmod_md_mod__421_10962_md_init6", "md_init6", Suffixes::INITCALL),
            ("__initstub__kmod_a__b__7_8_c_init6", "c_init6", Suffixes::INITCALL),
            ("f.lto_priv.3", "f", Suffixes::LTO_PRIVATE),
            ("f.llvm.drivers_md_md_c", "f", Suffixes::PROMOTED_BY_FILE),
            ("f.llvm.12.cold", "f", Suffixes(Suffixes::PROMOTED.0 | Suffixes::COLD.0)),
            ("f.localalias", "f", Suffixes::ALIAS),
            ("f.localalias.1", "f", Suffixes::ALIAS),
            ("f.cfi_jt", "f", Suffixes::CFI),
            ("f.cfi", "f", Suffixes::CFI),
            ("f.0088daec1a3c5e7fe339045132fc0730.cfi", "f", Suffixes(Suffixes::SPLIT.0 | Suffixes::CFI.0)),
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
            ("f.llvm.a_c", "f"),
            ("f.llvm.", "f.llvm."),
            ("f.llvm.1.cold", "f.llvm.1.cold"),
        ] {
            assert_eq!(without_promotion(name.as_bytes()), rest.as_bytes());
        }
    }

    #[test]
    fn a_promoted_name_tells_its_module() {
        for (name, module) in [("f.llvm.12", "12"), ("f.llvm.12.cold.1", "12"), ("f.2.llvm.a_c", "a_c")] {
            assert_eq!(promotion(name.as_bytes()), Some(module.as_bytes()));
        }
        for name in ["f", "f.llvm.", ".llvm.12", "f.llvm.-", "f.1"] {
            assert_eq!(promotion(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn every_kind_is_in_the_table_once() {
        let all = KINDS.iter().fold(0, |seen, kind| {
            assert_eq!((kind.kind.0.count_ones(), seen & kind.kind.0), (1, 0), "{}", kind.name);
            seen | kind.kind.0
        });
        assert_eq!(all, (1 << KINDS.len()) - 1);
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
    fn places_of_type_numbers_are_told_by_kind_and_name() {
        let base = |name: &'static str| {
            type_id(name.as_bytes()).map(|base| std::str::from_utf8(base).expect("text"))
        };
        assert_eq!(base("__BTF_ID__func__vfs_read__120622886"), Some("__BTF_ID__func__vfs_read__"));
        assert_eq!(base("__BTF_ID__struct__x8__7"), Some("__BTF_ID__struct__x8__"));
        for other in [
            "__BTF_ID__set__deny",
            "__BTF_ID__set__deny__1234",
            "__BTF_ID__set8__kfuncs12",
            "__BTF_ID__func__f",
            "__BTF_ID__func__f12",
            "x",
        ] {
            assert_eq!(base(other), None, "{other}");
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
