//! Constant tables whose contents the patch changes.
//!
//! The kernel has such a table in read-only memory, and a livepatch can't write there. A livepatch can bring the new
//! table along and replace every function that refers to the old one. This is complete only if no code keeps the
//! table's address: code that kept the old table's address goes on using the old table, and the new table is freed with
//! the livepatch.
//!
//! Owns the search for a table's users, and whether one of them keeps its address. An unknown use counts as keeping the
//! address. Never decides what is replaced.

mod flow;
mod places;
mod readers;

use std::collections::BTreeSet;

use klpx_diagnosis::Offset;
use klpx_normalize::elf::SectionId;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::plan::ComparedUnit;
use places::{holder, text};

/// The functions of the patched build that must be replaced so that a changed constant of a unit can be carried.
///
/// # Errors
/// Why the constant can't be carried, as a clause for people.
pub(crate) fn carry(
    units: &[ComparedUnit<'_, '_>],
    unit: usize,
    item: ItemId,
) -> Result<BTreeSet<ItemId>, String> {
    let Some(builds) = units.get(unit) else { return Err("its unit is not known".to_owned()) };
    let Some(original) = builds.counterpart(item) else {
        return Err("the kernel does not have it".to_owned());
    };
    if !arch::follows_addresses(builds.patched.arch) {
        return Err(format!("klpx does not follow addresses through {} code", builds.patched.arch.name()));
    }
    // Code that kept the old table's address goes on using it; code that keeps the new table's address is left with
    // freed memory.
    let (_, mut handed) = users(builds, builds.original, original)?;
    let (users, also) = users(builds, builds.patched, item)?;
    handed.extend(also);
    let changed = |unit: &&ComparedUnit<'_, '_>| {
        let mut functions = unit.difference.functions.iter();
        functions.any(|change| handed.contains(&text(unit.patched, change.patched)))
    };
    match units.iter().find(changed) {
        Some(_) => Err("it is handed to a function that the patch changes, too".to_owned()),
        None => Ok(users),
    }
}

/// The functions that refer to a constant in one of the builds, together with the functions of which a user is the
/// unlikely part; and the names of the functions to which they pass the constant.
fn users(
    builds: &ComparedUnit<'_, '_>,
    object: &Object<'_>,
    item: ItemId,
) -> Result<(BTreeSet<ItemId>, BTreeSet<String>), String> {
    let table = ConstantTable::of(object, item)?;
    let users: BTreeSet<ItemId> =
        table.users()?.into_iter().filter(|&user| runs(builds, object, user)).collect();
    for &user in &users {
        if Lifetime::of(object.elf.section_name(object.item(user).section)) == Lifetime::Boot {
            let name = text(object, user);
            return Err(format!("{name} has run and is gone, and what it did with the old one stays"));
        }
    }
    let roots = roots(object, &users);
    let handed = flow::follow(object, table.section, &users, &roots)?;
    if let (Some(callee), Some(function)) = (handed.first(), table.function()) {
        return Err(format!(
            "it may name functions ({function}) and is handed to {callee}: objects that are there keep the old ones"
        ));
    }
    Ok((users.union(&roots).copied().collect(), handed))
}

/// Returns false for functions that the running kernel never runs: a weak one that gave way, or a built-in `__exit`
/// function.
fn runs(builds: &ComparedUnit<'_, '_>, object: &Object<'_>, user: ItemId) -> bool {
    let original = if std::ptr::eq(object, builds.original) { Some(user) } else { builds.counterpart(user) };
    let lifetime = Lifetime::of(object.elf.section_name(object.item(user).section));
    let never_runs = lifetime == Lifetime::Removal && builds.is_vmlinux();
    !never_runs && original.is_none_or(|original| !builds.is_overridden(original))
}

