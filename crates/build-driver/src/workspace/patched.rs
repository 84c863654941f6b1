//! The patched build: patches the private source, runs make, takes the objects that differ from the baseline, and
//! restores the source.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::files;
use crate::kbuild::recorded::module_objects;
use crate::patch::AppliedPatch;
use crate::progress::Progress;
use crate::workspace::baseline::{Baseline, BaselineModule, TARGETS, module};
use crate::workspace::remade::Remade;
use crate::workspace::work_dir::WorkDir;
use crate::workspace::{Workspace, journal};

/// One object of the kernel, before and after the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPair {
    /// `vmlinux`, or the module's name.
    pub name: String,
    /// The object's path in the build tree.
    pub object: PathBuf,
    /// The object of the original build.
    pub original: PathBuf,
    /// The object of the patched build.
    pub patched: PathBuf,
}

/// The objects of the patched build that differ from the original in any byte. The files lie in their own folder, which
/// is removed when this value is dropped, unless it is kept.
#[derive(Debug)]
pub struct Patched {
    /// The differing objects: vmlinux first, then modules by name.
    pub pairs: Vec<ObjectPair>,
    /// Modules that only the patched build has.
    pub new_modules: Vec<BaselineModule>,
    /// Names of modules that only the baseline has.
    pub removed_modules: Vec<String>,
    /// The number of translation units that the patched build compiled.
    pub units: u64,
    /// Which units that depend on the patch were rebuilt.
    pub remade: Remade,
    work: WorkDir,
}

impl Patched {
    /// Returns true if no object differs.
    pub fn is_unchanged(&self) -> bool {
        self.pairs.is_empty() && self.new_modules.is_empty()
    }

    /// The pair of `vmlinux` or a module, if its object differs.
    pub fn pair(&self, name: &str) -> Option<&ObjectPair> {
        self.pairs.iter().find(|pair| pair.name == name)
    }

    /// The folder of the objects, for further files that are made from them.
    pub fn work_dir(&self) -> &Path {
        &self.work.path
    }

    /// Keeps the folder when this value is dropped and when the workspace is used again. Returns its path.
    pub fn keep(&mut self) -> &Path {
        self.work.keep = true;
        &self.work.path
    }
}

/// If make compiles this many more units than depend on the patch, the build tree was out of date.
const STALE_UNITS: u64 = 32;

impl Workspace {
    /// Builds the patched kernel and returns the objects that differ from the baseline. The source is original again
    /// when this returns, even after a failure.
    ///
    /// # Errors
    /// `klpx::patched-source-does-not-compile` with the compiler's lines, a full disk, an interrupt.
    pub fn patched(
        &self,
        prepared: &AppliedPatch,
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
            // For a module of one file, the unit's object is the module's object, which `collect` moves away.
            let build = self.build_dir();
            let (compiled, stale) =
                patching.units.iter().cloned().partition(|unit| patching.is_new(&build.join(unit)));
            let objects = module_objects(&build)?;
            let made = collect(&build, baseline, &objects, patching, &work.path.join("patched"))?;
            let remade = Remade { compiled, stale };
            Ok(made.against(baseline, units, remade, work))
        });
        if patched.as_ref().is_ok_and(|patched| patched.units > expected + STALE_UNITS) {
            self.refresh(progress)?;
        }
        patched
    }

    /// Builds the patched source. Returns the number of compiled units.
    fn make_patched(&self, patching: &journal::Patching<'_>, progress: &dyn Progress) -> Result<u64> {
        self.with_make(|make| {
            let built = make.run(&TARGETS, progress, Some(patching.units.len()))?;
            if built.success {
                return Ok(built.units);
            }
            let what = "the patched kernel source does not compile";
            Err(make.failure(&built, &codes::PATCHED_SOURCE_DOES_NOT_COMPILE, what, "correct the patch"))
        })
    }
}

/// The objects of a build that differ from the baseline.
struct PatchedObjects {
    vmlinux_o: Option<PathBuf>,
    /// Sorted by name.
    modules: Vec<BaselineModule>,
    new_modules: Vec<BaselineModule>,
    removed_modules: Vec<String>,
}

impl PatchedObjects {
    fn against(self, baseline: &Baseline, units: u64, remade: Remade, work: WorkDir) -> Patched {
        let pair = |name: &str, object: &Path, original: &Path, patched: &Path| ObjectPair {
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

/// Moves the objects that differ from the baseline out of the build tree. `objects` are the objects of the modules.
fn collect(
    build: &Path,
    baseline: &Baseline,
    objects: &[PathBuf],
    patching: &journal::Patching<'_>,
    to: &Path,
) -> Result<PatchedObjects> {
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
    Ok(PatchedObjects { vmlinux_o, modules, new_modules, removed_modules })
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
