//! The fixture kernels: which there are, their configuration from fragments, their build, and where its results lie.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::linker;
use crate::machine::{self, Machine};
use crate::packages::Need;
use crate::process;
use crate::source::{self, Series, Source};
use crate::ui;
use crate::workspace::Workspace;

/// Written last: the build is complete.
const STAMP: &str = "klpx-fixture-complete";

/// One fixture kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// How commands and scenarios call it.
    pub(crate) name: &'static str,
    /// For a person.
    pub(crate) title: &'static str,
    /// Its architecture.
    pub(crate) machine: &'static Machine,
    /// Its source.
    series: &'static Series,
    /// Only `cargo xtask matrix` takes it by itself.
    pub(crate) matrix: bool,
    /// Files in `kernel-fixtures/configs`, in order of precedence (later wins).
    fragments: &'static [&'static str],
    /// The LLVM tools that make it, by their suffix; without it, GNU tools do.
    llvm: Option<&'static str>,
    /// Host packages.
    pub(crate) needs: &'static [Need],
}

/// Every fixture kernel.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        series: &source::CURRENT,
        matrix: false,
        fragments: &[
            "base.config",
            "distribution.config",
            "network.config",
            "x86_64.config",
            "clang-thinlto.config",
        ],
        llvm: Some("-22"),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "gcc",
        title: "GCC, no LTO",
        machine: &machine::X86_64,
        series: &source::CURRENT,
        matrix: false,
        fragments: &["base.config", "distribution.config", "x86_64.config", "gcc.config"],
        llvm: None,
        needs: &[Need::Gcc, Need::Source, Need::Guest],
    },
    Kernel {
        name: "arm64-thinlto",
        title: "clang 22, ThinLTO",
        machine: &machine::ARM64,
        series: &source::CURRENT,
        matrix: false,
        fragments: &["base.config", "distribution.config", "arm64.config", "clang-thinlto.config"],
        llvm: Some("-22"),
        needs: &[Need::Clang, Need::Source, Need::Arm64],
    },
    Kernel {
        name: "arm64-gcc",
        title: "GCC, no LTO",
        machine: &machine::ARM64,
        series: &source::CURRENT,
        matrix: false,
        fragments: &["base.config", "distribution.config", "arm64.config", "gcc.config"],
        llvm: None,
        needs: &[Need::Gcc, Need::Source, Need::Arm64],
    },
    Kernel {
        name: "fulllto",
        title: "clang 22, FullLTO",
        machine: &machine::X86_64,
        series: &source::CURRENT,
        matrix: true,
        fragments: &[
            "base.config",
            "distribution.config",
            "network.config",
            "x86_64.config",
            "clang-fulllto.config",
        ],
        llvm: Some("-22"),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
    Kernel {
        name: "6.12-clang19",
        title: "clang 19, ThinLTO",
        machine: &machine::X86_64,
        series: &source::LINUX_6_12,
        matrix: true,
        fragments: &[
            "base.config",
            "distribution.config",
            "network.config",
            "x86_64.config",
            "clang-thinlto.config",
            "6.12.config",
        ],
        llvm: Some("-19"),
        needs: &[Need::Clang19, Need::Source, Need::Guest],
    },
    Kernel {
        name: "6.12-clang22",
        title: "clang 22, ThinLTO",
        machine: &machine::X86_64,
        series: &source::LINUX_6_12,
        matrix: true,
        fragments: &[
            "base.config",
            "distribution.config",
            "network.config",
            "x86_64.config",
            "clang-thinlto.config",
            "6.12.config",
        ],
        llvm: Some("-22"),
        needs: &[Need::Clang, Need::Source, Need::Guest],
    },
];

impl Kernel {
    /// True when test data that names a kernel or an architecture means this one.
    pub(crate) fn is(&self, word: &str) -> bool {
        word == self.name || word == self.machine.name
    }

    /// True for a kernel that klpx stabilises.
    pub(crate) fn is_thin_lto(&self) -> bool {
        self.fragments.contains(&"clang-thinlto.config")
    }

    /// The compiler, whose version is part of the build's key.
    pub(crate) fn compiler(&self) -> String {
        match self.llvm {
            Some(suffix) => format!("clang{suffix}"),
            None => self.machine.tool("gcc"),
        }
    }

