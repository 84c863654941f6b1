//! The order of the walk: from the entries of the arrays, callbacks and glue along all references.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::elf::SectionId;
use object::elf;

use super::{Graph, Node};
use crate::file::{Body, IndexedFile};
use crate::pair::{BuildPair, plain};
use crate::{code, complete, fault, frames};

impl Graph<'_, '_, '_, '_> {
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
}
