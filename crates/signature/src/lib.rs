//! Signatures of kernel modules: where they stand in a file, whose they are, and whether they are right by a certificate.
//!
//! Owns what stands behind a module and what the message there says. Never signs: private keys are for the kernel's own
//! sign-file, or for what holds them.

mod appended;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "check")]
mod message;

pub use appended::{append, split};
#[cfg(feature = "check")]
pub use check::{Certificate, Verdict};
#[cfg(feature = "check")]
pub use message::{Message, Signer};
