//! Builds the fuzz targets on stable Rust, with LLVM's coverage instrumentation in all their code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The flags that `cargo fuzz --sanitizer none` gives the compiler: counters of edges, operands of comparisons, and
/// checks that a release does not have.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];

/// The purpose of the programs.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// The build only shows that the programs compile.
    Quick,
    /// The programs are to be run.
    Fast,
}

impl Profile {
    /// Returns cargo's names of the profile and of its folder.
    fn names(self) -> [&'static str; 2] {
        match self {
            Profile::Quick => ["dev", "debug"],
            Profile::Fast => ["release", "release"],
        }
    }
}

/// Returns the folder for everything about fuzzing.
pub(crate) fn home(root: &Path) -> PathBuf {
    root.join("target/fuzz")
}

/// Builds all targets. Returns the folder with the programs.
pub(crate) fn run(root: &Path, profile: Profile) -> Result<PathBuf> {
    let triple = triple()?;
    let [profile, folder] = profile.names();
    let target = home(root).join("build");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root.join("tests/fuzz"));
    // With an explicit target, the flags do not apply to programs that run during the build.
    cargo.args(["build", "--locked", "--quiet", "--profile", profile, "--target", &triple]);
    cargo.arg("--target-dir").arg(&target);
    cargo.env("RUSTFLAGS", FLAGS.join(" ")).env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("CARGO_INCREMENTAL", "0");
    process::output(&mut cargo).context("the fuzz targets do not build")?;
    Ok(target.join(triple).join(folder))
}

/// Returns rustc's name for the machine.
fn triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = process::output(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what machine it is for")?.to_owned())
}
