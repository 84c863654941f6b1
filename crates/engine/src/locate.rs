//! Locates the files of the kernel to be patched that the build needs, from the kernel's packages or its build tree.
//! Unpacks the source if it is a tarball.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use klpx_build_driver::packages::{self, KernelFiles, KernelSource};
use klpx_build_driver::process::Runner;
use klpx_build_driver::{KernelOptions, SourceTree, cache};
use klpx_diagnosis::{Diagnosis, Result};

use crate::running::Build;

/// The kernel's files, and the options for the build driver.
pub(crate) struct LocatedKernel {
    pub(crate) files: KernelFiles,
    pub(crate) options: KernelOptions,
}

/// Finds the kernel's files.
pub(crate) fn locate(build: &mut Build<'_>) -> Result<LocatedKernel> {
    let request = build.request;
    let runner = Runner::new();
    let wanted = &request.wanted;
    let files = packages::find(wanted, &runner, build.events)?;
    let source = match &files.source {
        KernelSource::Tree(tree) => tree.path.clone(),
        KernelSource::Tarball(tarball) => {
            let tree = unpacked(&tarball.path, &request.cache_dir, &runner, build)?;
            build.note(&files.check_source(&SourceTree::open(&tree)?)?);
            tree
        }
    };
    build.note(&files.notes);
    let options = KernelOptions {
        source,
        build_dir: files.headers.as_ref().map(|headers| headers.path.clone()),
        config: Some(files.config.path.clone()),
        jobs: request.jobs,
        llvm: request.llvm.clone(),
        cross_compile: request.cross_compile.clone(),
        given: request.given.clone(),
        pinned: files.headers.as_ref().map(|headers| headers.path.clone()),
        release: Some(files.release.clone()),
        lists: request.lists.clone(),
        cache_dir: request.cache_dir.clone(),
    };
    Ok(LocatedKernel { files, options })
}

/// The source tree of a tarball. The cache keeps it under the tarball's path, size and modification time.
fn unpacked(tarball: &Path, cache_dir: &Path, runner: &Runner, build: &Build<'_>) -> Result<PathBuf> {
    let meta = tarball.metadata().map_err(|error| Diagnosis::io("read", tarball, &error))?;
    let identity = format!("{} {} {}.{}", tarball.display(), meta.len(), meta.mtime(), meta.mtime_nsec());
    cache::cached_folder(cache_dir, "unpacked", &identity, |folder| {
        build.events.step(&format!("unpacking {}", tarball.display()));
        packages::unpack(tarball, folder, runner)
    })
}
