//! Checks that everything that differs between the two builds is in the module, or need not be.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::lifetime::Lifetime;

use crate::differ::DifferingThings;
use crate::fault;
use crate::file::{Body, ReferenceTarget};
use crate::pair::BuildPair;

/// Sections with addresses that nobody keeps: sections that the linker drops (DISCARDS of
/// include/asm-generic/vmlinux.lds.h), and exports, whose addresses a module takes by name when it is loaded.
const KEEPS_NOTHING: [&[u8]; 4] = [b".discard", b".export_symbol", b"___ksymtab", b"__ksymtab"];

/// The parts of the module that the walk found.
pub(crate) struct Held {
    /// For each unit: the functions of the patched build that replace their originals.
    pub(crate) replaced: Vec<BTreeSet<Body>>,
    /// For each unit: all things of the patched build of which the module has a copy.
    pub(crate) copied: Vec<BTreeSet<Body>>,
}

/// Returns a finding for each differing thing that is missing in the module.
pub(crate) fn check(pairs: &[BuildPair<'_, '_>], differing: &DifferingThings, held: &Held) -> Vec<Diagnosis> {
    let mut faults = Vec::new();
    let users: Vec<ThingUsers> = pairs.iter().map(ThingUsers::read).collect();
    for (n, pair) in pairs.iter().enumerate() {
        let unit = MissingThing { pairs, n, pair, users: &users, held };
        for (&body, why) in &differing.functions[n] {
            if let Err(missing) = unit.function(body, &mut BTreeSet::new()) {
                let what = "a changed function that is not replaced";
                faults.push(
                    fault(&codes::VERIFY_ARRAYS, what, format!("{why}; {missing}")).place(unit.place(body)),
                );
            }
        }
        for (&body, why) in &differing.data[n] {
            if let Err(missing) = unit.data(body) {
                let what = "changed data that the module does not have";
                faults.push(
                    fault(&codes::VERIFY_DATA, what, format!("{why}; {missing}")).place(unit.place(body)),
                );
            }
        }
    }
    faults
}

/// The references in the patched build of a unit.
struct ThingUsers {
    /// Pairs of a referent and a function that refers to it.
    functions: BTreeSet<(Body, Body)>,
    data: BTreeSet<Body>,
    /// Names that other files define, with the functions that use them.
    outside: BTreeSet<(Vec<u8>, Body)>,
}

impl ThingUsers {
    fn read(pair: &BuildPair<'_, '_>) -> ThingUsers {
        let patched = &pair.patched;
        let mut users =
            ThingUsers { functions: BTreeSet::new(), data: BTreeSet::new(), outside: BTreeSet::new() };
        let keeps = |body: &Body| {
            let section = patched.section_name(body.section);
            !KEEPS_NOTHING.iter().any(|name| section.starts_with(name))
        };
        for user in patched.defined().map(|id| patched.body(id)).filter(keeps).collect::<BTreeSet<Body>>() {
            let code = patched.is_code(user.section);
            for reference in patched.references(user) {
                match reference.target {
                    ReferenceTarget::Thing { body, .. } if body == user => {}
                    ReferenceTarget::Thing { body, .. } if code => drop(users.functions.insert((body, user))),
                    ReferenceTarget::Thing { body, .. } => drop(users.data.insert(body)),
                    ReferenceTarget::Outside { symbol, .. } if code => {
                        users.outside.insert((patched.elf.symbol_name(symbol).to_vec(), user));
                    }
                    _ => {}
                }
            }
        }
        users
    }

    fn functions_of(&self, body: Body) -> impl Iterator<Item = Body> + '_ {
        self.functions
            .range((body, Body::FIRST)..)
            .take_while(move |(used, _)| *used == body)
            .map(|(_, user)| *user)
    }
}

struct MissingThing<'m, 'e, 'd> {
    pairs: &'m [BuildPair<'e, 'd>],
    n: usize,
    pair: &'m BuildPair<'e, 'd>,
    users: &'m [ThingUsers],
    held: &'m Held,
}

impl MissingThing<'_, '_, '_> {
    fn place(&self, body: Body) -> DiagnosisPlace {
        DiagnosisPlace::symbol(self.pair.name(body))
    }

    /// Returns why a changed function that is not replaced should be.
    fn function(&self, body: Body, seen: &mut BTreeSet<(usize, Body)>) -> Result<(), String> {
        if self.held.replaced[self.n].contains(&body) || !seen.insert((self.n, body)) {
            return Ok(());
        }
        let Some(original) = self.pair.original_of(body) else {
            // A function that the patch adds runs only if something in the module leads to it, and the walk followed
            // such references.
            return Ok(());
        };
        if self.pair.gave_way(original) {
            return Ok(());
        }
        let section = self.pair.original.section_name(original.section);
        if Lifetime::of(section).is_gone(self.pair.object == crate::VMLINUX) {
            return Ok(());
        }
        if self.pair.original.is_traced(original) {
            return Err("ftrace reaches it, and no entry of the module's arrays is for it".to_owned());
        }
        // If the function has no trace site, its callers are replaced, or the function is a part that comes with the
        // function it was split from.
        if self.users[self.n].data.contains(&body) {
            return Err("it has no trace site, and data holds its address".to_owned());
        }
        if !self.held.copied[self.n].contains(&body) {
            return Err("it has no trace site, and the module has no copy of it for its callers".to_owned());
        }
        for user in self.users[self.n].functions_of(body) {
            self.user(self.n, user, seen)?;
        }
        for symbol in self.pair.patched.symbols(body) {
            let name = self.pair.patched.elf.symbol_name(symbol);
            for (n, users) in self.users.iter().enumerate().filter(|&(n, _)| n != self.n) {
                for (_, user) in users.outside.iter().filter(|(used, _)| used == name) {
                    self.user(n, *user, seen)?;
                }
            }
        }
        Ok(())
    }

    /// Returns why a function that uses changed code or data should be in the module.
    fn user(&self, n: usize, user: Body, seen: &mut BTreeSet<(usize, Body)>) -> Result<(), String> {
        let unit = MissingThing { n, pair: &self.pairs[n], ..*self };
        unit.function(user, seen).map_err(|why| format!("{} uses it: {why}", unit.pair.name(user)))
    }

    /// Returns why changed data should be in the module.
    fn data(&self, body: Body) -> Result<(), String> {
        let Some(original) = self.pair.original_of(body) else { return Ok(()) };
        if self.pair.gave_way(original) {
            return Ok(());
        }
        if self.pair.patched.is_writable(body.section) {
            return Err("the running kernel has its own".to_owned());
        }
        if self.users[self.n].data.contains(&body) || !self.pair.is_local(body) {
            return Err("others than the functions of its unit may use it".to_owned());
        }
        // The walk followed the references of the module's functions.
        let mut seen = BTreeSet::new();
        self.users[self.n].functions_of(body).try_for_each(|user| self.user(self.n, user, &mut seen))
    }
}
