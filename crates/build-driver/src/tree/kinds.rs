//! The files of a source tree that kbuild can read, by name. Products of a build, and files that editors, git and
//! people leave there, do not belong to the source.

use std::path::Path;

/// Returns true for a folder, relative to the tree, that only a build makes.
pub(super) fn is_generated_dir(path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    path == "include/config"
        || path == "include/generated"
        || path == ".tmp_versions"
        || (path.starts_with("arch/") && path.ends_with("/include/generated"))
}

/// Returns true for a file name that only a build makes. Products with a `.NAME.cmd` file need no entry here.
pub(super) fn is_generated_name(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        ".config",
        ".config.old",
        ".version",
        "modules.order",
        "Module.symvers",
        "System.map",
        "utsversion-tmp.h",
        ".missing-syscalls.d",
        "vmlinux",
        ".objdiff",
    ];
    const ENDS: [&str; 8] = [".o", ".a", ".ko", ".mod", ".mod.c", ".o.d", ".symvers", ".lex.d"];
    NAMES.contains(&name)
        || name.starts_with(".tmp_")
        || (name.starts_with('.') && name.ends_with(".cmd"))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// Returns true if no makefile, compiler or script of the kernel reads a file or folder of this name.
pub(super) fn is_of_no_build(name: &str) -> bool {
    const NAMES: [&str; 8] = ["tags", "TAGS", "ID", "GPATH", "GRTAGS", "GSYMS", "GTAGS", "__pycache__"];
    const ENDS: [&str; 15] = [
        "~", ".orig", ".rej", ".swp", ".swo", ".bak", ".patch", ".diff", ".mbox", ".eml", ".json", ".log",
        ".pyc", ".html", ".pdf",
    ];
    // scripts/setlocalversion reads .scmversion. Nothing reads any other hidden file.
    name.starts_with('.') && name != ".scmversion"
        || NAMES.contains(&name)
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.starts_with("cscope.")
        || name.starts_with("ncscope.")
        || name.starts_with('#') && name.ends_with('#')
}
