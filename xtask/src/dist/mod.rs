//! Makes packages of klpx and klpx-host: binaries, pages, completions, packages for dpkg and rpm, bills of materials.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use clap_complete::Shell;
use klpx_guest::Task;

use crate::packages::{self, Need};
use crate::tools::{AUDITABLE, CYCLONEDX, DEB, RPM};
use crate::workspace::CargoWorkspace;
use crate::{disk, kernel, klpx, process, ui};

/// `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct DistArgs {
    /// Who answers for the packages
    #[arg(long, value_name = "NAME <ADDRESS>", env = "KLPX_MAINTAINER")]
    maintainer: String,
}

/// The folder for all files, below the top of the workspace. The manifests name pages and completions there.
const FOLDER: &str = "target/dist";
/// The section of klpx-host's pages: administration.
const SECTION: &str = "8";
const SHELLS: [(Shell, &str); 3] = [(Shell::Bash, "NAME"), (Shell::Zsh, "_NAME"), (Shell::Fish, "NAME.fish")];
const MAINTAINER: &str = "The tests of klpx <tests@klpx.invalid>";

/// The form of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackageForm {
    /// For dpkg.
    Deb,
    /// For rpm.
    Rpm,
}

impl PackageForm {
    /// Returns the file's extension, which is also klpx's word for the form.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            PackageForm::Deb => "deb",
            PackageForm::Rpm => "rpm",
        }
    }
}

/// A program of this workspace that is packaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PackagedProgram {
    Klpx,
    Host,
}

impl PackagedProgram {
    fn name(self) -> &'static str {
        match self {
            PackagedProgram::Klpx => "klpx",
            PackagedProgram::Host => "klpx-host",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            PackagedProgram::Klpx => "crates/klpx",
            PackagedProgram::Host => "crates/host",
        }
    }

    /// Returns the target of the compilation. klpx-host needs nothing of the host, not even a C library. A toolchain
    /// without musl makes klpx-host with glibc's archive.
    fn target(self) -> Result<String> {
        let of = |library: &str| format!("{}-unknown-linux-{library}", std::env::consts::ARCH);
        if self == PackagedProgram::Klpx {
            return Ok(of("gnu"));
        }
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"]))?;
        let musl = Path::new(sysroot.trim()).join("lib/rustlib").join(of("musl"));
        Ok(of(if musl.is_dir() { "musl" } else { "gnu" }))
    }

    /// Builds the binary, with the list of its crates inside.
    fn build(self, workspace: &CargoWorkspace) -> Result<PathBuf> {
        let mut command = AUDITABLE.command(workspace)?;
        command.args(["build", "--release", "--quiet", "--package", self.name()]);
        command.args(["--target", &self.target()?, "--message-format=json-render-diagnostics"]);
        let linked = if self == PackagedProgram::Host { "-C target-feature=+crt-static " } else { "" };
        command.env("RUSTFLAGS", format!("{linked}-C strip=symbols"));
        let output = process::output(&mut command).with_context(|| format!("can't build {}", self.name()))?;
        let binary = output.lines().filter_map(klpx::executable).next_back();
        let binary = binary.with_context(|| format!("cargo built no {}", self.name()))?;
        if self == PackagedProgram::Host && !klpx_guest::is_static(&binary) {
            bail!("{} needs shared libraries", binary.display());
        }
        Ok(binary)
    }

    /// Writes pages and completions into `man` and `completions` of the folder.
    fn texts(self, binary: &Path, folder: &Path) -> Result<()> {
        let (pages, completions) = (folder.join("man"), folder.join("completions"));
        for folder in [&pages, &completions] {
            fs::create_dir_all(folder)?;
        }
        if self == PackagedProgram::Klpx {
            process::output(Command::new(binary).arg("man").arg(&pages))?;
        } else {
            let mut command = klpx_host::HostCli::command();
            command.build();
            page(&command, &pages)?;
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                page(sub, &pages)?;
            }
        }
        compress(&pages)?;
        for (shell, file) in SHELLS {
            let mut script = Vec::new();
            match self {
                PackagedProgram::Klpx => {
                    let output = Command::new(binary).args(["completions", &shell.to_string()]).output()?;
                    script = output.stdout;
                }
                PackagedProgram::Host => {
                    let mut command = klpx_host::HostCli::command();
                    clap_complete::generate(shell, &mut command, self.name(), &mut script);
                }
            }
            if script.is_empty() {
                bail!("{} has no completions for {shell}", self.name());
            }
            fs::write(completions.join(file.replace("NAME", self.name())), script)?;
        }
        Ok(())
    }

    /// Makes the package from the built files.
    fn package(self, workspace: &CargoWorkspace, form: PackageForm, maintainer: &str) -> Result<PathBuf> {
        let folder = workspace.root.join(FOLDER);
        let mut command = match form {
            PackageForm::Deb => {
                let mut command = DEB.command(workspace)?;
                command.args(["--no-build", "--quiet", "--package", self.name(), "--maintainer", maintainer]);
                command
            }
            PackageForm::Rpm => {
                let mut command = RPM.command(workspace)?;
                command.args(["--package", self.manifest()]);
                command
            }
        };
        // The packaging tool gives the file its distribution's usual name.
        let scratch = tempfile::tempdir_in(&folder)?;
        command.args(["--target", &self.target()?, "--output"]).arg(scratch.path());
        // The same inputs give the same bytes.
        command.env("SOURCE_DATE_EPOCH", date(workspace)?);
        process::output(&mut command).with_context(|| format!("can't package {}", self.name()))?;
        let made = fs::read_dir(scratch.path())?.next();
        let made = made.with_context(|| format!("no package of {} was made", self.name()))??;
        let file = folder.join(made.file_name());
        fs::rename(made.path(), &file)?;
        Ok(file)
    }
}

