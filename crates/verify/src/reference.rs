//! Compares a reference of the module with the reference at the same place of the patched build.
//!
//! | the patched build refers to | the module must refer to |
//! |---|---|
//! | a variable that the kernel has | the kernel's, by a livepatch symbol or its export; never to a copy |
//! | a constant that the patch changes | its own copy |
//! | a function that the kernel has | the kernel's; or its own copy, only by a call: an address could outlive a copy |
//! | a thing that the patch adds | its own copy |
//! | a string, a constant without identity | its own copy |
//! | a symbol of another file | the kernel's of that name, or the copy of a thing that a unit adds under that name |

use klpx_normalize::elf::{Definition, SectionId, SymbolId};
use klpx_normalize::name::canonical;
use klpx_normalize::special::TableKind;
use object::elf;

use crate::differ::unnamed;
use crate::file::{Body, IndexedFile, Reference, ReferenceTarget};
use crate::graph::{Graph, Node};
use crate::inspect::{self, LivepatchSymbol};
use crate::pair::{BuildPair, plain};
use crate::sanitizer::is_check_data;
use crate::{VMLINUX, code};

/// The pair of things to which two references lead.
pub(crate) enum Leads {
    /// Out of the module.
    Nowhere,
    /// To a copy, which has to equal its counterpart.
    To(Node),
}

/// The target of the module's reference.
enum There {
    /// A place in the module.
    Copy(SectionId, i64),
    /// A place that the livepatch core resolves.
    Livepatch(LivepatchPlace),
    /// A symbol that the module loader resolves, and the distance from it in bytes.
    Import(String, i64),
    Number(i64),
}

/// A symbol that the livepatch core resolves, and the distance from the symbol in bytes.
struct LivepatchPlace {
    symbol: LivepatchSymbol,
    from: i64,
}

/// The references of one unit.
pub(crate) struct UnitReferences<'r, 'g, 'e, 'd, 'm> {
    pub(crate) graph: &'r Graph<'g, 'e, 'd, 'm>,
    pub(crate) unit: usize,
}

