//! Walks through the module from the functions that it replaces. Each thing that the walk reaches is compared with its
//! counterpart in the patched build, and the two must be the same.
//!
//! Owns the order of the walk and the comparison of two runs of bytes. [`crate::reference`] compares the meaning of
//! references.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Offset, codes};
use klpx_normalize::elf::{Elf, SectionId};
use klpx_normalize::special::Policy;
use object::elf;

use crate::complete::{self, Held};
use crate::entries::{self, EntryRow};
use crate::file::{Body, IndexedFile, Reference};
use crate::inspect::Module;
use crate::kernel::LoadTarget;
use crate::pair::{BuildPair, plain};
use crate::reference::{Leads, UnitReferences};
use crate::unwind::Unwind;
use crate::{PreparedUnits, code, fault, frames};

/// The start of the names by which the glue calls new functions. The arrays tell which function is which.
const ALIAS: &str = "klpx_new_";

/// A thing of a unit's patched build, and the place of its entry in the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) unit: usize,
    pub(crate) body: Body,
    pub(crate) section: SectionId,
    pub(crate) at: u64,
}

/// The module and the units that it is compared with.
pub(crate) struct Graph<'g, 'e, 'd, 'm> {
    pub(crate) copy: &'g IndexedFile<'g, 'm>,
    pub(crate) module: &'g Module,
    pub(crate) target: &'g dyn LoadTarget,
    pub(crate) pairs: &'g [BuildPair<'e, 'd>],
    prepared: &'g PreparedUnits<'e, 'd>,
    rows: Vec<EntryRow>,
    unwind: Unwind<'m>,
    /// For each unit: the places of its runtime constants in code, and their names.
    constants: Vec<BTreeMap<(SectionId, u64), String>>,
    seen: BTreeSet<Node>,
    /// The place in the module of each thing with an identity.
    places: BTreeMap<(usize, Body), (SectionId, u64)>,
    waiting: Vec<Node>,
    held: Held,
    faults: Vec<Diagnosis>,
}

impl<'g, 'e, 'd, 'm> Graph<'g, 'e, 'd, 'm> {
    pub(crate) fn new(
        copy: &'g IndexedFile<'g, 'm>,
        module: &'g Module,
        target: &'g dyn LoadTarget,
        prepared: &'g PreparedUnits<'e, 'd>,
    ) -> Graph<'g, 'e, 'd, 'm> {
        let pairs = &prepared.pairs[..];
        let none = || vec![BTreeSet::new(); pairs.len()];
        Graph {
            copy,
            module,
            target,
            pairs,
            prepared,
            rows: entries::rows(copy),
            unwind: Unwind::read(copy),
            constants: pairs.iter().map(|pair| runtime_constants(pair.patched.elf, &pair.rows.1)).collect(),
            seen: BTreeSet::new(),
            places: BTreeMap::new(),
            waiting: Vec::new(),
            held: Held { replaced: none(), copied: none() },
            faults: Vec::new(),
        }
    }

    /// Follows all references from the entries of the arrays on.
    pub(crate) fn walk(&mut self) {
        self.replaced();
        self.callbacks();
        self.glue();
        while let Some(node) = self.waiting.pop() {
            let mut leads = Vec::new();
            if let Err(found) = self.compare(node, &mut leads) {
                let place = DiagnosisPlace::symbol(self.pairs[node.unit].name(node.body));
                self.faults.push(found.place(place));
            }
            leads.into_iter().for_each(|lead| self.follow(lead));
        }
    }

    fn follow(&mut self, node: Node) {
        if !self.seen.insert(node) {
            return;
        }
        self.held.copied[node.unit].insert(node.body);
        let pair = &self.pairs[node.unit];
        let named = pair.patched.symbols(node.body).next().is_some() && !pair.patched.is_anonymous(node.body);
        let place = (node.section, node.at);
        if named && *self.places.entry((node.unit, node.body)).or_insert(place) != place {
            let why = "each would have a state, or an address, of its own";
            let what = "the module has it at two places";
            self.faults.push(
                fault(&codes::VERIFY_MEANING, what, why).place(DiagnosisPlace::symbol(pair.name(node.body))),
            );
        }
        self.waiting.push(node);
    }

