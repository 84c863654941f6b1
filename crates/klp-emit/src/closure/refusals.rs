//! What can't be part of a livepatch, and why.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Note, codes};
use klpx_diff::{FoldDirection, Folded, is_anonymous};
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::{canonical, is_apart};
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::elf;

use super::pieces::{Piece, place_of, place_of_piece};
use crate::callers::direct_callers;
use crate::plan::ComparedUnit;

/// The refusal if something differs, but no code that runs again.
pub(super) fn nothing_to_replace(warnings: &[Note]) -> Diagnosis {
    if !warnings.is_empty() && warnings.iter().all(|warning| warning.code == codes::OVERRIDDEN_FUNCTION.name)
    {
        return Diagnosis::new(
            &codes::NOTHING_CHANGED,
            "the patch changes nothing of this kernel",
            "what the patch changes is weak, and the kernel uses other units' functions of these names",
            "patch the functions that the kernel uses",
        )
        .detail(warnings.iter().map(ToString::to_string));
    }
    Diagnosis::new(
        &codes::NOTHING_TO_REPLACE,
        "nothing that differs will run again",
        "what the patch changes is not used by any function of the running kernel",
        "a livepatch can't help here: boot a kernel with the patch",
    )
    .detail(warnings.iter().map(ToString::to_string))
}

/// Refuses a copy of an item that the kernel may have already: the copy would start from its initial state, and the
/// kernel's item would stay where it is.
pub(super) fn unsettled(units: &[ComparedUnit<'_, '_>], unit: usize, item: ItemId) -> Option<Diagnosis> {
    let builds = units[unit];
    let unsettled = &builds.difference.correlation.unsettled;
    let mut names: Vec<String> = unsettled
        .iter()
        .filter(|unsettled| unsettled.patched == item)
        .flat_map(|unsettled| &unsettled.candidates)
        .map(|&candidate| String::from_utf8_lossy(builds.original.item_name(candidate)).into_owned())
        .collect();
    names.extend(moved_from(units, unit, item));
    if !names.is_empty() {
        return Some(
            Diagnosis::new(
                &codes::UNSETTLED_ITEM,
                "nothing tells whether the kernel has this already",
                "the original build has things of this name that it may be, and their users changed \
                 too",
                "leave the line that declares it as it is; if it is new, give it a name of its own \
                 in the patch",
            )
            .place(place_of(builds.patched, item))
            .detail(names.into_iter().map(|name| format!("may be {name}"))),
        );
    }
    None
}

/// Variables that other units of the same kernel object no longer have, and that may have become this new one.
fn moved_from(units: &[ComparedUnit<'_, '_>], unit: usize, item: ItemId) -> Vec<String> {
    let builds = units[unit];
    let shape = builds.patched.item(item);
    let variable = builds.patched.elf.section_flags(shape.section) & elf::SHF_WRITE.0 != 0;
    if shape.code || !variable || builds.counterpart(item).is_some() || is_anonymous(builds.patched, item) {
        return Vec::new();
    }
    let key = canonical(builds.patched.item_name(item)).key();
    let others = units.iter().enumerate();
    let others = others.filter(|&(n, other)| n != unit && other.object_name == builds.object_name);
    let removed =
        others.flat_map(|(_, other)| other.difference.removed.iter().map(move |&gone| (other, gone)));
    removed
        .filter(|(other, gone)| canonical(other.original.item_name(*gone)).key() == key)
        .map(|(other, gone)| place_of(other.original, gone).to_string())
        .collect()
}

/// Refuses functions that have one body in only one of the builds, unless all their callers are known. Functions
/// that change are copied for these callers; no other code may have the body's address for one of them.
pub(super) fn folded(builds: &ComparedUnit<'_, '_>, folded: &Folded) -> Option<Diagnosis> {
    let in_sight = |object: &Object<'_>, item: ItemId| {
        object.elf.symbol_binding(object.item(item).symbol) == elf::STB_LOCAL.0
            && direct_callers(object, item).is_ok()
    };
    let all_in_sight = match &folded.way {
        FoldDirection::Part { body, into } => {
            direct_callers(builds.original, *body).is_ok()
                && into.iter().all(|&item| in_sight(builds.patched, item))
        }
        FoldDirection::Join { from } => from.iter().all(|&item| in_sight(builds.original, item)),
    };
    if all_in_sight {
        return None;
    }
    let what = format!(
        "{} have one body in one of the builds, and the patch changes one of them",
        folded.names.join(" and ")
    );
    Some(
        Diagnosis::new(
            &codes::FOLDED_FUNCTIONS,
            what,
            "a livepatch diverts an address: callers and pointers that mean the other function \
             would go along",
            "change all of these functions alike, or leave this part of the patch out",
        )
        .place(DiagnosisPlace::symbol(folded.names.first().cloned().unwrap_or_default())),
    )
}

