//! The workspace's own tooling.
fn main() {}