    /// Follows the callbacks: each must be the function with this name in a unit of the patched object.
    fn callbacks(&mut self) {
        for object in &self.module.objects {
            for (_, name) in &object.callbacks {
                let is_it = |file: &IndexedFile<'_, '_>, id| file.elf.symbol_name(id) == name.as_bytes();
                let copy = self.copy.defined().find(|&id| is_it(self.copy, id)).map(|id| self.copy.body(id));
                let units = self.pairs.iter().enumerate().filter(|(_, pair)| pair.object == object.name);
                let mut found = units.filter_map(|(unit, pair)| {
                    let id = pair.patched.defined().find(|&id| is_it(&pair.patched, id))?;
                    Some((unit, pair.patched.body(id)))
                });
                match (copy, found.next()) {
                    (Some(copy), Some((unit, body))) => {
                        self.follow(Node { unit, body, section: copy.section, at: copy.entry });
                    }
                    _ => {
                        let why = "no unit of that object has a function of this name";
                        let what = "a callback that the patch does not have";
                        let place = DiagnosisPlace::symbol(name.clone());
                        self.faults.push(fault(&codes::VERIFY_ARRAYS, what, why).place(place));
                    }
                }
            }
        }
    }

    /// Checks that everything of the module's own glue is in the module as kbuild compiled it.
    fn glue(&mut self) {
        for (unit, pair) in self.pairs.iter().enumerate().filter(|(_, pair)| pair.glue) {
            let file = &pair.patched;
            // Sections that a module's linker script drops only made the compiler keep something
            // (scripts/module.lds.S).
            let loaded = |section| {
                file.elf.section_flags(section) & elf::SHF_ALLOC.0 != 0
                    && !file.section_name(section).starts_with(b".discard")
            };
            let bodies: BTreeSet<Body> = file.defined().map(|id| file.body(id)).collect();
            for body in bodies.into_iter().filter(|body| loaded(body.section)) {
                let names: Vec<&[u8]> = file.symbols(body).map(|id| file.elf.symbol_name(id)).collect();
                let copies = self.copy.defined().filter(|&id| names.contains(&self.copy.elf.symbol_name(id)));
                let places: BTreeSet<(SectionId, u64)> =
                    copies.map(|id| self.copy.body(id)).map(|copy| (copy.section, copy.entry)).collect();
                let nodes = places.into_iter().map(|(section, at)| Node { unit, body, section, at });
                let nodes: Vec<Node> = nodes.collect();
                let found = nodes.iter().find(|node| self.compare(**node, &mut Vec::new()).is_ok());
                match found.or(nodes.first()).copied() {
                    Some(node) => self.follow(node),
                    None => {
                        let what = "a part of the module's glue that it does not have";
                        let place = DiagnosisPlace::symbol(pair.name(body));
                        self.faults.push(fault(&codes::VERIFY_GLUE, what, "kbuild compiled it").place(place));
                    }
                }
            }
        }
    }

    /// Returns all faults and the number of compared things.
    pub(crate) fn finish(mut self) -> (Vec<Diagnosis>, usize) {
        self.faults.extend(complete::check(self.pairs, &self.prepared.differing, &self.held));
        self.faults.extend(frames::check(self.copy, self.pairs, &self.held.replaced, &self.seen));
        self.check_nothing_else();
        (self.faults, self.seen.len())
    }

    /// Begins with the functions that the arrays name. Each must be a function of a unit of the patched object, have
    /// this name in the kernel, and come from the same file.
    fn replaced(&mut self) {
        for object in &self.module.objects {
            for function in &object.functions {
                let old = self.target.addresses(&object.name, &function.old_name).unwrap_or_default();
                let old = old.get(function.sympos.saturating_sub(1) as usize).copied();
                let file = old.and_then(|at| self.target.file_of(&object.name, &function.old_name, at));
                let mut candidates = Vec::new();
                for (unit, pair) in
                    self.pairs.iter().enumerate().filter(|(_, pair)| pair.object == object.name)
                {
                    let source = pair.original.source();
                    let fits = file
                        .as_deref()
                        .is_none_or(|file| source.is_none_or(|source| source == file.as_bytes()));
                    let (section, at) = function.new_at;
                    let functions = self.functions_called(pair, &function.old_name).into_iter();
                    candidates.extend(functions.map(|body| (fits, Node { unit, body, section, at })));
                }
                self.replaced_by(&function.old_name, &candidates);
            }
        }
    }

