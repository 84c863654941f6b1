//! Builds a kernel with a list of attributes for each unit: the lists, and the compiler wrapper that applies them.
//! Writes only to the folder that the user names, and builds nothing itself. `lists` handles the lists of a finished
//! build.
//!
//! ```text
//! DIR/cc              the wrapper: make CC=DIR/cc
//! DIR/units/PATH.inl  the list of each unit, PATH as in the source; empty if the unit needs no entry
//! DIR/failed/PATH     the compiler's messages for a unit that does not compile with its list
//! DIR/forced/PATH     Clang: entries that contradict the source and have no effect
//! ```
//!
//! For Clang, a list holds arguments for LLVM's pass that forces attributes (`-mllvm -force-attribute`). The attributes
//! reach the bitcode, and so LTO. GCC has no such pass. For GCC, a list is C: declarations that repeat a function's
//! type by `__typeof__` and add an attribute. The declarations must follow the definitions, so the unit is compiled in
//! two steps. `-E -fdirectives-only` merges all files into one and leaves the macros for the second step, which makes
//! the same code as from the separate files.
//!
//! kbuild recompiles a unit if a file that it depends on is newer. The wrapper adds the list to the dependencies, in
//! the file that the compiler writes for kbuild, and creates an empty list if the unit has none.

pub(crate) mod lists;
pub(crate) mod wrapper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::arch::KernelArch;
use crate::config::Config;
use crate::files::script;
use crate::kbuild::recorded::module_objects;
use crate::language::{Identifier, MakeWord, is_source_path};
use crate::own;
use crate::process::Runner;
use crate::toolchain::{self, Toolchain, Wishes};
use crate::tree::SourceTree;

/// The instruction to a compiler about a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InlineAttribute {
    /// Inline the function at every call.
    Always,
    /// Inline the function at no call.
    Never,
    /// As `Never`, and never replace the function by a variant for some callers (GCC's clones; Clang has no such
    /// attribute).
    NeverNorClone,
    /// As `NeverNorClone`, and conclude nothing from the function's body. GCC then keeps a `gnu_inline` function whole,
    /// for which it ignores `noinline`. All functions that the kernel declares inline are `gnu_inline`.
    Opaque,
}

/// A build tree, its source and tools, and a folder for lists.
#[derive(Debug)]
pub struct ConsistentBuild {
    source: PathBuf,
    build: PathBuf,
    arch: KernelArch,
    tools: Toolchain,
    /// The path of the compiler, even if PATH changes later.
    cc: PathBuf,
    dir: PathBuf,
}

/// The user's request.
#[derive(Clone, Debug, Default)]
pub struct ConsistentRequest {
    /// The `O=` tree, with its `.config`.
    pub build: PathBuf,
    /// The source. `None` for the source that the build tree points to.
    pub source: Option<PathBuf>,
    /// make's LLVM variable.
    pub llvm: Option<String>,
    /// make's CROSS_COMPILE variable.
    pub cross_compile: Option<String>,
    /// The folder for lists.
    pub dir: PathBuf,
}

impl ConsistentBuild {
    /// Examines the build tree. Creates the folder for lists, if it is missing, and writes nothing else.
    ///
    /// # Errors
    /// No configuration, an unsuitable compiler, or a folder that has a path unfit for make, that others can write to,
    /// or that lies in the build tree.
    pub fn open(request: &ConsistentRequest) -> Result<ConsistentBuild> {
        let build = request.build.canonicalize().map_err(|error| {
            let what = format!("can't open the build tree {}", request.build.display());
            Diagnosis::new(
                &codes::BUILD_DIR_MISSING,
                what,
                error.to_string(),
                "name the kernel's O= tree with --build-dir",
            )
        })?;
        let source = match &request.source {
            Some(source) => SourceTree::open(source)?,
            None if build.join("source").exists() => SourceTree::open(&build.join("source"))?,
            None => SourceTree::open(&build)?,
        };
        let config = Config::read(&build.join(".config"))?;
        let arch = KernelArch::of(&config)?;
        let wishes = Wishes { llvm: request.llvm.as_deref(), cross: request.cross_compile.as_deref() };
        let tools = toolchain::choose(&config, arch, &wishes, &Runner::new())?;
        std::fs::create_dir_all(&request.dir).map_err(|e| Diagnosis::io("create", &request.dir, &e))?;
        // The compiler reads the lists, so nobody else may write to their folder.
        let dir = own::check(&request.dir)?;
        if dir.starts_with(&build) {
            let what = format!("{} lies in the build tree, which klpx never writes to", dir.display());
            return Err(Diagnosis::new(
                &codes::USAGE,
                what,
                "the lists must not be among the files that they are made from",
                "name a folder outside of it with --output",
            )
            .into());
        }
        let cc = toolchain::find_program(&tools.cc).unwrap_or_else(|| PathBuf::from(&tools.cc));
        for path in [&dir, source.root(), &build, &cc] {
            // The path appears in make's variables, in dependencies and in a shell script.
            MakeWord::path(path)?;
        }
        Ok(ConsistentBuild { source: source.root().to_owned(), build, arch, tools, cc, dir })
    }

