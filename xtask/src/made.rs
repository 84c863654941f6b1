//! Makes kernels here: configures them from fragments, and builds them from source.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::linker;
use crate::machine::Machine;
use crate::process;
use crate::source::{self, Series, Source};
use crate::ui;
use crate::workspace::CargoWorkspace;

/// The file that is written last: the build is complete.
const STAMP: &str = "klpx-fixture-complete";

/// The longest time for which a run uses a kernel after it asked for the kernel.
const A_RUN: Duration = Duration::from_secs(6 * 3600);

/// The copy of the profile in an output tree.
const PROFILE: &str = "klpx-fixture.afdo";

/// The configuration of a distribution's kernel, in a package.
#[derive(Debug)]
pub(crate) struct ShippedConfig {
    package: &'static str,
    /// Suites that may have the package.
    suites: &'static [&'static str],
    /// The file in the package, compressed with xz.
    file: &'static str,
}

/// Debian's x86_64 kernel for clouds, of the current series.
pub(crate) const CLOUD: ShippedConfig = ShippedConfig {
    package: "linux-config-7.2",
    suites: &["trixie-backports", "forky", "sid"],
    file: "usr/src/linux-config-7.2/config.amd64_none_cloud-amd64.xz",
};

/// How a kernel is made.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The series of the kernel's source.
    pub(crate) series: &'static Series,
    /// The configuration of a distribution's kernel, which the fragments change; `None` to begin with nothing.
    pub(crate) base: Option<&'static ShippedConfig>,
    /// Files in `kernel-fixtures/configs`, in order of precedence (later wins).
    pub(crate) fragments: &'static [&'static str],
    /// The suffix of the LLVM tools that make the kernel; `None` for GNU tools.
    pub(crate) llvm: Option<&'static str>,
    /// The AutoFDO profile for the compilation: a file in `kernel-fixtures/profiles`. The profiles there are invented
    /// so that functions of the scenarios have hot and cold parts.
    pub(crate) profile: Option<&'static str>,
}

impl Recipe {
    /// Returns true for a kernel that klpx stabilises.
    pub(crate) fn is_thin_lto(&self) -> bool {
        self.fragments.contains(&"clang-thinlto.config")
    }

    /// Returns the compiler, whose version is part of the build's key.
    pub(crate) fn compiler(&self, machine: &Machine) -> String {
        match self.llvm {
            Some(suffix) => format!("clang{suffix}"),
            None => machine.tool("gcc"),
        }
    }

    /// Returns the words of the `make` command line, but for the profile.
    fn words(&self, machine: &Machine) -> Vec<String> {
        let mut words = Vec::new();
        if !machine.is_native() {
            words.push(format!("ARCH={}", machine.name));
        }
        match self.llvm {
            Some(suffix) => words.push(format!("LLVM={suffix}")),
            None if machine.is_native() => {}
            None => words.push(format!("CROSS_COMPILE={}", machine.prefix())),
        }
        words
    }

    /// Returns the contents of the recipe's profile.
    fn profile(&self) -> Result<Option<Vec<u8>>> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
        let read = |name: &str| {
            let path = project.join("kernel-fixtures/profiles").join(name);
            fs::read(&path).with_context(|| format!("can't read {}", path.display()))
        };
        self.profile.map(read).transpose()
    }

    /// Puts the profile into an output tree and returns its path there. The commands of all units name the path, so it
    /// must not depend on the place of the repository.
    fn place_profile(&self, output: &Path) -> Result<Option<PathBuf>> {
        let Some(profile) = self.profile()? else { return Ok(None) };
        let path = output.join(PROFILE);
        if !fs::read(&path).is_ok_and(|placed| placed == profile) {
            fs::write(&path, profile).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(Some(path))
    }

    /// Returns `make` for a source with an output tree, which exists. A folder of tools may come before all others.
    pub(crate) fn make(
        &self,
        machine: &Machine,
        source: &Source,
        output: &Path,
        tools: Option<&Path>,
    ) -> Result<Command> {
        let mut command = Command::new("make");
        process::kbuild_environment(&mut command)
            .arg("-C")
            .arg(&source.tree)
            .arg(format!("O={}", output.display()))
            .args(self.words(machine));
        if let Some(path) = self.place_profile(output)? {
            command.arg(format!("CLANG_AUTOFDO_PROFILE={}", path.display()));
        }
        let mut first: Vec<PathBuf> = tools.map(Path::to_path_buf).into_iter().collect();
        if let Some(suffix) = self.llvm {
            first.push(linker::with_cache(output, &format!("ld.lld{suffix}"))?);
        }
        command.env("PATH", linker::path_with(first)?);
        Ok(command)
    }
}

