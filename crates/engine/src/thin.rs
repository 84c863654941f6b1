//! The pairs of a ThinLTO kernel: the units that the patch reaches in each link of the kernel, original and patched.

use std::collections::BTreeMap;
use std::path::Path;

use klpx_build_driver::kbuild::{Home, UnitList};
use klpx_build_driver::{Prepared, Remade, Touched, TouchedUnit, UnitPair, UnitPairs, VMLINUX, WorkDir, Workspace};
use klpx_diagnosis::{Class, Diagnosis, Place, Result, words};
use klpx_thinlto as thinlto;

use crate::build::{Build, Compiled, Work};
use crate::change_set::PairFiles;
use crate::events::Stage;
use crate::inlining::Originals;
use crate::stabilise;

/// Makes native code of what the patch reaches, from both sources.
pub(crate) fn compile<'a>(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &'a Prepared,
) -> Result<Compiled<'a>> {
    build.events.begin(Stage::Original);
    let ready = workspace.prepare(build.events)?;
    let touched = workspace.touched(prepared, &ready.units, build.events)?;
    build.note(touched.notes());
    let context = thinlto::Context::of(workspace);
    let objects = objects(&touched, &ready.units)?;
    let mut links = Vec::new();
    for (object, units) in &objects {
        let recorded = workspace.link(object, &ready.units, build.events)?;
        let link = thinlto::Link::of(&context, Path::new(object), &recorded)?;
        links.push(thinlto::Touched { link, units: linked_units(workspace, units)? });
    }
    build.events.end(&words::plural(touched.len(), "unit"));

    build.events.begin(Stage::Patched);
    let work = workspace.work_dir()?;
    let overlays = overlays(workspace, prepared, &work)?;
    let mut made = Vec::new();
    for ((object, units), link) in objects.iter().zip(&links) {
        let folder = work.path().join(object);
        let level = build.request.level;
        let found =
            thinlto::prepare(&context, (link, &ready.units), &overlays, level, &folder, build.events)?;
        made.push((object.as_str(), units.as_slice(), found));
    }
    compiled(build, (workspace, prepared), &ready.units, made, work)
}

/// The pairs of all objects.
fn compiled<'a>(
    build: &mut Build<'_>,
    (workspace, prepared): (&Workspace, &'a Prepared),
    list: &UnitList,
    made: Vec<(&str, &[TouchedUnit], thinlto::Made)>,
    work: WorkDir,
) -> Result<Compiled<'a>> {
    let (mut files, mut pairs) = (Vec::new(), Vec::new());
    let mut remade = Remade::default();
    for (object, units, found) in made {
        let name = name_of(object, list);
        stabilise::tell(&name, &found, build.events, build.results);
        for pair in found.pairs {
            let unit = match units.iter().find(|unit| unit.object() == pair.unit) {
                Some(unit) => unit.clone(),
                None => list.by_object(&pair.unit).map(|id| TouchedUnit::of(list, id)).ok_or_else(|| not_listed(&pair.unit))?,
            };
            remade.compiled.push(pair.unit.clone().into());
            files.push(PairFiles {
                object: name.clone(),
                witness: None,
                original: pair.original.clone(),
                patched: pair.patched.clone(),
            });
            let exports = workspace.exports(&unit)?;
            let (original, patched) = (pair.original, pair.patched);
            pairs.push(UnitPair { unit, witness: None, original, patched, exports, is_new: false });
        }
    }
    build.events.end(&format!("{} compiled", words::plural(pairs.len(), "unit")));
    let mut pairs = UnitPairs::new(pairs, work);
    if build.request.keep_work {
        build.kept(&pairs.keep().to_owned());
    }
    Ok(Compiled {
        pairs: files,
        originals: Originals::new(prepared, workspace.source_dir()),
        remade,
        left_out: Vec::new(),
        work: Work::Units(pairs),
    })
}

/// The touched units by the object of the kernel that they are linked to: `vmlinux.o` or a module's object.
fn objects(touched: &Touched, list: &UnitList) -> Result<BTreeMap<String, Vec<TouchedUnit>>> {
    if let Some(unit) = touched.added().first() {
        return Err(added(unit).into());
    }
    let mut objects: BTreeMap<String, Vec<TouchedUnit>> = BTreeMap::new();
    for unit in touched.units() {
        let of_modules = match &unit.unit.home {
            Home::Modules(modules) => modules.as_slice(),
            Home::Vmlinux | Home::Ingredient => &[],
        };
        let names = of_modules.iter().map(|&module| list.module(module).object.clone());
        let names: Vec<String> = if of_modules.is_empty() { vec![VMLINUX.to_owned()] } else { names.collect() };
        for name in names {
            objects.entry(name).or_default().push(unit.clone());
        }
    }
    Ok(objects)
}

/// The units with kbuild's records of them.
fn linked_units(workspace: &Workspace, units: &[TouchedUnit]) -> Result<Vec<thinlto::Unit>> {
    let unit = |unit: &TouchedUnit| {
        let recorded = workspace.record(unit)?;
        match recorded.is_thin_unit() {
            true => Ok(thinlto::Unit { object: unit.object().to_owned(), recorded }),
            false => Err(not_thin(unit).into()),
        }
    };
    units.iter().map(unit).collect()
}

/// Shows the patched files to the compiler. The source tree stays as it is.
fn overlays(workspace: &Workspace, prepared: &Prepared, work: &WorkDir) -> Result<thinlto::Overlays> {
    let (folder, source) = (work.path().join("source"), workspace.source_dir());
    let mut shown = Vec::new();
    for (path, text) in prepared.patched_files() {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
        std::fs::write(&file, text).map_err(|error| Diagnosis::io("write", &file, &error))?;
        shown.push((source.join(path), file));
    }
    let patched = work.path().join("patched.yaml");
    thinlto::write_overlay(&patched, &shown)?;
    Ok(thinlto::Overlays { original: None, patched: Some(patched) })
}

/// `vmlinux`, or the module's name.
fn name_of(object: &str, list: &UnitList) -> String {
    list.module_by_object(object).map_or_else(|| "vmlinux".to_owned(), |id| list.module(id).name())
}

fn not_listed(unit: &str) -> Diagnosis {
    Diagnosis::new("klpx::internal", Class::Internal, "a fault in klpx")
        .why(format!("{unit} is linked and is not in kbuild's list"))
}

fn added(unit: &TouchedUnit) -> Diagnosis {
    Diagnosis::new("klpx::new-unit", Class::NotLivepatchable, "the patch adds a unit to a ThinLTO link")
        .place(Place::file(unit.object(), None))
        .why("LLVM would decide about the whole link anew")
        .remedy("put the new code into a file that is there")
}

fn not_thin(unit: &TouchedUnit) -> Diagnosis {
    Diagnosis::new("klpx::not-thin", Class::NotLivepatchable, "the patch changes a unit that is not compiled for LTO")
        .place(Place::file(unit.object(), None))
        .why("the rest of this kernel is linked by ThinLTO")
        .remedy("leave this file out of the patch")
}
