//! The local symbols of a symbol table, grouped by their file: a FILE symbol stands before the locals of its file. Owns
//! only the grouping. A file's name is its base name, so several groups may share a name.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;
use klpx_normalize::elf::{Elf, SymbolId};
use klpx_normalize::name::prefix_mark;
use object::elf;

/// A file's local symbols, in symbol table order, and the file's name.
struct FileLocals {
    name: Box<[u8]>,
    locals: Range<usize>,
}

/// Local symbols by file. Group 0 holds those before the first FILE symbol.
pub(crate) struct Locals {
    groups: Vec<FileLocals>,
    symbols: Vec<SymbolId>,
    group_of: Vec<u32>,
    by_name: BTreeMap<Box<[u8]>, Vec<usize>>,
}

/// The group of a symbol that is not a local.
const NONE: u32 = u32::MAX;

/// Returns true for a symbol that takes part in matching: code, data or a label with a name of its own.
pub(crate) fn takes_part(elf: &Elf<'_>, id: SymbolId) -> bool {
    let (kind, name) = (elf.symbol_type(id), elf.symbol_name(id));
    kind < elf::STT_SECTION.0 && !matches!(name, [] | [b'$', ..]) && prefix_mark(name).is_none()
}

impl Locals {
    /// The locals of a symbol table.
    pub(crate) fn read(elf: &Elf<'_>, is_global: impl Fn(SymbolId) -> bool) -> Locals {
        let mut groups: Vec<(Box<[u8]>, Vec<SymbolId>)> = vec![Default::default()];
        for id in elf.symbol_ids() {
            if elf.symbol_type(id) == elf::STT_FILE.0 {
                groups.push((elf.symbol_name(id).into(), Vec::new()));
            } else if takes_part(elf, id)
                && !is_global(id)
                && let Some((_, last)) = groups.last_mut()
            {
                last.push(id);
            }
        }
        Locals::of_groups(groups, elf.symbol_count())
    }

    /// The locals of a symbol table that lost its FILE symbols, grouped by a copy that has them: equal names at equal
    /// places in sections of equal names match.
    pub(crate) fn by_copy(elf: &Elf<'_>, is_global: impl Fn(SymbolId) -> bool, copy: &Elf<'_>) -> Locals {
        type LocalKey<'d> = (&'d [u8], &'d [u8], u64, u64);
        fn key<'d>(elf: &Elf<'d>, id: SymbolId) -> Option<LocalKey<'d>> {
            let section = elf.section_name(elf.symbol_section(id)?);
            Some((elf.symbol_name(id), section, elf.symbol_value(id), elf.symbol_size(id)))
        }
        let copy_locals = Locals::read(copy, |id| copy.symbol_binding(id) != elf::STB_LOCAL.0);
        let mut group_of: HashMap<LocalKey<'_>, usize> = HashMap::new();
        for group in 0..copy_locals.groups.len() {
            group_of.extend(copy_locals.of(group).iter().filter_map(|&id| Some((key(copy, id)?, group))));
        }
        let mut groups: Vec<(Box<[u8]>, Vec<SymbolId>)> =
            copy_locals.groups.into_iter().map(|group| (group.name, Vec::new())).collect();
        for id in elf.symbol_ids().filter(|&id| takes_part(elf, id) && !is_global(id)) {
            let group = key(elf, id).and_then(|key| group_of.get(&key).copied()).unwrap_or(0);
            groups[group].1.push(id);
        }
        Locals::of_groups(groups, elf.symbol_count())
    }

    fn of_groups(found: Vec<(Box<[u8]>, Vec<SymbolId>)>, symbols: usize) -> Locals {
        let mut locals = Locals {
            groups: Vec::with_capacity(found.len()),
            symbols: Vec::new(),
            group_of: vec![NONE; symbols],
            by_name: BTreeMap::new(),
        };
        for (n, (name, list)) in found.into_iter().enumerate() {
            let start = locals.symbols.len();
            list.iter().for_each(|id| locals.group_of[id.index()] = n as u32);
            locals.symbols.extend(list);
            locals.by_name.entry(name.clone()).or_default().push(n);
            locals.groups.push(FileLocals { name, locals: start..locals.symbols.len() });
        }
        locals
    }

    /// The number of groups.
    pub(crate) fn count(&self) -> usize {
        self.groups.len()
    }

    /// Returns true if the table tells from which files locals come.
    pub(crate) fn has_files(&self) -> bool {
        self.groups.len() > 1
    }

    /// The locals of a group, in symbol table order.
    pub(crate) fn of(&self, group: usize) -> &[SymbolId] {
        &self.symbols[self.groups[group].locals.clone()]
    }

    /// The group of a local.
    pub(crate) fn group_of(&self, id: SymbolId) -> Option<usize> {
        self.group_of.get(id.index()).filter(|&&group| group != NONE).map(|&group| group as usize)
    }

    /// The name of the file from which a local comes.
    pub(crate) fn file_of(&self, id: SymbolId) -> Option<&[u8]> {
        let group = self.group_of(id).filter(|&group| group > 0)?;
        Some(&self.groups[group].name)
    }

    /// Group numbers by file name, in ascending order.
    pub(crate) fn by_name(&self) -> &BTreeMap<Box<[u8]>, Vec<usize>> {
        &self.by_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_testkit::fixture::Fixture;

    #[test]
    fn code_data_and_labels_take_part_and_marks_do_not() {
        let f = Fixture::new();
        f.assemble(
            "one",
            ".file \"a.c\"\n.text\n.local f,label\n.type f,@function\n.type __pfx_f,@function\n__pfx_f: .skip 16\nf: nop\nlabel: nop\n\
             .type \"$x\",@notype\n\"$x\": nop\n.data\n.type v,@object\nv: .long 1\n",
        );
        let file = f.open("one.o");
        let elf = file.parse().expect("an object");
        let locals = Locals::read(&elf, |id| elf.symbol_binding(id) != elf::STB_LOCAL.0);
        let group = locals.by_name().get(&b"a.c"[..]).expect("a file")[0];
        let names: Vec<_> = locals
            .of(group)
            .iter()
            .map(|&id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned())
            .collect();
        assert_eq!(names, ["f", "label", "v"]);
    }
}
