//! Ways through code that the instructions don't show.

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::Rela;
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::endian::LittleEndian as LE;

use crate::constants::places::{Point, holder};

/// Ways through code that the instructions don't show.
pub(super) struct Ways {
    /// Ways from static branches to their targets (`__jump_table`), and from instructions that may fault to the code
    /// that runs then (`__ex_table`).
    pub(super) aside: BTreeMap<Point, BTreeSet<Point>>,
    /// Instructions that, on a fault, may continue in code without a name.
    pub(super) unnamed: BTreeSet<Point>,
    /// Places to which data refers: targets of jump tables.
    pub(super) named: BTreeSet<Point>,
    /// Functions to which data refers by distances, so that the exact places are not known.
    pub(super) relative: BTreeSet<ItemId>,
    /// Places to which code without a name leads: from alternatives and their jumps.
    pub(super) stray: BTreeSet<Point>,
}

impl Ways {
    pub(super) fn of(object: &Object<'_>) -> Ways {
        let mut ways = Ways {
            aside: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            named: BTreeSet::new(),
            relative: BTreeSet::new(),
            stray: BTreeSet::new(),
        };
        let target = |section, rela: &Rela| match object.resolve(section, rela) {
            Target::Item { item, offset } if object.item(item).code => {
                Some((item, object.item(item).entry.wrapping_add_signed(offset)))
            }
            _ => None,
        };
        for section in object.elf.section_ids() {
            let relocations = object.elf.relocations(section);
            match object.role(section) {
                Role::Unloaded | Role::BuildOnly => {}
                Role::Table(table) => {
                    let table = &object.tables[table.index()];
                    if !matches!(table.kind.name, "__jump_table" | "__ex_table") {
                        continue;
                    }
                    for pair in relocations.windows(2) {
                        let entry = pair[0].r_offset.get(LE);
                        if entry % u64::from(table.entry_size) == 0
                            && pair[1].r_offset.get(LE) == entry + 4
                            && let Some(from) = target(section, &pair[0])
                        {
                            match target(section, &pair[1]) {
                                Some(to) => ways.aside.entry(from).or_default().insert(to),
                                None => ways.unnamed.insert(from),
                            };
                        }
                    }
                }
                Role::Code => {
                    for rela in relocations {
                        if holder(object, section, rela.r_offset.get(LE)).is_none() {
                            ways.stray.extend(target(section, rela));
                        }
                    }
                }
                _ => {
                    for rela in relocations {
                        let Some(to) = target(section, rela) else { continue };
                        ways.named.insert(to);
                        if object.relocation_kind(rela).is_none_or(|kind| kind.pc_relative) {
                            ways.relative.insert(to.0);
                        }
                    }
                }
            }
        }
        ways
    }
}
