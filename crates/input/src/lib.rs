//! Files that others wrote, as bytes: texts up to a limit, and maps of large files that may change while they are read.
//! Never looks at what the bytes mean, never writes.

mod map;
mod text;

pub use map::{Map, open};
pub use text::{LIMIT, bytes, bytes_until, text};
