//! The pairs of a kernel without LTO: the translation units that the patch touches, original and patched.

use std::collections::BTreeSet;

use klpx_build_driver::{AppliedPatch, Remade, UnitPair, Workspace};
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes, words};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;

use crate::compiled::{CompiledPairs, Work};
use crate::events::Stage;
use crate::inlining::OriginalInlinings;
use crate::pairs::{PairFiles, UnitOf};
use crate::running::Build;
use crate::stabilise;

/// Compiles the touched units from both sources.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a AppliedPatch,
) -> Result<CompiledPairs<'a>> {
    let ready = workspace.prepare(build.events)?;
    let touched = workspace.touched(prepared, &ready.units, build.events)?;
    build.note(touched.notes());
    let work = workspace.work_dir()?;
    let originals = workspace.originals(prepared, &touched, &work, build.events)?;
    build.events.end(&words::plural(touched.len(), "unit"));

    build.events.begin(Stage::Patched);
    let mut pairs = workspace.pairs(prepared, originals, work, build.events)?;
    stabilise::single_units(build, workspace, prepared, &mut pairs)?;
    build.events.end(&format!("{} compiled", words::plural(pairs.pairs.len(), "unit")));
    if build.request.keep_work {
        build.kept(pairs.keep());
    }
    refuse_elsewhere(&pairs.pairs)?;
    let compiled = pairs.pairs.iter().map(|pair| pair.unit.object().into()).collect();
    Ok(CompiledPairs {
        pairs: pairs.pairs.iter().flat_map(files).collect(),
        originals: OriginalInlinings::new(prepared, workspace.source_dir()),
        remade: Remade { compiled, ..Remade::default() },
        left_out: Vec::new(),
        moved: BTreeSet::new(),
        tree: workspace.source_dir(),
        work: Work::Units(pairs),
        list: Some(ready.units),
    })
}

/// Refuses a patch that changes code which runs outside the kernel's text: a vdso, a boot image, a hypervisor. Such
/// units are compiled when an edited header changes their text; most of them come out as the same code.
pub(crate) fn refuse_elsewhere(pairs: &[UnitPair]) -> Result<()> {
    let mut faults = Vec::new();
    for pair in pairs.iter().filter(|pair| pair.unit.objects.is_empty()) {
        let (original, patched) = (ElfFile::open(&pair.original)?, ElfFile::open(&pair.patched)?);
        let (original, patched) = (Object::read(&original)?, Object::read(&patched)?);
        if !klpx_diff::compare(&original, &patched).is_empty() {
            faults.push(
                Diagnosis::new(
                    &codes::RUNS_ELSEWHERE,
                    "the patch changes code that is not part of the running kernel's text",
                    "a boot image, a vdso, hypervisor code or a generated header is made of this unit",
                    "leave the part of the patch that reaches this unit out",
                )
                .place(DiagnosisPlace::file(pair.unit.object(), None)),
            );
        }
    }
    Failure::all(faults)
}

/// The files of a pair; a unit of several modules gives one pair for each module.
pub(crate) fn files(pair: &UnitPair) -> impl Iterator<Item = PairFiles> {
    pair.unit.objects.iter().map(|object| PairFiles {
        object: object.clone(),
        witness: pair.witness.clone(),
        original: pair.original.clone(),
        patched: pair.patched.clone(),
        unit: Some(UnitOf {
            path: pair.unit.object().to_owned(),
            exports: pair.exports.clone(),
            is_new: pair.is_new,
        }),
    })
}
