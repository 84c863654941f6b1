//! Checks that every function that held an inlined copy of what the patch edits is replaced, or has the same code for a
//! known reason.
//!
//! The comparison of both builds decides what is replaced, because debug information can leave copies out. Where debug
//! information does name a holder whose code came out the same, there are two possibilities:
//!
//! - The holder was built from the patched source, and the edit has no effect on that copy: the compiler folded away
//!   the edited part, or the edit means the same. The holder's code is then the patched kernel's, and right as it is.
//!   The results name such a holder. Refusing here would refuse patches for nothing: a message in a branch that one
//!   caller never takes would be enough.
//! - The holder was not built from the patched source: the unit that the copy came from was not compiled again, or the
//!   comparison did not pair the holder. The livepatch would leave the original's copy in use. This stops the build.

use klpx_build_driver::{Baseline, Patched, Remade};
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};
use klpx_diff::Difference;
use serde::Serialize;

use crate::inlining::{Holder, Inlines, Inlining, OriginalInlinings};
use crate::pairs::PairObjects;
use klpx_diagnosis::words;

/// A holder whose code is the same in both builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unaffected {
    /// The kernel object that the holder belongs to: `vmlinux` or a module's name.
    pub object: String,
    /// The holder's name, without a `.llvm.<hash>`.
    pub function: String,
    /// The copies that the original holder held.
    pub inlines: Vec<Inlines>,
}

/// A holder that the livepatch would not replace, although it may hold the original's copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    holder: Unaffected,
    why: String,
}

/// The result of checking a holder.
enum HolderVerdict {
    /// The holder is in the change set; or it is not in the patched build, so that all its callers are in the change
    /// set; or nothing calls it.
    Accounted,
    Unaffected,
    LeftOut(String),
}

