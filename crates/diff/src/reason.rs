//! The reasons why an item counts as changed.

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
