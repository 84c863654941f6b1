//! Patterns of package names and paths: what the names in braces stand for.

/// The values for the patterns.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatternValues<'a> {
    /// UTS_RELEASE.
    pub(super) release: &'a str,
    /// The version of the package. Empty if unknown.
    pub(super) package: &'a str,
}

impl PatternValues<'_> {
    /// Fills in a pattern: `{release}` 6.8.0-45-generic, `{abi}` 6.8.0-45, `{flavour}` generic, `{base}` 6.8.0,
    /// `{series}` 6.8, `{machine}` x86_64, `{package}` the version of the package.
    pub(super) fn fill(&self, pattern: &str) -> String {
        let base = self.release.split('-').next().unwrap_or_default();
        let mut numbers = base.split(['.', '+']);
        let series = [numbers.next(), numbers.next()].into_iter().flatten().collect::<Vec<_>>().join(".");
        let flavour = self.release.rsplit_once('-').map_or("", |(_, flavour)| flavour);
        let filled = pattern
            .replace("{release}", self.release)
            .replace("{abi}", abi(self.release))
            .replace("{flavour}", flavour)
            .replace("{base}", base)
            .replace("{series}", &series)
            .replace("{machine}", std::env::consts::ARCH);
        filled.replace("{package}", self.package)
    }
}

/// The release without its flavour.
pub(super) fn abi(release: &str) -> &str {
    release.rsplit_once('-').map_or(release, |(abi, _)| abi)
}