impl<'g, 'e, 'd> UnitReferences<'_, 'g, 'e, 'd, '_> {
    fn pair(&self) -> &'g BuildPair<'e, 'd> {
        &self.graph.pairs[self.unit]
    }

    /// Compares the meaning of two references and returns where they lead, or why they differ. `row` is true for a row
    /// of a special section.
    pub(crate) fn meaning(
        &self,
        unit_reference: &Reference,
        copy_reference: &Reference,
        row: bool,
    ) -> Result<Leads, String> {
        let there = self.there(copy_reference)?;
        let patched = &self.pair().patched;
        match unit_reference.target {
            ReferenceTarget::Number(left) => match there {
                There::Number(right) if left == right => Ok(Leads::Nowhere),
                There::Number(right) => Err(format!("{left:#x} became {right:#x}")),
                _ => Err(format!("{left:#x} became an address")),
            },
            ReferenceTarget::Thing { body, delta } if patched.is_anonymous(body) => {
                self.copy(body, delta, &there)
            }
            ReferenceTarget::Thing { body, delta } => {
                self.thing(body, delta, unit_reference.branch || row, &there)
            }
            ReferenceTarget::Before(_) => {
                Err("the patched build refers to a place before a section".to_owned())
            }
            ReferenceTarget::Bytes { section, .. } if is_variable(patched, section) => Err(format!(
                "variable data of {} has no name, and the running kernel has its own",
                String::from_utf8_lossy(patched.section_name(section))
            )),
            ReferenceTarget::Bytes { section, at } => self.copy(unnamed(patched, section, at), 0, &there),
            ReferenceTarget::Outside { symbol, delta } => {
                self.outside(symbol, delta, unit_reference.branch || row, &there)
            }
        }
    }

    fn there(&self, reference: &Reference) -> Result<There, String> {
        let copy = self.graph.copy;
        let target = match reference.branch.then(|| self.through_veneer(reference)).flatten() {
            Some(target) => target,
            None => reference.target,
        };
        Ok(match target {
            ReferenceTarget::Thing { body, delta } => {
                There::Copy(body.section, (body.entry as i64).wrapping_add(delta))
            }
            ReferenceTarget::Bytes { section, at } => There::Copy(section, at as i64),
            ReferenceTarget::Before(_) => {
                return Err("the module refers to a place before a section".to_owned());
            }
            ReferenceTarget::Number(number) => There::Number(number),
            ReferenceTarget::Outside { symbol, delta } => match copy.elf.definition(symbol) {
                Definition::Livepatch => match inspect::parse_symbol(&copy.text(symbol)) {
                    Some(symbol) => There::Livepatch(LivepatchPlace { symbol, from: delta }),
                    None => return Err(format!("{} is no livepatch symbol", copy.text(symbol))),
                },
                _ => There::Import(copy.text(symbol), delta),
            },
        })
    }

    /// Accepts only a copy of a thing of the patched build.
    fn copy(&self, body: Body, delta: i64, there: &There) -> Result<Leads, String> {
        let &There::Copy(section, at) = there else {
            return Err(format!("{} became {}", self.name(body), there.text()));
        };
        match u64::try_from(at.wrapping_sub(delta)) {
            Ok(at) => Ok(Leads::To(Node { unit: self.unit, body, section, at })),
            Err(_) => Err(format!("{} became a place before its section", self.name(body))),
        }
    }

    fn name(&self, body: Body) -> String {
        self.pair().name(body)
    }

    /// Checks a reference to a named thing that the unit defines. `called` is true if nobody keeps the address.
    fn thing(&self, body: Body, delta: i64, called: bool, there: &There) -> Result<Leads, String> {
        let pair = self.pair();
        let name = || self.name(body);
        let original = pair.original_of(body);
        let code = pair.patched.is_code(body.section);
        match (there, original) {
            (There::Copy(..), Some(_)) if !code && !self.graph.is_changed_data(self.unit, body) => {
                Err(format!("{} became a copy, and the kernel goes on with its own", name()))
            }
            (There::Copy(..), Some(_)) if code && !called && delta == 0 => {
                Err(format!("it keeps the address of the copy of {}, which is freed with the module", name()))
            }
            (There::Copy(..), _) => self.copy(body, delta, there),
            (_, None) => Err(format!("{}, which the patch adds, became {}", name(), there.text())),
            (_, Some(_)) if self.graph.is_changed_data(self.unit, body) => {
                Err(format!("{} became the kernel's own, which the patch does not change", name()))
            }
            (There::Number(_), _) => Err(format!("{} became {}", name(), there.text())),
            (There::Import(import, from), Some(original)) => {
                let exporter = self.graph.target.exporter(import);
                let named = *from == delta && pair.original_names(original).contains(&import.as_bytes());
                let inner = || pair.has_inner(original, delta.wrapping_sub(*from), import.as_bytes());
                match (named || inner()) && !pair.is_local(body) && exporter.as_deref() == Some(pair.object) {
                    true => Ok(Leads::Nowhere),
                    false => Err(format!("{} became {}", name(), there.text())),
                }
            }
            (There::Livepatch(place), Some(original)) => {
                self.kernels(body, original, delta, place).map(|()| Leads::Nowhere)
            }
        }
    }

    /// Checks that a livepatch symbol is the kernel's thing for the given original.
    fn kernels(&self, body: Body, original: Body, delta: i64, place: &LivepatchPlace) -> Result<(), String> {
        let &LivepatchPlace { ref symbol, from } = place;
        let (pair, target) = (self.pair(), self.graph.target);
        let became =
            |why: &str| Err(format!("{} became {} of {}{why}", self.name(body), symbol.name, symbol.object));
        let names = pair.original_names(original);
        let named = |name: &str| names.iter().any(|known| plain(known) == plain(name.as_bytes()));
        if symbol.object != pair.object {
            return became("");
        }
        let found = target.addresses(&symbol.object, &symbol.name).unwrap_or_default();
        let Some(&address) = found.get(symbol.sympos.saturating_sub(1) as usize) else { return Ok(()) };
        if !named(&symbol.name) || from != delta {
            // A set of BTF numbers is a label, followed by numbers with their own labels.
            let place = address.wrapping_add_signed(from).wrapping_add_signed(-delta);
            let there = target.names_at(&symbol.object, place);
            let key = canonical(symbol.name.as_bytes()).key();
            let alike = names.iter().any(|name| canonical(name).key() == key);
            return match there.iter().any(|name| named(name)) {
                true => Ok(()),
                false if alike && from == delta => became(", another one of that name"),
                false => became(""),
            };
        }
        let local = pair
            .original
            .symbols(original)
            .all(|id| pair.original.elf.symbol_binding(id) == elf::STB_LOCAL.0);
        match (local, pair.original.source(), target.file_of(&symbol.object, &symbol.name, address)) {
            (true, Some(file), Some(other)) if other.as_bytes() != file => {
                became(&format!(", that of {other}"))
            }
            (false, ..) if target.is_local(&symbol.object, &symbol.name, address) => became(", a local one"),
            _ => Ok(()),
        }
    }

    /// Checks a reference to a symbol that the unit does not define.
    fn outside(&self, symbol: SymbolId, delta: i64, called: bool, there: &There) -> Result<Leads, String> {
        let (pair, target) = (self.pair(), self.graph.target);
        let name = pair.patched.text(symbol);
        let became = || Err(format!("{name} became {}", there.text()));
        let adds = |unit: &BuildPair<'_, '_>| {
            let body = unit.global(name.as_bytes())?;
            unit.original_of(body).is_none().then_some(body)
        };
        match there {
            There::Number(_) => became(),
            There::Import(import, from) => {
                match *import == name && *from == delta && !self.is_added_here(&name) {
                    true => Ok(Leads::Nowhere),
                    false => became(),
                }
            }
            There::Livepatch(LivepatchPlace { symbol: found, from }) => {
                let exporter = target.exporter(&name);
                let object = found.object == pair.object || exporter.as_deref() == Some(&found.object);
                let same = plain(found.name.as_bytes()) == plain(name.as_bytes()) && *from == delta;
                let all = target.addresses(&found.object, &found.name).unwrap_or_default();
                let address = all.get(found.sympos.saturating_sub(1) as usize);
                let local = address.is_some_and(|&at| target.is_local(&found.object, &found.name, at));
                match object && same && !local && !self.is_added_here(&name) {
                    true => Ok(Leads::Nowhere),
                    false => became(),
                }
            }
            // The glue names the new functions by aliases.
            &There::Copy(section, at) if pair.glue && delta == 0 => {
                match self.graph.is_for_glue(&name, section, at) {
                    true => Ok(Leads::Nowhere),
                    false => became(),
                }
            }
            &There::Copy(section, at) => {
                let units = self.graph.pairs.iter().enumerate();
                let mut new = units.clone().filter_map(|(n, unit)| Some((n, adds(unit)?)));
                // A copy is no substitute for a weak name of this unit: the kernel may have another unit's thing there.
                let undefined = pair.patched.elf.symbol_section(symbol).is_none();
                let mut helpers = units.filter(|_| undefined).filter_map(|(n, unit)| {
                    let body = unit.global(name.as_bytes())?;
                    let code = unit.patched.is_code(body.section) && !unit.patched.is_traced(body);
                    (called && code && unit.original_of(body).is_some()).then_some((n, body))
                });
                let own = |&(n, _): &(usize, Body)| self.graph.pairs[n].object == pair.object;
                let found = new.clone().find(own).or_else(|| new.next()).or_else(|| helpers.next());
                let at = u64::try_from(at.wrapping_sub(delta));
                match (found, at) {
                    (Some((unit, body)), Ok(at)) => Ok(Leads::To(Node { unit, body, section, at })),
                    _ => became(),
                }
            }
        }
    }

    /// Returns true for a name that a unit of the same object adds. The kernel's symbol of this name, if any, is a
    /// different thing.
    fn is_added_here(&self, name: &str) -> bool {
        let own = self.graph.pairs.iter().filter(|unit| unit.object == self.pair().object);
        let mut added = own.filter_map(|unit| Some((unit, unit.global(name.as_bytes())?)));
        added.any(|(unit, body)| unit.original_of(body).is_none())
    }

    /// Returns the target of a veneer that a branch leads to. klpx writes veneers where a branch does not reach.
    fn through_veneer(&self, branch: &Reference) -> Option<ReferenceTarget> {
        let copy = self.graph.copy;
        let veneer = code::veneer(copy.arch)?;
        let ReferenceTarget::Thing { body, delta: 0 } = branch.target else { return None };
        let mut names = copy.symbols(body).map(|id| copy.elf.symbol_name(id));
        names.find(|name| name.starts_with(code::VENEER))?;
        let expected: Vec<u8> = veneer.words.into_iter().flat_map(u32::to_le_bytes).collect();
        let references = copy.references(body);
        let right = copy.bytes(body) == expected
            && references.iter().map(|reference| (reference.at, reference.kind)).eq(veneer.relocations)
            && references.windows(2).all(|two| two[0].target == two[1].target);
        right.then(|| references[0].target)
    }

    /// Returns true if a load reads a runtime constant: the variable itself, or a place of the kernel's code that holds
    /// its value.
    pub(crate) fn reads_constant(&self, load: &Reference, name: &str) -> bool {
        let target = self.graph.target;
        match self.there(load) {
            Ok(There::Import(import, 0)) => import == name,
            Ok(There::Livepatch(LivepatchPlace { symbol, from })) => {
                let found = target.addresses(&symbol.object, &symbol.name).unwrap_or_default();
                let address = found.get(symbol.sympos.saturating_sub(1) as usize);
                let sites = target.runtime_sites(name);
                symbol.name == name && from == 0
                    || symbol.object == VMLINUX
                        && address.is_some_and(|at| sites.contains(&at.wrapping_add_signed(from)))
            }
            _ => false,
        }
    }
}

impl There {
    fn text(&self) -> String {
        match self {
            There::Copy(..) => "a place of the module".to_owned(),
            There::Livepatch(LivepatchPlace { symbol, from }) => {
                format!("{} of {}", klpx_diagnosis::Offset(*from).behind(symbol.name.clone()), symbol.object)
            }
            There::Import(name, from) => klpx_diagnosis::Offset(*from).behind(name.clone()),
            There::Number(number) => format!("{number:#x}"),
        }
    }
}

/// Returns true for a section of variables. Rows of special sections and the sanitizer's data serve as well in a copy.
fn is_variable(file: &IndexedFile<'_, '_>, section: SectionId) -> bool {
    let row = || TableKind::of(file.arch, file.section_name(section)).is_some();
    file.is_writable(section) && !row() && !is_check_data(file, section)
}
