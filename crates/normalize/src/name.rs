//! Canonical names: a symbol's name without the compiler's suffixes, and the kinds of the removed suffixes.
//!
//! A suffix is dropped only to find the other build's symbol; the module always uses the kernel's real name. One table
//! lists the kinds and the tools that add them: [`KINDS`].

mod anonymous;
mod canonical;
mod made;
mod promotion;
mod suffix;

pub use anonymous::{Anonymous, anonymous, anonymous_as};
pub use canonical::{Canonical, canonical, is_apart, whole};
pub use made::{EVENT, EVENT_CLASS, is_mapping_symbol, made_for_event, prefix_mark, type_id};
pub use promotion::{PROMOTED, promotion, without_promotion};
pub use suffix::{KINDS, SuffixKind, Suffixes};
