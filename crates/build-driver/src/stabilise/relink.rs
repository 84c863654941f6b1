//! Links the objects again that touched units are part of, by kbuild's records of their links, instead of by its walk
//! through every folder of the kernel.
//!
//! That is sound where the units are all that depends on the patch: then nothing else is to be made, and archives on
//! the way only name them (kbuild's are thin and have no symbol table). How it is done is not trusted: each link was
//! made once more after the original build, and is taken only when the original came out the same to the byte.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use super::initcalls;
use super::link::{Link, Place};
use super::touched::Touched;
use super::unit::Unit;
use crate::copy;
use crate::parallel::each;
use crate::process::Call;
use crate::workspace::{Workspace, remove_file};

/// True when the links of what the units are part of repeat.
pub(crate) fn can_link(touched: &[Touched]) -> bool {
    touched.iter().all(|object| is_finished(object) || object.link.repeats)
}

/// True for a module of one unit: it is made when the unit is put in place.
fn is_finished(object: &Touched) -> bool {
    object.units.iter().all(|unit| unit.is_whole)
}

/// Links what the units are part of, in the build tree. False when only kbuild can; nothing of what was linked is there
/// then.
pub(crate) fn link(
    touched: &[Touched],
    (workspace, scratch): (&Workspace, &Path),
    cache: Option<&Path>,
) -> Result<bool> {
    let build = workspace.build_dir();
    let objects: Vec<(&Touched, PathBuf)> = touched
        .iter()
        .filter(|object| !is_finished(object))
        .map(|object| (object, build.join(&object.object)))
        .collect();
    let jobs = workspace.kernel().jobs();
    let linked = each(jobs, objects.len(), |at| -> Result<bool> {
        let (object, to) = &objects[at];
        let scratch = scratch.join(&object.object);
        std::fs::create_dir_all(&scratch).map_err(|error| Diagnosis::io("create", &scratch, &error))?;
        let mut link = object.link.clone();
        // Not into the original: it may be linked to another name.
        remove_file(to)?;
        let done = order_initcalls(&mut link, &object.units, workspace, &scratch)?
            && link.again(&object.object, to, &Place { workspace, scratch: &scratch, cache })?;
        tracing::debug!(object = ?object.object, done, "linked again");
        Ok(done)
    });
    let all = linked.into_iter().collect::<Result<Vec<bool>>>()?.into_iter().all(|done| done);
    if !all {
        objects.iter().try_for_each(|(_, to)| remove_file(to))?;
    }
    Ok(all)
}

/// True when a link gives the original once more, from what the original build left.
pub(crate) fn repeats(link: &Link, object: &Path, workspace: &Workspace) -> Result<bool> {
    // The record of such a module is of its compilation too, and both are done anew whenever it is touched.
    if link.inputs.iter().any(|input| Path::new(input) == object) {
        return Ok(false);
    }
    let work = workspace.dir().join("work");
    let fail = |error: std::io::Error| Diagnosis::io("create", &work, &error);
    std::fs::create_dir_all(&work).map_err(fail)?;
    let scratch = tempfile::tempdir_in(&work).map_err(fail)?;
    let (scratch, to) = (scratch.path(), scratch.path().join("linked.o"));
    let original = workspace.build_dir().join(object);
    let same = link.again(object, &to, &Place { workspace, scratch, cache: None })?
        && copy::same(&to, &original).map_err(|error| Diagnosis::io("read", &original, &error))?;
    tracing::debug!(?object, same, "linked once more");
    Ok(same)
}

/// Gives the link a script for the units' initcalls. False when only kbuild can.
fn order_initcalls(link: &mut Link, units: &[Unit], workspace: &Workspace, scratch: &Path) -> Result<bool> {
    let Some(script) = link.script() else { return Ok(true) };
    let Ok(mut text) = std::fs::read_to_string(&*script) else { return Ok(false) };
    let build = workspace.build_dir();
    let mut files = Vec::new();
    for unit in units {
        let Some(original) = &unit.original else { return Ok(false) };
        files.extend([original.clone(), build.join(&unit.object)]);
    }
    let symbols = each(workspace.kernel().jobs(), files.len(), |at| symbols(&files[at], workspace));
    let Some(symbols) = symbols.into_iter().collect::<Result<Option<Vec<_>>>>()? else { return Ok(false) };
    for sides in symbols.chunks_exact(2) {
        let Some(renamed) = initcalls::renamed(&text, &sides[0], &sides[1]) else { return Ok(false) };
        text = renamed;
    }
    let path = scratch.join("initcalls.lds");
    std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
    *script = path.display().to_string();
    Ok(true)
}

/// The symbols that a unit defines. `None` when they can't be listed.
fn symbols(file: &Path, workspace: &Workspace) -> Result<Option<Vec<String>>> {
    let nm = workspace.kernel().toolchain().tool("nm");
    let listed = workspace.runner.run(&Call::new(nm).args(["-j", "--defined-only"]).arg(file))?;
    Ok(listed.success.then_some(listed.lines))
}
