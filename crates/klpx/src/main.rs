//! The klpx command.
fn main() {}
