//! The patched build once more, nearer to the original: LLVM's inliner decides again as it did for the original, wherever
//! nothing that it looked at has changed. ThinLTO only.
//!
//! Each unit that the patch touches is compiled from both sources with remarks, and so is its backend. Where they tell of
//! calls that are inlined in one build only, [`klpx_stabilise::replay`] says which decisions can be taken over, and that step runs again
//! with them. The unit's new native object then takes the place of the plain one in a copy of the ThinLTO cache, and kbuild's own
//! link and objtool commands run over it.
//!
//! Nothing here is trusted: a unit whose original does not come out byte for byte as in the baseline is left alone, and
//! whether the result is nearer is for the comparison of objects to say.

mod freeze;
mod link;
mod recorded;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::{Identity, Module};
use klpx_stabilise::replay::{self, Sameness};
use klpx_stabilise::{native, remarks};

use crate::copy;
use crate::journal::Patching;
use crate::process::Call;
use crate::progress::Progress;
use crate::toolchain::Lto;
use crate::workspace::Workspace;
use freeze::Freezer;
pub(crate) use freeze::{Frozen, is_bitcode};
use link::{Backend, Link, Swap};
use recorded::Recorded;
use unit::{Compiled, Compiler, Form, Side, Unit};

/// More touched units than this, such as those of a header that everything includes, are left as they are.
const MAX_UNITS: usize = 12;

/// The environment variable that names another ThinLTO cache to the linker wrapper.
pub(crate) const LTO_CACHE: &str = "KLPX_LTO_CACHE";

/// How far the patched build may be brought nearer to the original; each level holds the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The patched source as the compiler takes it.
    #[default]
    Off,
    /// Promoted locals keep the names that they have in the original.
    Names,
    /// The inliner decides as for the original where that is still valid.
    Inlining,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The object, built again.
    Rebuilt {
        /// Where it is.
        object: PathBuf,
        /// Functions of the touched units that are the same before any optimisation, by their names in the source.
        same: BTreeSet<String>,
    },
    /// The inliner decided nothing otherwise that could be undone.
    NothingToUndo,
    /// The attempt was given up, and why.
    GivenUp(String),
}

/// The build tree while the source is patched.
pub struct Patched<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) patching: &'a Patching<'a>,
    pub(crate) work: &'a Path,
    /// The ThinLTO cache that the plain build was linked with.
    pub(crate) cache: PathBuf,
}

/// What is known of a touched unit once it was compiled from both sources.
struct Sides {
    original: Compiled,
    patched: Compiled,
    /// Records to compile the patched source with, and whether the unit then keeps its original's hash.
    replay: Option<(PathBuf, bool)>,
}

impl Patched<'_> {
    /// Builds an object of the kernel (`vmlinux.o`, or a module's) once more with the original's inlining. `differing` are the
    /// functions that differ, without promotion suffixes.
    ///
    /// # Errors
    /// The work folder can't be written; an interrupt. A tool that fails is no error but [`Attempt::GivenUp`].
    pub fn rebuild(&self, object: &Path, differing: &[String], progress: &dyn Progress) -> Result<Attempt> {
        let toolchain = self.workspace.kernel().toolchain();
        if toolchain.lto != Lto::Thin || !toolchain.lld {
            return Ok(Attempt::NothingToUndo);
        }
        let work = self.work.join("stabilise").join(object.with_extension(""));
        std::fs::create_dir_all(&work).map_err(|error| Diagnosis::io("create", &work, &error))?;
        let overlay = work.join("original.yaml");
        unit::write_overlay(&overlay, &self.patching.originals()?)?;
        let build = self.workspace.build_dir();
        let runner = &self.workspace.runner;
        let Some(recorded) = Recorded::read(&build, object) else {
            return given_up("kbuild's record can't be read");
        };
        let Some(link) = Link::of(&recorded, &build, &toolchain.tool("ar"), runner)? else {
            return given_up("kbuild's link can't be read");
        };
        let Some(units) = self.touched(&link) else {
            return given_up("kbuild's record of a unit can't be read");
        };
        if units.is_empty() {
            return Ok(Attempt::NothingToUndo);
        }
        if units.len() > MAX_UNITS {
            return given_up(&format!("the patch touches {} units of {}", units.len(), object.display()));
        }
        let again = Again {
            compiler: Compiler { runner, build: &build, overlay: &overlay, work: &work },
            workspace: self.workspace,
            cache: &self.cache,
            recorded: &recorded,
            link: &link,
            units: &units,
            object,
            progress,
        };
        again.run(differing)
    }

    /// The units of a link that were compiled since the source was patched. `None` when one of them can't be compiled apart:
    /// what is not known of it can't be taken for unchanged.
    fn touched(&self, link: &Link) -> Option<Vec<Unit>> {
        let build = self.workspace.build_dir();
        let mut units = Vec::new();
        for input in link.inputs.iter().filter(|input| self.patching.is_new(&build.join(input))) {
            let recorded = Recorded::read(&build, Path::new(input));
            let words = recorded.as_ref().and_then(Recorded::compilation);
            if words.is_some_and(|words| words.iter().any(|word| word == "-flto=thin")) {
                let original = self.patching.saved_build().join(input);
                let frozen = freeze::is_frozen(&original, &build.join(input));
                units.push(Unit { object: input.clone(), recorded: recorded?, frozen });
            } else if freeze::is_bitcode(&build.join(input)) {
                return None;
            }
        }
        Some(units)
    }
}

