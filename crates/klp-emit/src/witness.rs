//! Compares klpx's own original build with the kernel to be patched, function by function.
//!
//! The running kernel is the truth; the rebuilt original is only a witness. Owns this comparison and the table of
//! granted differences. Never repairs or excuses a difference that is not in the table.
//!
//! | granted | why |
//! |---|---|
//! | [`Agreement::Identical`] | bytes outside relocated fields are equal, and every field leads to the bound symbol, or to a constant of the same contents |
//! | [`Agreement::Branches`] | the same instructions, branches and data references; only lengths of branches and no-operations differ: the assembler chose short branches between functions that klpx puts into sections of their own (`-ffunction-sections`) |
//! | both | a reference to an object of no bytes in `.bss` leads anywhere: it is an empty lock class key (no lockdep), and `-fdata-sections` moves it |
//! | [`Agreement::BuildIdentity`] | data that names the build or is written after the link, see `BUILD_IDENTITY` in `compare`: nothing depends on its contents |
//! | both | a string that is a path of the source may begin with another folder, the one in which the kernel was built |
//! | [`Agreement::Relaxed`] | arm64: the linker turned `adrp`+`add` into `nop`+`adr` (lld, R_AARCH64_ADR_PREL_PG_HI21 relaxation) to the same address |

mod agreement;
mod check;
mod compare;
mod unit;

pub use agreement::{Agreement, Mismatch};
pub use compare::{REMEDY, Witness};
pub use unit::{Explanation, UnitAgreement, overridden};

#[cfg(test)]
mod pairs;
#[cfg(test)]
mod tests;