    /// The folder for lists.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The source tree.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The compiler's name and version, for people.
    pub fn compiler(&self) -> String {
        self.tools.describe()
    }

    /// The `.ko` files of the modules that the build tree lists. A file may be missing.
    ///
    /// # Errors
    /// If the list can't be read. A missing list is no error: a kernel without modules has none.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let order = self.build.join("modules.order");
        if !order.try_exists().map_err(|error| Diagnosis::io("read", &order, &error))? {
            return Ok(Vec::new());
        }
        let objects = module_objects(&self.build)?.into_iter();
        Ok(objects.map(|object| self.build.join(object).with_extension("ko")).collect())
    }

    /// The path of a file of the debug information, relative to the source tree or the build tree. `file` is relative
    /// to the folder `root`.
    pub fn file(&self, root: &str, file: &str) -> String {
        let path = Path::new(root).join(file);
        let below = [&self.source, &self.build].into_iter().find_map(|folder| path.strip_prefix(folder).ok());
        below.and_then(Path::to_str).unwrap_or(file).to_owned()
    }

    /// The unit for a file of the debug information: its path in the source tree, or in the build tree for a generated
    /// source. `file` is relative to the folder `root`. `None` for a path that the wrapper does not accept.
    pub fn unit(&self, root: &str, file: &str) -> Option<String> {
        let below = |folder: &Path| {
            let path = Path::new(root).join(file);
            let rest = path.strip_prefix(folder).ok()?;
            path.is_file().then(|| rest.to_str().map(str::to_owned))?
        };
        let moved =
            || (self.source.join(file).is_file() || self.build.join(file).is_file()).then(|| file.to_owned());
        below(&self.source)
            .or_else(|| below(&self.build))
            .or_else(moved)
            .filter(|unit| unit.ends_with(".c") && is_source_path(unit))
    }

    /// Writes the lists that changed, and the wrapper. Returns the number of changed lists.
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub fn write(&self, lists: &BTreeMap<String, Vec<(Identifier, InlineAttribute)>>) -> Result<usize> {
        let mut changed = 0;
        if let Some(unit) = lists.keys().find(|unit| !is_source_path(unit)) {
            return Err(Diagnosis::internal(&format!("{unit:?} is no unit that a list can be for")).into());
        }
        for (unit, functions) in lists {
            let path = lists::path(&self.dir.join(lists::UNITS), unit);
            let text = lists::text(self.tools.compiler, functions);
            if std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
                continue;
            }
            let folder = path.parent().unwrap_or(&self.dir);
            std::fs::create_dir_all(folder).map_err(|error| Diagnosis::io("create", folder, &error))?;
            std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
            changed += 1;
        }
        let wrapper = wrapper::of_kernel(self.tools.compiler, &self.cc, &self.dir, &self.source);
        script(&self.dir, "cc", &wrapper)?;
        Ok(changed)
    }

    /// Returns true if the last compilation of the unit failed with its list, so that the unit has no list.
    pub fn failed(&self, unit: &str) -> bool {
        lists::failed(&self.dir, unit)
    }

    /// Returns true if a compilation of the unit showed that the source forces the opposite inlining of the function.
    pub fn forced(&self, unit: &str, function: &str) -> bool {
        let entry = format!("-mllvm -force-attribute={function}:");
        lists::forced(&self.dir, unit).lines().any(|line| line.starts_with(&entry))
    }

    /// The shell commands for a build with the lists in the folder `output`.
    pub fn commands(&self, output: &Path) -> Vec<String> {
        let there = output.canonicalize().is_ok_and(|output| output == self.build);
        let output = output.display();
        let tools = self.tools.make.iter().filter(|word| !word.starts_with("CC=") && !word.ends_with('='));
        let words: Vec<&str> = tools.map(String::as_str).collect();
        let gap = if words.is_empty() { "" } else { " " };
        let make = format!(
            "make -C {} O={output} ARCH={}{gap}{} CC={}/cc",
            self.source.display(),
            self.arch.kbuild(),
            words.join(" "),
            self.dir.display()
        );
        let mut commands = Vec::new();
        if !there {
            commands.push(format!("mkdir -p {output} && cp {}/.config {output}", self.build.display()));
        }
        commands.push(format!("{make} olddefconfig"));
        commands.push(format!("{make} -j$(nproc)"));
        commands
    }
}
