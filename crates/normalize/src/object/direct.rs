//! Branches between items of one section that the assembler resolved. The kernel puts some functions into a section by
//! name (`.sched.text`, `.spinlock.text`, `.ref.text`, ...). They call local functions of the same section without a
//! relocation. On arm64 the replacements of alternatives branch back into their function in the same way.

use object::endian::LittleEndian as LE;

use crate::elf::SectionId;
use crate::escape::{BranchField, Escape};
use crate::object::{ItemId, Object, Role};

/// A branch that the assembler resolved. Places are offsets in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectBranch {
    /// The branch's first byte.
    pub at: u64,
    /// The target.
    pub target: u64,
    /// The item at the target, if there is one.
    pub to: Option<ItemId>,
    /// The field where a relocation would stand, with its offset in the section; `None` if the branch does not reach
    /// all of a module.
    pub field: Option<(u64, BranchField)>,
}

impl Object<'_> {
    /// Returns the direct branches out of a range of a section, sorted by place.
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
        let branch = |escape: Escape| {
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
        self.arch.escapes(code, &settled).into_iter().map(branch).collect()
    }
}
