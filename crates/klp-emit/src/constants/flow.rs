//! Follows the address of a constant table through x86_64 code: a forward data flow over the instructions of the
//! functions that refer to the table.
//!
//! A register *has* the address if it may hold the address or a value made from it. The state at a place is the set of
//! such registers, joined over all ways that lead there. Memory never has the address, because storing it ends the
//! analysis. Any instruction that is not known to be harmless also ends the analysis.

mod branch;
mod effect;
mod ways;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory};
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, Object, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use super::places::{Point, place_of};
use branch::{BranchTarget, CalledFunction, branch_target};
use effect::{ARGUMENTS, CALLER_SAVED, RAX, RESULT, RegisterSet, effect, general};
use ways::Ways;

/// The prefix of thunks that jump to the address in a register.
const INDIRECT_THUNK: &str = "__x86_indirect";

/// The description of the target of a call through a pointer.
const POINTER: &str = "a function that a pointer names";

/// Relocations that put the address, or the distance to it, into an instruction.
const PLAIN: [u32; 4] = [elf::R_X86_64_64.0, elf::R_X86_64_32.0, elf::R_X86_64_32S.0, elf::R_X86_64_PC32.0];

/// Follows the address of the table in section `table` through `roots` and their unlikely parts. Returns the functions
/// to which the address is passed; none of these keeps it.
///
/// # Errors
/// What a function does with the address that may keep it.
pub(super) fn follow(
    object: &Object<'_>,
    table: SectionId,
    users: &BTreeSet<ItemId>,
    roots: &BTreeSet<ItemId>,
) -> Result<BTreeSet<String>, String> {
    let ways = Ways::of(object);
    let mut flow = Flow {
        object,
        table,
        ways: &ways,
        known: BTreeMap::new(),
        todo: BTreeSet::new(),
        elsewhere: 0,
        seen: BTreeSet::new(),
        handed: BTreeSet::new(),
        info: InstructionInfoFactory::new(),
    };
    for &root in roots {
        flow.reach((root, object.item(root).entry), 0);
    }
    while let Some(point) = flow.todo.pop_first() {
        flow.step(point)?;
    }
    for &user in users {
        let section = object.item(user).section;
        for rela in object.item_relocations(user).iter().filter(|rela| flow.is_to_table(rela)) {
            let place = rela.r_offset.get(LE);
            if !flow.seen.contains(&(section, place)) {
                return Err(format!(
                    "klpx does not see how {} comes to be run",
                    place_of(object, (user, place))
                ));
            }
        }
    }
    Ok(flow.handed)
}

struct Flow<'o, 'd> {
    object: &'o Object<'d>,
    table: SectionId,
    ways: &'o Ways,
    /// By place: the registers that may have the address there.
    known: BTreeMap<Point, RegisterSet>,
    todo: BTreeSet<Point>,
    /// Registers that may have the address when code without a name is entered.
    elsewhere: RegisterSet,
    /// Places of relocations against the table that the flow has passed.
    seen: BTreeSet<(SectionId, u64)>,
    handed: BTreeSet<String>,
    info: InstructionInfoFactory,
}

impl Flow<'_, '_> {
    fn is_to_table(&self, rela: &Rela) -> bool {
        let symbol = self.object.elf.rela_symbol(rela);
        symbol.and_then(|symbol| self.object.elf.symbol_section(symbol)) == Some(self.table)
            && self.object.relocation_kind(rela).is_none_or(|kind| kind.code != 0)
    }

    /// Records that a way leads to a place with the address in some registers.
    fn reach(&mut self, point: Point, registers: RegisterSet) {
        let item = self.object.item(point.0);
        if !(item.start..item.end).contains(&point.1) {
            return; // behind a call that does not return
        }
        let known = self.known.get(&point).copied();
        let joined = known.unwrap_or(0) | registers;
        if known != Some(joined) {
            self.known.insert(point, joined);
            self.todo.insert(point);
        }
    }

    /// Records that a way leads to code without a name.
    fn leave(&mut self, registers: RegisterSet) {
        self.elsewhere |= registers;
        for &(item, place) in &self.ways.stray {
            if self.known.contains_key(&(item, self.object.item(item).entry))
                || is_apart(self.object.item_name(item))
            {
                self.reach((item, place), self.elsewhere);
            }
        }
    }

