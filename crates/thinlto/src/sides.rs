//! The link of one kernel object on both sides of a patch. The patched link may have added units.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::Result;

use crate::context::Context;
use crate::link::{Link, LinkInput};
use crate::unit::SourceSide;
use crate::view::View;

/// The original's and the patched link.
#[derive(Debug)]
pub(crate) struct LinkSides {
    pub(crate) original: Link,
    pub(crate) patched: Link,
    /// The bitcode of the units that only the patched link has.
    pub(crate) added: BTreeMap<String, PathBuf>,
}

impl LinkSides {
    /// A link, and units that are appended to it. Their place decides only the order of sections.
    pub(crate) fn new(link: &Link, added: BTreeMap<String, PathBuf>) -> LinkSides {
        let mut patched = link.clone();
        patched.inputs.extend(added.keys().map(|path| LinkInput { path: path.clone(), lazy: false }));
        LinkSides { original: link.clone(), patched, added }
    }

    /// A folder in which one side's link finds other files in place of some inputs.
    pub(crate) fn view(
        &self,
        context: &Context<'_>,
        side: SourceSide,
        folder: &Path,
        mut swaps: BTreeMap<String, PathBuf>,
    ) -> Result<View<'_>> {
        let link = match side {
            SourceSide::Original => &self.original,
            SourceSide::Patched => &self.patched,
        };
        swaps.extend(self.added.iter().map(|(unit, file)| (unit.clone(), file.clone())));
        View::new(folder, link, &context.build, &swaps)
    }
}
