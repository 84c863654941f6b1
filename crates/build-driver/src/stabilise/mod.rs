//! What is done to the units that a patch touches before anything is linked, so that the patched build comes out near
//! to the original. ThinLTO only.
//!
//! Three levels, each a choice among valid compilations of the patched source: units keep the names of their promoted
//! locals (freeze.rs), they ask for no imports that the original did not ask for, and LLVM's inliner decides again as
//! it did for the original, wherever nothing that it looked at has changed (attempt). What the units are part of is
//! then linked again (relink.rs), or where more than units depends on the patch, kbuild makes the kernel over the
//! result.
//!
//! Nothing here is trusted: a unit whose original does not come out as in the baseline is left alone, and what differs
//! between original and patched kernel is for the comparison of the finished objects to say.

mod attempt;
mod freeze;
mod initcalls;
mod link;
mod originals;
mod relink;
mod touched;
mod unit;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::native;

use crate::copy;
use crate::journal::Patching;
use crate::parallel::each;
use crate::progress::Progress;
use crate::remade::FrozenUnit;
use crate::workspace::{Workspace, remove_file};
use attempt::{Attempt, Chosen};
use freeze::Freezer;
use touched::Touched;
pub(crate) use touched::{has_links, keep_links};
use unit::Unit;

/// More touched units than this, such as those of a header that everything includes, are not compiled one by one.
const MAX_UNITS: usize = 12;

/// The environment variable that names another ThinLTO cache to the linker wrapper.
pub(crate) const LTO_CACHE: &str = "KLPX_LTO_CACHE";

/// How far the patched build may be brought nearer to the original; each level holds the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The patched source as the compiler takes it.
    #[default]
    Off,
    /// Promoted locals keep the names that they have in the original.
    Names,
    /// Touched units import nothing new.
    Imports,
    /// The inliner decides as for the original where that is still valid.
    Inlining,
}

/// What differs between two objects, by canonical names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// Functions that the second one has otherwise, or newly.
    pub functions: BTreeSet<String>,
    /// Data, registries, and what is gone.
    pub others: BTreeSet<String>,
}

impl Differing {
    /// True when something differs no longer, and nothing does newly.
    fn is_nearer_than(&self, plain: &Differing) -> bool {
        self != plain && self.functions.is_subset(&plain.functions) && self.others.is_subset(&plain.others)
    }
}

/// Says whether a build is nearer to the original, and whether it may be taken.
pub trait Judge: Sync {
    /// What differs between an original and a patched native object.
    ///
    /// # Errors
    /// One of them can't be read.
    fn differing(&self, original: &Path, patched: &Path) -> Result<Differing>;

    /// Why a build of an object of the kernel must not be taken, by the original object, the functions that it leaves
    /// out, and whether a function is the same in both sources. `None` when it may.
    fn refuses(
        &self,
        original: &Path,
        left_out: &BTreeSet<String>,
        is_same: &dyn Fn(&str) -> bool,
    ) -> Option<String>;
}

/// What came of bringing one object of the kernel nearer by its inlining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The object, as a path in the build tree.
    pub object: PathBuf,
    /// Functions of the touched units that differ in the plain build; none when the attempt did not get so far.
    pub plain: usize,
    /// The same in what was taken.
    pub taken: usize,
    /// Why the plain build was taken. `None` when it was not.
    pub given_up: Option<String>,
}

/// What is there when the touched units are compiled.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Units that were compiled.
    pub(crate) compiled: u64,
    /// Units that keep the hash of their original.
    pub(crate) frozen: Vec<FrozenUnit>,
    /// Functions that touched units would newly import.
    pub(crate) held_back: usize,
    /// The ThinLTO cache to link with, where it is not the workspace's.
    pub(crate) cache: Option<PathBuf>,
    pub(crate) outcomes: Vec<Outcome>,
    /// True when all that depends on the patch is made, and kbuild has nothing to do.
    pub(crate) is_linked: bool,
    /// Files of the build tree that kbuild must take as they are, and what they hold.
    placed: Vec<(PathBuf, Vec<u8>)>,
    /// Sources of the units that the link must find in the cache, and what the cache holds.
    seeded: Vec<String>,
    entries: BTreeSet<OsString>,
}