fn given_up(why: &str) -> Result<Attempt> {
    tracing::debug!(why, "stabilising is given up");
    Ok(Attempt::GivenUp(why.to_owned()))
}

/// One attempt at one object.
struct Again<'a> {
    compiler: Compiler<'a>,
    workspace: &'a Workspace,
    cache: &'a Path,
    recorded: &'a Recorded,
    link: &'a Link,
    units: &'a [Unit],
    object: &'a Path,
    progress: &'a dyn Progress,
}

/// Functions of the touched units in both builds, by name.
type Known = BTreeMap<String, Sameness>;

impl Again<'_> {
    fn run(&self, differing: &[String]) -> Result<Attempt> {
        self.progress.step("what the patch changes in the source");
        let Some(known) = self.known()? else { return given_up("a unit does not compile apart from kbuild") };
        let sameness = |name: &str| {
            let base = name.split('.').next().unwrap_or(name);
            known.get(base).copied().unwrap_or(Sameness::Same)
        };
        if !differing.iter().any(|name| sameness(name) == Sameness::Same) {
            return Ok(Attempt::NothingToUndo);
        }
        self.progress.step("what the inliner decides otherwise");
        let mut sides = Vec::new();
        for unit in self.units {
            let Some(found) = self.sides(unit, &sameness)? else {
                return given_up("a unit does not compile apart from kbuild");
            };
            sides.push(found);
        }
        let mut natives = Vec::new();
        for at in 0..self.units.len() {
            match self.backend(at, &sides, &sameness)? {
                Ok(native) => natives.extend(native),
                Err(why) => return given_up(why),
            }
        }
        if natives.is_empty() && sides.iter().all(|unit| unit.replay.is_none()) {
            return Ok(Attempt::NothingToUndo);
        }
        self.progress.step("linking once more");
        match self.relink(&sides, &natives)? {
            Ok(object) => {
                let same = known.into_iter().filter(|(_, found)| *found == Sameness::Same);
                Ok(Attempt::Rebuilt { object, same: same.map(|(name, _)| name).collect() })
            }
            Err(why) => given_up(why),
        }
    }

    /// Which functions of the touched units are the same in both sources.
    fn known(&self) -> Result<Option<Known>> {
        let mut known = Known::new();
        for unit in self.units {
            let text = |side, name: &str| -> Result<Option<String>> {
                let Some(done) = self.compiler.compile(unit, side, Form::Text, name, &[])? else {
                    return Ok(None);
                };
                let text = std::fs::read_to_string(&done.file);
                Ok(Some(text.map_err(|error| Diagnosis::io("read", &done.file, &error))?))
            };
            let (original, patched) =
                both(|| text(Side::Original, "original.ll"), || text(Side::Patched, "patched.ll"));
            let (Some(original), Some(patched)) = (original?, patched?) else { return Ok(None) };
            let (original, patched) = (Module::parse(&original), Module::parse(&patched));
            for name in original.names().chain(patched.names()) {
                let found = same(original.identity(name), patched.identity(name));
                // Statics of one name in two units: both must be the same.
                known.entry(name.to_owned()).and_modify(|old| *old = worse(*old, found)).or_insert(found);
            }
        }
        Ok(Some(known))
    }

    /// Compiles a unit from both sources; finds what its own inliner decides otherwise, and compiles again without it.
    fn sides(&self, unit: &Unit, sameness: &dyn Fn(&str) -> Sameness) -> Result<Option<Sides>> {
        let (original, patched) = both(
            || self.compiler.compile(unit, Side::Original, Form::Bitcode, "original", &[]),
            || self.compiler.compile(unit, Side::Patched, Form::Bitcode, "patched", &[]),
        );
        let (Some(original), Some(patched)) = (original?, patched?) else { return Ok(None) };
        if unit.frozen {
            freeze::apply(&original.file, &patched.file)?;
        }
        let records =
            replay::records(&remarks::parse(&original.output), &remarks::parse(&patched.output), sameness);
        let Some(records) = records else { return Ok(Some(Sides { original, patched, replay: None })) };
        let replay = self.put("compile", &unit.object, &records)?;
        let options = replay::options(&replay.display().to_string());
        let again = self.compiler.compile(unit, Side::Patched, Form::Bitcode, "replayed", &options)?;
        let Some(again) = again else { return Ok(None) };
        // What it offers to other units may be something else with another inlining.
        let frozen = unit.frozen
            && Freezer::new(self.workspace)
                .freeze(&original.file, &again.file, self.compiler.work)?
                .is_some();
        Ok(Some(Sides { original, patched: again, replay: Some((replay, frozen)) }))
    }

    /// Runs the backend of a unit on both sides, and once more where it decides otherwise. The inner error says why the attempt must be
    /// given up.
    fn backend(
        &self,
        at: usize,
        sides: &[Sides],
        sameness: &dyn Fn(&str) -> Sameness,
    ) -> Result<std::result::Result<Option<Native>, &'static str>> {
        let unit = &self.units[at].object;
        let remark = ["-pass-remarks=inline".to_owned()];
        let run = |name: &str, side, llvm: &[String]| self.run_backend(name, unit, sides, side, llvm);
        let (original, patched) =
            both(|| run("original", Side::Original, &remark), || run("patched", Side::Patched, &remark));
        let (Some(original), Some(patched)) = (original?, patched?) else {
            return Ok(Err("a backend does not run apart from the link"));
        };
        if self.cached(&self.workspace.lto_cache(), &original.object)?.is_none() {
            return Ok(Err("a unit of the original does not come out as in the baseline"));
        }
        let (theirs, ours) = (original.output.as_str(), patched.output.as_str());
        let theirs = replay::with_hashes_of(theirs, ours);
        let Some(records) = replay::records(&remarks::parse(&theirs), &remarks::parse(ours), sameness) else {
            return Ok(Ok(None));
        };
        let replay = self.put("backend", unit, &records)?;
        let options = replay::options(&replay.display().to_string());
        let Some(again) = run("replayed", Side::Patched, &options)? else {
            return Ok(Err("a backend does not run with the original's inlining"));
        };
        Ok(Ok(Some(Native { plain: patched.object, replayed: again.object })))
    }

    fn run_backend(
        &self,
        name: &str,
        unit: &str,
        sides: &[Sides],
        side: Side,
        llvm: &[String],
    ) -> Result<Option<Backend>> {
        let with = |sides: &'_ Sides| match side {
            Side::Original => sides.original.file.clone(),
            Side::Patched => sides.patched.file.clone(),
        };
        let files: Vec<PathBuf> = sides.iter().map(with).collect();
        let swaps: Vec<Swap<'_>> =
            self.units.iter().zip(&files).map(|(unit, with)| Swap { unit: &unit.object, with }).collect();
        let output = self.compiler.work.join(format!("backend-{name}")).join(unit);
        let parent = output.parent().unwrap_or(self.compiler.work);
        std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
        let ld = &self.workspace.kernel().toolchain().ld;
        let tools = (ld.as_str(), self.compiler.runner, self.compiler.build);
        self.link.backend(tools, unit, &swaps, llvm, &output)
    }

    /// Runs kbuild's own commands for the object, with the replayed units in the place of the plain ones. The inner
    /// error says why the attempt must be given up.
    fn relink(
        &self,
        sides: &[Sides],
        natives: &[Native],
    ) -> Result<std::result::Result<PathBuf, &'static str>> {
        let cache = self.compiler.work.join("lto-cache");
        let compiled = self.units.iter().zip(sides).filter(|(_, sides)| sides.replay.is_some());
        let stems: Vec<_> = compiled.filter_map(|(unit, _)| Path::new(&unit.object).file_stem()).collect();
        freeze::share(self.cache, &cache, &stems)?;
        let mut own = Vec::new();
        for (unit, sides) in self.units.iter().zip(sides) {
            let Some((replay, frozen)) = &sides.replay else { continue };
            let options = replay::options(&replay.display().to_string());
            let words = options.iter().flat_map(|option| ["-mllvm".to_owned(), option.clone()]).collect();
            if Path::new(&unit.object) == self.object {
                // The record of a module of one file begins with its compilation.
                own = words;
            } else if !self.command(&unit.recorded.commands[0], &words, None)? {
                return Ok(Err("a unit does not compile with the original's inlining"));
            }
            if *frozen {
                freeze::apply(&sides.original.file, &self.compiler.build.join(&unit.object))?;
            }
        }
        // Puts units that were compiled anew into the cache, under keys that only the linker knows.
        if sides.iter().any(|unit| unit.replay.is_some()) && !self.commands(&own, &cache)? {
            return Ok(Err("the link fails with the original's inlining"));
        }
        for native in natives {
            let Some(entry) = self.cached(&cache, &native.plain)? else {
                return Ok(Err("a unit's backend gives another object than the link"));
            };
            // Not through the hard link: the other name's file is the plain result.
            crate::workspace::remove_file(&entry)?;
            copy::file(&native.replayed, &entry, false)
                .map_err(|error| Diagnosis::io("write", &entry, &error))?;
        }
        if !natives.is_empty() && !self.commands(&own, &cache)? {
            return Ok(Err("the link fails with the original's inlining"));
        }
        let made = self.compiler.build.join(self.object);
        let to = self.compiler.work.join(self.object.file_name().unwrap_or_default());
        std::fs::rename(&made, &to).map_err(|error| Diagnosis::io("move", &made, &error))?;
        Ok(Ok(to))
    }

    /// The recorded commands of the object, `own` added to the first.
    fn commands(&self, own: &[String], cache: &Path) -> Result<bool> {
        for (n, words) in self.recorded.commands.iter().enumerate() {
            let further = if n == 0 { own } else { &[] };
            if !self.command(words, further, Some(cache))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn command(&self, words: &[String], further: &[String], cache: Option<&Path>) -> Result<bool> {
        // `./tools/objtool/objtool` is a path from the build tree.
        let program = match Path::new(&words[0]) {
            path if words[0].contains('/') && path.is_relative() => self.compiler.build.join(path),
            path => path.to_owned(),
        };
        let mut call = Call::new(program).dir(self.compiler.build).args(&words[1..]).args(further);
        if let Some(cache) = cache {
            call = call.env(LTO_CACHE, cache);
        }
        let outcome = self.compiler.runner.run(&call)?;
        tracing::debug!(success = outcome.success, ?call, "again");
        Ok(outcome.success)
    }

    /// The entry of a cache that holds this object.
    fn cached(&self, cache: &Path, object: &Path) -> Result<Option<PathBuf>> {
        let fail = |error: std::io::Error| Diagnosis::io("read", cache, &error);
        let wanted = std::fs::read(object).map_err(fail)?;
        for entry in std::fs::read_dir(cache).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            let alike = entry.metadata().is_ok_and(|meta| meta.len() == wanted.len() as u64);
            if alike && native::same(&std::fs::read(&path).map_err(fail)?, &wanted) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn put(&self, step: &str, unit: &str, records: &str) -> Result<PathBuf> {
        let path = self.compiler.work.join(format!("{step}-records")).join(unit).with_extension("txt");
        let parent = path.parent().unwrap_or(self.compiler.work);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, records))
            .map_err(|error| Diagnosis::io("write", &path, &error))?;
        Ok(path)
    }
}

/// A unit's native object, as the plain link has it and with the original's inlining.
struct Native {
    plain: PathBuf,
    replayed: PathBuf,
}

fn same(original: Option<Identity>, patched: Option<Identity>) -> Sameness {
    match (original, patched) {
        (Some(a), Some(b)) if a == b => Sameness::Same,
        (Some(a), Some(b)) if a.attributes == b.attributes => Sameness::Attributes,
        _ => Sameness::Other,
    }
}

fn worse(a: Sameness, b: Sameness) -> Sameness {
    match (a, b) {
        (Sameness::Other, _) | (_, Sameness::Other) => Sameness::Other,
        (Sameness::Attributes, _) | (_, Sameness::Attributes) => Sameness::Attributes,
        _ => Sameness::Same,
    }
}

/// Runs two closures beside each other.
fn both<T: Send>(a: impl FnOnce() -> T + Send, b: impl FnOnce() -> T + Send) -> (T, T) {
    std::thread::scope(|scope| {
        let other = scope.spawn(b);
        let first = a();
        (first, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