/// The functions at which the users are entered: the users themselves, and for unlikely parts, their functions.
fn roots(object: &Object<'_>, users: &BTreeSet<ItemId>) -> BTreeSet<ItemId> {
    let mut roots: BTreeSet<ItemId> =
        users.iter().copied().filter(|&user| !is_apart(object.item_name(user))).collect();
    if roots.len() == users.len() {
        return roots;
    }
    for item in object.item_ids().filter(|&item| object.item(item).code && !is_apart(object.item_name(item)))
    {
        let section = object.item(item).section;
        let enters = object.item_relocations(item).iter().any(|rela| {
            matches!(object.resolve(section, rela), Target::Item { item: to, .. }
                if users.contains(&to) && is_apart(object.item_name(to)))
        });
        if enters {
            roots.insert(item);
        }
    }
    roots
}

/// A constant table in one of the builds.
struct ConstantTable<'o, 'd> {
    object: &'o Object<'d>,
    item: ItemId,
    section: SectionId,
}

impl<'o, 'd> ConstantTable<'o, 'd> {
    /// A table to which only the unit's own relocations can refer.
    fn of(object: &'o Object<'d>, item: ItemId) -> Result<ConstantTable<'o, 'd>, String> {
        let shape = object.item(item);
        let section = shape.section;
        let of_section = object.elf.section_name(section);
        let in_words = || String::from_utf8_lossy(of_section).into_owned();
        let global = object.elf.symbol_ids().find(|&symbol| {
            object.elf.symbol_section(symbol) == Some(section)
                && object.elf.symbol_binding(symbol) != elf::STB_LOCAL.0
        });
        if let Some(symbol) = global {
            let name = String::from_utf8_lossy(object.elf.symbol_name(symbol)).into_owned();
            return Err(format!("other files may refer to {name}, a global"));
        }
        let constant = object.elf.section_flags(section) & elf::SHF_WRITE.0 == 0;
        if !constant || of_section != b".rodata" && !of_section.starts_with(b".rodata.") {
            return Err(format!("it lies in {}, which may be found by its name or written to", in_words()));
        }
        let alone = object.items_of(section).len() == 1
            && object.role(section) == Role::Data
            && shape.start == 0
            && object.range(section, shape.end, object.elf.section_size(section)).iter().all(|&b| b == 0);
        if !alone {
            return Err(format!("a reference into {} may mean it or what lies beside it", in_words()));
        }
        Ok(ConstantTable { object, item, section })
    }

    /// The code that refers to the table. Empty if the compiler put the contents into the code.
    fn users(&self) -> Result<BTreeSet<ItemId>, String> {
        let object = self.object;
        let mut users = BTreeSet::new();
        for section in object.elf.section_ids() {
            let role = object.role(section);
            if matches!(role, Role::Unloaded | Role::BuildOnly) {
                continue;
            }
            for rela in object.elf.relocations(section) {
                let symbol = object.elf.rela_symbol(rela);
                if symbol.and_then(|symbol| object.elf.symbol_section(symbol)) != Some(self.section)
                    || object.relocation_kind(rela).is_some_and(|kind| kind.code == 0)
                {
                    continue;
                }
                let at = rela.r_offset.get(LE);
                match (holder(object, section, at), role) {
                    (Some(user), Role::Code) => {
                        users.insert(user);
                    }
                    (Some(data), _) => {
                        return Err(format!("{} keeps its address", text(object, data)));
                    }
                    (None, _) => {
                        let section = String::from_utf8_lossy(object.elf.section_name(section));
                        return Err(format!("{} keeps its address", Offset(at as i64).behind(section)));
                    }
                }
            }
        }
        Ok(users)
    }

    /// A function, or what may be one, to which the table refers.
    fn function(&self) -> Option<String> {
        self.object.item_relocations(self.item).iter().find_map(|rela| {
            match self.object.resolve(self.section, rela) {
                Target::Item { item, .. } if self.object.item(item).code => Some(text(self.object, item)),
                Target::External { symbol, .. } => {
                    Some(String::from_utf8_lossy(self.object.elf.symbol_name(symbol)).into_owned())
                }
                _ => None,
            }
        })
    }
}