/// Compiles the touched units and chooses what kbuild is to link. What does not compile here is left to kbuild, which
/// tells why.
pub(crate) fn prepare(
    workspace: &Workspace,
    patching: &Patching<'_>,
    (level, judge): (Level, &dyn Judge),
    work: &Path,
    progress: &dyn Progress,
) -> Result<Ready> {
    if level == Level::Off || !workspace.is_stabilised() {
        return Ok(Ready::default());
    }
    let work = work.join("stabilise");
    std::fs::create_dir_all(&work).map_err(|error| Diagnosis::io("create", &work, &error))?;
    let mut preparation = Preparation { workspace, level, work: &work, progress, ready: Ready::default() };
    let touched = Touched::find(workspace, patching)?;
    let alone: Vec<&str> =
        touched.iter().flat_map(|object| &object.units).map(|unit| unit.object.as_str()).collect();
    let one_by_one = alone.len() <= MAX_UNITS;
    let saved = patching.saved_build();
    let kept = patching.units.iter().filter(|unit| freeze::is_bitcode(&saved.join(unit)));
    let (apart, left): (Vec<&PathBuf>, Vec<&PathBuf>) =
        kept.partition(|unit| one_by_one && unit.to_str().is_some_and(|unit| alone.contains(&unit)));
    // Whatever else is touched may make headers that the units include; kbuild sees to that.
    let first = if patching.only_units { &[][..] } else { &apart[..] };
    if !preparation.make(first, &left, patching)? {
        return Ok(preparation.ready);
    }
    if one_by_one {
        for object in &touched {
            preparation.attempt(object, patching, judge)?;
        }
        preparation.link(&touched, patching)?;
    } else if level >= Level::Inlining {
        preparation.ready.outcomes.extend(touched.iter().map(|object| Outcome {
            object: object.object.clone(),
            plain: 0,
            taken: 0,
            given_up: Some(format!("the patch touches {} units", alone.len())),
        }));
    }
    Ok(preparation.ready)
}

struct Preparation<'a> {
    workspace: &'a Workspace,
    level: Level,
    work: &'a Path,
    progress: &'a dyn Progress,
    ready: Ready,
}