/// The holders of one pair that are not in the change set.
#[derive(Default)]
pub(crate) struct OtherHolders {
    pub(crate) unaffected: Vec<Unaffected>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl OtherHolders {
    /// Finds the patched build's counterpart of each holder of the original.
    pub(crate) fn find(
        pair: &PairObjects<'_>,
        difference: &Difference,
        original: &Inlining,
        remade: &Remade,
    ) -> OtherHolders {
        let mut others = OtherHolders::default();
        for holder in original.holders() {
            match verdict(pair, difference, &holder, remade) {
                HolderVerdict::Accounted => {}
                HolderVerdict::Unaffected => others.unaffected.push(unaffected_holder(pair.name, &holder)),
                HolderVerdict::LeftOut(why) => {
                    others.left_out.push(LeftOut { holder: unaffected_holder(pair.name, &holder), why })
                }
            }
        }
        others
    }
}

fn unaffected_holder(object: &str, holder: &Holder<'_>) -> Unaffected {
    Unaffected { object: object.to_owned(), function: holder.name().to_owned(), inlines: holder.inlines() }
}

fn verdict(
    pair: &PairObjects<'_>,
    difference: &Difference,
    holder: &Holder<'_>,
    remade: &Remade,
) -> HolderVerdict {
    let Some(item) = holder.item(&pair.original) else {
        return match holder.is_named() {
            true => HolderVerdict::LeftOut("it is not among the functions that were compared".to_owned()),
            // When another definition takes the name of a weak one, GNU ld keeps the weak one's code. Nothing refers to
            // this code any more.
            false => HolderVerdict::Accounted,
        };
    };
    let correlation = &difference.correlation;
    let Some(counterpart) = correlation.patched_of.get(item.index()).copied().flatten() else {
        return match correlation.unsettled.iter().any(|unsettled| unsettled.candidates.contains(&item)) {
            true => {
                HolderVerdict::LeftOut("nothing tells which function of the patched build it is".to_owned())
            }
            false => HolderVerdict::Accounted,
        };
    };
    if difference.functions.binary_search_by_key(&counterpart, |change| change.patched).is_ok() {
        return HolderVerdict::Accounted;
    }
    not_made_again(holder, remade).map_or(HolderVerdict::Unaffected, HolderVerdict::LeftOut)
}

/// Why a holder may not be built from the patched source; `None` if it is.
fn not_made_again(holder: &Holder<'_>, remade: &Remade) -> Option<String> {
    let unit = holder.units().find(|unit| !remade.was_compiled(unit))?;
    Some(format!("{unit} was not compiled again"))
}

/// Holders in objects that belong to no pair, because both builds are the same. These objects were built again if make
/// knows all dependencies.
pub(crate) fn uncompared(
    patched: &Patched,
    baseline: &Baseline,
    originals: &mut OriginalInlinings<'_>,
) -> Vec<LeftOut> {
    if patched.remade.stale.is_empty() {
        return Vec::new();
    }
    let modules = baseline.modules.iter().map(|module| (module.name.as_str(), module.object.as_path()));
    let all = std::iter::once(("vmlinux", baseline.vmlinux_o.as_path())).chain(modules);
    let mut left_out = Vec::new();
    for (name, object) in all.filter(|(name, _)| patched.pair(name).is_none()) {
        let Some(inlining) = originals.inlining(object) else { continue };
        for holder in inlining.holders() {
            let why = not_made_again(&holder, &patched.remade);
            left_out.extend(why.map(|why| LeftOut { holder: unaffected_holder(name, &holder), why }));
        }
    }
    left_out
}

/// A note on objects that depend on the patch but that make did not rebuild.
pub(crate) fn stale(remade: &Remade) -> Option<Note> {
    let names: Vec<String> = remade.stale.iter().map(|path| path.display().to_string()).collect();
    let text = || format!("make did not compile again what depends on the patch: {}", first(&names));
    (!names.is_empty()).then(|| Note::new(&codes::STALE_OBJECTS, text()))
}

/// Refuses if a holder is left out.
pub(crate) fn check(left_out: &[LeftOut]) -> Result<()> {
    let Some(LeftOut { holder, .. }) = left_out.first() else { return Ok(()) };
    let call = holder.inlines.first().map(|inlines| inlines.by_way_of.first().unwrap_or(&inlines.call));
    let mut place = DiagnosisPlace::symbol(holder.function.clone());
    if let Some((file, line)) = call.and_then(|call| Some((call.file.clone()?, call.line))) {
        place = place.at(file, line);
    }
    let line = |LeftOut { holder, why }: &LeftOut| {
        let inlines = holder.inlines.first().map_or(String::new(), ToString::to_string);
        format!("{} ({}) {inlines}: {why}", holder.function, holder.object)
    };
    let what = match left_out.len() {
        1 => "a function that inlines what the patch edits would be left out".to_owned(),
        n => format!("{} functions that inline what the patch edits would be left out", words::count(n)),
    };
    Failure::all(vec![
        Diagnosis::new(
            &codes::HOLDER_LEFT_OUT,
            what,
            "each holds a copy of the original's code, and nothing shows that it was \
             built from the patched source",
            "let klpx build the kernel anew (klpx cache prune --days 0), and if that \
             does not help, look for a dependency that the unit's makefile lacks",
        )
        .place(place)
        .detail(left_out.iter().take(LISTED).map(line))
        .detail(
            (left_out.len() > LISTED).then(|| format!("and {} more", words::count(left_out.len() - LISTED))),
        ),
    ])
}

/// How many functions a message lists.
const LISTED: usize = 20;

/// `3 functions inline what the patch edits, and their code is the same: a, b, c`.
pub(crate) fn remark(unaffected: &[Unaffected]) -> Option<Note> {
    let mut names: Vec<String> = unaffected.iter().map(|holder| holder.function.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let verb = if names.len() == 1 { "inlines" } else { "inline" };
    let whose = if names.len() == 1 { "its" } else { "their" };
    (!names.is_empty()).then(|| {
        let functions = words::plural(names.len(), "function");
        let text = format!(
            "{functions} {verb} what the patch edits, and {whose} code is the same: {}",
            first(&names)
        );
        Note::new(&codes::SAME_HOLDERS, text)
    })
}

/// The first few names of a list.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names.len() {
        n if n > SHOWN + 1 => format!("{} and {} more", names[..SHOWN].join(", "), words::count(n - SHOWN)),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klpx_inline_check::survey::Survey;
    use klpx_normalize::elf::ElfFile;
    use klpx_normalize::object::Object;
    use klpx_testkit::{command, run};

    use super::*;

    const ONE: &str = "\
extern int outside(int);
static inline int inner(int x) { return outside(x) + 7; }
int global(int x) { return inner(x) * 3; }
int same_file(int x) { return global(x) * 2; }
";

    const OTHER: &str = "\
extern int global(int);
int other_file(int x) { return global(x) + 1; }
int bystander(int x) { return x + 1; }
";

    /// Links both units by ThinLTO.
    fn linked(folder: &Path) -> ElfFile {
        for (name, text) in [("one", ONE), ("other", OTHER)] {
            std::fs::write(folder.join(name).with_extension("c"), text).expect("a writable folder");
            let mut compiler = command("clang-22");
            compiler.current_dir(folder).args(["-O2", "-g", "-c", "-flto=thin", "-ffunction-sections"]);
            run(compiler.arg(format!("{name}.c")).args(["-o", &format!("{name}.o")]));
        }
        run(command("ld.lld-22").current_dir(folder).args(["-r", "one.o", "other.o", "-o", "both.o"]));
        ElfFile::open(&folder.join("both.o")).expect("the object that was just made")
    }

    /// The holders of an object that came out the same, when the patch edits `inner`: those that are unaffected, and
    /// why others are left out.
    fn others(remade: &Remade) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = linked(folder.path());
        let read = || Object::read(&file).expect("a sound object");
        let survey =
            Survey::read_in(&file.parse().expect("an ELF file"), folder.path()).expect("sound DWARF");
        let inlining = Inlining::with_edited(survey, &["inner"]);
        let original_path = file.path();
        let pair = PairObjects {
            name: "vmlinux",
            unit: None,
            witness: None,
            original: read(),
            original_path,
            patched: read(),
        };
        let difference = klpx_diff::compare(&pair.original, &pair.patched);
        assert!(difference.is_empty());
        let others = OtherHolders::find(&pair, &difference, &inlining, remade);
        let mut unaffected: Vec<String> = others.unaffected.into_iter().map(|h| h.function).collect();
        let mut left_out: Vec<String> =
            others.left_out.into_iter().map(|out| format!("{}: {}", out.holder.function, out.why)).collect();
        unaffected.sort();
        left_out.sort();
        (unaffected, left_out)
    }

