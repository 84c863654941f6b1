//! From a change set to a module: closure, binding to the kernel to be patched, glue, link, verification.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klpx_build_driver::{ModuleText, Workspace};
use klpx_diagnosis::{Diagnosis, Failure, Result};
use klpx_klp_emit::bind::Binding;
use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::closure::{self, Closure, Piece};
use klpx_klp_emit::emit::{self, Emitted};
use klpx_klp_emit::image::{Image, TargetKernel};
use klpx_klp_emit::kernel_binder::KernelBinder;
use klpx_klp_emit::plan::{ComparedUnit, Plan};
use klpx_klp_emit::witness::{Witness, overridden};
use klpx_klp_emit::{export_checks, finish, glue, stand_in};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::notes;
use klpx_normalize::object::ItemId;
use klpx_verify::{KernelFilesTarget, KernelObject, Verified, inspect};

use crate::bound::{self, KernelReference};
use crate::change_set::Analysis;
use crate::code::{self, Code};
use crate::events::Stage;
use crate::finding::{self, ChangeKind, Finding};
use crate::inputs;
use crate::layouts::{self, PairTypes};
use crate::pairs::PairObjects;
use crate::results::{FinishedModule, ObjectFiles, Results, UnitFacts};
use crate::running::Build;
use crate::target::TargetKernelFiles;
use crate::transition;
use klpx_diagnosis::words;

/// Everything from which a module is made.
pub(crate) struct ModuleSource<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) work_dir: &'a Path,
    pub(crate) target: &'a TargetKernelFiles,
    pub(crate) analysis: &'a Analysis,
    pub(crate) objects: &'a [PairObjects<'a>],
    pub(crate) types: &'a PairTypes,
    pub(crate) elsewhere: &'a Elsewhere,
}

/// A module that was linked and finished, and the objects that kbuild compiled for the module itself.
struct LinkedModule<'m> {
    file: &'m ElfFile,
    glue: &'m [PathBuf],
}

/// The kernel's module name for a livepatch.
pub fn kernel_name(name: &str) -> String {
    format!("livepatch-{name}").replace('-', "_")
}

