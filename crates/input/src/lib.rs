//! Reads files that klpx did not write, as bytes: texts up to a limit, and maps of large files that may change while
//! klpx reads them. Never looks at the meaning of the bytes, never writes.

mod map;
mod text;

pub use map::{MappedFile, open};
pub use text::{LIMIT, bytes, bytes_until, text};