    /// Chooses the function for an entry of the arrays among `candidates`. Each candidate has a flag that tells whether
    /// it comes from the file of the function to be replaced.
    fn replaced_by(&mut self, name: &str, candidates: &[(bool, Node)]) {
        let is_it = |node: &Node| self.compare(*node, &mut Vec::new()).is_ok();
        let equal: Vec<&(bool, Node)> = candidates.iter().filter(|(_, node)| is_it(node)).collect();
        let right = equal.iter().find(|(fits, _)| *fits).map(|(_, node)| *node);
        // If no candidate is equal, the closest one is followed to report the reason.
        let closest = || candidates.iter().find(|(fits, _)| *fits && equal.is_empty()).map(|(_, node)| *node);
        match right.or_else(closest) {
            Some(node) => {
                self.held.replaced[node.unit].insert(node.body);
                self.follow(node);
            }
            None => {
                let why = "it is not what a unit of that object, from the file of that function, has under this name";
                let what = "a function that would take another one's place";
                self.faults.push(fault(&codes::VERIFY_ARRAYS, what, why).place(DiagnosisPlace::symbol(name)));
            }
        }
    }

    /// Returns the functions of the patched build whose originals have this name in the kernel.
    fn functions_called(&self, pair: &BuildPair<'_, '_>, name: &str) -> Vec<Body> {
        let bodies = pair.patched.defined().map(|id| pair.patched.body(id));
        let is_it = |body: &Body| {
            pair.patched.is_code(body.section)
                && pair
                    .original_of(*body)
                    .is_some_and(|original| pair.original_names(original).contains(&plain(name.as_bytes())))
        };
        bodies.filter(is_it).collect::<BTreeSet<Body>>().into_iter().collect()
    }

    /// Returns why a thing of the module differs from the patched build. Adds the pairs of things to which the two
    /// lead.
    fn compare(&self, node: Node, leads: &mut Vec<Node>) -> Result<(), Diagnosis> {
        let patched = &self.pairs[node.unit].patched;
        let copy = Body {
            section: node.section,
            entry: node.at,
            end: node.at.saturating_add(node.body.end - node.body.entry),
            lead: node.body.lead,
        };
        self.check_section(node, copy)?;
        self.check_symbol(node)?;
        self.check_contents(node, copy, leads)?;
        if patched.is_code(node.body.section) {
            self.check_rows(node, copy, leads)?;
            let (unit_rows, copy_rows) = (self.pairs[node.unit].unwind.1.of(node.body), self.unwind.of(copy));
            if unit_rows != copy_rows {
                let why = "the kernel's stack traces would be wrong";
                return Err(fault(
                    &codes::VERIFY_SPECIAL_SECTION,
                    "unwind data that differs from the patched build",
                    why,
                ));
            }
        }
        Ok(())
    }

    /// Checks that a copy lies where code, writable data or per-CPU data may lie.
    fn check_section(&self, node: Node, copy: Body) -> Result<(), Diagnosis> {
        let patched = &self.pairs[node.unit].patched;
        let short = copy.end > self.copy.elf.section_size(copy.section);
        if copy.lead > copy.entry || short && !is_string(patched, node.body) {
            return Err(differs("its size", "the module's section ends before it does"));
        }
        let per_cpu =
            |file: &IndexedFile<'_, '_>, section| file.section_name(section).starts_with(b".data..percpu");
        let (a, b) = (node.body.section, copy.section);
        let writable = !patched.is_writable(a) || self.copy.is_writable(b);
        let loaded = self.copy.elf.section_flags(b) & elf::SHF_ALLOC.0 != 0;
        if patched.is_code(a) != self.copy.is_code(b)
            || !writable
            || !loaded
            || per_cpu(patched, a) != per_cpu(self.copy, b)
        {
            return Err(differs("its section", "the module has it where it can't be used so"));
        }
        Ok(())
    }

