//! A unit that Clang compiled without LTO: there is no link, and the inliner runs once. If the patch makes the inliner
//! decide differently about functions that are the same in both sources, the patched unit is compiled again with the
//! original's decisions.

use std::path::{Path, PathBuf};

use klpx_build_driver::each;
use klpx_build_driver::process::Runner;
use klpx_diagnosis::Result;

use crate::ReplayOutcome;
use crate::differing::{self, DifferingNames};
use crate::files;
use crate::llvm::{remarks, replay};
use crate::originals::functions_of;
use crate::sameness::KnownSameness;
use crate::unit::{Compilation, OutputForm, Overlays, SourceSide, UnitCommands, UnitCompiler};

/// A unit and its two native objects after objtool, as they were first compiled.
#[derive(Clone, Copy, Debug)]
pub struct Single<'a> {
    /// The unit.
    pub unit: &'a UnitCommands,
    /// The object from the original source.
    pub original: &'a Path,
    /// The object from the patched source.
    pub patched: &'a Path,
}

/// Where and how single units are compiled.
#[derive(Clone, Copy, Debug)]
pub struct SingleSetup<'a> {
    /// Runs the compiler.
    pub runner: &'a Runner,
    /// The number of parallel compilations.
    pub jobs: usize,
    /// The build tree.
    pub build: &'a Path,
    /// The overlays for the two sources.
    pub overlays: &'a Overlays,
    /// The folder for results.
    pub work: &'a Path,
}

/// Compiles one side of a unit to a finished object at a path, with additional words for the compiler. Returns the
/// lines that the compiler printed; `None` if it fails.
pub type Finish<'a> = dyn Fn(SourceSide, &Path, &[String]) -> Result<Option<Vec<String>>> + Sync + 'a;

/// Brings a patched unit nearer to its original by replaying the original's inlining. Returns the object to take
/// instead of the patched one, if there is a nearer one, and the outcome. `None` if there is nothing to undo.
///
/// # Errors
/// Fails if a source does not compile to LLVM IR, if a file can't be read or written, or on an interrupt.
pub fn with_inlining(
    single: &Single<'_>,
    place: &SingleSetup<'_>,
    finish: &Finish<'_>,
) -> Result<Option<(Option<PathBuf>, ReplayOutcome)>> {
    let plain = DifferingNames::between(single.original, single.patched)?;
    let count = plain.functions.len();
    // A change affects at least one function, so one differing function leaves nothing to undo.
    if count < 2 {
        return Ok(None);
    }
    let outcome = |taken: usize, given_up: Option<&str>| ReplayOutcome {
        object: PathBuf::from(&single.unit.object),
        plain: count,
        taken,
        given_up: given_up.map(str::to_owned),
    };
    let given_up = |why: &str| Ok(Some((None, outcome(count, Some(why)))));
    let Some([original, patched]) = again(single, place, finish)? else {
        return given_up("the unit does not come out the same when it is compiled again");
    };
    let known = sameness_of_functions(single.unit, place)?;
    let original_inlining = remarks::parse(&original.output);
    let Some(records) = replay::records(&original_inlining, &remarks::parse(&patched.output), &known) else {
        return Ok(None);
    };
    let folder = place.work.join("replayed");
    let (records_file, object) = (folder.join("records.txt"), folder.join(&single.unit.object));
    files::create_dir(&folder)?;
    files::write(&records_file, records)?;
    let options = replay::options(&records_file.display().to_string());
    let options: Vec<String> = options.into_iter().flat_map(|option| ["-mllvm".to_owned(), option]).collect();
    if finish(SourceSide::Patched, &object, &options)?.is_none() {
        return given_up("the compiler does not finish with the original's inlining");
    }
    let nearer = DifferingNames::between(single.original, &object)?;
    let holders = differing::holders(original_inlining, |name| known.is_same(name));
    if differing::spared(&plain, &nearer, &holders).is_some() {
        let taken = nearer.functions.len();
        return Ok(Some((Some(object), outcome(taken, None))));
    }
    given_up(match nearer.is_nearer_than(&plain) {
        true => "it would leave out a function that inlined what the patch changes",
        false => "the original's inlining brings it no nearer",
    })
}

