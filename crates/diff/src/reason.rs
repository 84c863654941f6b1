//! Why an item counts as changed.

/// Why an item counts as changed, with the first place that differs. Offsets are in bytes from the item's entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The sizes differ, in bytes.
    Size {
        /// Of the original.
        from: u64,
        /// Of the patched item.
        to: u64,
    },
    /// Bytes outside relocated fields differ.
    Bytes {
        /// The first that does, in the patched item.
        offset: i64,
    },
    /// A reference has another type, target or addend, or stands elsewhere.
    Reference {
        /// Where in the patched item.
        offset: i64,
        /// What the original refers to, as text; empty when it has no reference there.
        from: String,
        /// What the patched item refers to.
        to: String,
    },
    /// A string or unnamed constant that it refers to has other contents.
    Literal {
        /// Where the reference stands in the patched item.
        offset: i64,
    },
    /// The entries in this special section differ.
    SpecialSection {
        /// Its name.
        table: &'static str,
        /// The place that the first differing entry describes.
        offset: i64,
    },
    /// It moved to a section of another name or with other flags.
    Section {
        /// The section's name in the original.
        from: String,
        /// In the patched object.
        to: String,
    },
    /// A list of BTF type numbers names other types, or in another order.
    TypeIds,
}