    /// What `make` must know.
    fn make(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.machine.is_native() {
            words.push(format!("ARCH={}", self.machine.name));
        }
        match self.llvm {
            Some(suffix) => words.push(format!("LLVM={suffix}")),
            None if self.machine.is_native() => {}
            None => words.push(format!("CROSS_COMPILE={}", self.machine.prefix())),
        }
        words
    }
}

/// The kernels with these names; without names, those of the tests.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().filter(|kernel| !kernel.matrix).collect());
    }
    let known = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            let kernel = KERNELS.iter().find(|kernel| kernel.name == name);
            kernel.with_context(|| format!("no fixture kernel '{name}', there are: {}", known()))
        })
        .collect()
}

/// A finished kernel build.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Which kernel.
    pub(crate) kernel: &'static Kernel,
    /// The source it was built from.
    pub(crate) source: Source,
    /// The `O=` tree.
    pub(crate) tree: PathBuf,
}

impl Built {
    /// The kernel as linked.
    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.tree.join("vmlinux")
    }

    /// The image that QEMU boots.
    pub(crate) fn image(&self) -> PathBuf {
        self.tree.join(self.kernel.machine.image)
    }

    /// The .ko of a module, found through `modules.order`.
    pub(crate) fn module(&self, name: &str) -> Result<PathBuf> {
        let order = fs::read_to_string(self.tree.join("modules.order"))
            .with_context(|| format!("{} has no modules.order", self.tree.display()))?;
        let wanted = format!("{name}.ko");
        let found = order.lines().map(|line| Path::new(line).with_extension("ko")).find(|path| {
            path.file_name().is_some_and(|file| file.to_string_lossy().replace('-', "_") == wanted)
        });
        let path = found.with_context(|| format!("the {} kernel has no module {name}", self.kernel.name))?;
        Ok(self.tree.join(path))
    }

    /// Every module's name.
    pub(crate) fn modules(&self) -> Result<Vec<String>> {
        let order = fs::read_to_string(self.tree.join("modules.order"))?;
        let stem = |line: &str| Some(Path::new(line).file_stem()?.to_str()?.replace('-', "_"));
        Ok(order.lines().filter_map(stem).collect())
    }

    /// `make` on this kernel with another output tree, which exists.
    pub(crate) fn make(&self, output: &Path) -> Result<Command> {
        self.make_with(output, None)
    }

    /// The same with a folder of tools that come before all others.
    pub(crate) fn make_with(&self, output: &Path, tools: Option<&Path>) -> Result<Command> {
        let mut command = Command::new("make");
        process::kbuild_environment(&mut command)
            .arg("-C")
            .arg(&self.source.tree)
            .arg(format!("O={}", output.display()))
            .args(self.kernel.make());
        let mut first: Vec<PathBuf> = tools.map(Path::to_path_buf).into_iter().collect();
        if let Some(suffix) = self.kernel.llvm {
            first.push(linker::with_cache(output, &format!("ld.lld{suffix}"))?);
        }
        command.env("PATH", linker::path_with(first)?);
        Ok(command)
    }
}

/// The build of a kernel: adopted, cached, or made now.
pub(crate) fn ensure(workspace: &Workspace, kernel: &'static Kernel) -> Result<Built> {
    if let Some(tree) = workspace.kernel_builds.get(kernel.name) {
        let source = source::of_build(workspace, tree, kernel.series)?;
        let built = Built { kernel, source, tree: tree.clone() };
        for file in [built.vmlinux(), built.image(), built.tree.join(".config")] {
            if !file.exists() {
                bail!("--kernel-build {}: {} is missing", kernel.name, file.display());
            }
        }
        return Ok(built);
    }
    let source = source::ensure(workspace, kernel.series)?;
    let _lock = workspace.lock(&format!("kernel-{}", kernel.name))?;
    let config = merged_config(workspace, kernel)?;
    let key = key(kernel, &source, &config)?;
    let builds = workspace.cache_dir("build")?;
    let tree = builds.join(format!("{}-{}", kernel.name, &key[..12]));
    let built = Built { kernel, source, tree };
    if fs::read_to_string(built.tree.join(STAMP)).is_ok_and(|stamp| stamp.trim() == key) {
        return Ok(built);
    }
    remove_older(&builds, kernel, &built.tree)?;
    build(workspace, &built, &config)?;
    let stamp = built.tree.join(STAMP);
    let unfinished = stamp.with_extension("tmp");
    fs::write(&unfinished, format!("{key}\n"))?;
    fs::rename(&unfinished, &stamp)?;
    Ok(built)
}

