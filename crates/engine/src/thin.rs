//! The pairs of a ThinLTO kernel: for each link of the kernel, the units that the patch reaches, original and patched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use klpx_build_driver::UnitList;
use klpx_build_driver::kbuild::Home;
use klpx_build_driver::{
    AppliedPatch, Remade, TouchedUnit, TouchedUnits, UnitPair, UnitPairs, VMLINUX, Workspace,
};
use klpx_diagnosis::{Result, words};
use klpx_thinlto as thinlto;

use crate::compiled::{CompiledPairs, Work};
use crate::events::Stage;
use crate::inlining::OriginalInlinings;
use crate::overlays::overlays;
use crate::pairs::{PairFiles, UnitOf};
use crate::running::Build;
use crate::{stabilise, units};

/// Compiles what the patch reaches to native code, from both sources.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a AppliedPatch,
) -> Result<CompiledPairs<'a>> {
    let ready = workspace.prepare(build.events)?;
    let list = &ready.units;
    let touched = workspace.touched(prepared, list, build.events)?;
    build.note(touched.notes());
    let count = touched.len();
    let folder = workspace.work_dir()?;
    let units = KernelUnits { workspace, list };
    let links = Links::find(units, prepared, touched, &folder.path().join("added"), build)?;
    let originals = workspace.originals(prepared, &links.plain, &folder, build.events)?;
    build.events.end(&words::plural(count, "unit"));

    build.events.begin(Stage::Patched);
    let mut pairs = match links.plain.is_empty() {
        true => UnitPairs::new(Vec::new(), folder),
        false => workspace.pairs(prepared, originals, folder, build.events)?,
    };
    units::refuse_elsewhere(&pairs.pairs)?;
    let mut files: Vec<PairFiles> = pairs.pairs.iter().flat_map(units::files).collect();
    let mut remade = Remade::default();
    let mut moved = BTreeSet::new();
    remade.compiled.extend(pairs.pairs.iter().map(|pair: &UnitPair| pair.unit.object().into()));
    let work = pairs.work_dir().join("links");
    let overlays = overlays(workspace, prepared, &work)?;
    let context = thinlto::Context::new(workspace);
    let patch = thinlto::PatchContext {
        context: &context,
        list,
        overlays: &overlays,
        level: build.request.level,
        progress: build.events,
    };
    for (object, link) in &links.objects {
        let made = thinlto::prepare(patch, link, &work.join(object))?;
        let name = name_of(object, list);
        stabilise::report_level(&name, &made, build.events, build.results);
        moved.extend(made.moved);
        for pair in made.pairs {
            remade.compiled.push(pair.unit.clone().into());
            files.push(pair_files(&name, pair, units)?);
        }
    }
    build.events.end(&format!("{} compiled", words::plural(files.len(), "unit")));
    if build.request.keep_work {
        build.kept(pairs.keep());
    }
    let originals = OriginalInlinings::new(prepared, workspace.source_dir());
    let (left_out, work) = (Vec::new(), Work::Units(pairs));
    let tree = workspace.source_dir();
    Ok(CompiledPairs { pairs: files, originals, remade, left_out, moved, tree, work, list: None })
}

/// The units of the kernel, and the workspace in which they are compiled.
#[derive(Clone, Copy)]
struct KernelUnits<'a> {
    workspace: &'a Workspace,
    list: &'a UnitList,
}

/// The touched units, by how they become native code.
struct Links {
    /// Links of bitcode, by their output: `vmlinux.o` or a module's object.
    objects: BTreeMap<String, thinlto::TouchedObject>,
    /// Units that are not compiled for LTO.
    plain: TouchedUnits,
}

impl Links {
    /// Finds the links, and puts the bitcode of units that the patch adds into a folder.
    fn find(
        units: KernelUnits<'_>,
        prepared: &AppliedPatch,
        mut touched: TouchedUnits,
        folder: &Path,
        build: &Build<'_>,
    ) -> Result<Links> {
        let KernelUnits { workspace, list } = units;
        let context = thinlto::Context::new(workspace);
        let added = touched.take_added();
        let mut objects = BTreeMap::new();
        for unit in touched.units().iter().chain(&added) {
            for object in linked_to(unit, list) {
                if objects.contains_key(&object) {
                    continue;
                }
                let recorded = workspace.link(&object, list, build.events)?;
                let link = context.link(Path::new(&object), &recorded)?;
                objects.insert(object, thinlto::TouchedObject { link, units: Vec::new(), added: Vec::new() });
            }
        }
        // Only units that belong to a link have been compiled by now.
        let is_linked = |unit: &TouchedUnit| !unit.objects.is_empty();
        let is_thin = |unit: &TouchedUnit| {
            is_linked(unit) && workspace.record(unit).is_ok_and(|record| record.is_thin_unit())
        };
        let (thin, plain) = touched.split(is_thin);
        let mut put = |unit: &TouchedUnit, put: &dyn Fn(&mut thinlto::TouchedObject)| {
            for object in linked_to(unit, list) {
                objects.get_mut(&object).into_iter().for_each(put);
            }
        };
        for unit in &thin {
            let made =
                thinlto::UnitCommands { object: unit.object().to_owned(), recorded: workspace.record(unit)? };
            put(unit, &|link| link.units.push(made.clone()));
        }
        for (unit, recorded) in added.iter().zip(workspace.make_added(prepared, &added, folder)?) {
            let made = thinlto::Added {
                unit: thinlto::UnitCommands { object: unit.object().to_owned(), recorded },
                bitcode: folder.join(unit.object()),
                objtool: unit.objtool.clone(),
            };
            put(unit, &|link| link.added.push(made.clone()));
        }
        objects.retain(|_, link| !link.units.is_empty() || !link.added.is_empty());
        Ok(Links { objects, plain })
    }
}

/// The objects into which a unit is linked: `vmlinux.o`, or modules' objects.
fn linked_to(unit: &TouchedUnit, list: &UnitList) -> Vec<String> {
    match &unit.unit.home {
        Home::Vmlinux => vec![VMLINUX.to_owned()],
        Home::Modules(modules) => modules.iter().map(|&module| list.module(module).object.clone()).collect(),
        Home::Ingredient => Vec::new(),
    }
}

fn pair_files(object: &str, pair: thinlto::NativePair, units: KernelUnits<'_>) -> Result<PairFiles> {
    let KernelUnits { workspace, list } = units;
    let unit = list.by_object(&pair.unit).map(|id| TouchedUnit::from_list(list, id));
    let exports = match &unit {
        Some(unit) if !pair.is_new => workspace.exports(unit)?,
        _ => String::new(),
    };
    Ok(PairFiles {
        object: object.to_owned(),
        witness: None,
        original: pair.original,
        patched: pair.patched,
        unit: Some(UnitOf { path: pair.unit, exports, is_new: pair.is_new }),
    })
}

/// `vmlinux`, or the module's name.
fn name_of(object: &str, list: &UnitList) -> String {
    list.module_by_object(object).map_or_else(|| "vmlinux".to_owned(), |id| list.module(id).name())
}
