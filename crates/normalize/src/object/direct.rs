//! Branches between items of one section that the assembler resolved. Functions that the kernel puts into a section by
//! name (`.sched.text`, `.spinlock.text`, `.ref.text`, ...) call local functions beside them without a relocation, and
//! on arm64 the replacements of their alternatives branch back into them so.

use object::endian::LittleEndian as LE;

use crate::elf::SectionId;
use crate::escape::{Field, escapes};
use crate::object::{ItemId, Object, Role};

/// Such a branch. Places are offsets in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectBranch {
    /// Its first byte.
    pub at: u64,
    /// Where it leads.
    pub target: u64,
    /// The item there, if there is one.
    pub to: Option<ItemId>,
    /// Where a relocation would stand, as an offset in the section; `None` when the branch does not reach all of a
    /// module.
    pub field: Option<(u64, Field)>,
}

impl Object<'_> {
    /// The direct branches out of a range of a section, sorted by place.
    pub fn direct_branches(&self, section: SectionId, (start, end): (u64, u64)) -> Vec<DirectBranch> {
        if self.role(section) != Role::Code || self.items_of(section).len() < 2 {
            return Vec::new();
        }
        let relocations = self.relocations_in(section, start, end);
        let settled = |at: usize| {
            let place = start + at as u64;
            relocations.binary_search_by_key(&place, |rela| rela.r_offset.get(LE)).is_ok()
                || self.is_data_in_code(section, place)
        };
        let code = self.range(section, start, end);
        let branch = |escape: crate::escape::Escape| {
            let target = start.wrapping_add_signed(escape.target);
            let holds = |&id: &ItemId| {
                let item = self.item(id);
                (item.entry..item.end.max(item.entry + 1)).contains(&target)
            };
            DirectBranch {
                at: start + escape.at as u64,
                target,
                to: self.items_of(section).find(holds),
                field: escape.field.map(|field| (start + field.at as u64, field)),
            }
        };
        escapes(self.arch, code, &settled).into_iter().map(branch).collect()
    }
}
