//! The reasons why an item counts as changed.

use klpx_diagnosis::Offset;
use klpx_normalize::object::{Object, Role, Target};

/// A reason why an item counts as changed, with the first differing place. Offsets are in bytes from the item's entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The sizes differ, in bytes.
    Size {
        /// Size of the original.
        from: u64,
        /// Size of the patched item.
        to: u64,
    },
    /// Bytes outside relocated fields differ.
    Bytes {
        /// The first differing byte in the patched item.
        offset: i64,
    },
    /// A reference has a different type, target or addend, or stands at a different place.
    Reference {
        /// The reference's place in the patched item.
        offset: i64,
        /// The target in the original, as text; empty if the original has no reference there.
        from: String,
        /// The target in the patched item.
        to: String,
    },
    /// A string or unnamed constant that the item refers to has different contents.
    Literal {
        /// The reference's place in the patched item.
        offset: i64,
    },
    /// The entries in this special section differ.
    SpecialSection {
        /// The special section's name.
        table: &'static str,
        /// The place that the first differing entry describes.
        offset: i64,
    },
    /// The item moved to a section with a different name or different flags.
    Section {
        /// The section's name in the original.
        from: String,
        /// The section's name in the patched object.
        to: String,
    },
    /// A list of BTF type numbers names different types, or has them in a different order.
    TypeIds,
}

/// Describes a reference in words.
pub fn describe(object: &Object<'_>, target: Target) -> String {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let with = |name: String, offset: i64| Offset(offset).behind(name);
    match target {
        Target::Item { item, offset } => with(text(object.item_name(item)), offset),
        Target::Literal { section, start, end, offset } if object.role(section) == Role::Strings => {
            let bytes = object.range(section, start, end.saturating_sub(1));
            with(format!("{:?}", text(bytes)), offset)
        }
        Target::Literal { section, offset, .. } => with(text(object.elf.section_name(section)), offset),
        Target::Entry { table, entry, .. } => {
            format!("{}[{entry}]", object.tables[table.index()].kind.name)
        }
        Target::External { symbol, offset } => with(text(object.elf.symbol_name(symbol)), offset),
        Target::Absolute(value) => format!("{value:#x}"),
    }
}