/// A kernel to be made.
#[derive(Clone, Copy)]
pub(crate) struct WantedFixture<'a> {
    /// The name of the kernel's tree in the cache.
    pub(crate) name: &'a str,
    /// The title for people.
    pub(crate) title: &'a str,
    /// The kernel's architecture.
    pub(crate) machine: &'static Machine,
    /// The kernel's recipe.
    pub(crate) recipe: &'a Recipe,
}

/// Returns a source and the tree that was built from it: adopted, cached, or made now.
pub(crate) fn ensure(workspace: &CargoWorkspace, wanted: WantedFixture<'_>) -> Result<(Source, PathBuf)> {
    let WantedFixture { name, machine, recipe, .. } = wanted;
    if let Some(tree) = workspace.kernel_builds.get(name) {
        let source = source::of_build(workspace, tree, recipe.series)?;
        for file in ["vmlinux", machine.image, ".config"].map(|file| tree.join(file)) {
            if !file.exists() {
                bail!("--kernel-build {name}: {} is missing", file.display());
            }
        }
        return Ok((source, tree.clone()));
    }
    let source = source::ensure(workspace, recipe.series)?;
    let tree = of_source(workspace, wanted, &source)?;
    Ok((source, tree))
}

/// Returns the tree that is built from a source: cached, or made now.
pub(crate) fn of_source(
    workspace: &CargoWorkspace,
    wanted: WantedFixture<'_>,
    source: &Source,
) -> Result<PathBuf> {
    let WantedFixture { name, title, machine, recipe } = wanted;
    let _lock = workspace.lock(&lock_name(name))?;
    let config = Config {
        base: recipe.base.map(|base| shipped_config(workspace, base)).transpose()?,
        fragments: merged_fragments(workspace, recipe)?,
    };
    let key = key(machine, recipe, source, &config)?;
    let builds = workspace.cache_dir("build")?;
    let tree = builds.join(format!("{name}-{}", &key[..12]));
    let stamp = tree.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp.trim() == key) {
        // The stamp's time is the time of the last use.
        fs::File::options().append(true).open(&stamp)?.set_modified(SystemTime::now())?;
        return Ok(tree);
    }
    remove_older(&builds, name, &tree)?;
    let mut step = ui::step(&format!("kernel {name}"));
    let make = || recipe.make(machine, source, &tree, None);
    let build = FixtureBuild { make: &make, tree: &tree, config: &config, image: machine.image_target };
    match build.run(workspace, &mut step) {
        Ok(objects) => step.done(&format!("Linux {}, {title}, {objects} objects", source.version)),
        Err(error) => {
            step.failed("");
            return Err(error.context(format!("can't build the {name} kernel")));
        }
    };
    let unfinished = stamp.with_extension("tmp");
    fs::write(&unfinished, format!("{key}\n"))?;
    fs::rename(&unfinished, &stamp)?;
    Ok(tree)
}