    /// Records that a way leads to code that may do anything. Fails if a register has the address.
    fn leave_unseen(&mut self, point: Point, registers: RegisterSet) -> Result<(), String> {
        if registers != 0 {
            return Err(format!(
                "{} goes on in code without a name while a register has its address",
                place_of(self.object, point)
            ));
        }
        self.leave(registers);
        Ok(())
    }

    fn step(&mut self, point: Point) -> Result<(), String> {
        let before = self.known.get(&point).copied().unwrap_or(0);
        let (item, place) = point;
        let section = self.object.item(item).section;
        let code = self.object.range(section, place, self.object.item(item).end);
        let mut decoder = Decoder::with_ip(64, code, place, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let fail = |what: &str| Err(format!("{} {what}", place_of(self.object, point)));
        if instruction.is_invalid() {
            return fail("is no instruction that klpx knows");
        }
        let next = instruction.next_ip();
        let (mut in_memory, mut in_immediate) = (false, false);
        let mut branch = None;
        for rela in self.object.relocations_in(section, place, next) {
            if !self.is_to_table(rela) {
                let does_nothing = self.object.relocation_kind(rela).is_some_and(|kind| kind.code == 0);
                branch = branch.or(Some(rela).filter(|_| !does_nothing));
                continue;
            }
            let at = rela.r_offset.get(LE);
            let fields = decoder.get_constant_offsets(&instruction);
            let is_at = |has: bool, offset: usize| has && place + offset as u64 == at;
            match () {
                () if !PLAIN.contains(&rela.r_type(LE, false).0) => {
                    return fail("refers to it in another way");
                }
                () if is_at(fields.has_displacement(), fields.displacement_offset()) => in_memory = true,
                () if is_at(fields.has_immediate(), fields.immediate_offset()) => in_immediate = true,
                () => return fail("refers to it in another way"),
            }
            self.seen.insert((section, at));
        }
        self.alternatives(point, before)?;
        for &aside in self.ways.aside.get(&point).into_iter().flatten() {
            self.reach(aside, before);
        }
        let effect = effect(&mut self.info, &instruction, before, in_memory, in_immediate);
        let after = match effect {
            Ok(after) => after,
            Err(what) => return Err(format!("{} {what}", place_of(self.object, point))),
        };
        for &aside in self.ways.aside.get(&point).into_iter().flatten() {
            self.reach(aside, after);
            self.reach((item, next), after); // a static branch may be a jump in the file and nothing in the kernel
        }
        if self.ways.unnamed.contains(&point) {
            self.leave_unseen(point, before | after)?;
        }
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::Interrupt | FlowControl::Exception => {
                self.reach((item, next), after)
            }
            FlowControl::Return => self.give_back(point, after)?,
            FlowControl::Call | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                let to = branch_target(self.object, item, &instruction, branch);
                self.go(point, &instruction, to, after)?;
            }
            FlowControl::IndirectCall => {
                let after = self.call(point, &CalledFunction::unknown(POINTER), after)?;
                self.reach((item, next), after);
            }
            FlowControl::IndirectBranch => self.jump(point, after)?,
            _ if after == 0 => self.reach((item, next), after),
            _ => return fail("goes where klpx does not follow the address"),
        }
        Ok(())
    }

    fn go(
        &mut self,
        point: Point,
        instruction: &Instruction,
        to: BranchTarget,
        registers: RegisterSet,
    ) -> Result<(), String> {
        let next = (point.0, instruction.next_ip());
        let kind = instruction.flow_control();
        if kind == FlowControl::ConditionalBranch {
            self.reach(next, registers);
        }
        match to {
            BranchTarget::Within(to) => self.reach(to, registers),
            BranchTarget::Elsewhere => self.leave(registers),
            BranchTarget::Unnamed => self.leave_unseen(point, registers)?,
            BranchTarget::Return => self.give_back(point, registers)?,
            BranchTarget::Function(callee)
                if kind == FlowControl::UnconditionalBranch && callee.name.starts_with(INDIRECT_THUNK) =>
            {
                self.jump(point, registers)?;
            }
            BranchTarget::Function(callee) => {
                let after = self.call(point, &callee, registers)?;
                match kind {
                    FlowControl::Call => self.reach(next, after),
                    _ => self.give_back(point, after)?,
                }
            }
        }
        Ok(())
    }

    /// Follows a jump to the address in a register: a jump table, or a tail call.
    fn jump(&mut self, point: Point, registers: RegisterSet) -> Result<(), String> {
        self.call(point, &CalledFunction::unknown(POINTER), registers)?;
        let part = |item: ItemId| item == point.0 || is_apart(self.object.item_name(item));
        if registers != 0 && self.ways.relative.iter().any(|&item| part(item)) {
            return Err(format!("{} leads where klpx does not see", place_of(self.object, point)));
        }
        let ways = self.ways;
        for &to in ways.named.iter().filter(|(item, _)| part(*item)) {
            self.reach(to, registers);
        }
        Ok(())
    }

    fn give_back(&self, point: Point, registers: RegisterSet) -> Result<(), String> {
        match registers & RESULT {
            0 => Ok(()),
            _ => Err(format!("{} may return its address", place_of(self.object, point))),
        }
    }

    /// The registers that have the address after a call. Fails if the callee may keep the address.
    fn call(
        &mut self,
        point: Point,
        callee: &CalledFunction,
        registers: RegisterSet,
    ) -> Result<RegisterSet, String> {
        let taken = if callee.plain { ARGUMENTS.iter().fold(0, |all, one| all | one) } else { CALLER_SAVED };
        let handed = registers & taken;
        if handed == 0 {
            return Ok(registers & !CALLER_SAVED);
        }
        let Some(reader) = callee.reader else {
            return Err(format!(
                "{} may hand its address to {}, which may keep it",
                place_of(self.object, point),
                callee.name
            ));
        };
        let mut result = 0;
        for (n, register) in ARGUMENTS.iter().enumerate().take(reader.arguments) {
            if handed & register == 0 {
                continue;
            }
            if !reader.reads.contains(&n) {
                return Err(format!(
                    "{} may hand its address to {}, and not for reading",
                    place_of(self.object, point),
                    reader.name
                ));
            }
            self.handed.insert(reader.name.to_owned());
            if reader.returns_into == Some(n) {
                result = RAX;
            }
        }
        Ok(registers & !CALLER_SAVED | result)
    }

    /// Checks that code which may replace the code at a point (`.altinstructions`) does nothing with the address.
    fn alternatives(&mut self, point: Point, registers: RegisterSet) -> Result<(), String> {
        let (item, place) = point;
        let object = self.object;
        let offset = place.wrapping_sub(object.item(item).entry) as i64;
        for entry in object.entries(item).iter().filter(|entry| entry.place == offset) {
            if object.tables[entry.table.index()].kind.name != ".altinstructions" {
                continue;
            }
            let (section, start, end) = object.entry_range(entry.table, entry.index);
            // struct alt_instr ends with instrlen and replacementlen, in every version.
            let &[length, size] = object.range(section, end.saturating_sub(2), end) else { continue };
            self.reach((item, place + u64::from(length)), registers);
            self.leave(registers);
            if registers == 0 || size == 0 {
                continue;
            }
            let fail =
                || Err(format!("{} has an alternative that klpx does not follow", place_of(object, point)));
            let replacement = object.relocations_in(section, start + 4, start + 5).first();
            let Some(Target::Literal { section: literal_section, start: from, offset: 0, .. }) =
                replacement.map(|rela| object.resolve(section, rela))
            else {
                return fail();
            };
            let code = object.range(literal_section, from, from + u64::from(size));
            let mut decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
            while decoder.can_decode() {
                let instruction = decoder.decode();
                let calls =
                    matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
                let used = self.info.info(&instruction).used_registers().iter();
                let used = used.fold(0, |all, used| all | general(used.register()));
                if instruction.is_invalid() || (used | if calls { CALLER_SAVED } else { 0 }) & registers != 0
                {
                    return fail();
                }
            }
        }
        Ok(())
    }
}
