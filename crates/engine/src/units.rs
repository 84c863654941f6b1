//! The pairs of a kernel without LTO: the translation units that the patch touches, original and patched.

use klpx_build_driver::{Prepared, Remade, UnitPair, Workspace};
use klpx_diagnosis::{Result, words};

use crate::build::{Build, Compiled, Work};
use crate::change_set::PairFiles;
use crate::events::Stage;
use crate::inlining::Originals;

/// Compiles the touched units from both sources.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a Prepared,
) -> Result<Compiled<'a>> {
    build.events.begin(Stage::Original);
    let ready = workspace.prepare(build.events)?;
    let touched = workspace.touched(prepared, &ready.units, build.events)?;
    build.note(touched.notes());
    let originals = workspace.originals(&touched, build.events)?;
    build.events.end(&words::plural(touched.len(), "unit"));

    build.events.begin(Stage::Patched);
    let mut pairs = workspace.pairs(prepared, &touched, originals, build.events)?;
    build.events.end(&format!("{} compiled", words::plural(pairs.pairs.len(), "unit")));
    if build.request.keep_work {
        build.kept(&pairs.keep().to_owned());
    }
    let compiled = pairs.pairs.iter().map(|pair| pair.unit.object().into()).collect();
    Ok(Compiled {
        pairs: pairs.pairs.iter().flat_map(files).collect(),
        originals: Originals::new(prepared, workspace.source_dir()),
        remade: Remade { compiled, ..Remade::default() },
        left_out: Vec::new(),
        work: Work::Units(pairs),
    })
}

/// A unit that several modules have is a pair of each.
fn files(pair: &UnitPair) -> impl Iterator<Item = PairFiles> {
    pair.unit.objects.iter().map(|object| PairFiles {
        object: object.clone(),
        witness: pair.witness.clone(),
        original: pair.original.clone(),
        patched: pair.patched.clone(),
    })
}