    /// Checks that a thing with a name in the patched build has a symbol of that name (or of the original's name) and
    /// size in the module.
    fn check_symbol(&self, node: Node) -> Result<(), Diagnosis> {
        let pair = &self.pairs[node.unit];
        let mut symbols = pair.patched.symbols(node.body).peekable();
        let Some(&first) = symbols.peek() else { return Ok(()) };
        let mut names: Vec<&[u8]> = symbols.map(|id| plain(pair.patched.elf.symbol_name(id))).collect();
        names.extend(
            pair.original_of(node.body).into_iter().flat_map(|original| pair.original_names(original)),
        );
        let size = pair.patched.elf.symbol_size(first);
        let here = Body { section: node.section, entry: node.at, end: node.at, lead: 0 };
        let is_it = |id| {
            names.contains(&plain(self.copy.elf.symbol_name(id))) && self.copy.elf.symbol_size(id) == size
        };
        match self.copy.symbols(here).any(is_it) {
            true => Ok(()),
            false => Err(differs("its symbol", "the module has no symbol of this name and size there")),
        }
    }

    /// Compares bytes and references of two runs, except the code that reads a runtime constant.
    fn check_contents(&self, node: Node, copy: Body, leads: &mut Vec<Node>) -> Result<(), Diagnosis> {
        let patched = &self.pairs[node.unit].patched;
        let place = |at: u64| Offset(at.wrapping_sub(copy.lead) as i64);
        let wrong = |what: &str, at: u64, why: &str| Err(differs(&format!("{what} at {}", place(at)), why));
        let code = patched.bytes(node.body);
        let mut loads = BTreeMap::new();
        let mut skip = BTreeSet::new();
        let range = (node.body.section, node.body.start())..(node.body.section, node.body.end);
        for (&(_, at), name) in self.constants[node.unit].range(range) {
            let at = at - node.body.start();
            let load = code::runtime_load(patched.arch, code, at as usize);
            let Some(load) = load.filter(|load| {
                self.copy.bytes(copy).get(load.at..).is_some_and(|b| b.starts_with(&load.bytes))
            }) else {
                return wrong(
                    "a runtime constant",
                    at,
                    "the module does not load it as the kernel's variable",
                );
            };
            skip.extend(load.at as u64..(load.at + load.bytes.len()) as u64);
            loads.extend(load.relocations.into_iter().map(|key| (key, name)));
        }
        let mut unit_references = patched.references(node.body).into_iter().peekable();
        let references = UnitReferences { graph: self, unit: node.unit };
        for other in self.copy.references(copy) {
            if skip.contains(&other.at) {
                match loads.remove(&(other.at, other.kind)) {
                    Some(name) if references.reads_constant(&other, name) => continue,
                    _ => return wrong("a runtime constant", other.at, "the module reads something else"),
                }
            }
            let Some(reference) = unit_references.next_if(|reference| reference.at == other.at) else {
                if other.direct {
                    continue; // data that reads as a branch, or a branch: its bytes are compared
                }
                return wrong("a reference", other.at, "the patched build has none there");
            };
            let alike = || reference.direct && patched.arch.loads_alike(reference.kind, other.kind);
            if reference.kind != other.kind && !alike() {
                return wrong("a reference", other.at, "it is of another type");
            }
            match references.meaning(&reference, &other, false) {
                Ok(Leads::Nowhere) => {}
                Ok(Leads::To(node)) => leads.push(node),
                Err(why) => return wrong("a reference", other.at, &why),
            }
            skip.extend(other.at..other.at + other.width.max(reference.width));
        }
        if let Some(missing) = unit_references.next() {
            return wrong("a reference", missing.at, "the module has none there");
        }
        if let Some(((at, _), _)) = loads.first_key_value() {
            return wrong("a runtime constant", *at, "the module does not read it");
        }
        self.check_bytes(node, copy, &skip)
    }

    fn check_bytes(&self, node: Node, copy: Body, skip: &BTreeSet<u64>) -> Result<(), Diagnosis> {
        let patched = &self.pairs[node.unit].patched;
        let (unit_bytes, copy_bytes) = (patched.bytes(node.body), self.copy.bytes(copy));
        if is_string(patched, node.body) && is_path_without_folder(unit_bytes, copy_bytes) {
            return Ok(());
        }
        let byte = |bytes: &[u8], at: u64| bytes.get(at as usize).copied().unwrap_or(0);
        let other = (0..node.body.size())
            .find(|&at| !skip.contains(&at) && byte(unit_bytes, at) != byte(copy_bytes, at));
        match other {
            None => Ok(()),
            Some(at) => {
                Err(differs(&format!("the byte at {}", Offset(at.wrapping_sub(copy.lead) as i64)), ""))
            }
        }
    }