/// Returns a key of everything that affects a build: the source, the configuration, the compiler, the contents of the
/// profile, and pahole, whose version is part of every configuration.
fn key(machine: &Machine, recipe: &Recipe, source: &Source, config: &Config) -> Result<String> {
    let compiler = process::output(Command::new(recipe.compiler(machine)).arg("--version"))?;
    let pahole = process::output(Command::new("pahole").arg("--version"))?;
    let mut hash = blake3::Hasher::new();
    let tree = source.tree.to_string_lossy();
    let make = recipe.words(machine).join(" ");
    let base = config.base.as_deref();
    for part in
        [source.version.as_str(), &tree, &config.fragments, &compiler, &pahole, &make].into_iter().chain(base)
    {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    if let Some(profile) = recipe.profile()? {
        hash.update(&profile);
    }
    Ok(hash.finalize().to_hex().to_string())
}

/// Removes the older trees of a fixture, each of which has gigabytes.
fn remove_older(builds: &Path, kernel: &str, keep: &Path) -> Result<()> {
    for tree in trees(builds)? {
        if tree.kernel == kernel && tree.path != keep {
            remove(&tree.path)?;
        }
    }
    Ok(())
}

/// Removes trees of other kernels than the named ones, the one that was used longest ago first, until there is enough
/// room. A tree stays if another run makes it, or may use it. Returns the names of the kernels that are gone.
pub(crate) fn remove_unused(
    workspace: &CargoWorkspace,
    used: &[&str],
    enough: &dyn Fn() -> Result<bool>,
) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for tree in trees(&workspace.cache_dir("build")?)? {
        if used.contains(&tree.kernel.as_str()) || enough()? {
            continue;
        }
        let Some(_lock) = workspace.try_lock(&lock_name(&tree.kernel))? else { continue };
        // Only under the lock is the last use certain. Another run may have removed the tree before.
        let recently = last_use(&tree.path).is_some_and(|used| used.elapsed().unwrap_or_default() < A_RUN);
        if tree.path.is_dir() && !recently {
            remove(&tree.path)?;
            removed.push(tree.kernel);
        }
    }
    Ok(removed)
}

/// A tree in the cache.
struct MadeTree {
    path: PathBuf,
    /// The kernel's name.
    kernel: String,
}

/// Returns the trees that were made here, the one that was used longest ago first. A tree that is not complete comes
/// before all others.
fn trees(builds: &Path) -> Result<Vec<MadeTree>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(builds)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // A tree is named after the kernel and its key. Another kernel's name may begin with this kernel's name.
        let Some((kernel, key)) = name.rsplit_once('-') else { continue };
        let is_key = key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_key && path.is_dir() {
            found.push(MadeTree { path, kernel: kernel.to_owned() });
        }
    }
    found.sort_by_cached_key(|tree| (last_use(&tree.path), tree.path.clone()));
    Ok(found)
}

/// Returns the time when a run asked last for a tree; `None` for a tree that is not complete.
fn last_use(tree: &Path) -> Option<SystemTime> {
    tree.join(STAMP).metadata().and_then(|stamp| stamp.modified()).ok()
}

/// Removes a tree. The stamp goes first, so that a kill leaves nothing that looks complete.
fn remove(tree: &Path) -> Result<()> {
    match fs::remove_file(tree.join(STAMP)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove {}", tree.display()));
        }
        _ => {}
    }
    fs::remove_dir_all(tree).with_context(|| format!("can't remove {}", tree.display()))
}

/// Returns the name of the lock of a kernel's trees.
fn lock_name(kernel: &str) -> String {
    format!("kernel-{kernel}")
}

/// The requested configuration of a kernel.
struct Config {
    /// A whole configuration, which the fragments change.
    base: Option<String>,
    /// Settings, one a line. Later ones win.
    fragments: String,
}

/// Returns a distribution's configuration: cached, or fetched now.
fn shipped_config(workspace: &CargoWorkspace, shipped: &ShippedConfig) -> Result<String> {
    let name = Path::new(shipped.file).file_stem().context("a configuration has a name")?;
    let cached = workspace.cache_dir("config")?.join(name);
    if let Ok(text) = fs::read_to_string(&cached) {
        return Ok(text);
    }
    let lists = workspace.cache_dir("apt")?;
    let _lock = workspace.lock("apt")?;
    let scratch = tempfile::Builder::new().prefix(".config-").tempdir_in(&lists)?;
    let files = apt::fetch(scratch.path(), shipped.package, None, shipped.suites)?;
    let text =
        process::output(Command::new("xz").args(["--decompress", "--stdout"]).arg(files.join(shipped.file)))?;
    let unfinished = cached.with_extension("tmp");
    fs::write(&unfinished, &text)?;
    fs::rename(&unfinished, &cached)?;
    Ok(text)
}

/// Returns the fragments of a kernel, one after the other.
fn merged_fragments(workspace: &CargoWorkspace, recipe: &Recipe) -> Result<String> {
    let mut text = String::new();
    for fragment in recipe.fragments {
        let path = workspace.fixtures("configs").join(fragment);
        text.push_str(&fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?);
        text.push('\n');
    }
    Ok(text)
}

