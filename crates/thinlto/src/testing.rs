//! A ThinLTO link of a few units, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use klpx_build_driver::RecordedCommands;
use klpx_build_driver::kbuild::{ObjtoolRule, UnitList};
use klpx_build_driver::process::Runner;
use klpx_diagnosis::Result;
use klpx_testkit::{command, need};

use crate::attempt::{Attempt, Chosen};
use crate::differing::DifferingNames;
use crate::link::{Link, LinkInput};
use crate::originals::OriginalsFolder;
use crate::prepare::{Added, ObjectResult, PatchContext, TouchedObject, prepare};
use crate::sides::LinkSides;
use crate::unit::{Overlays, UnitCommands, UnitCompiler, write_overlay};
use crate::{Context, Level};

/// A static function so large that only its single likely caller inlines it.
pub(crate) const WORK: &str = "extern int sink(int);
static int work(int n) {
    int sum = 0;
#define STEP(k) if (sink(n + k)) sum += sink(sum * k) + sink(n ^ k);
#define STEPS(k) STEP(k) STEP(k + 1) STEP(k + 2) STEP(k + 3) STEP(k + 4)
    STEPS(1) STEPS(6) STEPS(11) STEPS(16) STEPS(21) STEPS(26)
    return sum;
}
";

pub(crate) struct Toy {
    root: tempfile::TempDir,
    runner: Runner,
    units: Vec<String>,
    limit: usize,
}

impl Toy {
    /// Compiles units of these names and texts. The link imports functions of up to `limit` instructions.
    pub(crate) fn new(units: &[(&str, &str)], limit: usize) -> Toy {
        for program in ["ld.lld-22", "llvm-ar-22", "llvm-dis-22", "opt-22"] {
            need(program);
        }
        let root = tempfile::tempdir().expect("a folder");
        let names = units.iter().map(|(name, _)| format!("fs/{name}.o")).collect();
        let toy = Toy { root, runner: Runner::new(), units: names, limit };
        for folder in ["src/fs", "build/fs", "new/fs"] {
            std::fs::create_dir_all(toy.path(folder)).expect("a folder");
        }
        for (name, text) in units {
            std::fs::write(toy.path(&format!("src/fs/{name}.c")), text).expect("a file");
            run(&toy.words(name), &toy.path("build"));
        }
        toy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn words(&self, name: &str) -> Vec<String> {
        let source = self.path(&format!("src/fs/{name}.c"));
        // DWARF 4 has no checksums of sources; with checksums, no two builds would have equal bytes.
        let flags = "clang-22 --target=x86_64-linux-gnu -O2 -gdwarf-4 -flto=thin -ffreestanding -fno-pic -mcmodel=kernel -c -o";
        let words = flags.split(' ').map(str::to_owned);
        words.chain([format!("fs/{name}.o"), source.display().to_string()]).collect()
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            runner: &self.runner,
            jobs: 2,
            build: self.path("build"),
            ld: "ld.lld-22".to_owned(),
            ar: "llvm-ar-22".to_owned(),
            readers: ["opt-22".to_owned(), "llvm-dis-22".to_owned()],
            import_limit: self.limit,
            store: self.path("store"),
        }
    }

    pub(crate) fn link(&self) -> Link {
        let limit = format!("-import-instr-limit={}", self.limit);
        let flags = ["-m", "elf_x86_64", "-mllvm", &limit, "-r"];
        Link {
            object: "vmlinux.o".into(),
            flags: flags.map(str::to_owned).to_vec(),
            inputs: self.units.iter().map(|path| LinkInput { path: path.clone(), lazy: false }).collect(),
            script: None,
        }
    }

    /// The link after these units were given other texts.
    pub(crate) fn touched(&self, patched: &[(&str, &str)]) -> TouchedObject {
        let mut shown = Vec::new();
        let mut units = Vec::new();
        for (name, text) in patched {
            let new = self.path(&format!("new/fs/{name}.c"));
            std::fs::write(&new, text).expect("a file");
            shown.push((self.path(&format!("src/fs/{name}.c")), new));
            let recorded = RecordedCommands { commands: vec![self.words(name)] };
            units.push(UnitCommands { object: format!("fs/{name}.o"), recorded });
        }
        write_overlay(&self.path("patched.yaml"), &shown).expect("an overlay");
        TouchedObject { link: self.link(), units, added: Vec::new() }
    }

