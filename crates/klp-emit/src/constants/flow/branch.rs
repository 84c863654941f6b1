//! Where branches and calls lead.

use iced_x86::{FlowControl, Instruction};
use klpx_inline_check::reach::reach;
use klpx_normalize::elf::Rela;
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, Object, Target};

use crate::constants::places::{Point, text};
use crate::constants::readers::{ReaderFunction, is_assembly, reader_of};

/// The symbol to which functions jump to return where RETHUNK is on (arch/x86/lib/retpoline.S).
const RETURN_THUNK: &[u8] = b"__x86_return_thunk";

/// The target of a branch or call.
pub(super) enum BranchTarget {
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
pub(super) struct CalledFunction {
    /// The function's name, or a description of it.
    pub(super) name: String,
    /// True if the function follows the C calling convention.
    pub(super) plain: bool,
    /// What is known of the function, if it keeps nothing.
    pub(super) reader: Option<&'static ReaderFunction>,
}

impl CalledFunction {
    /// A callee about which nothing is known.
    pub(super) fn unknown(name: &str) -> CalledFunction {
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

/// The target of a branch or call of a function. `rela` is the relocation of the instruction.
pub(super) fn branch_target(
    object: &Object<'_>,
    item: ItemId,
    instruction: &Instruction,
    rela: Option<&Rela>,
) -> BranchTarget {
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