/// Compiles both sides again with the inliner's remarks. Returns `None` if an object differs from the first
/// compilation.
fn again(
    single: &Single<'_>,
    place: &SingleSetup<'_>,
    finish: &Finish<'_>,
) -> Result<Option<[Compilation; 2]>> {
    let sides = [(SourceSide::Original, single.original), (SourceSide::Patched, single.patched)];
    let compiled = each(place.jobs, sides.len(), |at| -> Result<Option<Compilation>> {
        let (side, first) = sides[at];
        let file = place.work.join("again").join(side.name()).join(&single.unit.object);
        let lines = finish(side, &file, &["-Rpass=inline".to_owned()])?;
        let Some(lines) = lines else { return Ok(None) };
        let same = files::read(&file)? == files::read(first)?;
        tracing::debug!(unit = single.unit.object, ?side, same, "compiled again");
        Ok(same.then(|| Compilation { file, output: lines.join("\n") }))
    });
    let compiled: Result<Option<Vec<Compilation>>> = compiled.into_iter().collect();
    Ok(compiled?.and_then(|both| both.try_into().ok()))
}

/// Which functions are the same in both sources.
fn sameness_of_functions(unit: &UnitCommands, place: &SingleSetup<'_>) -> Result<KnownSameness> {
    let compiler =
        UnitCompiler { runner: place.runner, build: place.build, overlays: place.overlays, work: place.work };
    let sides = [SourceSide::Original, SourceSide::Patched];
    let functions = each(place.jobs, sides.len(), |at| {
        functions_of(&compiler.compile(unit, sides[at], OutputForm::Text, sides[at].name())?.file)
    });
    let functions = functions.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(KnownSameness::compare([(&functions[0], &functions[1])].into_iter()))
}

#[cfg(test)]
mod tests {
    use klpx_build_driver::RecordedCommands;
    use klpx_testkit::command;

    use super::*;
    use crate::testing::WORK;
    use crate::unit::write_overlay;