impl Preparation<'_> {
    /// Lets kbuild compile units, and freezes some of them where they lie. False when they do not compile.
    fn make(&mut self, first: &[&PathBuf], to_freeze: &[&PathBuf], patching: &Patching<'_>) -> Result<bool> {
        let units = first.iter().chain(to_freeze);
        let targets: Vec<String> = units.map(|unit| unit.display().to_string()).collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        if targets.is_empty() {
            return Ok(true);
        }
        let total = Some(targets.len() as u64);
        let built = self.workspace.with_make(|make| make.run(&targets, self.progress, total))?;
        self.ready.compiled += built.units;
        if !built.success || to_freeze.len() > freeze::MAX_UNITS {
            return Ok(built.success);
        }
        self.progress.step("freezing names");
        let saved = patching.saved_build();
        let freezer = Freezer::new(self.workspace, Path::new("vmlinux.o"));
        let mut stems = Vec::new();
        for unit in to_freeze {
            let (original, patched) = (saved.join(unit), self.workspace.build_dir().join(unit));
            // What make left alone keeps its time, so that this can be seen.
            if patching.is_new(&patched) {
                let near = freezer.bring_near(self.level, &original, &patched, &self.work.join("freeze"))?;
                self.ready.held_back += near.held_back;
                if let Some(differing) = near.frozen {
                    self.ready.frozen.push(FrozenUnit { object: (*unit).clone(), differing });
                    stems.extend(unit.file_stem().map(OsStr::to_owned));
                }
            }
        }
        if !stems.is_empty() {
            self.cache(&stems)?;
        }
        Ok(true)
    }

    /// Chooses what becomes of one object's units, and puts it in place.
    fn attempt(&mut self, object: &Touched, patching: &Patching<'_>, judge: &dyn Judge) -> Result<()> {
        let work = self.work.join(object.object.with_extension(""));
        std::fs::create_dir_all(&work).map_err(|error| Diagnosis::io("create", &work, &error))?;
        let overlay = work.join("original.yaml");
        unit::write_overlay(&overlay, &patching.originals()?)?;
        let build = self.workspace.build_dir();
        let attempt = Attempt::new(self.workspace, (object, &build), (&overlay, &work), judge, self.progress);
        let Some(chosen) = attempt.run(self.level)? else { return Ok(()) };
        self.place(object, &build, chosen)
    }

    /// Puts the chosen files where kbuild and the linker find them.
    fn place(&mut self, object: &Touched, build: &Path, chosen: Chosen) -> Result<()> {
        let mut stems = Vec::new();
        for (unit, chosen) in object.units.iter().zip(&chosen.units) {
            if let Some(differing) = &chosen.near.frozen {
                let path = PathBuf::from(&unit.object);
                stems.extend(path.file_stem().map(OsStr::to_owned));
                self.ready.frozen.push(FrozenUnit { object: path, differing: differing.clone() });
            }
        }
        let any_native = chosen.units.iter().any(|unit| unit.native.is_some());
        if !stems.is_empty() || any_native {
            self.cache(&stems)?;
        }
        for unit in &chosen.units {
            self.ready.held_back += unit.near.held_back;
            let (Some(cache), Some(native)) = (&self.ready.cache, &unit.native) else { continue };
            let entry = cache.join(&native.key);
            // Not through the hard link: its other name is the workspace's.
            remove_file(&entry)?;
            copy::file(&native.object, &entry, false)
                .map_err(|error| Diagnosis::io("write", &entry, &error))?;
            self.ready.entries.insert(native.key.clone());
        }
        for (unit, chosen) in object.units.iter().zip(&chosen.units) {
            let to = build.join(&unit.object);
            copy::file(&chosen.bitcode, &to, false).map_err(|error| Diagnosis::io("write", &to, &error))?;
            if unit.is_whole && !self.finish(unit)? {
                // kbuild makes it from the source.
                return remove_file(&to);
            }
            self.ready.compiled += 1;
            self.progress.objects(self.ready.compiled, None);
            let bytes = std::fs::read(&to).map_err(|error| Diagnosis::io("read", &to, &error))?;
            self.ready.placed.push((to, bytes));
            if let Some(native) = &chosen.native {
                self.ready.seeded.extend(source_of(&native.object)?);
            }
        }
        self.ready.outcomes.extend(chosen.outcome);
        Ok(())
    }

    /// Links what the units are part of, when all of them are in place.
    fn link(&mut self, touched: &[Touched], patching: &Patching<'_>) -> Result<()> {
        // kbuild sees to whatever else depends on the patch.
        let all = patching.only_units
            && !self.ready.placed.is_empty()
            && self.ready.placed.len() == patching.units.len();
        if all && relink::can_link(touched) {
            self.progress.step("linking");
            let scratch = self.work.join("relink");
            let cache = self.ready.cache.as_deref();
            self.ready.is_linked = relink::link(touched, (self.workspace, &scratch), cache)?;
        }
        Ok(())
    }

    /// Makes a module of its only unit: what kbuild's record says behind the compilation.
    fn finish(&self, unit: &Unit) -> Result<bool> {
        link::run_commands(self.workspace, &unit.recorded.commands[1..], self.ready.cache.as_deref())
    }

    /// Sees to it that the links use a cache of their own: the workspace's entries, but for those that may be of a
    /// frozen unit's original.
    fn cache(&mut self, without: &[OsString]) -> Result<()> {
        let cache = self.work.join("lto-cache");
        if self.ready.cache.is_none() {
            share(&self.workspace.lto_cache(), &cache)?;
            self.ready.cache = Some(cache.clone());
        }
        if !without.is_empty() {
            remove_entries_of(&cache, without, self.workspace.kernel().jobs())?;
        }
        self.ready.entries = link::file_names(&cache)?.into_iter().collect();
        Ok(())
    }
}