impl ModuleSource<'_> {
    /// Binds, makes and verifies the module.
    pub(crate) fn make(&self, build: &mut Build<'_>) -> Result<FinishedModule> {
        build.events.begin(Stage::Bind);
        let kernel = TargetKernel::open(&self.target.vmlinux, &self.target.symvers, &self.target.modules)?
            .with_debug_modules(&self.target.debug_modules);
        let kernel = match &self.target.external {
            Some(external) => kernel.with_external(&external.file, &external.symvers)?,
            None => kernel,
        };
        let vmlinux = kernel.image("vmlinux")?;
        let modules = self.module_images(&kernel)?;
        let overridden: Vec<BTreeSet<ItemId>> = self
            .objects
            .iter()
            .map(|pair| overridden(&pair.original, image_of(pair.name, &vmlinux, &modules)))
            .collect();
        let units: Vec<ComparedUnit<'_, '_>> = self.units(&overridden);
        let closure = closure::select(&units, self.elsewhere)?;
        let booted = self.report_contents(&closure, build.results);
        if build.request.with_code {
            build.results.code = self.code(&closure, &build.results.changes);
        }
        let allowed = &build.request.allow_layouts;
        let accepted = layouts::check_boot(&booted, allowed)?;
        build.results.accepted_layouts.extend(accepted);
        let bindings: Vec<Binding<'_>> = self
            .objects
            .iter()
            .map(|pair| Binding::new(&pair.original, image_of(pair.name, &vmlinux, &modules)))
            .collect();
        self.witnessed(&closure, &kernel, &bindings, build.results)?;
        let note = layouts::check_kernel(self.objects, self.types, &vmlinux, &modules)?;
        build.note(note.as_slice());
        build.events.end(&bound_text(build.results));

        build.events.begin(Stage::Emit);
        let binder = KernelBinder::new(&kernel, &vmlinux, &bindings);
        let emitted = emit::emit(&closure, &binder)?;
        build.note(&emitted.plan.warnings);
        let name = &build.request.name;
        let images: Vec<&Image<'_>> = std::iter::once(&vmlinux).chain(&modules).collect();
        build.results.transition = transition::waiting(&emitted.plan, &images);
        build.note(&transition::notes(&build.results.transition, &kernel_name(name)));
        let build_id = notes::build_id(&vmlinux.elf);
        build.results.inputs.push(inputs::image(&self.target.vmlinux, build_id));
        let info = build.request.info.records(build_id);
        let options = glue::GlueOptions { replace: build.request.replace, info: &info };
        let (bytes, glue) = self.link(name, options, &emitted)?;
        build.events.end(&format!(
            "{}, {}",
            words::plural(build.results.changes.len(), "function"),
            words::plural(emitted.plan.livepatch_symbols.len(), "livepatch symbol")
        ));

        build.events.begin(Stage::Verify);
        let file = ElfFile::from_bytes(format!("livepatch-{name}.ko"), bytes.clone());
        let units = verified_units(&units);
        if build.request.keep_work {
            build.results.objects = self.objects.iter().zip(&units).map(files_of_unit).collect();
            build.results.kernel_files = Some(self.target.files());
            build.results.glue.clone_from(&glue);
        }
        let (verified, bound) =
            self.verify(LinkedModule { file: &file, glue: &glue }, &kernel, images, &units)?;
        build.results.bound = bound;
        build.events.end(&verified_text(&verified));
        Ok(FinishedModule { bytes, verified })
    }

    /// Verifies the module against every kernel object that it names.
    fn verify(
        &self,
        module: LinkedModule<'_>,
        kernel: &TargetKernel,
        images: Vec<&Image<'_>>,
        units: &[klpx_verify::VerifiedUnit<'_, '_>],
    ) -> Result<(Verified, Vec<KernelReference>)> {
        let symbols = inspect::inspect(module.file)?.symbols;
        let named: BTreeSet<&str> = symbols.iter().map(|symbol| symbol.object.as_str()).collect();
        let others = named.into_iter().filter(|name| images.iter().all(|image| image.object() != *name));
        let others: Vec<Image<'_>> = others.map(|name| kernel.image(name)).collect::<Result<_>>()?;
        let images: Vec<&Image<'_>> = images.into_iter().chain(&others).collect();
        let files: Vec<_> = images.iter().map(|image| |id| image.file_of(id).map(<[u8]>::to_vec)).collect();
        let objects = images.iter().zip(&files).map(|(image, file_of)| KernelObject {
            name: image.object(),
            elf: &image.elf,
            file_of,
        });
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Diagnosis::io("read", path, &e));
        let symvers = read(&self.target.symvers)?;
        let external = self.target.external.as_ref().map_or("", |external| &external.symvers);
        let target = KernelFilesTarget::new(objects.collect(), &[&symvers, external]);
        let glue: Vec<ElfFile> = module.glue.iter().map(|path| ElfFile::open(path)).collect::<Result<_>>()?;
        let glue: Vec<_> = glue.iter().map(ElfFile::parse).collect::<Result<_>>()?;
        let verified = klpx_verify::verify(module.file, &target, units, &glue)?;
        Ok((verified, bound::symbols(&symbols, &target)))
    }

    fn units<'s>(&'s self, overridden: &'s [BTreeSet<ItemId>]) -> Vec<ComparedUnit<'s, 's>> {
        let analysis = self.analysis;
        let known = analysis.edited.iter().zip(&analysis.inlines).zip(overridden);
        let each = self.objects.iter().zip(&analysis.differences).zip(known);
        each.map(|((pair, difference), ((edited, inlines), overridden))| ComparedUnit {
            object_name: pair.name,
            original: &pair.original,
            patched: &pair.patched,
            difference,
            edited: Some(edited),
            inlines: Some(inlines),
            overridden: Some(overridden),
        })
        .collect()
    }

    /// Puts into the results what goes into the module and what does not. Returns what is left out because it ran at
    /// boot.
    fn report_contents(&self, closure: &Closure<'_, '_>, results: &mut Results) -> Vec<Finding> {
        results.changes.clear();
        let mut booted = Vec::new();
        for (n, difference) in self.analysis.differences.iter().enumerate() {
            let each = difference.functions.iter().zip(&self.analysis.findings[n]);
            for (change, finding) in each.filter(|(_, finding)| !finding.is_apart()) {
                match closure.has(n, Piece::Item(change.patched)) {
                    true if closure.helpers[n].contains(&change.patched) => {
                        results.changes.push(helper(finding))
                    }
                    true => results.changes.push(finding.clone()),
                    false => {
                        let patched = &self.objects[n].patched;
                        let section = patched.elf.section_name(patched.item(change.patched).section);
                        let gave_way =
                            change.original.is_some_and(|item| closure.units[n].is_overridden(item));
                        let lifetime = Lifetime::of(section);
                        let left_out = left_out(finding, lifetime, gave_way);
                        if ran_at_boot(finding.kind, lifetime, gave_way) {
                            booted.push(left_out.clone());
                        }
                        results.left_out.push(left_out);
                    }
                }
            }
            let pair = &self.objects[n];
            let changed = |item: ItemId| difference.functions.iter().any(|change| change.patched == item);
            let along = pair.patched.item_ids().filter(|&item| {
                closure.has(n, Piece::Item(item)) && closure.is_replacement(n, item) && !changed(item)
            });
            results.changes.extend(along.map(|item| {
                let constant = closure.users[n].get(&item).copied();
                let callee = closure.calls[n].get(&item).map(String::as_str);
                Finding::user(pair.name, &pair.patched, item, (constant, callee))
            }));
        }
        booted
    }

    /// The code of all functions in the module that `changes` names, and of their unlikely parts.
    fn code(&self, closure: &Closure<'_, '_>, changes: &[Finding]) -> Vec<Code> {
        let names: BTreeSet<(&str, &str)> =
            changes.iter().map(|finding| (finding.object.as_str(), finding.function.as_str())).collect();
        let mut all = Vec::new();
        for (n, (pair, difference)) in self.objects.iter().zip(&self.analysis.differences).enumerate() {
            let held = |&item: &ItemId| pair.patched.item(item).code && closure.has(n, Piece::Item(item));
            for item in pair.patched.item_ids().filter(held) {
                let name = code::whole_name(&finding::name(&pair.patched, item));
                if names.contains(&(pair.name, name.as_str())) {
                    all.push(Code::read(pair, difference, item));
                }
            }
        }
        all
    }

    /// Checks original code against the kernel's. For a unit, every function must be the kernel's. For a whole kernel
    /// object, only the functions to be replaced and what they refer to are checked.
    fn witnessed(
        &self,
        closure: &Closure<'_, '_>,
        kernel: &TargetKernel,
        bindings: &[Binding<'_>],
        results: &mut Results,
    ) -> Result<()> {
        let mut faults = Vec::new();
        for (n, (pair, binding)) in self.objects.iter().zip(bindings).enumerate() {
            let own = pair.witness.as_ref().map(|witness| Binding::new(witness, binding.image()));
            if let Some(unit) = pair.unit.filter(|unit| !unit.is_new) {
                let agreement = Witness::new(own.as_ref().unwrap_or(binding)).check_unit(&unit.path);
                results.units.push(UnitFacts {
                    unit: unit.path.clone(),
                    object: pair.name.to_owned(),
                    equal: agreement.agreed(),
                    explained: agreement.explained.len(),
                });
                faults.extend(agreement.unexplained);
                faults.extend(
                    export_checks::check(&unit.exports, pair.name, kernel.exports())
                        .err()
                        .into_iter()
                        .flatten(),
                );
            }
            let items = closure.witnesses(n);
            match &own {
                Some(own) => faults.extend(stand_in::check(binding, own, &items)),
                None if pair.unit.is_some() => {}
                None => faults.extend(Witness::new(binding).check(&items)),
            }
        }
        Failure::all(faults)
    }

    fn module_images<'k>(&self, kernel: &'k TargetKernel) -> Result<Vec<Image<'k>>> {
        self.objects
            .iter()
            .filter(|pair| pair.name != "vmlinux")
            .map(|pair| kernel.image(pair.name))
            .collect()
    }

    /// Builds the glue with kbuild's commands, links it with the closure, and writes livepatch relocations. Returns the
    /// module and the glue's objects.
    fn link(
        &self,
        name: &str,
        options: glue::GlueOptions<'_>,
        emitted: &Emitted,
    ) -> Result<(Vec<u8>, Vec<PathBuf>)> {
        let module = format!("livepatch-{name}");
        let dir = self.work_dir.join("module");
        std::fs::create_dir_all(&dir).map_err(|e| Diagnosis::io("create", &dir, &e))?;
        let closure = dir.join("klpx-closure.o");
        std::fs::write(&closure, &emitted.object).map_err(|e| Diagnosis::io("write", &closure, &e))?;
        let text = ModuleText {
            stem: glue::GLUE,
            source: &glue::source(&emitted.plan, options),
            empty: &glue::source(&Plan::default(), options),
            kbuild: glue::kbuild,
        };
        let parts = self.workspace.make_module(&dir, &module, text, &self.target.symvers)?;
        let glue = parts.objects.clone();
        let mut objects = parts.objects;
        objects.insert(1.min(objects.len()), closure);
        let linked = dir.join("klpx-linked.ko");
        self.workspace.link_module(&parts.link_flags, &objects, &linked)?;
        Ok((finish::finish(&ElfFile::open(&linked)?)?, glue))
    }
}