    /// Checks the rows of special sections that describe a function: the module has each row that it needs, and no
    /// other row.
    fn check_rows(&self, node: Node, copy: Body, leads: &mut Vec<Node>) -> Result<(), Diagnosis> {
        let pair = &self.pairs[node.unit];
        let listed = |row: &&EntryRow| row.kind.companion.is_none();
        let mut copy_rows: Vec<&EntryRow> = entries::within(&self.rows, copy).filter(listed).collect();
        for row in entries::within(&pair.rows.1, node.body).filter(listed) {
            let at = row.place.1 - node.body.start();
            let is_it =
                |other: &&EntryRow| other.kind.name == row.kind.name && other.place.1 - copy.start() == at;
            match row.kind.policy {
                // The module's own functions keep rows that copies do without.
                Policy::Drop(_) if pair.glue => {}
                Policy::RuntimeConstant | Policy::Drop(_) => continue,
                Policy::Refuse(why) => return Err(differs(row.kind.name, why)),
                Policy::Carry => {}
            }
            let Some(found) = copy_rows.iter().position(is_it) else {
                if self.may_be_left_out(node, row, copy) {
                    continue;
                }
                let what = format!(
                    "an entry of {} for {}",
                    row.kind.name,
                    Offset(at.wrapping_sub(copy.lead) as i64)
                );
                return Err(fault(&codes::VERIFY_SPECIAL_SECTION, what, "the module has none"));
            };
            let other = copy_rows.remove(found);
            self.check_row(node.unit, row, other, leads)?;
        }
        match copy_rows.first() {
            None => Ok(()),
            Some(other) => {
                let what = format!("an entry of {} that the patched build does not have", other.kind.name);
                Err(fault(&codes::VERIFY_SPECIAL_SECTION, what, "the kernel would act on it"))
            }
        }
    }

    fn check_row(
        &self,
        unit: usize,
        row: &EntryRow,
        other: &EntryRow,
        leads: &mut Vec<Node>,
    ) -> Result<(), Diagnosis> {
        let patched = &self.pairs[unit].patched;
        let wrong = |why: &str| {
            let what = format!("an entry of {} differs from the patched build", row.kind.name);
            Err(fault(&codes::VERIFY_SPECIAL_SECTION, what, why))
        };
        let (a, b) = (patched.references(row.body()), self.copy.references(other.body()));
        if row.size != other.size || a.len() != b.len() {
            return wrong("it has another form");
        }
        let mut skip = BTreeSet::new();
        let references = UnitReferences { graph: self, unit };
        for (n, (x, y)) in a.iter().zip(&b).enumerate() {
            skip.extend(x.at..x.at + x.width);
            if x.at != y.at || x.kind != y.kind {
                return wrong("a reference stands elsewhere");
            }
            if n == 0 {
                continue; // the place that it describes
            }
            match (row.replacement(patched, x), other.replacement(self.copy, y)) {
                (Some(from), Some(to)) => {
                    leads.push(Node { unit, body: from, section: to.section, at: to.entry });
                    continue;
                }
                (None, None) => {}
                _ => return wrong("the replacement is another one"),
            }
            match references.meaning(x, y, true) {
                Ok(Leads::Nowhere) => {}
                Ok(Leads::To(node)) => leads.push(node),
                Err(why) => return wrong(&why),
            }
        }
        let (left, right) = (patched.bytes(row.body()), self.copy.bytes(other.body()));
        let same = |n: usize| skip.contains(&(n as u64)) || left.get(n) == right.get(n);
        if !(0..row.size as usize).all(same) {
            return wrong("its contents are others");
        }
        Ok(())
    }

    /// Returns true for rows that the kernel reads before it writes the addresses of a late module: rows of
    /// tracepoints, which then stay off, and of call sites.
    fn may_be_left_out(&self, node: Node, row: &EntryRow, copy: Body) -> bool {
        let pair = &self.pairs[node.unit];
        if pair.object == crate::VMLINUX {
            return false;
        }
        if row.kind.name == ".call_sites" {
            let at = row.place.1 - node.body.start();
            let mut late = self.copy.references(copy).into_iter().filter(|reference| reference.at == at + 1);
            return late.any(|reference| {
                reference.symbol.is_some_and(|symbol| self.copy.text(symbol).starts_with(".klp.sym."))
            });
        }
        let names = pair.patched.references(row.body());
        let mut names = names.iter().filter_map(|reference: &Reference| {
            let symbol = reference.symbol?;
            Some(pair.patched.text(symbol))
        });
        matches!(row.kind.name, "__jump_table" | ".static_call_sites")
            && names.any(|name| name.starts_with("__tracepoint_") || name.starts_with("__SCK__tp_func_"))
    }

