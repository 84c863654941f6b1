//! Which files of a source tree kbuild can read, by their names. What a build makes, what editors, git and people leave
//! there, is none of the source.

use std::path::Path;

/// Folders, relative to the tree, that only a build makes.
pub(super) fn is_generated_dir(path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    path == "include/config"
        || path == "include/generated"
        || path == ".tmp_versions"
        || (path.starts_with("arch/") && path.ends_with("/include/generated"))
}

/// Files that only a build makes, by name. Products with a `.NAME.cmd` beside them need no entry here.
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

/// True for a file or folder that no makefile, compiler or script of the kernel reads, by its name.
pub(super) fn is_of_no_build(name: &str) -> bool {
    const NAMES: [&str; 8] = ["tags", "TAGS", "ID", "GPATH", "GRTAGS", "GSYMS", "GTAGS", "__pycache__"];
    const ENDS: [&str; 15] = [
        "~", ".orig", ".rej", ".swp", ".swo", ".bak", ".patch", ".diff", ".mbox", ".eml", ".json", ".log",
        ".pyc", ".html", ".pdf",
    ];
    // scripts/setlocalversion reads this one, and nothing reads another file that is hidden.
    name.starts_with('.') && name != ".scmversion"
        || NAMES.contains(&name)
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.starts_with("cscope.")
        || name.starts_with("ncscope.")
        || name.starts_with('#') && name.ends_with('#')
}