    /// The only caller of [`WORK`], and a function with a holder of its copy.
    const CALLERS: &str = "int entry(int n) {
    if (n > 1000)
        return -1;
    return work(n);
}
int leaf(int n) { return n * 3; }
int holder(int n) { return sink(leaf(n)); }
";

    fn original() -> String {
        format!("{WORK}{CALLERS}")
    }

    /// Makes the call of `work` unlikely.
    fn unlikely(text: &str) -> String {
        text.replace("n > 1000", "n == 5 || __builtin_expect(n < 1000, 1)")
    }

    struct Folder {
        root: tempfile::TempDir,
        runner: Runner,
        overlays: Overlays,
        unit: UnitCommands,
    }

    /// How compilations with the original's inlining end.
    #[derive(Clone, Copy, PartialEq)]
    enum Replay {
        Usual,
        Fails,
        /// The compiler gives the original's object, as if it ignored the edit.
        Original,
    }

    impl Folder {
        fn new(patched: &str) -> Folder {
            let root = tempfile::tempdir().expect("a folder");
            let path = |name: &str| root.path().join(name);
            for (name, text) in [("a.c", &*original()), ("new.c", patched)] {
                std::fs::write(path(name), text).expect("a file");
            }
            write_overlay(&path("patched.yaml"), &[(path("a.c"), path("new.c"))]).expect("an overlay");
            let overlays = Overlays { original: None, patched: Some(path("patched.yaml")) };
            let words = "clang-22 -O2 -g -ffreestanding -c -o a.o".split(' ').map(str::to_owned);
            let words = words.chain([path("a.c").display().to_string()]).collect();
            let unit = UnitCommands {
                object: "a.o".to_owned(),
                recorded: RecordedCommands { commands: vec![words] },
            };
            Folder { runner: Runner::new(), overlays, unit, root }
        }

        fn compile(&self, side: SourceSide, to: &Path, more: &[String]) -> Vec<String> {
            let words = self.unit.recorded.compilation().expect("words");
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            let mut clang = command(&words[0]);
            clang.args(words[1..].iter().filter(|word| *word != "a.o" && *word != "-o"));
            let more = self.overlays.options(side).into_iter().chain(more.iter().cloned());
            let done = clang.args(more).arg("-o").arg(to).output().expect("clang runs");
            assert!(done.status.success(), "{done:?}");
            String::from_utf8_lossy(&done.stderr).lines().map(str::to_owned).collect()
        }

        /// Compiles a unit's two objects with these words, and returns the object that is taken, and the outcome.
        fn with_inlining(
            &self,
            words: [&str; 2],
            replay: Replay,
        ) -> Option<(Option<PathBuf>, ReplayOutcome)> {
            let path = |name: &str| self.root.path().join(name);
            let (original, patched) = (path("original.o"), path("patched.o"));
            self.compile(SourceSide::Original, &original, &[words[0].to_owned()]);
            self.compile(SourceSide::Patched, &patched, &[words[1].to_owned()]);
            let finish = |side: SourceSide, to: &Path, more: &[String]| {
                let replayed = more.iter().any(|word| word.contains("replay"));
                Ok(match replay {
                    Replay::Fails if replayed => None,
                    Replay::Original if replayed => Some(self.compile(SourceSide::Original, to, more)),
                    _ => Some(self.compile(side, to, more)),
                })
            };
            let (work, build) = (path("work"), self.root.path());
            let place =
                SingleSetup { runner: &self.runner, jobs: 2, build, overlays: &self.overlays, work: &work };
            let single = Single { unit: &self.unit, original: &original, patched: &patched };
            super::with_inlining(&single, &place, &finish).expect("no failure")
        }

        /// The outcome in numbers and words: functions of the plain build, of the chosen build, and why the replay was
        /// given up.
        fn told(&self, words: [&str; 2], replay: Replay) -> Option<(usize, usize, String)> {
            let (object, outcome) = self.with_inlining(words, replay)?;
            assert_eq!(object.is_some(), outcome.given_up.is_none());
            Some((outcome.plain, outcome.taken, outcome.given_up.unwrap_or_default()))
        }
    }

    const AS_IT_IS: [&str; 2] = ["-Wall"; 2];

    #[test]
    fn a_flip_is_undone() {
        let folder = Folder::new(&unlikely(&original()));
        let (object, outcome) = folder.with_inlining(AS_IT_IS, Replay::Usual).expect("a flip");
        assert_eq!((outcome.plain, outcome.taken, outcome.given_up), (2, 1, None));
        let original = folder.root.path().join("original.o");
        let differing = DifferingNames::between(&original, &object.expect("an object")).expect("objects");
        assert_eq!(differing.functions.into_iter().collect::<Vec<_>>(), ["entry"]);
    }

    #[test]
    fn without_a_flip_nothing_is_done() {
        for (from, to) in [("return -1", "return -2"), ("n * 3", "n * 5")] {
            assert_eq!(
                Folder::new(&original().replace(from, to)).told(AS_IT_IS, Replay::Usual),
                None,
                "{to}"
            );
        }
    }

    #[test]
    fn a_unit_that_does_not_come_out_the_same_again_is_left_alone() {
        let folder = Folder::new(&unlikely(&original()));
        for words in [["-gdwarf-4", "-Wall"], ["-Wall", "-gdwarf-4"]] {
            let (plain, taken, why) = folder.told(words, Replay::Usual).expect("an attempt");
            assert_eq!((plain, taken), (2, 2));
            assert!(why.contains("does not come out the same"), "{why}");
        }
    }

    #[test]
    fn a_compiler_that_fails_or_passes_over_the_edit_is_not_followed() {
        let folder = Folder::new(&unlikely(&original()).replace("n * 3", "n * 5"));
        let told = |replay| folder.told(AS_IT_IS, replay).expect("an attempt");
        assert_eq!(told(Replay::Usual), (4, 3, String::new()), "work is spared");
        let (plain, taken, why) = told(Replay::Fails);
        assert_eq!((plain, taken), (4, 4));
        assert!(why.contains("does not finish"), "{why}");
        let (plain, taken, why) = told(Replay::Original);
        assert_eq!((plain, taken), (4, 4));
        assert!(why.contains("leave out a function that inlined"), "{why}");
    }
}
