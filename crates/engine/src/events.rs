//! What a build reports while it runs. Owns the trait; knows no terminal.

use klpx_build_driver::Progress;

/// The stages of a build, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Patches are read and applied in a scratch copy; the kernel is inspected.
    Preflight,
    /// The original units are found or compiled.
    Original,
    /// The patched units are compiled.
    Patched,
    /// Original and patched objects are compared.
    Analysis,
    /// What the change needs is bound to the kernel to be patched.
    Bind,
    /// The module is made.
    Emit,
    /// The finished module is checked against the kernel.
    Verify,
}

impl Stage {
    /// The stage in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Preflight => "preflight",
            Stage::Original => "original",
            Stage::Patched => "patched",
            Stage::Analysis => "analysis",
            Stage::Bind => "bind",
            Stage::Emit => "emit",
            Stage::Verify => "verify",
        }
    }
}

/// Receives the events of a build. The command line shows them; tests use `()`.
pub trait Events: Progress {
    /// A stage begins.
    fn begin(&self, stage: Stage);
    /// The current stage is done; `summary` says with what result.
    fn end(&self, summary: &str);
}

impl Events for () {
    fn begin(&self, _: Stage) {}
    fn end(&self, _: &str) {}
}