impl Ready {
    /// Looks, after kbuild, whether it took what was placed. What it made from the source instead is a valid build as
    /// well, but not what the outcomes tell of.
    pub(crate) fn confirm(&mut self) -> Result<()> {
        let kept = |(path, bytes): &(PathBuf, Vec<u8>)| std::fs::read(path).is_ok_and(|now| now == *bytes);
        let mut why = (!self.placed.iter().all(kept)).then_some("kbuild compiled a unit again");
        if let Some(cache) = &self.cache {
            let names = link::file_names(cache)?;
            for name in names.iter().filter(|name| is_entry(name) && !self.entries.contains(*name)) {
                if source_of(&cache.join(name))?.is_some_and(|source| self.seeded.contains(&source)) {
                    why = Some("the link did not find a unit in its cache");
                }
            }
        }
        let Some(why) = why else { return Ok(()) };
        tracing::debug!(why, "stabilising came to nothing");
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.given_up.is_none()) {
            outcome.given_up = Some(why.to_owned());
            outcome.taken = outcome.plain;
        }
        Ok(())
    }
}

fn is_entry(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(link::ENTRY)
}

/// A ThinLTO cache with the entries of another one, by hard links.
fn share(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|error| Diagnosis::io("create", to, &error))?;
    for name in link::file_names(from)?.iter().filter(|name| name.to_string_lossy().starts_with(link::ENTRY))
    {
        std::fs::hard_link(from.join(name), to.join(name))
            .map_err(|error| Diagnosis::io("link", from, &error))?;
    }
    Ok(())
}

/// Removes the entries that may be of a unit of one of these names.
fn remove_entries_of(cache: &Path, stems: &[OsString], jobs: usize) -> Result<()> {
    let names = link::file_names(cache)?;
    let removed = each(jobs, names.len(), |at| -> Result<()> {
        let path = cache.join(&names[at]);
        let stem = |source: String| Path::new(&source).file_stem().map(OsStr::to_owned);
        match source_of(&path)?.and_then(stem) {
            Some(stem) if !stems.contains(&stem) => Ok(()),
            _ => remove_file(&path),
        }
    });
    removed.into_iter().collect()
}

/// The source that a native object is of, as its symbol table has it.
fn source_of(object: &Path) -> Result<Option<String>> {
    let bytes = std::fs::read(object).map_err(|error| Diagnosis::io("read", object, &error))?;
    Ok(native::source_file(&bytes).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ready: &mut Ready) -> Outcome {
        ready.confirm().expect("the files are there");
        ready.outcomes[0].clone()
    }

    #[test]
    fn what_kbuild_made_anew_is_not_claimed() {
        let folder = tempfile::tempdir().expect("a folder");
        let unit = folder.path().join("a.o");
        std::fs::write(&unit, "placed").expect("a file");
        let taken = Outcome { object: "vmlinux.o".into(), plain: 2, taken: 1, given_up: None };
        let placed = vec![(unit.clone(), b"placed".to_vec())];
        let mut ready = Ready { placed, outcomes: vec![taken.clone()], ..Ready::default() };
        assert_eq!(outcome(&mut ready), taken);
        std::fs::write(&unit, "made").expect("a file");
        let why = Some("kbuild compiled a unit again".to_owned());
        assert_eq!(outcome(&mut ready), Outcome { taken: 2, given_up: why, ..taken });
    }

    #[test]
    fn a_unit_that_the_link_did_not_find_is_not_claimed() {
        let folder = tempfile::tempdir().expect("a folder");
        let object = |name: &str, entry: &str| {
            std::fs::write(folder.path().join(format!("{name}.c")), "int f(void) { return 1; }")
                .expect("a file");
            let mut clang = std::process::Command::new("clang-22");
            clang.args(["-c", "-o", entry, &format!("{name}.c")]).current_dir(folder.path());
            assert!(clang.status().expect("clang").success());
        };
        let taken = Outcome { object: "vmlinux.o".into(), plain: 2, taken: 1, given_up: None };
        let mut ready = Ready {
            cache: Some(folder.path().to_owned()),
            seeded: vec!["seeded.c".to_owned()],
            outcomes: vec![taken.clone()],
            ..Ready::default()
        };
        object("other", "llvmcache-1");
        assert_eq!(outcome(&mut ready), taken, "a unit that imports from it may be new");
        object("seeded", "llvmcache-2");
        assert_eq!(
            outcome(&mut ready).given_up.as_deref(),
            Some("the link did not find a unit in its cache")
        );
    }
}