/// The refusal for BTF type lists (include/linux/btf_ids.h).
fn type_ids(what: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::BTF_IDS,
        what,
        "tools/bpf/resolve_btfids writes the numbers when the kernel is linked; nothing does in a livepatch",
        "leave this part of the patch out: the running kernel keeps its own list",
    )
}

/// The refusal for a function that ftrace can't reach, and whose callers can't be replaced instead. `constant` is the
/// changed constant that the function uses, if this is why it must be replaced.
pub(super) fn not_traceable(
    builds: &ComparedUnit<'_, '_>,
    item: ItemId,
    constant: Option<ItemId>,
    why: String,
) -> Diagnosis {
    let changed = builds.difference.functions.iter().any(|change| change.patched == item);
    if let Some(constant) = constant.filter(|_| !changed) {
        let what = "a function that ftrace can't reach uses a constant that the patch changes";
        let name = String::from_utf8_lossy(builds.patched.item_name(constant));
        return Diagnosis::new(
            &codes::NOT_TRACEABLE,
            what,
            format!("it would go on with the kernel's own {name}: {why}"),
            "leave the constant as it is, and add another one for functions that ftrace \
             reaches; or leave this part of the patch out",
        )
        .place(place_of(builds.patched, item));
    }
    let (why, remedy) = match builds.inlines.and_then(|inlines| inlines.get(&item)) {
        Some(inlines) => (
            format!("it {inlines}, which the patch edits; {why}"),
            "leave the inlined function as it is: make the change in a copy of it under another name, and use that in callers that \
             ftrace reaches; or leave this part of the patch out",
        ),
        None => (why, "make the change in its callers instead, or leave this part of the patch out"),
    };
    Diagnosis::new(&codes::NOT_TRACEABLE, "a changed function that ftrace can't reach", why, remedy)
        .place(place_of(builds.patched, item))
}

/// Refuses data whose initial contents the patch changes, except a constant: the module may carry it.
pub(super) fn changed_data(object: &Object<'_>, item: ItemId) -> Option<Diagnosis> {
    let section = object.item(item).section;
    let name = object.elf.section_name(section);
    let fault = if object.is_type_ids(item) {
        type_ids("the patch changes a list of BTF type numbers")
    } else if object.role(section) == Role::Registry {
        Diagnosis::new(
            &codes::CHANGED_REGISTRY,
            "the patch changes a table that is read at boot",
            format!("the kernel read {} when it booted", String::from_utf8_lossy(name)),
            "leave this part of the patch out",
        )
    } else if Lifetime::of(name) == Lifetime::Boot {
        Diagnosis::new(
            &codes::INIT_DATA,
            "the patch changes __init data",
            "it was read when the kernel booted, and its memory was given back",
            "leave this part of the patch out",
        )
    } else if object.elf.section_flags(section) & elf::SHF_WRITE.0 == 0 {
        return None;
    } else {
        Diagnosis::new(
            &codes::CHANGED_DATA,
            "the initial value of existing data changed",
            "the running kernel has its own copy, which a livepatch does not replace",
            "set the value in a pre-patch callback (KLP_PRE_PATCH_CALLBACK), or keep new state in a shadow \
             variable (klp_shadow_get_or_alloc)",
        )
    };
    Some(fault.place(place_of(object, item)))
}

/// The refusal for a changed constant that the module can't carry.
pub(super) fn changed_constant(object: &Object<'_>, item: ItemId, why: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::CHANGED_DATA,
        "the patch changes a constant that has an address",
        format!(
            "the running kernel has its own copy in read-only memory, which a livepatch does not \
             replace, and {why}"
        ),
        "change a function that the constant names already, or the code that hands out the constant's address: \
         nothing can write to it",
    )
    .place(place_of(object, item))
}

/// The refusal for a branch out of a piece that can't have a relocation; `at` is the place of the branch in the section.
pub(super) fn direct_branch(object: &Object<'_>, piece: Piece, at: u64) -> Diagnosis {
    let section = String::from_utf8_lossy(object.elf.section_name(piece.range(object).section));
    Diagnosis::new(
        &codes::DIRECT_BRANCH,
        "a short way out of a function",
        format!(
            "at byte {:#x} it leads to another place of {section} without a relocation, and a \
             copy would be too far away",
            at.wrapping_sub(piece.anchor(object))
        ),
        "change the callers of this function instead",
    )
    .place(place_of_piece(object, piece))
}

