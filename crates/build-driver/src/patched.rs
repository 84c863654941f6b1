//! The patched build: patch the private source, make again, take what differs from the baseline, put the source back.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::apply::Prepared;
use crate::progress::Progress;
use crate::workspace::{Baseline, Module, TARGETS, Workspace, module, module_objects, now, remove_dir};
use crate::{copy, journal};

/// What the patched build gave that is not the same, byte for byte, as in the baseline. The files lie in a folder of their
/// own, which goes when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Patched {
    /// All of vmlinux after the patch; `None` when it is the baseline's to the byte.
    pub vmlinux_o: Option<PathBuf>,
    /// Modules that differ, sorted by name.
    pub modules: Vec<Module>,
    /// Modules that the baseline does not have.
    pub new_modules: Vec<Module>,
    /// Modules that only the baseline has, by name.
    pub removed_modules: Vec<String>,
    /// Translation units that were compiled for it.
    pub units: u64,
    work: WorkDir,
}

impl Patched {
    /// True when no object differs.
    pub fn is_unchanged(&self) -> bool {
        self.vmlinux_o.is_none() && self.modules.is_empty() && self.new_modules.is_empty()
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

/// A folder that is removed when it is dropped.
#[derive(Debug)]
struct WorkDir {
    path: PathBuf,
    keep: bool,
}

impl WorkDir {
    fn create(workspace: &Path) -> Result<WorkDir> {
        let parent = workspace.join("work");
        std::fs::create_dir_all(&parent).map_err(|error| Diagnosis::io("create", &parent, &error))?;
        let name = format!("{}-{}", now(), std::process::id());
        for n in 0.. {
            let path = parent.join(format!("{name}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(WorkDir { path, keep: false }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Diagnosis::io("create", &path, &error).into()),
            }
        }
        Err(crate::workspace::internal("no free name for a work folder"))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.keep {
            // A file whose presence keeps the folder from being swept at the next opening of the workspace.
            let _ = std::fs::write(self.path.join(KEPT), "");
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Marks a work folder that the user asked to keep.
const KEPT: &str = ".kept";

/// Removes the work folders of runs that ended without doing so.
pub(crate) fn sweep_work(workspace: &Path) -> Result<()> {
    let Ok(listing) = std::fs::read_dir(workspace.join("work")) else { return Ok(()) };
    for entry in listing.flatten().filter(|entry| !entry.path().join(KEPT).exists()) {
        remove_dir(&entry.path())?;
    }
    Ok(())
}

impl Workspace {
    /// Builds the patched kernel and gives what differs from the baseline. The source is original again when this returns,
    /// whatever came of it.
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
        let patching = journal::begin(&self.dir, &prepared.changes);
        let patching = match patching {
            Ok(patching) => patching,
            Err(failure) => {
                journal::recover(&self.dir)?;
                return Err(failure);
            }
        };
        let built = self.make_patched(&patching, progress);
        let patched = built.and_then(|units| {
            progress.step("taking what differs");
            collect(&self.build_dir(), baseline, &patching, work, units)
        });
        patching.end()?;
        patched
    }

    /// Runs make over the patched source; how many units were compiled.
    fn make_patched(&self, patching: &journal::Patching<'_>, progress: &dyn Progress) -> Result<u64> {
        self.with_make(|make| {
            let built = make.run(&TARGETS, progress, Some(patching.expected_units))?;
            if built.success {
                return Ok(built.units);
            }
            Err(make.failure(
                &built,
                "klpx::patched-source-does-not-compile",
                "the patched kernel source does not compile",
                "correct the patch",
            ))
        })
    }
}

/// Moves what differs from the baseline out of the build tree.
fn collect(
    build: &Path,
    baseline: &Baseline,
    patching: &journal::Patching<'_>,
    work: WorkDir,
    units: u64,
) -> Result<Patched> {
    let vmlinux = build.join("vmlinux.o");
    let vmlinux_o = if patching.is_new(&vmlinux) && differs(&vmlinux, &baseline.vmlinux_o)? {
        Some(take(build, &work.path, Path::new("vmlinux.o"))?)
    } else {
        None
    };
    let (mut modules, mut new_modules) = (Vec::new(), Vec::new());
    let objects = module_objects(build)?;
    for rel in &objects {
        let old = baseline.modules.iter().find(|module| module.object_rel == *rel);
        let path = build.join(rel);
        match old {
            Some(old) if patching.is_new(&path) && differs(&path, &old.object)? => {
                take(build, &work.path, rel)?;
                modules.push(module(&work.path, rel));
            }
            Some(_) => {}
            None => {
                take(build, &work.path, rel)?;
                new_modules.push(module(&work.path, rel));
            }
        }
    }
    modules.sort();
    new_modules.sort();
    let gone = baseline.modules.iter().filter(|module| !objects.contains(&module.object_rel));
    let removed_modules = gone.map(|module| module.name.clone()).collect();
    Ok(Patched { vmlinux_o, modules, new_modules, removed_modules, units, work })
}

fn differs(new: &Path, old: &Path) -> Result<bool> {
    copy::same(new, old).map(|same| !same).map_err(|error| Diagnosis::io("read", new, &error).into())
}

fn take(build: &Path, work: &Path, rel: &Path) -> Result<PathBuf> {
    let (from, to) = (build.join(rel), work.join(rel));
    let parent = to.parent().unwrap_or(work);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    std::fs::rename(&from, &to).map_err(|error| Diagnosis::io("move", &from, &error))?;
    Ok(to)
}
