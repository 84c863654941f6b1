//! The pairs of a kernel that can't be compiled by units (FullLTO, distributed ThinLTO, ThinLTO without lld):
//! `vmlinux.o` and each changed module's object, from a baseline build of the whole kernel and a patched one.

use std::collections::BTreeSet;

use klpx_build_driver::{AppliedPatch, ObjectPair, Patched, Workspace};
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes, words};

use crate::change_set::unchanged;
use crate::compiled::{CompiledPairs, Work};
use crate::events::Stage;
use crate::holders;
use crate::inlining::OriginalInlinings;
use crate::pairs::PairFiles;
use crate::running::Build;

/// Builds the objects that differ.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a AppliedPatch,
) -> Result<CompiledPairs<'a>> {
    let baseline = workspace.baseline(build.events)?;
    build.events.end(&match baseline.cached {
        true => "cached".to_owned(),
        false => words::plural(baseline.units as usize, "unit"),
    });
    build.events.begin(Stage::Patched);
    let mut originals = OriginalInlinings::begin(prepared, workspace.source_dir(), &baseline.vmlinux_o);
    let mut patched = workspace.patched(prepared, &baseline, build.events)?;
    build.events.end(&format!("{} recompiled", words::plural(patched.units as usize, "unit")));
    if build.request.keep_work {
        build.kept(patched.keep());
    }
    let left_out = holders::uncompared(&patched, &baseline, &mut originals);
    if patched.pairs.is_empty() {
        holders::check(&left_out)?;
    }
    refuse_new_modules(&patched)?;
    if patched.pairs.is_empty() {
        return Err(unchanged());
    }
    Ok(CompiledPairs {
        pairs: patched.pairs.iter().map(files).collect(),
        originals,
        remade: patched.remade.clone(),
        left_out,
        moved: BTreeSet::new(),
        tree: workspace.source_dir(),
        work: Work::Whole(patched),
        list: None,
    })
}

fn files(pair: &ObjectPair) -> PairFiles {
    PairFiles {
        object: pair.name.clone(),
        witness: None,
        original: pair.original.clone(),
        patched: pair.patched.clone(),
        unit: None,
    }
}

fn refuse_new_modules(patched: &Patched) -> Result<()> {
    let added = patched.new_modules.iter().map(|module| {
        Diagnosis::new(
            &codes::NEW_MODULE,
            "the patch adds a module",
            "a livepatch replaces functions of what is there",
            "build and load the new module on its own, and leave it out of the patch",
        )
        .place(DiagnosisPlace::symbol(module.name.clone()))
    });
    Failure::all(added.collect())
}