    /// Checks that every function of the module is either a veneer or a function that the walk reached.
    fn check_nothing_else(&mut self) {
        let reached: BTreeSet<(SectionId, u64)> =
            self.seen.iter().map(|node| (node.section, node.at)).collect();
        let functions = self.copy.defined().filter(|&id| self.copy.elf.symbol_type(id) == elf::STT_FUNC.0);
        let others = functions.filter(|&id| !self.copy.elf.symbol_name(id).starts_with(code::VENEER));
        let place = |id| (self.copy.body(id).section, self.copy.body(id).entry);
        let unknown: Vec<String> =
            others.filter(|&id| !reached.contains(&place(id))).map(|id| self.copy.text(id)).collect();
        for name in unknown {
            let why = "nothing that the module replaces leads to it";
            let what = "a function that the module does not need";
            self.faults.push(fault(&codes::VERIFY_MEANING, what, why).place(DiagnosisPlace::symbol(name)));
        }
    }

    /// Returns true for the first byte of a function that the arrays name, of a callback, or of another part of the
    /// glue named `name`.
    pub(crate) fn is_for_glue(&self, name: &str, section: SectionId, at: i64) -> bool {
        let is_it = |&&(of, entry): &&(SectionId, u64)| of == section && entry as i64 == at;
        let functions = self.module.objects.iter().flat_map(|object| &object.functions);
        let callbacks = self.module.objects.iter().flat_map(|object| &object.callbacks);
        let here = Body { section, entry: at as u64, end: at as u64, lead: 0 };
        if !name.starts_with(ALIAS) {
            return self.copy.symbols(here).any(|id| self.copy.elf.symbol_name(id) == name.as_bytes());
        }
        functions.map(|function| &function.new_at).any(|place| is_it(&place))
            || callbacks.map(|(_, name)| name).any(|name| {
                self.copy.symbols(here).any(|id| self.copy.elf.symbol_name(id) == name.as_bytes())
            })
    }

    /// Returns true for data that the patch changes, so that the kernel's own data will not do.
    pub(crate) fn is_changed_data(&self, unit: usize, body: Body) -> bool {
        self.prepared.differing.data[unit].contains_key(&body)
    }
}

/// Reports a part of a copy that differs from the patched build.
fn differs(what: &str, why: &str) -> Diagnosis {
    fault(&codes::VERIFY_MEANING, format!("{what} differs from the patched build"), why)
}

fn is_string(file: &IndexedFile<'_, '_>, body: Body) -> bool {
    file.elf.section_flags(body.section) & elf::SHF_STRINGS.0 != 0
}

/// Returns true if `copy_path` begins with the path `unit_path` without the folder in which it was compiled: a module does not
/// tell where it was made. Any other bytes may follow the path.
fn is_path_without_folder(unit_path: &[u8], copy_path: &[u8]) -> bool {
    let end = copy_path.iter().position(|&byte| byte == 0).map_or(copy_path.len(), |n| n + 1);
    let copy_path = &copy_path[..end];
    unit_path.first() == Some(&b'/')
        && unit_path.strip_suffix(copy_path).is_some_and(|folder| folder.ends_with(b"/"))
}

/// Returns the places in a unit's code that have runtime constants (`runtime_ptr_*`,
/// include/asm-generic/runtime-const.h).
fn runtime_constants(elf: &Elf<'_>, rows: &[EntryRow]) -> BTreeMap<(SectionId, u64), String> {
    let constants = rows.iter().filter(|row| row.kind.policy == Policy::RuntimeConstant);
    let name = |row: &EntryRow| elf.section_name(row.section).strip_prefix(b"runtime_ptr_");
    constants.filter_map(|row| Some((row.place, String::from_utf8_lossy(name(row)?).into_owned()))).collect()
}
