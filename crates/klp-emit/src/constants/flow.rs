//! Follows the address of a constant table through x86_64 code: a forward data flow over the instructions of the
//! functions that refer to the table.
//!
//! A register *has* the address if it may hold the address or a value made from it. The state at a place is the set of
//! such registers, joined over all ways that lead there. Memory never has the address, because storing it ends the
//! analysis. Any instruction that is not known to be harmless also ends the analysis.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use klpx_diagnosis::Offset;
use klpx_inline_check::reach::reach;
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use super::readers::{ReaderFunction, is_assembly, reader_of};
use super::{holder, text};

/// A set of general registers, one bit each.
type RegisterSet = u16;

const fn bit(number: usize) -> RegisterSet {
    1 << number
}

const RAX: RegisterSet = bit(0);
const RCX: RegisterSet = bit(1);
const RDX: RegisterSet = bit(2);
const RSI: RegisterSet = bit(6);
const RDI: RegisterSet = bit(7);

/// The argument registers, in the order of the arguments.
const ARGUMENTS: [RegisterSet; 6] = [RDI, RSI, RDX, RCX, bit(8), bit(9)];

/// The registers that a call does not preserve.
const CALLER_SAVED: RegisterSet = RAX | RCX | RDX | RSI | RDI | bit(8) | bit(9) | bit(10) | bit(11);

/// The registers in which a function returns its result; the second one is for results of 16 bytes.
const RESULT: RegisterSet = RAX | RDX;

/// The symbol to which functions jump to return where RETHUNK is on (arch/x86/lib/retpoline.S).
const RETURN_THUNK: &[u8] = b"__x86_return_thunk";

/// The prefix of thunks that jump to the address in a register.
const INDIRECT_THUNK: &str = "__x86_indirect";

/// The description of the target of a call through a pointer.
const POINTER: &str = "a function that a pointer names";

/// Relocations that put the address, or the distance to it, into an instruction.
const PLAIN: [u32; 4] = [elf::R_X86_64_64.0, elf::R_X86_64_32.0, elf::R_X86_64_32S.0, elf::R_X86_64_PC32.0];

/// Instructions that compute registers from registers, or compare them.
const FOLLOWED: [Mnemonic; 43] = [
    Mnemonic::Mov,
    Mnemonic::Movsxd,
    Mnemonic::Movsx,
    Mnemonic::Movzx,
    Mnemonic::Lea,
    Mnemonic::Add,
    Mnemonic::Sub,
    Mnemonic::Adc,
    Mnemonic::Sbb,
    Mnemonic::Inc,
    Mnemonic::Dec,
    Mnemonic::And,
    Mnemonic::Or,
    Mnemonic::Xor,
    Mnemonic::Not,
    Mnemonic::Neg,
    Mnemonic::Shl,
    Mnemonic::Shr,
    Mnemonic::Sar,
    Mnemonic::Imul,
    Mnemonic::Cdqe,
    Mnemonic::Cqo,
    Mnemonic::Xchg,
    Mnemonic::Cmp,
    Mnemonic::Test,
    Mnemonic::Bt,
    Mnemonic::Nop,
    Mnemonic::Cmova,
    Mnemonic::Cmovae,
    Mnemonic::Cmovb,
    Mnemonic::Cmovbe,
    Mnemonic::Cmove,
    Mnemonic::Cmovne,
    Mnemonic::Cmovg,
    Mnemonic::Cmovge,
    Mnemonic::Cmovl,
    Mnemonic::Cmovle,
    Mnemonic::Cmovs,
    Mnemonic::Cmovns,
    Mnemonic::Cmovo,
    Mnemonic::Cmovno,
    Mnemonic::Cmovp,
    Mnemonic::Cmovnp,
];

/// A place in code: its function, and the offset in the section.
type Point = (ItemId, u64);

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

fn place_of(object: &Object<'_>, (item, place): Point) -> String {
    Offset(place.wrapping_sub(object.item(item).entry) as i64).behind(text(object, item))
}

/// Ways through code that the instructions don't show.
struct Ways {
    /// Ways from static branches to their targets (`__jump_table`), and from instructions that may fault to the code
    /// that runs then (`__ex_table`).
    aside: BTreeMap<Point, BTreeSet<Point>>,
    /// Instructions that, on a fault, may continue in code without a name.
    unnamed: BTreeSet<Point>,
    /// Places to which data refers: targets of jump tables.
    named: BTreeSet<Point>,
    /// Functions to which data refers by distances, so that the exact places are not known.
    relative: BTreeSet<ItemId>,
    /// Places to which code without a name leads: from alternatives and their jumps.
    stray: BTreeSet<Point>,
}