/// Returns the time of the last change of the source, in seconds since 1970.
fn date(workspace: &CargoWorkspace) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root).args(["log", "-1", "--format=%ct"]);
    Ok(process::output(&mut git)?.trim().to_owned())
}

/// Returns a changelog in Debian's form (deb-changelog(5)), which names the place of the full changelog.
fn changelog(program: PackagedProgram, maintainer: &str, date: &str) -> Result<String> {
    let date = process::output(
        Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{date}")),
    )?;
    let (name, version) = (program.name(), env!("CARGO_PKG_VERSION"));
    let text = "  * What is new is in the CHANGELOG.md of klpx's source.";
    Ok(format!("{name} ({version}-1) unstable; urgency=medium\n\n{text}\n\n -- {maintainer}  {date}"))
}

/// Compresses the pages of a folder, as in packages.
fn compress(pages: &Path) -> Result<()> {
    let pages = fs::read_dir(pages)?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?;
    let plain = pages.iter().filter(|page| page.extension().is_some_and(|end| end != "gz"));
    process::output(Command::new("gzip").args(["--best", "--no-name", "--force"]).args(plain)).map(drop)
}

fn page(command: &clap::Command, folder: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).section(SECTION).render(&mut text)?;
    Ok(fs::write(folder.join(format!("{name}.{SECTION}")), text)?)
}

/// Builds `klpx-host` without shared libraries, for a guest.
pub(crate) fn host_binary(workspace: &CargoWorkspace) -> Result<PathBuf> {
    PackagedProgram::Host.build(workspace)
}

/// Makes and checks packages of klpx-host.
pub(crate) fn host(workspace: &CargoWorkspace, form: PackageForm) -> Result<PathBuf> {
    made(workspace, PackagedProgram::Host, form, MAINTAINER)
}

fn made(
    workspace: &CargoWorkspace,
    program: PackagedProgram,
    form: PackageForm,
    maintainer: &str,
) -> Result<PathBuf> {
    let binary = program.build(workspace)?;
    let folder = workspace.root.join(FOLDER);
    program.texts(&binary, &folder)?;
    fs::write(folder.join("changelog"), changelog(program, maintainer, &date(workspace)?)?)?;
    let file = program.package(workspace, form, maintainer)?;
    lint(workspace, &file, form)?;
    Ok(file)
}

