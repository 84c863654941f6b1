//! What the section of an item says of the item.

use klpx_normalize::object::{ItemId, Object};

/// Returns the purpose of an item's section: its name without the item's own name, with plain text sections taken as
/// one, and its flags for writing and execution.
pub(crate) fn purpose<'d>(object: &Object<'d>, item: ItemId) -> (&'d [u8], u64) {
    let section = object.item(item).section;
    let name = object.elf.section_name(section);
    let flags = object.elf.section_flags(section) & 0x7; // WRITE, ALLOC, EXECINSTR
    const PLAIN: [&[u8]; 5] = [b".text", b".rodata", b".data.rel.ro", b".data", b".bss"];
    const KEPT_APART: [&[u8]; 4] = [b".data..", b".bss..", b".rodata..", b".text.."];
    if let Some(start) = KEPT_APART.iter().find(|start| name.starts_with(start)) {
        let rest = &name[start.len()..];
        let word = rest.iter().position(|&b| b == b'.').unwrap_or(rest.len());
        return (&name[..start.len() + word], flags);
    }
    // With LTO an initcall has its own section, named after the initcall: `.initcall6.init..kmod_random__640_1711_f`
    // (include/linux/init.h, __initcall_section).
    const OF_INITCALL: &[u8] = b"..kmod_";
    if name.starts_with(b".initcall")
        && let Some(end) = name.windows(OF_INITCALL.len()).position(|part| part == OF_INITCALL)
    {
        return (&name[..end], flags);
    }
    for plain in PLAIN {
        if name == plain || name.starts_with(plain) && name[plain.len()] == b'.' {
            return (plain, flags);
        }
    }
    (name, flags)
}

/// Returns true for a tag that `DEFINE_ALLOC_TAG` of include/linux/alloc_tag.h defines. Since Linux 6.15 `.codetag.`
/// precedes the section's name.
pub(crate) fn is_allocation_tag(object: &Object<'_>, item: ItemId) -> bool {
    let section = object.elf.section_name(object.item(item).section);
    section.strip_prefix(b".codetag.").unwrap_or(section) == b"alloc_tags"
}