    /// Chooses compilations of the touched units, and passes them on with all intermediate results.
    pub(crate) fn attempted<R>(
        &self,
        patched: &[(&str, &str)],
        check: impl FnOnce(&Attempt<'_>, &Chosen) -> R,
    ) -> R {
        let (context, touched) = (self.context(), self.touched(patched));
        let (work, overlays) = (self.path("work"), self.overlays());
        let originals = OriginalsFolder::of(&context.store_of(&touched.link.object));
        let attempt = Attempt {
            context: &context,
            sides: &LinkSides::new(&touched.link, BTreeMap::new()),
            units: &touched.units,
            compiler: UnitCompiler {
                runner: &self.runner,
                build: &context.build,
                overlays: &overlays,
                work: &work,
            },
            originals: &originals,
            work: &work,
            level: Level::Inlining,
            progress: &(),
            examined: OnceLock::new(),
        };
        let chosen = attempt.run().expect("units that compile");
        check(&attempt, &chosen)
    }

    fn overlays(&self) -> Overlays {
        Overlays { original: None, patched: Some(self.path("patched.yaml")) }
    }

    /// A unit that only the patched link has.
    pub(crate) fn added(&self, name: &str, text: &str) -> Added {
        std::fs::write(self.path(&format!("src/fs/{name}.c")), text).expect("a file");
        std::fs::create_dir_all(self.path("added/fs")).expect("a folder");
        run(&self.words(name), &self.path("added"));
        let recorded = RecordedCommands { commands: vec![self.words(name)] };
        let object = format!("fs/{name}.o");
        let bitcode = self.path("added").join(&object);
        Added { unit: UnitCommands { object, recorded }, bitcode, objtool: ObjtoolRule::None }
    }

    /// Compiles an original with an additional option, as if something had changed since the kernel was built.
    pub(crate) fn compile_otherwise(&self, name: &str, option: &str) {
        let mut words = self.words(name);
        words.insert(1, option.to_owned());
        run(&words, &self.path("build"));
    }

    pub(crate) fn try_made(&self, touched: &TouchedObject, level: Level) -> Result<ObjectResult> {
        let patch = PatchContext {
            context: &self.context(),
            list: &UnitList::default(),
            overlays: &self.overlays(),
            level,
            progress: &(),
        };
        prepare(patch, touched, &self.path("work"))
    }

    /// The native code of both sides after units were given other texts.
    pub(crate) fn made(&self, patched: &[(&str, &str)], level: Level) -> ObjectResult {
        self.try_made(&self.touched(patched), level).expect("pairs")
    }

    /// The functions that differ in the pairs of [`Toy::made`], by unit.
    pub(crate) fn differing(&self, patched: &[(&str, &str)], level: Level) -> BTreeMap<String, Vec<String>> {
        functions(&self.made(patched, level))
    }

    /// The functions that differ between the original and the patched build of the whole link, sorted.
    pub(crate) fn whole_difference(&self, patched: &[(&str, &str)]) -> Vec<String> {
        let original = self.whole_link(&[], "whole-original");
        let patched = self.whole_link(patched, "whole-patched");
        let differing = DifferingNames::between(&original, &patched).expect("objects");
        differing.functions.into_iter().collect()
    }

    /// Links all units, some of them with other texts, at the same paths.
    fn whole_link(&self, patched: &[(&str, &str)], name: &str) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(folder.join("fs")).expect("a folder");
        for unit in &self.units {
            std::fs::copy(self.path("build").join(unit), folder.join(unit)).expect("a copy");
        }
        for (unit, text) in patched {
            let source = self.path(&format!("src/fs/{unit}.c"));
            let original = std::fs::read(&source).expect("a source");
            std::fs::write(&source, text).expect("a file");
            run(&self.words(unit), &folder);
            std::fs::write(&source, original).expect("a file");
        }
        let link = self.link();
        let inputs = self.units.iter().cloned();
        let words = ["ld.lld-22", "-o", "linked.o"].map(str::to_owned).into_iter();
        run(&words.chain(link.flags).chain(inputs).collect::<Vec<String>>(), &folder);
        folder.join("linked.o")
    }
}

fn run(words: &[String], folder: &Path) {
    klpx_testkit::run(command(&words[0]).args(&words[1..]).current_dir(folder));
}

/// The functions that differ, by unit.
pub(crate) fn functions(made: &ObjectResult) -> BTreeMap<String, Vec<String>> {
    let of = |path: &Path, other: &Path| {
        let differing = DifferingNames::of_unit(path, other, &made.moved).expect("objects");
        differing.functions.into_iter().collect()
    };
    made.pairs.iter().map(|pair| (pair.unit.clone(), of(&pair.original, &pair.patched))).collect()
}