/// Makes everything, and tries the packages in a guest. Returns `Ok(false)` if a package does not work.
pub(crate) fn run(workspace: &CargoWorkspace, args: &DistArgs) -> Result<bool> {
    packages::ensure(&[Need::Packages])?;
    let mut files = Vec::new();
    for program in [PackagedProgram::Klpx, PackagedProgram::Host] {
        let mut step = ui::step(program.name());
        for form in [PackageForm::Deb, PackageForm::Rpm] {
            step.at(form.extension());
            let file = made(workspace, program, form, &args.maintainer)?;
            files.push((format!("{}.{}", program.name(), form.extension()), fs::read(file)?));
        }
        step.at("bill of materials");
        bill(workspace, program)?;
        step.done(&format!("in {FOLDER}"));
    }
    installed(workspace, files)
}

/// Makes the bill of materials. The tool writes one beside the manifest of every crate of the workspace.
fn bill(workspace: &CargoWorkspace, program: PackagedProgram) -> Result<()> {
    const FILE: &str = "bom.json";
    let root = &workspace.root;
    let mut command = CYCLONEDX.command(workspace)?;
    command.args(["--format", "json", "--quiet", "--override-filename", "bom", "--manifest-path"]);
    process::output(command.arg(root.join(program.manifest()).join("Cargo.toml")))?;
    let bill = root.join(FOLDER).join(format!("{}.cdx.json", program.name()));
    fs::rename(root.join(program.manifest()).join(FILE), bill)?;
    let crates =
        fs::read_dir(root.join("crates"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    for folder in crates.into_iter().chain([root.join("xtask")]) {
        let left = folder.join(FILE);
        if left.exists() {
            fs::remove_file(left)?;
        }
    }
    Ok(())
}

/// Installs, uses and removes the packages on a Debian with a stock kernel.
fn installed(workspace: &CargoWorkspace, mut files: Vec<(String, Vec<u8>)>) -> Result<bool> {
    packages::ensure(&disk::NEEDS)?;
    let kernel = kernel::select(&["debian-6.12".to_owned()])?[0];
    packages::ensure(kernel.needs)?;
    let built = kernel::ensure(workspace, kernel)?;
    let step = ui::step("a guest");
    let scratch = tempfile::tempdir()?;
    let disk = disk::copy(workspace, scratch.path())?;
    files.push(("words.sh".to_owned(), fs::read(workspace.fixtures("host/words.sh"))?));
    let task = Task {
        name: "installed".to_owned(),
        script: include_str!("installed.sh").to_owned(),
        files,
        console: Vec::new(),
    };
    let console = workspace.root.join(FOLDER).join("console.log");
    let boot = disk::guest(workspace, &built, disk, &[])?.boot(&[&task], &console)?;
    let verdict = boot.verdicts.get(&task.name).cloned().unwrap_or_default();
    for problem in verdict.problems() {
        ui::say(&format!("    {problem}"));
    }
    match verdict.good() {
        true => step.done(&format!("{} checks", verdict.passed.len())),
        false => step.failed(&format!("the console is in {}", console.display())),
    };
    Ok(verdict.good())
}

/// Lintian's tags that the packages do not follow, each with the reason.
const LINTIAN: [(&str, &str); 2] = [
    (
        "shared-library-lacks-prerequisites",
        "klpx-host needs no library, as it runs where the root file system is half there",
    ),
    ("initial-upload-closes-no-bugs", "nobody uploads the packages to Debian"),
];
/// The file of exceptions for rpmlint.
const RPMLINT: &str = "xtask/src/dist/rpmlint.toml";

/// Checks a package as its distribution would.
pub(crate) fn lint(workspace: &CargoWorkspace, package: &Path, form: PackageForm) -> Result<()> {
    let mut command = match form {
        PackageForm::Deb => {
            let mut command = Command::new("lintian");
            let tags = LINTIAN.map(|(tag, _)| tag).join(",");
            command.args(["--fail-on=error,warning", "--suppress-tags", &tags]);
            command
        }
        PackageForm::Rpm => {
            let mut command = Command::new("rpmlint");
            command.args(["--strict", "--config"]).arg(workspace.root.join(RPMLINT));
            command
        }
    };
    process::output(command.arg(package)).map(drop)
}