impl Ways {
    fn of(object: &Object<'_>) -> Ways {
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

/// The target of a branch or call.
enum BranchTarget {
    /// A place in the code that is followed.
    Within(Point),
    /// Code without a name that only tests processor features, and comes back (`_static_cpu_has` of
    /// arch/x86/include/asm/cpufeature.h).
    Elsewhere,
    /// Other code without a name.
    Unnamed,
    /// The caller, by a return.
    Return,
    /// Another function.
    Function(CalledFunction),
}

/// A function that is called.
struct CalledFunction {
    /// The function's name, or a description of it.
    name: String,
    /// True if the function follows the C calling convention.
    plain: bool,
    /// What is known of the function, if it keeps nothing.
    reader: Option<&'static ReaderFunction>,
}

impl CalledFunction {
    /// A callee about which nothing is known.
    fn unknown(name: &str) -> CalledFunction {
        CalledFunction { name: name.to_owned(), plain: false, reader: None }
    }

    /// A callee in this file. Where a function is not traced, its caller may rely on registers that the function leaves
    /// alone (GCC's -fipa-ra).
    fn here(object: &Object<'_>, item: ItemId) -> CalledFunction {
        CalledFunction { name: text(object, item), plain: reach(object, item).is_ok(), reader: None }
    }

    /// A callee in another file.
    fn outside(name: &[u8]) -> CalledFunction {
        let plain = !is_assembly(name);
        CalledFunction { name: String::from_utf8_lossy(name).into_owned(), plain, reader: reader_of(name) }
    }
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
        let effect = self.effect(&instruction, before, in_memory, in_immediate);
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
                let to = self.branch(item, &instruction, branch);
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

    fn branch(&self, item: ItemId, instruction: &Instruction, rela: Option<&Rela>) -> BranchTarget {
        let object = self.object;
        let shape = object.item(item);
        let Some(rela) = rela else {
            let target = instruction.near_branch_target();
            if instruction.flow_control() != FlowControl::Call && (shape.start..shape.end).contains(&target) {
                return BranchTarget::Within((item, target));
            }
            return BranchTarget::Function(CalledFunction::unknown("a function beside it"));
        };
        match object.resolve(shape.section, rela) {
            Target::Item { item: to, offset } if object.item(to).code => {
                let part = to == item
                    || is_apart(object.item_name(to))
                    || is_apart(object.item_name(item)) && offset != 0;
                match part && instruction.flow_control() != FlowControl::Call {
                    true => BranchTarget::Within((to, object.item(to).entry.wrapping_add_signed(offset))),
                    false => BranchTarget::Function(CalledFunction::here(object, to)),
                }
            }
            Target::External { symbol, .. } => match object.elf.symbol_name(symbol) {
                RETURN_THUNK if instruction.flow_control() != FlowControl::Call => BranchTarget::Return,
                name => BranchTarget::Function(CalledFunction::outside(name)),
            },
            Target::Literal { section, .. } if instruction.flow_control() != FlowControl::Call => {
                match object.elf.section_name(section) {
                    b".altinstr_aux" => BranchTarget::Elsewhere,
                    _ => BranchTarget::Unnamed,
                }
            }
            _ => BranchTarget::Function(CalledFunction::unknown("code that has no name")),
        }
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

    /// The registers that may have the address after an instruction, wherever it leads. Fails if the instruction does
    /// something that klpx does not follow.
    fn effect(
        &mut self,
        instruction: &Instruction,
        before: RegisterSet,
        in_memory: bool,
        in_immediate: bool,
    ) -> Result<RegisterSet, &'static str> {
        let mnemonic = instruction.mnemonic();
        let address = general(instruction.memory_base()) | general(instruction.memory_index());
        if mnemonic == Mnemonic::Lea {
            let to = general(instruction.op0_register());
            return Ok(match in_memory || address & before != 0 {
                true => before | to,
                false => before & !to,
            });
        }
        let info = self.info.info(instruction);
        let mut by_address = 0;
        let mut stores = false;
        for memory in info.used_memory() {
            let registers = general(memory.base()) | general(memory.index());
            by_address |= registers;
            let stack = memory.base() == Register::RSP && instruction.is_stack_instruction();
            if writes(memory.access()) {
                stores = true;
                if registers & before != 0 || in_memory && !stack {
                    return Err("may write to it");
                }
            }
        }
        // A register that only addresses memory is not read as a value.
        for (n, operand) in instruction.op_kinds().enumerate() {
            if operand == OpKind::Register && reads(info.op_access(n as u32)) {
                by_address &= !general(instruction.op_register(n as u32));
            }
        }
        let mut value = in_immediate;
        let (mut written, mut replaced, mut others) = (0, 0, false);
        for used in info.used_registers() {
            let register = general(used.register());
            value |= reads(used.access()) && register & before & !by_address != 0;
            if writes(used.access()) {
                written |= register;
                others |= register == 0 && used.register() != Register::RSP;
                let whole = used.register().is_gpr32() || used.register().is_gpr64();
                replaced |= if used.access() == OpAccess::Write && whole { register } else { 0 };
            }
        }
        if !value {
            return Ok(before & !replaced);
        }
        if stores {
            return Err("may store its address");
        }
        let leads = !matches!(instruction.flow_control(), FlowControl::Next);
        if leads || others || !FOLLOWED.contains(&mnemonic) {
            return Err("does something with its address that klpx does not follow");
        }
        Ok(before | written)
    }
}

/// The bit of a general register or of a part of it; 0 for other registers.
fn general(register: Register) -> RegisterSet {
    let full = register.full_register();
    if full.is_gpr64() && full != Register::RSP { bit(full.number()) } else { 0 }
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}