/// The build of one kernel.
struct FixtureBuild<'a> {
    /// The call of make in the tree.
    make: &'a dyn Fn() -> Result<Command>,
    tree: &'a Path,
    config: &'a Config,
    /// The target of the image that QEMU boots.
    image: &'a str,
}

impl FixtureBuild<'_> {
    /// Configures and builds the kernel; returns the number of objects that were made.
    fn run(&self, workspace: &CargoWorkspace, step: &mut ui::Step) -> Result<u32> {
        let FixtureBuild { make, tree, config, image } = *self;
        fs::create_dir_all(tree)?;
        let log = tree.join("klpx-fixture.log");
        step.at("configuring");
        let (settings, file) = (&config.fragments, tree.join(".config"));
        match &config.base {
            Some(base) => {
                fs::write(&file, format!("{base}\n{settings}"))?;
                process::logged(make()?.arg("olddefconfig"), &log, |_| {})?;
            }
            None => {
                let fragment = tree.join("klpx-fixture.config");
                fs::write(&fragment, settings)?;
                process::logged(
                    make()?.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragment),
                    &log,
                    |_| {},
                )?;
            }
        }
        let ignored = not_in_effect(settings, &fs::read_to_string(&file)?);
        if !ignored.is_empty() {
            bail!("the kernel's configuration does not take: {}", ignored.join(", "));
        }
        let mut objects = 0_u32;
        let mut command = make()?;
        command.arg(format!("-j{}", workspace.jobs)).args(["vmlinux", "modules", image]);
        process::logged(&mut command, &log, |line| {
            if ["  CC ", "  AS ", "  LD ", "  HOSTCC "].iter().any(|kind| line.starts_with(kind)) {
                objects += 1;
            }
            step.at(&format!("{objects} objects · {}", line.trim()));
        })?;
        Ok(objects)
    }
}

/// Returns the requested symbols that the finished configuration does not have as requested, because a dependency is
/// missing or the symbol is gone.
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
    use crate::FixtureOptions;

    #[test]
    fn kernels_that_a_run_does_not_use_go_until_there_is_room_the_longest_unused_first() {
        let cache = tempfile::tempdir().expect("a folder");
        let options =
            FixtureOptions { fixture_cache: Some(cache.path().to_path_buf()), ..FixtureOptions::default() };
        let workspace = CargoWorkspace::new(&options).expect("a workspace");
        let builds = workspace.cache_dir("build").expect("a folder");
        let make = |name: &str, days: Option<u32>| {
            let tree = builds.join(name);
            fs::create_dir(&tree).expect("created");
            if let Some(days) = days {
                let stamp = fs::File::create(tree.join(STAMP)).expect("created");
                stamp.set_modified(SystemTime::now() - days * 4 * A_RUN).expect("set");
            }
        };
        make("lto-000000000001", Some(9));
        make("lto-cfi-000000000002", Some(2));
        make("arm64-000000000003", Some(3));
        make("today-000000000006", Some(0));
        make("unfinished-000000000004", None);
        make("busy-000000000005", None);
        make("my-kernel", None);
        let left = || {
            let mut names: Vec<String> = fs::read_dir(&builds)
                .expect("readable")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let busy = workspace.lock(&lock_name("busy")).expect("locked");
        let remove = |trees: usize| {
            remove_unused(&workspace, &["lto"], &|| Ok(left().len() <= trees)).expect("removed")
        };
        assert_eq!(remove(7), [""; 0]);
        assert_eq!(remove(5), ["unfinished", "arm64"]);
        assert_eq!(remove(0), ["lto-cfi"]);
        drop(busy);
        assert_eq!(remove(0), ["busy"]);
        assert_eq!(left(), ["lto-000000000001", "my-kernel", "today-000000000006"]);
    }

    #[test]
    fn a_symbol_that_did_not_take_is_named() {
        let requested = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=m\n# CONFIG_D=y\nCONFIG_E=n\nCONFIG_A=m\n";
        let result = "CONFIG_A=m\n# CONFIG_B is not set\nCONFIG_E=y\n";
        assert_eq!(not_in_effect(requested, result), ["CONFIG_C=m", "CONFIG_E=n"]);
    }
}