/// The units in the form that verification takes.
fn verified_units<'u, 'd>(units: &'u [ComparedUnit<'u, 'd>]) -> Vec<klpx_verify::VerifiedUnit<'u, 'd>> {
    let unit = |unit: &'u ComparedUnit<'u, 'd>| klpx_verify::VerifiedUnit {
        object: unit.object_name,
        original: &unit.original.elf,
        patched: &unit.patched.elf,
        claims: unit.claims(),
        gave_way: unit.gave_way(),
    };
    units.iter().map(unit).collect()
}

/// The files and facts of a unit that verification reads.
fn files_of_unit((objects, unit): (&PairObjects<'_>, &klpx_verify::VerifiedUnit<'_, '_>)) -> ObjectFiles {
    ObjectFiles {
        object: objects.name.to_owned(),
        original: objects.original_path.to_owned(),
        patched: PathBuf::from(objects.patched.name()),
        claims: unit.claims.iter().map(|(symbol, of)| (symbol.0, of.map(|of| of.0))).collect(),
        gave_way: unit.gave_way.iter().map(|symbol| symbol.0).collect(),
    }
}

/// A finding for a changed function that is copied for its callers instead of being replaced.
fn helper(finding: &Finding) -> Finding {
    let why = format!("{}; ftrace can't reach it, its callers are replaced", finding.why);
    Finding { kind: ChangeKind::New, why, ..finding.clone() }
}

/// Returns true for a changed function that ran when the kernel booted. Returns false for a new function, a function
/// that nothing ever runs, and a weak function in whose place the kernel uses another definition.
fn ran_at_boot(kind: ChangeKind, lifetime: Lifetime, gave_way: bool) -> bool {
    kind == ChangeKind::Changed && lifetime == Lifetime::Boot && !gave_way
}

/// A finding for a difference that the module does not contain.
fn left_out(finding: &Finding, lifetime: Lifetime, gave_way: bool) -> Finding {
    let why = match (finding.kind, lifetime) {
        _ if gave_way => "it is weak, and the kernel uses another unit's function of this name",
        (ChangeKind::New, _) => "new, but nothing in the module uses it",
        (_, Lifetime::Removal) => "nothing removes what is built in, so nothing runs it",
        _ => "it ran when the kernel booted and is gone",
    };
    Finding { why: why.to_owned(), ..finding.clone() }
}

fn image_of<'i, 'k>(name: &str, vmlinux: &'i Image<'k>, modules: &'i [Image<'k>]) -> &'i Image<'k> {
    modules.iter().find(|image| image.object() == name).unwrap_or(vmlinux)
}

/// `178 functions of 2 units are the kernel's`.
fn bound_text(results: &Results) -> String {
    let equal = results.units.iter().map(|unit| unit.equal).sum();
    match results.units.len() {
        0 => "what changes is the kernel's".to_owned(),
        units => {
            format!("{} of {} as shipped", words::plural(equal, "function"), words::plural(units, "unit"))
        }
    }
}

fn verified_text(v: &Verified) -> String {
    format!(
        "{} bound, {}, ftrace reaches {} of {}",
        words::plural(v.symbols, "symbol"),
        words::plural(v.relocations, "relocation"),
        v.reachable,
        v.functions
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_function_of_boot_decided_at_boot() {
        assert!(ran_at_boot(ChangeKind::Changed, Lifetime::Boot, false));
        assert!(!ran_at_boot(ChangeKind::Changed, Lifetime::Boot, true));
        assert!(!ran_at_boot(ChangeKind::Changed, Lifetime::Removal, false));
        assert!(!ran_at_boot(ChangeKind::Changed, Lifetime::Kept, false));
        assert!(!ran_at_boot(ChangeKind::New, Lifetime::Boot, false));
    }
}
