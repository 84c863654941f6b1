//! Compares a thing of the module with its counterpart in the patched build: section, symbol, bytes, references, rows of
//! special sections, and unwind data.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Offset, codes};
use klpx_normalize::special::Policy;
use object::elf;

use super::{Graph, Node};
use crate::entries::{self, EntryRow};
use crate::file::{Body, IndexedFile, Reference};
use crate::pair::plain;
use crate::reference::{Leads, UnitReferences};
use crate::sanitizer::{is_type_description, is_without_folder};
use crate::{code, fault};

impl Graph<'_, '_, '_, '_> {
    /// Returns why a thing of the module differs from the patched build. Adds the pairs of things to which the two
    /// lead.
    pub(super) fn compare(&self, node: Node, leads: &mut Vec<Node>) -> Result<(), Diagnosis> {
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
        let may_be_shorter = || is_string(patched, node.body) || is_type_description(patched, node.body);
        if copy.lead > copy.entry || short && !may_be_shorter() {
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
        if is_without_folder(patched, node.body, copy_bytes) {
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
