//! Change sets of small ThinLTO kernels: what the patch does not touch but must be replaced all the same is in them,
//! and what the compiler only decided otherwise is not.

mod cases;
mod differential;
mod holders;
mod toy;
