//! The linker wrapper of a ThinLTO kernel. It records the link that klpx asks for, and performs every other link.

use std::path::{Path, PathBuf};

use klpx_diagnosis::Result;

use crate::files;
use crate::kbuild::make::{OBJECT, RECORD};

/// Writes the wrapper to a workspace.
pub(super) fn write_wrapper(workspace: &Path, ld: &str) -> Result<PathBuf> {
    files::script(&workspace.join("bin"), "ld.lld", &text(ld))
}

fn text(ld: &str) -> String {
    format!(
        "#!/bin/sh\n\
         # Writes down the link that klpx asks for, and makes every other one.\n\
         before=\n\
         for word in \"$@\"; do\n\
         \tif [ \"$before\" = -o ] && [ \"$word\" = \"${OBJECT}\" ]; then\n\
         \t\tprintf '%s\\n' {ld} \"$@\" > \"${RECORD}\"\n\
         \t\texit 1\n\
         \tfi\n\
         \tbefore=$word\n\
         done\n\
         exec {ld} \"$@\"\n"
    )
}
