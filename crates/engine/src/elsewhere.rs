//! Finds callers, in units that the patch does not touch, of changed functions that ftrace can't reach. The kernel's
//! images tell who the callers are; their units are compiled so that the callers can be replaced.

use std::collections::{BTreeMap, BTreeSet};

use klpx_build_driver::{TouchedUnit, UnitList, Workspace};
use klpx_diagnosis::{Note, Result, codes, words};
use klpx_klp_emit::callers::{self, Elsewhere, Global, KernelFunction};
use klpx_klp_emit::image::{Exports, Image, TargetKernel};
use klpx_klp_emit::plan::ComparedUnit;
use klpx_klp_emit::users::{self, FunctionUsers};

use crate::change_set::Analysis;
use crate::pairs::PairObjects;
use crate::running::Build;
use crate::target::TargetKernelFiles;

/// The most callers that klpx replaces, and the most units that it compiles, because ftrace can't reach a function.
const MOST_CALLERS: usize = 50;

/// Where callers are searched: the kernel's units, and its files.
pub(crate) struct SearchedKernel<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) list: &'a UnitList,
    pub(crate) target: &'a TargetKernelFiles,
}

/// Finds the callers of the global functions that have to be copied for their callers. Returns the units that contain
/// these callers and are not among `objects`.
pub(crate) fn missing_units(
    build: &mut Build<'_>,
    kernel: &SearchedKernel<'_>,
    objects: &[PairObjects<'_>],
    analysis: &Analysis,
    elsewhere: &mut Elsewhere,
) -> Result<Vec<TouchedUnit>> {
    let SearchedKernel { workspace, list, target } = *kernel;
    let pairs = objects.iter().zip(&analysis.differences);
    let units: Vec<ComparedUnit<'_, '_>> = pairs
        .map(|(pair, difference)| ComparedUnit {
            object_name: pair.name,
            original: &pair.original,
            patched: &pair.patched,
            difference,
            edited: None,
            inlines: None,
            overridden: None,
        })
        .collect();
    let unknown = callers::unknown(&units, elsewhere);
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let kernel = TargetKernel::open(&target.vmlinux, &target.symvers, &target.modules)?;
    let found = users_of(&kernel, &unknown)?;
    // If one function can't be copied for its callers, no module will be made, so no unit is compiled in vain.
    let callers: Vec<(&Global, &[KernelFunction])> =
        found.iter().filter_map(|(global, found)| Some((global, found.as_deref().ok()?))).collect();
    let known: BTreeSet<&str> = objects.iter().filter_map(|pair| Some(pair.unit?.path.as_str())).collect();
    let mut missing: BTreeMap<String, TouchedUnit> = BTreeMap::new();
    for (global, functions) in callers.iter().filter(|_| callers.len() == found.len()) {
        let units = mentioning(workspace, list, functions, &global.1);
        missing.extend(units.into_iter().map(|unit| (unit.object().to_owned(), unit)));
    }
    missing.retain(|object, _| !known.contains(object.as_str()));
    if missing.len() > MOST_CALLERS {
        let why =
            format!("{} name it; klpx compiles at most {MOST_CALLERS}", words::plural(missing.len(), "unit"));
        elsewhere.extend(unknown.into_iter().map(|global| (global, Err(why.clone()))));
        return Ok(Vec::new());
    }
    if !missing.is_empty() {
        build.note(&[callers_note(&unknown, missing.len(), kernel.exports())]);
    }
    elsewhere.extend(found);
    Ok(missing.into_values().collect())
}

/// `ftrace can't reach klist_del: 6 units with callers are compiled too`.
fn callers_note(globals: &BTreeSet<Global>, units: usize, exports: &Exports) -> Note {
    let names: Vec<_> = globals.iter().map(|(_, name)| String::from_utf8_lossy(name)).collect();
    let verb = if units == 1 { "is" } else { "are" };
    let exported = names.iter().any(|name| exports.get(name).is_some());
    let others =
        if exported { "; modules that are not the kernel's own keep the kernel's function" } else { "" };
    let text = format!(
        "ftrace can't reach {}: {} with callers {verb} compiled too{others}",
        names.join(", "),
        words::plural(units, "unit")
    );
    Note::new(&codes::CALLERS_REPLACED, text)
}

/// Finds who calls each of these functions: in its own kernel object and, for an export, in the modules that import it.
fn users_of(kernel: &TargetKernel, wanted: &BTreeSet<Global>) -> Result<Elsewhere> {
    let exported: BTreeSet<&[u8]> = wanted
        .iter()
        .map(|(_, name)| name.as_slice())
        .filter(|name| std::str::from_utf8(name).is_ok_and(|name| kernel.exports().get(name).is_some()))
        .collect();
    let importers = if exported.is_empty() { Vec::new() } else { users::importers(kernel, &exported)? };
    let importers: Result<Vec<Image<'_>>> = importers.iter().map(|module| kernel.image(module)).collect();
    let importers = importers?;
    let mut found = Elsewhere::new();
    for (object, name) in wanted {
        let home = kernel.image(object)?;
        let address = home.global(name).and_then(|symbol| home.address(symbol));
        let own = address.and_then(|address| FunctionUsers::within(&home, address));
        let Some(own) = own else {
            found.insert(
                (object.clone(), name.clone()),
                Err(format!("klpx can't tell who calls it in {object}")),
            );
            continue;
        };
        let mut all = vec![(object.clone(), own)];
        let others =
            importers.iter().filter(|image| image.object() != object && exported.contains(name.as_slice()));
        all.extend(others.map(|image| (image.object().to_owned(), FunctionUsers::importing(image, name))));
        found.insert((object.clone(), name.clone()), judged(all));
    }
    Ok(found)
}

/// Returns the callers if they are few and the address is kept nowhere.
fn judged(all: Vec<(String, FunctionUsers)>) -> Result<Vec<KernelFunction>, String> {
    if let Some(kept) = all.iter().find_map(|(_, users)| users.kept.first()) {
        return Err(format!("its address is kept at {kept}"));
    }
    let functions: Vec<KernelFunction> = all
        .into_iter()
        .flat_map(|(object, users)| users.callers.into_iter().map(move |names| (object.clone(), names)))
        .map(|(object, names)| KernelFunction { object, names })
        .collect();
    if functions.len() > MOST_CALLERS {
        let some: Vec<&str> = functions
            .iter()
            .filter_map(|function| function.names.first())
            .map(String::as_str)
            .take(3)
            .collect();
        return Err(format!(
            "{} functions call it, among them {}; klpx replaces at most {MOST_CALLERS}",
            functions.len(),
            some.join(", ")
        ));
    }
    Ok(functions)
}

/// The units that belong to the callers' kernel objects and whose source contains a name.
fn mentioning(
    workspace: &Workspace,
    list: &UnitList,
    callers: &[KernelFunction],
    name: &[u8],
) -> Vec<TouchedUnit> {
    let objects: BTreeSet<&str> = callers.iter().map(|caller| caller.object.as_str()).collect();
    let is_wanted = |unit: &TouchedUnit| unit.objects.iter().any(|object| objects.contains(object.as_str()));
    workspace.units_with_word(list, name).into_iter().filter(is_wanted).collect()
}
