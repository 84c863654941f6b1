//! What this crate needs of a kernel: the build tree, the tools, and the folder where results about the kernel are
//! kept.

use std::path::{Path, PathBuf};

use klpx_build_driver::process::Runner;
use klpx_build_driver::{RecordedCommands, Workspace};
use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::files;
use crate::link::{Archiver, Link};
use crate::linker::Linker;

/// One kernel.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) jobs: usize,
    /// The private `O=` tree, which holds only objects of the original source.
    pub(crate) build: PathBuf,
    pub(crate) ld: String,
    pub(crate) ar: String,
    /// `opt` and `llvm-dis`.
    pub(crate) readers: [String; 2],
    /// The largest function that a unit may import, in instructions.
    pub(crate) import_limit: usize,
    /// A folder that is kept as long as the original stays the same.
    pub(crate) store: PathBuf,
}

/// LLVM's default of `-import-instr-limit`, if the kernel sets none.
const DEFAULT_LIMIT: usize = 100;

impl<'a> Context<'a> {
    /// The context of a workspace's kernel.
    pub fn new(workspace: &'a Workspace) -> Context<'a> {
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

    fn archiver(&self) -> Archiver<'_> {
        Archiver { build: &self.build, program: &self.ar, runner: self.runner }
    }

    /// The link of an object, read from kbuild's record. The result is kept.
    ///
    /// # Errors
    /// Fails if the record holds no link that klpx understands.
    pub fn link(&self, object: &Path, recorded: &RecordedCommands) -> Result<Link> {
        let path = self.store_of(object).join("link.json");
        if let Some(link) = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(link);
        }
        let Some(link) = Link::parse(recorded, object, self.archiver())? else {
            let what = format!("kbuild's record of {} holds no link", object.display());
            return Err(Diagnosis::new(
                &codes::NO_COMMAND,
                what,
                "klpx repeats the link with the command that kbuild recorded",
                "report this object and the kernel's version",
            )
            .into());
        };
        let text = serde_json::to_vec(&link).map_err(|error| Diagnosis::io("write", &path, &error.into()))?;
        files::keep(&path, text)?;
        Ok(link)
    }

    /// The folder where results about one kernel object are kept.
    pub(crate) fn store_of(&self, object: &Path) -> PathBuf {
        self.store.join(object)
    }
}
