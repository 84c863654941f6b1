//! How a long step tells its caller what it is doing. Owns the trait only; knows no terminal.

/// Receives what the driver does, as it happens. The CLI draws it; tests use `()`.
pub trait Progress: Sync {
    /// A step begins: a lower-case fragment such as `copying the source`.
    fn step(&self, message: &str);
    /// Objects compiled so far in the running kernel build, and how many there will be when that is known.
    fn objects(&self, done: u64, total: Option<u64>);
    /// Something worth telling that stops nothing.
    fn note(&self, message: &str);
}

impl Progress for () {
    fn step(&self, _: &str) {}
    fn objects(&self, _: u64, _: Option<u64>) {}
    fn note(&self, _: &str) {}
}