/// What makes a build another build: the source, the configuration, the compiler, and pahole, whose version is part of
/// every configuration.
fn key(kernel: &Kernel, source: &Source, config: &str) -> Result<String> {
    let compiler = process::output(Command::new(kernel.compiler()).arg("--version"))?;
    let pahole = process::output(Command::new("pahole").arg("--version"))?;
    let mut hash = blake3::Hasher::new();
    let tree = source.tree.to_string_lossy();
    let make = kernel.make().join(" ");
    for part in [source.version.as_str(), &tree, config, &compiler, &pahole, &make] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    Ok(hash.finalize().to_hex().to_string())
}

/// A fixture whose configuration changed leaves gigabytes behind.
fn remove_older(builds: &Path, kernel: &Kernel, keep: &Path) -> Result<()> {
    for entry in fs::read_dir(builds)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ours = name.strip_prefix(kernel.name).is_some_and(|rest| rest.starts_with('-'));
        if ours && path != keep && path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The fragments of a kernel, one after the other.
fn merged_config(workspace: &Workspace, kernel: &Kernel) -> Result<String> {
    let mut text = String::new();
    for fragment in kernel.fragments {
        let path = workspace.fixtures("configs").join(fragment);
        text.push_str(&fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?);
        text.push('\n');
    }
    Ok(text)
}

fn build(workspace: &Workspace, built: &Built, config: &str) -> Result<()> {
    fs::create_dir_all(&built.tree)?;
    let log = built.tree.join("klpx-fixture.log");
    let mut step = ui::step(&format!("kernel {}", built.kernel.name));
    step.at("configuring");
    let fragment = built.tree.join("klpx-fixture.config");
    fs::write(&fragment, config)?;
    let mut configure = built.make(&built.tree)?;
    configure.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragment);
    process::logged(&mut configure, &log, |_| {})?;
    let result = fs::read_to_string(built.tree.join(".config"))?;
    let ignored = not_in_effect(config, &result);
    if !ignored.is_empty() {
        step.failed("configuration");
        bail!("the kernel's configuration does not take: {}", ignored.join(", "));
    }
    let mut objects = 0_u32;
    let mut command = built.make(&built.tree)?;
    command.arg(format!("-j{}", workspace.jobs)).args([
        "vmlinux",
        "modules",
        built.kernel.machine.image_target,
    ]);
    let result = process::logged(&mut command, &log, |line| {
        if ["  CC ", "  AS ", "  LD ", "  HOSTCC "].iter().any(|kind| line.starts_with(kind)) {
            objects += 1;
        }
        step.at(&format!("{objects} objects · {}", line.trim()));
    });
    match result {
        Ok(()) => {
            step.done(&format!("Linux {}, {}, {objects} objects", built.source.version, built.kernel.title))
        }
        Err(error) => {
            step.failed("build");
            return Err(error.context(format!("can't build the {} kernel", built.kernel.name)));
        }
    };
    Ok(())
}

/// Requested symbols that the finished configuration does not have as requested (a dependency is missing, or it is
/// gone).
fn not_in_effect(requested: &str, result: &str) -> Vec<String> {
    let settings = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with("CONFIG_"));
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let result = settings(result);
    settings(requested)
        .into_iter()
        .filter(|(key, value)| result.get(key).map_or("n", String::as_str) != value)
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_did_not_take_is_named() {
        let requested = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=m\n# CONFIG_D=y\nCONFIG_E=n\nCONFIG_A=m\n";
        let result = "CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_E=y\n";
        assert_eq!(not_in_effect(requested, result), ["CONFIG_C=m", "CONFIG_E=n"]);
    }

    #[test]
    fn kernels_are_found_by_name() {
        assert!(select(&[]).expect("those of the tests").iter().all(|kernel| !kernel.matrix));
        assert_eq!(select(&["arm64-gcc".to_owned()]).expect("a kernel of that name")[0].name, "arm64-gcc");
        assert_eq!(select(&["gcc".to_owned()]).expect("gcc")[0].name, "gcc");
        assert!(select(&["icc".to_owned()]).is_err());
    }
}
