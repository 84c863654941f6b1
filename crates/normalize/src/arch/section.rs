//! The kinds of special sections, and the special sections that every architecture has.

/// What a livepatch does with the special-section entries of a function that it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Copied into the module's section of the same name, which the module loader or a notifier reads.
    Carry,
    /// Not copied: the function works without the entry. The text says what is lost.
    Drop(&'static str),
    /// Placeholders that only boot code patches: the module's code must be rewritten to read the variable.
    RuntimeConstant,
    /// Code with these entries can't be copied. The text says why.
    Refuse(&'static str),
}

/// A kind of special section.
#[derive(Debug)]
pub struct TableKind {
    /// Section name in a translation unit's object, or its start if the text ends with `*`.
    pub name: &'static str,
    /// The name that a linker script gives the section in modules and in vmlinux (scripts/module.lds.S,
    /// include/asm-generic/vmlinux.lds.h); `None` for the same name.
    pub linked_name: Option<&'static str>,
    /// Entry forms, the longest first: size in bytes, and the offsets in an entry where a relocation may stand. The
    /// first offset always has a relocation, which names the place in the function.
    pub forms: &'static [(u8, &'static [u8])],
    /// What a livepatch does with the entries.
    pub policy: Policy,
    /// A section with as many entries, without relocations, and the size of its entries: `.orc_unwind`.
    pub companion: Option<(&'static str, u8)>,
    /// True if the entries count in a comparison of two functions.
    pub compared: bool,
}

pub(super) const fn table(
    name: &'static str,
    forms: &'static [(u8, &'static [u8])],
    policy: Policy,
    compared: bool,
) -> TableKind {
    TableKind { name, linked_name: None, forms, policy, companion: None, compared }
}

use Policy::{Carry, Drop, Refuse, RuntimeConstant};

/// Tables of every architecture: asm/jump_label.h, include/linux/kprobes.h, include/asm-generic/error-injection.h,
/// asm/runtime-const.h, include/linux/printk.h.
pub(super) static COMMON: [TableKind; 6] = [
    table("__jump_table", &[(16, &[0, 4, 8])], Carry, true),
    table("_kprobe_blacklist", &[(8, &[0])], Carry, false),
    table("_error_injection_whitelist", &[(16, &[0]), (12, &[0])], Drop("no error injection"), false),
    table("runtime_ptr_*", &[(4, &[0])], RuntimeConstant, true),
    table(
        "runtime_shift_*",
        &[(4, &[0])],
        Refuse("a runtime constant shift is patched by boot code only, and a module can't have one"),
        true,
    ),
    table(".printk_index", &[(8, &[0])], Drop("messages are not in the printk index"), false),
];

impl TableKind {
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let linked = self.linked_name.is_some_and(|linked| name == linked.as_bytes());
        linked
            || match self.name.strip_suffix('*') {
                Some(start) => name.starts_with(start.as_bytes()),
                None => name == self.name.as_bytes(),
            }
    }
}