    fn compiled(objects: &[&str]) -> Remade {
        Remade { compiled: objects.iter().map(Into::into).collect(), ..Remade::default() }
    }

    #[test]
    fn a_holder_with_the_same_code_is_unaffected_when_its_copy_was_made_again() {
        let all = ["global", "other_file", "same_file"];
        let (unaffected, left_out) = others(&compiled(&["one.o"]));
        assert_eq!((unaffected.as_slice(), left_out.len()), (&all.map(str::to_owned)[..], 0));
        // It does not matter that the importing unit was not compiled: its backend runs again.
        let (unaffected, left_out) = others(&compiled(&["other.o"]));
        assert!(unaffected.is_empty());
        assert_eq!(left_out, all.map(|name| format!("{name}: one.c was not compiled again")));
    }

    #[test]
    fn a_holder_that_was_not_compared_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = linked(folder.path());
        let survey =
            Survey::read_in(&file.parse().expect("an ELF file"), folder.path()).expect("sound DWARF");
        let inlining = Inlining::with_edited(survey, &["inner"]);
        // An object other than the one that the debug information describes.
        let (source, object) = (folder.path().join("data.c"), folder.path().join("data.o"));
        std::fs::write(&source, "int data = 1;\n").expect("a writable folder");
        run(command("clang-22").arg("-c").arg(&source).arg("-o").arg(&object));
        let data = ElfFile::open(&object).expect("the object that was just made");
        let read = || Object::read(&data).expect("a sound object");
        let original_path = data.path();
        let pair = PairObjects {
            name: "vmlinux",
            unit: None,
            witness: None,
            original: read(),
            original_path,
            patched: read(),
        };
        let difference = klpx_diff::compare(&pair.original, &pair.patched);
        let others = OtherHolders::find(&pair, &difference, &inlining, &compiled(&["one.o"]));
        assert!(others.unaffected.is_empty());
        let refused = check(&others.left_out).expect_err("three holders are left out");
        let diagnosis = refused.diagnoses().next().expect("a diagnosis");
        assert_eq!((diagnosis.code, refused.exit_code()), ("klpx::holder-left-out", 7));
        assert_eq!(diagnosis.what, "3 functions that inline what the patch edits would be left out");
        let wanted = "other_file (vmlinux) inlines inner at one.c:3 by way of global at other.c:2: \
                      it is not among the functions that were compared";
        assert!(diagnosis.detail.iter().any(|line| line == wanted), "{:#?}", diagnosis.detail);
        assert!(!diagnosis.remedy.is_empty() && !diagnosis.place.is_empty());
    }

    #[test]
    fn unaffected_holders_are_told_in_one_line() {
        let holder = |name: &str| Unaffected {
            object: "vmlinux".to_owned(),
            function: name.to_owned(),
            inlines: Vec::new(),
        };
        let remark_on = |names: &[&str]| remark(&names.iter().map(|name| holder(name)).collect::<Vec<_>>());
        assert_eq!(remark_on(&[]), None);
        let one = "1 function inlines what the patch edits, and its code is the same: a";
        assert_eq!(remark_on(&["a", "a"]).as_deref(), Some(one));
        let many =
            "7 functions inline what the patch edits, and their code is the same: a, b, c, d and 3 more";
        assert_eq!(remark_on(&["g", "f", "e", "d", "c", "b", "a"]).as_deref(), Some(many));
    }
}
