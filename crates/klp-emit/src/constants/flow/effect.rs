//! What one instruction does with the address: sets of registers that may have it, before and after.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// A set of general registers, one bit each.
pub(super) type RegisterSet = u16;

const fn bit(number: usize) -> RegisterSet {
    1 << number
}

pub(super) const RAX: RegisterSet = bit(0);
const RCX: RegisterSet = bit(1);
const RDX: RegisterSet = bit(2);
const RSI: RegisterSet = bit(6);
const RDI: RegisterSet = bit(7);

/// The argument registers, in the order of the arguments.
pub(super) const ARGUMENTS: [RegisterSet; 6] = [RDI, RSI, RDX, RCX, bit(8), bit(9)];

/// The registers that a call does not preserve.
pub(super) const CALLER_SAVED: RegisterSet =
    RAX | RCX | RDX | RSI | RDI | bit(8) | bit(9) | bit(10) | bit(11);

/// The registers in which a function returns its result; the second one is for results of 16 bytes.
pub(super) const RESULT: RegisterSet = RAX | RDX;

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

/// The registers that may have the address after an instruction, wherever it leads. Fails if the instruction does
/// something that klpx does not follow.
pub(super) fn effect(
    info: &mut InstructionInfoFactory,
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
    let info = info.info(instruction);
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

/// The bit of a general register or of a part of it; 0 for other registers.
pub(super) fn general(register: Register) -> RegisterSet {
    let full = register.full_register();
    if full.is_gpr64() && full != Register::RSP { bit(full.number()) } else { 0 }
}

fn reads(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}
