//! Runs the stages of a build in their order.

use std::collections::BTreeMap;

use klpx_build_driver::packages::KernelFiles;
use klpx_build_driver::{AppliedPatch, PatchSet, PatchableKernel, Workspace};
use klpx_diagnosis::{Note, Result, codes, words};
use klpx_klp_emit::callers::Elsewhere;

use crate::change_set::Analysis;
use crate::compiled::CompiledPairs;
use crate::elsewhere::SearchedKernel;
use crate::events::{Events, Stage};
use crate::holders::{self, LeftOut, Unaffected};
use crate::layouts::PairTypes;
use crate::locate::{self, LocatedKernel};
use crate::module::ModuleSource;
use crate::pairs::PairFiles;
use crate::request::Request;
use crate::results::{FinishedModule, KernelFacts, ObjectFiles, Results};
use crate::running::Build;
use crate::sign::{self, ModuleSigner};
use crate::target::TargetKernelFiles;
use crate::{elsewhere, external, inputs, pairs, places, thin, units, whole};

/// Builds a livepatch module and checks it. `results` keeps what was found even when the build fails.
///
/// # Errors
/// Returns whatever makes the module impossible, or shows that the module would be wrong.
pub fn build(request: &Request, events: &dyn Events, results: &mut Results) -> Result<FinishedModule> {
    Build { request, events, results }.run()
}

impl Build<'_> {
    fn run(&mut self) -> Result<FinishedModule> {
        let (kernel, prepared, files) = self.preflight()?;
        let mut target = TargetKernelFiles::new(&files, &kernel);
        let request = self.request;
        let headers = files.headers.as_ref().map(|headers| headers.path.as_path());
        let signer =
            request.signing.as_ref().map(|signing| ModuleSigner::new(signing, headers, kernel.config()));
        let signer = signer.transpose()?;
        // Another klpx may hold the workspace; only a stage that has begun can show this.
        self.events.begin(Stage::Original);
        let workspace = Workspace::open(&kernel, self.events)?;
        let mut compiled = match (&request.external, kernel.is_thin(), kernel.is_of_units()) {
            (Some(external), ..) => external::compile(self, &workspace, &prepared, external, &mut target)?,
            (None, true, _) => thin::compile(self, &workspace, &prepared)?,
            (None, _, true) => units::compile(self, &workspace, &prepared)?,
            (None, _, false) => whole::compile(self, &workspace, &prepared)?,
        };
        if self.request.keep_work {
            self.results.objects = compiled.pairs.iter().map(object_files).collect();
        }

        self.events.begin(Stage::Analysis);
        let mut elsewhere = Elsewhere::new();
        let folders = [compiled.tree.clone(), workspace.source_dir()];
        loop {
            let files = pairs::open(&compiled.pairs)?;
            let objects = pairs::read(&files, &folders)?;
            let analysis = Analysis::new(&objects, &mut compiled);
            if let Some(list) = &compiled.list {
                let searched = SearchedKernel { workspace: &workspace, list, target: &target };
                let missing = elsewhere::missing_units(self, &searched, &objects, &analysis, &mut elsewhere)?;
                if !missing.is_empty() {
                    let pairs = workspace.untouched_pairs(&missing, self.events)?;
                    compiled.pairs.extend(pairs.iter().flat_map(units::files));
                    continue;
                }
            }
            self.events.end(&analysis.summary());
            self.results.changes = analysis.findings.concat();
            self.report_holders(&analysis, &compiled)?;
            let with_lines = |failure| places::complete(failure, &objects, &compiled.tree);
            analysis.check().map_err(with_lines)?;
            let types = PairTypes::read(&objects, &analysis, &compiled.tree)?;
            self.results.accepted_layouts = types.check(&self.request.allow_layouts)?;

            let work_dir = compiled.work.dir();
            let (workspace, target, analysis, objects) = (&workspace, &target, &analysis, &objects);
            let (types, elsewhere) = (&types, &elsewhere);
            let source = ModuleSource { workspace, work_dir, target, analysis, objects, types, elsewhere };
            let mut made = source.make(self).map_err(with_lines)?;
            match signer {
                Some(signer) => made.bytes = signer.sign(&made.bytes, work_dir)?,
                None => self.note(sign::note(kernel.config()).as_slice()),
            }
            return Ok(made);
        }
    }

    /// Reports functions that inline what the patch edits and are not replaced. Stops if one of them should be
    /// replaced.
    fn report_holders(&mut self, analysis: &Analysis, compiled: &CompiledPairs<'_>) -> Result<()> {
        let others = || analysis.others.iter();
        let unaffected: Vec<Unaffected> =
            others().flat_map(|others| others.unaffected.iter().cloned()).collect();
        let left_out: Vec<LeftOut> =
            (compiled.left_out.iter()).chain(others().flat_map(|others| &others.left_out)).cloned().collect();
        let own = [holders::remark(&unaffected), holders::stale(&compiled.remade)].into_iter().flatten();
        let notes: Vec<Note> = own.chain(compiled.originals.notes().iter().cloned()).collect();
        self.note(&notes);
        self.results.unaffected = unaffected;
        holders::check(&left_out)
    }

    fn preflight(&mut self) -> Result<(PatchableKernel, AppliedPatch, KernelFiles)> {
        self.events.begin(Stage::Preflight);
        // Checks that take no time come first.
        let patches = PatchSet::read(&self.request.patches)?;
        let LocatedKernel { files, options } = locate::locate(self)?;
        let kernel = PatchableKernel::open(&options)?;
        TargetKernelFiles::new(&files, &kernel).check()?;
        if self.request.with_code {
            self.results.patches = patches.texts().map(<[u8]>::to_vec).collect();
        }
        self.results.inputs = inputs::inputs_before_build(self.request, &patches, &files, &kernel)?;
        let prepared = match &self.request.external {
            Some(external) => patches.preflight_in(&external.source, &kernel, self.request.fuzz)?,
            None => patches.preflight(&kernel, self.request.fuzz)?,
        };
        self.results.kernel = Some(KernelFacts {
            release: kernel.release().to_owned(),
            arch: kernel.arch().name().to_owned(),
            compiler: kernel.toolchain().describe(),
            make: kernel.given().variables().iter().map(ToString::to_string).collect(),
            key: kernel.key().to_owned(),
        });
        self.events.end(&format!(
            "{}, {} · {}",
            words::plural(prepared.files(), "file"),
            words::plural(prepared.hunks(), "hunk"),
            kernel.describe()
        ));
        self.note(kernel.notes());
        self.note(prepared.notes());
        self.note(kernel.units_with_lists().map(lists).as_slice());
        Ok((kernel, prepared, files))
    }
}

fn lists(units: usize) -> Note {
    let lists = words::plural(units, "list");
    let text = format!("both sources are compiled with the kernel's {lists} of what not to inline");
    Note::new(&codes::INLINING_LISTS, text)
}

fn object_files(pair: &PairFiles) -> ObjectFiles {
    ObjectFiles {
        object: pair.object.clone(),
        original: pair.original.clone(),
        patched: pair.patched.clone(),
        claims: BTreeMap::new(),
        gave_way: Vec::new(),
    }
}
