//! Checks that Rust code of the kernel sees the same headers before and after a patch. Make never compiles Rust code
//! for klpx, so a change there would stay unseen.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use crate::kbuild::includes::RustSide;
use crate::kbuild::{IncludeGraph, UnitList};
use crate::patch::outline;
use crate::patch::{AppliedPatch, FileEdit};

/// Refuses a patch that changes a declaration or a macro from which Rust code is made. Where C helpers are inlined into
/// Rust code, refuses every change of a file that the helpers include.
///
/// # Errors
/// `klpx::rust-bindings`.
pub(super) fn check(
    rust: RustSide,
    graph: &IncludeGraph,
    list: &UnitList,
    prepared: &AppliedPatch,
) -> Result<()> {
    let fault = |change: &FileEdit| {
        let path = [change.path.as_str()];
        let (edited, added) =
            if change.original.is_some() { (&path[..], &[][..]) } else { (&[][..], &path[..]) };
        let readers = rust.files().iter().filter(|reader| graph.may_include(reader, edited, added, list));
        readers.into_iter().find_map(|reader| seen(change, reader.ends_with(".c")))
    };
    Failure::all(prepared.changes.iter().filter_map(fault).collect())
}

/// Returns the refusal of a change of a file that Rust code sees. With inlined helpers, functions' bodies count.
fn seen(change: &FileEdit, with_bodies: bool) -> Option<Diagnosis> {
    let (original, patched) = (change.original.as_deref(), change.patched.as_deref());
    let (original, patched) = (original.unwrap_or_default(), patched.unwrap_or_default());
    let part = outline::first_change(original, patched);
    let why = match part {
        Some(part) => format!("Rust code of this kernel depends on `{}`", shortened(&part)),
        None if with_bodies && original != patched => {
            "functions of this file are inlined into Rust code of this kernel".to_owned()
        }
        None => return None,
    };
    Some(
        Diagnosis::new(
            &codes::RUST_BINDINGS,
            "the patch changes what Rust code sees",
            format!("{why}, and klpx does not replace Rust code"),
            "keep the declarations and macros of this header as they are, and make the change in C files",
        )
        .place(DiagnosisPlace::file(change.path.clone(), None)),
    )
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(original: Option<&str>, patched: Option<&str>, with_bodies: bool) -> Option<&'static str> {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let change = FileEdit::new("include/linux/a.h".to_owned(), bytes(original), bytes(patched));
        seen(&change, with_bodies).map(|diagnosis| diagnosis.code)
    }

    #[test]
    fn declarations_count_and_bodies_count_for_inlined_helpers() {
        let refused = Some("klpx::rust-bindings");
        let body = ("int f(int a) { return a; }", "int f(int a) { return -a; }");
        for (original, patched, with_bodies, expected) in [
            (Some("#define A 1\n"), Some("#define A 2\n"), false, refused),
            (Some(body.0), Some(body.1), false, None),
            (Some(body.0), Some(body.1), true, refused),
            (Some("int f(int);\n"), None, false, refused),
            (None, Some("int f(int);\n"), false, None),
            (None, Some("#ifdef A\n#endif\n"), false, refused),
        ] {
            assert_eq!(code(original, patched, with_bodies), expected, "{original:?} {patched:?}");
        }
    }
}
