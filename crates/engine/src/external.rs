//! The pairs of an external module: the module's units that the patch changes, from both sources.

use std::collections::BTreeSet;
use std::path::Path;

use klpx_build_driver::{AppliedPatch, ExternalPair, ExternalSource, Remade, Workspace};
use klpx_diagnosis::{Diagnosis, Result, words};
use klpx_klp_emit::image::module_name;

use crate::compiled::{CompiledPairs, Work};
use crate::events::Stage;
use crate::inlining::OriginalInlinings;
use crate::pairs::{PairFiles, UnitOf};
use crate::request::ExternalModule;
use crate::running::Build;
use crate::target::{self, TargetKernelFiles};

/// Lets kbuild build the module from both sources.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a AppliedPatch,
    external: &ExternalModule,
    target: &mut TargetKernelFiles,
) -> Result<CompiledPairs<'a>> {
    workspace.prepare(build.events)?;
    let module = module_name(&external.file);
    let source = ExternalSource { folder: external.source.clone(), module: module.clone() };
    let mut made = workspace.external_pairs(&source, prepared, &target.symvers, build.events)?;
    build.events.end(&format!("the module {module}"));
    build.events.begin(Stage::Patched);
    build.events.end(&format!("{} differ", words::plural(made.pairs.len(), "unit")));
    if build.request.keep_work {
        build.kept(made.keep());
    }
    let symvers = std::fs::read_to_string(&made.symvers)
        .map_err(|error| Diagnosis::io("read", &made.symvers, &error))?;
    target.external = Some(target::TargetModule { file: external.file.clone(), symvers });
    target.modules.extend(external.file.parent().map(Path::to_owned));
    let tree = made.source.clone();
    Ok(CompiledPairs {
        pairs: made.pairs.iter().map(|pair| files(&module, pair)).collect(),
        originals: OriginalInlinings::new(prepared, tree.clone()),
        remade: Remade {
            compiled: made.pairs.iter().map(|pair| pair.unit.clone().into()).collect(),
            ..Remade::default()
        },
        left_out: Vec::new(),
        moved: BTreeSet::new(),
        tree,
        work: Work::External(made),
        list: None,
    })
}

fn files(module: &str, pair: &ExternalPair) -> PairFiles {
    PairFiles {
        object: module.to_owned(),
        witness: pair.witness.clone(),
        original: pair.original.clone(),
        patched: pair.patched.clone(),
        unit: Some(UnitOf { path: pair.unit.clone(), exports: pair.exports.clone(), is_new: false }),
    }
}
