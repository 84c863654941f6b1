//! Layouts of live data: types that the patch changes, types that differ between the kernel and klpx's build of the
//! original, and boot code that would decide differently in a patched kernel.
//!
//! Objects that were made before a livepatch is loaded keep their layout, and code that is not replaced goes on using
//! that layout. Only a person can tell whether this is harmless. Such a patch is refused unless the user names what was
//! reviewed (`--allow-layout`).

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};
use klpx_klp_emit::image::{Image, VMLINUX};
use klpx_layout::{Btf, Layouts, TypeChange, TypeDefinition, TypeKind, changes};
use klpx_normalize::elf::Elf;
use rayon::prelude::*;
use serde::Serialize;

use crate::change_set::Analysis;
use crate::finding::{Cause, Finding};
use crate::pairs::PairObjects;
use crate::trace_events::TraceEvents;

/// A changed type, or a changed `__init` function, that the user accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// The type as C writes it, or the function's name.
    pub name: String,
    /// What differs.
    pub differences: Vec<String>,
    /// The types that contain the type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<String>,
}

/// The types of the pairs from which the livepatch takes code.
pub(crate) struct PairTypes {
    /// By pair, the types of the original; `None` where nothing differs.
    pub(crate) originals: Vec<Option<Layouts>>,
    /// Each changed type once.
    changes: Vec<TypeChange>,
    events: TraceEvents,
    /// The folder in which the source was compiled.
    tree: String,
}

