//! The patched build: patch the private source, make again, take what differs from the baseline, put the source back.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files;
use crate::kbuild::recorded::module_objects;
use crate::patch::apply::Prepared;
use crate::progress::Progress;
use crate::workspace::baseline::{Baseline, Module, TARGETS, module};
use crate::workspace::remade::Remade;
use crate::workspace::work_dir::WorkDir;
use crate::workspace::{Workspace, journal};

/// One object of the kernel, before and after the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `vmlinux`, or the module's name.
    pub name: String,
    /// The object's path in the build tree.
    pub object: PathBuf,
    /// The object of the original build.
    pub original: PathBuf,
    /// The same after the patch.
    pub patched: PathBuf,
}

/// What the patched build gave that is not the same, byte for byte, as the original. The files lie in a folder of their
/// own, which goes when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Patched {
    /// What differs: vmlinux first, then modules by name.
    pub pairs: Vec<Pair>,
    /// Modules that the baseline does not have.
    pub new_modules: Vec<Module>,
    /// Modules that only the baseline has, by name.
    pub removed_modules: Vec<String>,
    /// Translation units that were compiled for it.
    pub units: u64,
    /// What became of the units that depend on the patch.
    pub remade: Remade,
    work: WorkDir,
}

impl Patched {
    /// True when no object differs.
    pub fn is_unchanged(&self) -> bool {
        self.pairs.is_empty() && self.new_modules.is_empty()
    }

    /// What differs of `vmlinux` or a module.
    pub fn pair(&self, name: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.name == name)
    }

    /// The folder its files lie in; a place for what is made from them.
    pub fn work_dir(&self) -> &Path {
        &self.work.path
    }

    /// Lets the folder outlive this, and the workspace's next use; says where it is.
    pub fn keep(&mut self) -> &Path {
        self.work.keep = true;
        &self.work.path
    }
}

/// This many more units than depend on the patch mean that the build tree was out of date.
const STALE_UNITS: u64 = 32;

impl Workspace {
    /// Builds the patched kernel, and gives what differs from the baseline. The source is original again when this
    /// returns, whatever came of it.
    ///
    /// # Errors
    /// `klpx::patched-source-does-not-compile` with the compiler's own lines; a full disk; an interrupt.
    pub fn patched(
        &self,
        prepared: &Prepared,
        baseline: &Baseline,
        progress: &dyn Progress,
    ) -> Result<Patched> {
        let work = WorkDir::create(&self.dir)?;
        progress.step("building the patched kernel");
        let mut expected = 0;
        let patched = self.while_patched(prepared, |patching| {
            expected = patching.units.len() as u64;
            let units = self.make_patched(patching, progress)?;
            progress.step("taking what differs");
            // The object of a module of one file is among what is taken.
            let build = self.build_dir();
            let (compiled, stale) =
                patching.units.iter().cloned().partition(|unit| patching.is_new(&build.join(unit)));
            let objects = module_objects(&build)?;
            let made = collect(&build, (baseline, &objects), patching, &work.path.join("patched"))?;
            let remade = Remade { compiled, stale };
            Ok(made.against(baseline, (units, remade), work))
        });
        if patched.as_ref().is_ok_and(|patched| patched.units > expected + STALE_UNITS) {
            self.refresh(progress)?;
        }
        patched
    }

    /// The number of units that were compiled.
    fn make_patched(&self, patching: &journal::Patching<'_>, progress: &dyn Progress) -> Result<u64> {
        self.with_make(|make| {
            let built = make.run(&TARGETS, progress, Some(patching.units.len()))?;
            if built.success {
                return Ok(built.units);
            }
            let what = "the patched kernel source does not compile";
            Err(make.failure(&built, "klpx::patched-source-does-not-compile", what, "correct the patch"))
        })
    }
}

/// What a build gave that is not as in the baseline.
struct Made {
    vmlinux_o: Option<PathBuf>,
    /// Sorted by name.
    modules: Vec<Module>,
    new_modules: Vec<Module>,
    removed_modules: Vec<String>,
}

impl Made {
    fn against(self, baseline: &Baseline, (units, remade): (u64, Remade), work: WorkDir) -> Patched {
        let pair = |name: &str, object: &Path, original: &Path, patched: &Path| Pair {
            name: name.to_owned(),
            object: object.to_owned(),
            original: original.to_owned(),
            patched: patched.to_owned(),
        };
        let vmlinux = self
            .vmlinux_o
            .iter()
            .map(|path| pair("vmlinux", Path::new("vmlinux.o"), &baseline.vmlinux_o, path));
        let modules = self.modules.iter().filter_map(|module| {
            let original = baseline.modules.iter().find(|original| original.name == module.name)?;
            Some(pair(&module.name, &module.object_rel, &original.object, &module.object))
        });
        let pairs = vmlinux.chain(modules).collect();
        Patched {
            pairs,
            new_modules: self.new_modules,
            removed_modules: self.removed_modules,
            units,
            remade,
            work,
        }
    }
}

/// Moves what differs from the baseline out of the build tree: of vmlinux and the modules with these objects.
fn collect(
    build: &Path,
    (baseline, objects): (&Baseline, &[PathBuf]),
    patching: &journal::Patching<'_>,
    to: &Path,
) -> Result<Made> {
    let vmlinux = build.join("vmlinux.o");
    let vmlinux_o = if patching.is_new(&vmlinux) && differs(&vmlinux, &baseline.vmlinux_o)? {
        Some(take(build, to, Path::new("vmlinux.o"))?)
    } else {
        None
    };
    let (mut modules, mut new_modules) = (Vec::new(), Vec::new());
    for rel in objects {
        let old = baseline.modules.iter().find(|module| module.object_rel == *rel);
        let path = build.join(rel);
        match old {
            Some(old) if patching.is_new(&path) && differs(&path, &old.object)? => {
                take(build, to, rel)?;
                modules.push(module(to, rel));
            }
            Some(_) => {}
            None => {
                take(build, to, rel)?;
                new_modules.push(module(to, rel));
            }
        }
    }
    modules.sort();
    new_modules.sort();
    let gone = baseline.modules.iter().filter(|module| !objects.contains(&module.object_rel));
    let removed_modules = gone.map(|module| module.name.clone()).collect();
    Ok(Made { vmlinux_o, modules, new_modules, removed_modules })
}

fn differs(new: &Path, old: &Path) -> Result<bool> {
    files::same(new, old).map(|same| !same).map_err(|error| Diagnosis::io("read", new, &error).into())
}

fn take(build: &Path, work: &Path, rel: &Path) -> Result<PathBuf> {
    let (from, to) = (build.join(rel), work.join(rel));
    let parent = to.parent().unwrap_or(work);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    std::fs::rename(&from, &to).map_err(|error| Diagnosis::io("move", &from, &error))?;
    Ok(to)
}
