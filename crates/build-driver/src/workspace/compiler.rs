//! The compiler wrapper in the workspace of a kernel that was built with inlining lists. Both sources are compiled with
//! the same lists. The lists are in the workspace, because the kernel's own lists may change.
//!
//! ```text
//! <workspace>/lists/units/PATH.inl  the list of a unit
//! <workspace>/bin/cc                the wrapper, which compiles each unit with its list
//! ```

use std::path::{Path, PathBuf};

use klpx_diagnosis::Result;

use crate::consistent::wrapper;
use crate::files;
use crate::kernel::PatchableKernel;

/// Writes the wrapper to a workspace, if the kernel has lists.
pub(super) fn write_wrapper(workspace: &Path, kernel: &PatchableKernel) -> Result<Option<PathBuf>> {
    let Some(lists) = kernel.lists() else { return Ok(None) };
    let (dir, tools) = (workspace.join("lists"), kernel.toolchain());
    lists.place(&dir)?;
    let text = wrapper::of_workspace(tools.compiler, &tools.cc, &dir, &workspace.join("src"));
    files::script(&workspace.join("bin"), "cc", &text).map(Some)
}
