//! Signatures of kernel modules: their place in a file, their signer, and whether they are valid under a certificate.
//!
//! Owns the data after a module and the contents of the message there. Never signs: private keys are for the kernel's
//! sign-file or for the program that holds them.

mod appended;
#[cfg(feature = "check")]
mod check;
#[cfg(feature = "check")]
mod message;

pub use appended::{append, split};
#[cfg(feature = "check")]
pub use check::{Certificate, SignatureVerdict};
#[cfg(feature = "check")]
pub use message::{Message, Signer};