/// Warns that the piece `by` may keep the address of the piece `to`. The address of a new function dangles once the
/// livepatch is removed.
pub(super) fn new_address(
    units: &[ComparedUnit<'_, '_>],
    by: (usize, Piece),
    to: (usize, Piece),
) -> Option<Note> {
    let (other, Piece::Item(item)) = to else { return None };
    let builds = units[other];
    let is_new = builds.patched.item(item).code && builds.counterpart(item).is_none();
    let own = by == to || is_apart(builds.patched.item_name(item));
    if !is_new || own {
        return None;
    }
    let taker = match by {
        (unit, Piece::Item(taker)) => {
            String::from_utf8_lossy(units[unit].patched.item_name(taker)).into_owned()
        }
        (_, Piece::Bytes { .. }) => "a constant".to_owned(),
    };
    let why = format!(
        "{taker} takes it, and a timer, a work item, a thread or a table that keeps it calls freed memory once the \
         livepatch is removed: take it back in a callback before that, or leave the livepatch loaded"
    );
    let (what, place) = ("the address of a new function is taken", place_of(builds.patched, item));
    Some(Note::at(&codes::NEW_ADDRESS, what, &place, &why))
}

/// Checks a reference to the place where one item ends and the next begins. Both meanings must lead to the same
/// address: the border of two items of the kernel that are still adjacent.
pub(super) fn border(
    builds: &ComparedUnit<'_, '_>,
    by: Piece,
    section: SectionId,
    rela: &Rela,
) -> Option<Diagnosis> {
    let before = builds.patched.ends_at(section, rela)?;
    let Target::Item { item: behind, .. } = builds.patched.resolve(section, rela) else { return None };
    let shape = |item: ItemId| builds.counterpart(item).map(|original| *builds.original.item(original));
    if let (Some(before), Some(behind)) = (shape(before), shape(behind))
        && (before.section, before.end) == (behind.section, behind.start)
    {
        return None;
    }
    let name = |item| String::from_utf8_lossy(builds.patched.item_name(item)).into_owned();
    let what = format!("the end of {}, or the start of {}", name(before), name(behind));
    Some(
        Diagnosis::new(
            &codes::BORDER_REFERENCE,
            what,
            "one lies behind the other in a section, a reference has the same offset for both, \
             and the patch moves one of them",
            "give what the patch adds no section of its own (__read_mostly and the like)",
        )
        .place(place_of_piece(builds.patched, by)),
    )
}

/// The refusal for a reference of the piece `by` to `what`, which the running kernel has freed.
pub(super) fn init_reference(object: &Object<'_>, by: Piece, what: &[u8]) -> Diagnosis {
    Diagnosis::new(
        &codes::INIT_REFERENCE,
        format!("a reference to {}, which is gone after boot", String::from_utf8_lossy(what)),
        "the running kernel has given that memory back",
        "a livepatch can only change code that runs after boot: leave this part of the patch out",
    )
    .place(place_of_piece(object, by))
}

/// Refuses pieces that can't be copied at all.
pub(super) fn piece(builds: &ComparedUnit<'_, '_>, piece: Piece) -> Option<Diagnosis> {
    let object = builds.patched;
    let section = piece.range(object).section;
    let name = object.elf.section_name(section);
    if Lifetime::of(name).is_gone(builds.is_vmlinux()) {
        let what = match piece {
            Piece::Item(item) => object.item_name(item),
            Piece::Bytes { .. } => b"unnamed data",
        };
        return Some(init_reference(object, piece, what));
    }
    let fault = match (piece, object.role(section)) {
        (Piece::Item(item), _) if object.is_type_ids(item) => {
            type_ids("the patch needs a new list of BTF type numbers")
        }
        (Piece::Item(_), Role::Registry) => Diagnosis::new(
            &codes::REGISTRY,
            "a new entry of a table that is read at boot",
            format!("a livepatch can't add to {}", String::from_utf8_lossy(name)),
            "leave this part of the patch out, or do its work in a callback",
        ),
        (Piece::Bytes { .. }, Role::Data) if object.is_check_data(section) => return None,
        (Piece::Bytes { .. }, Role::Data) if object.elf.section_flags(section) & elf::SHF_WRITE.0 != 0 => {
            Diagnosis::new(
                &codes::UNNAMED_DATA,
                "a reference to variable data without a name",
                format!("in {}; klpx can't tell which variable it is", String::from_utf8_lossy(name)),
                "give the data a name in C, or leave this part of the patch out",
            )
        }
        (_, Role::BuildOnly | Role::Table(_)) => Diagnosis::new(
            &codes::UNKNOWN_SECTION,
            "a reference to a section that only the build uses, or to a table of places in code",
            String::from_utf8_lossy(name),
            "look for a section attribute or inline assembly in the patch, and use another section",
        ),
        _ => return None,
    };
    Some(fault.place(place_of_piece(object, piece)))
}
