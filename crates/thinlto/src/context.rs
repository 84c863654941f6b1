//! What this crate needs of a kernel: where it is built, with which tools, and where what is known of it is kept.

use std::path::{Path, PathBuf};

use klpx_build_driver::Workspace;
use klpx_build_driver::process::Runner;

use crate::link::Archiver;
use crate::linker::Linker;

/// One kernel.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) jobs: usize,
    /// The private `O=` tree. Objects of the original source only.
    pub(crate) build: PathBuf,
    pub(crate) ld: String,
    pub(crate) ar: String,
    /// `opt` and `llvm-dis`.
    pub(crate) readers: [String; 2],
    /// Instructions of the largest function that a unit may import.
    pub(crate) import_limit: usize,
    /// A folder that lives as long as the original is the same.
    pub(crate) store: PathBuf,
}

/// What LLVM takes when the kernel does not say (`-import-instr-limit`).
const DEFAULT_LIMIT: usize = 100;

impl<'a> Context<'a> {
    /// Of a workspace.
    pub fn of(workspace: &'a Workspace) -> Context<'a> {
        let toolchain = workspace.kernel().toolchain();
        let makefile = std::fs::read_to_string(workspace.source_dir().join("Makefile")).unwrap_or_default();
        let limit = makefile.split_once("-import-instr-limit=").map(|(_, rest)| rest);
        let digits =
            |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        Context {
            runner: workspace.runner(),
            jobs: workspace.kernel().jobs(),
            build: workspace.build_dir(),
            ld: toolchain.ld.clone(),
            ar: toolchain.tool("ar"),
            readers: [toolchain.opt(), toolchain.tool("dis")],
            import_limit: limit.and_then(digits).unwrap_or(DEFAULT_LIMIT),
            store: workspace.dir().join("thinlto"),
        }
    }

    pub(crate) fn linker(&self) -> Linker<'_> {
        Linker { program: &self.ld, runner: self.runner }
    }

    pub(crate) fn archiver(&self) -> Archiver<'_> {
        Archiver { build: &self.build, program: &self.ar, runner: self.runner }
    }

    /// Where what is known of one object of the kernel is kept.
    pub(crate) fn store_of(&self, object: &Path) -> PathBuf {
        self.store.join(object)
    }
}