impl PairTypes {
    /// Reads and compares the types.
    pub(crate) fn read(objects: &[PairObjects<'_>], analysis: &Analysis, tree: &Path) -> Result<PairTypes> {
        let read = |(pair, difference): (&PairObjects<'_>, &klpx_diff::Difference)| {
            if difference.is_empty() {
                return Ok((None, Vec::new()));
            }
            let (original, patched) =
                rayon::join(|| Layouts::read(&pair.original.elf), || Layouts::read(&pair.patched.elf));
            let (original, patched) = (original?, patched?);
            let changes = changes(&original, &patched);
            Ok((Some(original), changes))
        };
        let each: Result<Vec<_>> = objects.par_iter().zip(&analysis.differences).map(read).collect();
        let (originals, each): (Vec<_>, Vec<_>) = each?.into_iter().unzip();
        let mut changes: Vec<TypeChange> = Vec::new();
        for change in each.into_iter().flatten() {
            let same =
                |other: &&mut TypeChange| other.key == change.key && other.differences == change.differences;
            match changes.iter_mut().find(same) {
                Some(known) => join(known, change),
                None => changes.push(change),
            }
        }
        let events = TraceEvents::find(objects);
        Ok(PairTypes { originals, changes, events, tree: format!("{}/", tree.display()) })
    }

    /// Where a type is defined, as a path in the source.
    fn place(&self, definition: &TypeDefinition) -> DiagnosisPlace {
        let file = definition.file.strip_prefix(&self.tree).unwrap_or(&definition.file);
        DiagnosisPlace::file(file, Some(definition.line).filter(|line| *line != 0))
    }

    /// Refuses changed types, except those that the user accepts. Returns the accepted ones.
    pub(crate) fn check(&self, allowed: &[String]) -> Result<Vec<Accepted>> {
        let is_allowed = |change: &&TypeChange| {
            allowed.iter().any(|name| *name == change.key.name || *name == change.key.to_string())
        };
        let (accepted, refused): (Vec<&TypeChange>, Vec<&TypeChange>) =
            self.changes.iter().partition(is_allowed);
        Failure::all(refused.into_iter().map(|change| self.refusal(change)).collect())?;
        Ok(accepted
            .into_iter()
            .map(|change| Accepted {
                name: change.key.to_string(),
                differences: change.differences.clone(),
                inside: change.inside.iter().map(ToString::to_string).collect(),
            })
            .collect())
    }

    fn refusal(&self, change: &TypeChange) -> Diagnosis {
        let (before, patched_size) = change.size;
        let what = match change.key.kind {
            TypeKind::Enum => format!("the patch changes what values of {} mean", change.key),
            _ if patched_size > before => {
                format!("{} grows from {before} to {patched_size} bytes", change.key)
            }
            _ if patched_size < before => {
                format!("{} shrinks from {before} to {patched_size} bytes", change.key)
            }
            _ => format!("the patch changes the layout of {}", change.key),
        };
        let named = |names: &[String]| match names {
            few if few.len() <= 4 => few.join(", "),
            [first, second, third, rest @ ..] => {
                format!("{first}, {second}, {third} and {} more", rest.len())
            }
            _ => String::new(),
        };
        let mut why = "objects made before the livepatch is loaded stay as they are, and so does the code that is not replaced"
            .to_owned();
        if !change.variables.is_empty() {
            why.push_str(&format!("; such objects are in {}", named(&change.variables)));
        }
        let inside: Vec<String> = change.inside.iter().map(ToString::to_string).collect();
        let inside = (!inside.is_empty()).then(|| format!("it lies in {}", named(&inside)));
        let refusal = Diagnosis::new(
            &codes::LAYOUT,
            what,
            why,
            format!(
                "leave the type as it is and keep what is new in a shadow variable \
                 (klp_shadow_get_or_alloc); when a review shows that no such object is ever \
                 read, add --allow-layout {}",
                change.key.name
            ),
        )
        .place(self.place(&change.patched))
        .detail(change.differences.iter().cloned().chain(inside));
        self.events.name_event(&change.key.name, refusal)
    }
}

/// Adds what another unit knows about the same change.
fn join(known: &mut TypeChange, other: TypeChange) {
    merge(&mut known.variables, other.variables);
    merge(&mut known.inside, other.inside);
}

fn merge<T: Ord>(list: &mut Vec<T>, more: Vec<T>) {
    list.extend(more);
    list.sort();
    list.dedup();
}

/// Refuses a livepatch for a kernel whose types differ from those in klpx's build of the original. Existing code of the
/// unit already shows most such differences by itself; a member that only the patch uses shows nowhere else. Returns a
/// note on what could not be compared.
pub(crate) fn check_kernel(
    objects: &[PairObjects<'_>],
    types: &PairTypes,
    vmlinux: &Image<'_>,
    modules: &[Image<'_>],
) -> Result<Option<Note>> {
    let Some(kernel) = section(&vmlinux.elf) else {
        let text = "the kernel has no BTF: its types were not compared with those of klpx's build";
        return Ok(Some(Note::new(&codes::NO_BTF, text)));
    };
    let kernel = Btf::read(kernel, None)?;
    let mut faults: Vec<Diagnosis> = Vec::new();
    for (pair, original) in objects.iter().zip(&types.originals) {
        let Some(original) = original else { continue };
        let own = modules.iter().find(|image| image.object() == pair.name).map(|image| section(&image.elf));
        let module = own.flatten().map(|bytes| Btf::read(bytes, Some(&kernel))).transpose()?;
        // A module without BTF may have types of its own with the names of the kernel's types.
        let may_be_own = pair.name != VMLINUX && module.is_none();
        for (key, definition, line) in module.as_ref().unwrap_or(&kernel).disagreements(original) {
            if may_be_own && !definition.file.contains("/include/") {
                continue;
            }
            faults.push(
                Diagnosis::new(
                    &codes::KERNEL_DIFFERS,
                    format!("{key} of the kernel to be patched differs"),
                    format!("beside what the BTF of {} says, in klpx's build {line}", pair.name),
                    klpx_klp_emit::witness::REMEDY,
                )
                .place(types.place(&definition)),
            );
        }
    }
    faults.sort();
    faults.dedup();
    Failure::all(faults)?;
    Ok(None)
}

fn section<'d>(elf: &Elf<'d>) -> Option<&'d [u8]> {
    elf.section_by_name(b".BTF").map(|id| elf.section_bytes(id)).filter(|bytes| !bytes.is_empty())
}

/// Refuses a patch that changes the code of an `__init` function without editing it: what the function set up at boot
/// relies on a constant or a type that the patch changes. Returns the accepted functions.
pub(crate) fn check_boot(booted: &[Finding], allowed: &[String]) -> Result<Vec<Accepted>> {
    let mut faults = Vec::new();
    let mut accepted = Vec::new();
    for finding in booted.iter().filter(|finding| finding.cause.is_some_and(Cause::is_unexplained)) {
        if allowed.contains(&finding.function) {
            accepted.push(Accepted {
                name: finding.function.clone(),
                differences: finding.reasons.clone(),
                inside: Vec::new(),
            });
            continue;
        }
        let mut place = DiagnosisPlace::symbol(&finding.function);
        if let Some(file) = &finding.file {
            place = place.at(file, finding.line);
        }
        faults.push(
            Diagnosis::new(
                &codes::BOOT_DECISION,
                "code that ran at boot rests on what the patch changes",
                "the patch does not edit this __init function, and the function came out \
                 otherwise: a constant, a size or a type is another one, and what was set up \
                 at boot is as before",
                format!(
                    "keep the value that the kernel booted with; when a review shows that what \
                     was set up still fits, add --allow-layout {}",
                    finding.function
                ),
            )
            .place(place)
            .detail(finding.reasons.iter().cloned()),
        );
    }
    Failure::all(faults)?;
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::ChangeKind;

    fn left_out(function: &str, cause: Option<Cause>) -> Finding {
        Finding {
            object: VMLINUX.to_owned(),
            function: function.to_owned(),
            kind: ChangeKind::Changed,
            cause,
            inlines: Vec::new(),
            hunks: Vec::new(),
            why: "it ran when the kernel booted and is gone".to_owned(),
            file: Some("mm/a.c".to_owned()),
            line: Some(7),
            reasons: vec!["its bytes differ at +0x10".to_owned()],
        }
    }

    #[test]
    fn boot_code_that_nobody_edited_and_that_holds_no_edited_copy_decided_otherwise() {
        let codes = |cause, allowed: &[&str]| -> Vec<&'static str> {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            let result = check_boot(&[left_out("setup", cause)], &allowed);
            result
                .err()
                .map_or(Vec::new(), |failure| failure.diagnoses().map(|diagnosis| diagnosis.code).collect())
        };
        assert_eq!(codes(Some(Cause::Otherwise), &[]), ["klpx::boot-decision"]);
        assert_eq!(codes(Some(Cause::InlinesOtherwise), &[]), ["klpx::boot-decision"]);
        assert_eq!(codes(Some(Cause::Otherwise), &["other"]), ["klpx::boot-decision"]);
        assert_eq!(codes(Some(Cause::Otherwise), &["setup"]), [""; 0]);
        let others = [Cause::Inlines, Cause::ReliesOn, Cause::CalledBy, Cause::Uses];
        for harmless in others.map(Some).into_iter().chain([None]) {
            assert_eq!(codes(harmless, &[]), [""; 0], "{harmless:?}");
        }
        let accepted = check_boot(&[left_out("setup", Some(Cause::Otherwise))], &["setup".to_owned()]);
        assert_eq!(accepted.expect("accepted")[0].name, "setup");
    }
}
