//! Which objects of the kernel a patch touches, by kbuild's records of their links, and the units of each.
//!
//! Records of links are there after a build only: what a patched build made anew goes with the patch. So they are kept
//! beside the baseline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use super::link::Link;
use super::unit::Unit;
use super::{freeze, relink};
use crate::copy;
use crate::journal::Patching;
use crate::parallel::each;
use crate::recorded::Recorded;
use crate::workspace::{Workspace, internal, module_objects};

/// An object that is linked by ThinLTO, and its units that the patch touches.
pub(crate) struct Touched {
    /// `vmlinux.o`, or a module's object; a path from the build tree.
    pub(crate) object: PathBuf,
    pub(crate) link: Link,
    pub(crate) units: Vec<Unit>,
}

impl Touched {
    /// All that the patch touches, vmlinux last; none of it was made anew yet. What no link of the kernel's takes, such
    /// as members of archives that are searched, is not among it.
    pub(crate) fn find(workspace: &Workspace, patching: &Patching<'_>) -> Result<Vec<Touched>> {
        let build = workspace.build_dir();
        let thin = |unit: &PathBuf| {
            let recorded = Recorded::read(&build, unit).filter(Recorded::is_thin_unit)?;
            Some((unit.to_str()?.to_owned(), recorded))
        };
        let mut left: BTreeMap<String, Recorded> = patching.units.iter().filter_map(thin).collect();
        let mut found = Vec::new();
        for (object, link) in links(workspace).unwrap_or_default() {
            if left.is_empty() {
                break;
            }
            let mut units = Vec::new();
            for input in &link.inputs {
                let Some(recorded) = left.remove(input) else { continue };
                let saved = patching.saved_build().join(input);
                units.push(Unit {
                    object: input.clone(),
                    recorded,
                    original: freeze::is_bitcode(&saved).then_some(saved),
                    is_whole: Path::new(input) == object,
                });
            }
            if !units.is_empty() {
                found.push(Touched { object, link, units });
            }
        }
        Ok(found)
    }
}

/// The links of the original build, by object.
type Links = BTreeMap<PathBuf, Link>;

/// Writes down how vmlinux and the modules were linked, just after the original build, and whether klpx links them in
/// the same way.
pub(crate) fn keep_links(workspace: &Workspace) -> Result<()> {
    let build = workspace.build_dir();
    let ar = workspace.kernel().toolchain().tool("ar");
    let mut links = Vec::new();
    for object in std::iter::once(PathBuf::from("vmlinux.o")).chain(module_objects(&build)?) {
        let Some(recorded) = Recorded::read(&build, &object) else { continue };
        if let Some(mut link) = Link::of(&recorded, &build, &ar, &workspace.runner)? {
            // Made for the link, as the record is.
            if let Some(script) = link.script() {
                let kept = workspace.links_file().with_file_name(format!("links-{}.lds", links.len()));
                copy::file(&build.join(&*script), &kept, false)
                    .map_err(|error| Diagnosis::io("copy", &build.join(&*script), &error))?;
                *script = kept.display().to_string();
            }
            links.push((object, link));
        }
    }
    let jobs = workspace.kernel().jobs();
    let repeats = each(jobs, links.len(), |at| relink::repeats(&links[at].1, &links[at].0, workspace));
    for ((_, link), repeats) in links.iter_mut().zip(repeats) {
        link.repeats = repeats?;
    }
    let links = links.into_iter().collect::<Links>();
    let text = serde_json::to_vec(&links).map_err(|error| internal(&error.to_string()))?;
    copy::write_durably(&workspace.links_file(), &text)
}

/// False when it is not known how the original was linked, or not to this klpx.
pub(crate) fn has_links(workspace: &Workspace) -> bool {
    links(workspace).is_some()
}

fn links(workspace: &Workspace) -> Option<Links> {
    serde_json::from_slice(&std::fs::read(workspace.links_file()).ok()?).ok()
}
