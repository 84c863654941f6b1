//! How long the code and data of a section stay in a running kernel (include/linux/init.h, include/linux/module.h).

/// How long code or data exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the kernel or the module is loaded.
    Kept,
    /// Until the kernel has booted or the module has started; then the memory is freed.
    Boot,
    /// For the removal of a module. Built-in code is never removed, so the link drops the section or the kernel frees
    /// it after boot.
    Removal,
}

/// Starts of the names of sections that are freed after boot.
const BOOT: [&[u8]; 4] = [b".init.", b".initcall", b".con_initcall", b".meminit."];
/// Starts of the names of sections that only the removal of a module needs.
const REMOVAL: [&[u8]; 3] = [b".exit.", b".exitcall", b".memexit."];

impl Lifetime {
    /// Returns the lifetime of a section's contents, by the section's name in a unit as compiled.
    pub fn of(section: &[u8]) -> Lifetime {
        let is_one_of = |starts: &[&[u8]]| starts.iter().any(|start| section.starts_with(start));
        if section == b".head.text" || is_one_of(&BOOT) {
            Lifetime::Boot
        } else if is_one_of(&REMOVAL) {
            Lifetime::Removal
        } else {
            Lifetime::Kept
        }
    }

    /// Returns true if a running kernel no longer has the contents. `built_in` tells the kernel's image from a module.
    pub fn is_gone(self, built_in: bool) -> bool {
        self == Lifetime::Boot || self == Lifetime::Removal && built_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_go_when_their_work_is_done() {
        let cases: [(&str, Lifetime); 10] = [
            (".init.text", Lifetime::Boot),
            (".init.data.once", Lifetime::Boot),
            (".initcall6.init", Lifetime::Boot),
            (".head.text", Lifetime::Boot),
            (".exit.text", Lifetime::Removal),
            (".exitcall.exit", Lifetime::Removal),
            (".text", Lifetime::Kept),
            (".init_array", Lifetime::Kept),
            (".data..ro_after_init", Lifetime::Kept),
            (".text.exit.handler", Lifetime::Kept),
        ];
        for (section, lifetime) in cases {
            assert_eq!(Lifetime::of(section.as_bytes()), lifetime, "{section}");
        }
        assert!(Lifetime::Removal.is_gone(true) && !Lifetime::Removal.is_gone(false));
    }
}
