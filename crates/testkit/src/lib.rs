//! What tests share: the programs that they start, small C projects and kernels, readers of other tools' output.
//!
//! A test fails if its program is missing or fails. This crate never becomes a part of klpx: crates have it as a
//! dev-dependency only, and xtask as a dependency.

#![allow(clippy::panic, reason = "a test that lacks a program fails")]

pub mod builds;
pub mod dwarfdump;
pub mod fixture;
pub mod kallsyms_tables;
pub mod kernel;
pub mod lto;
pub mod project;
pub mod snapshot;
pub mod sources;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// Every program that a test without a kernel starts, directly or through klpx, and the Debian package of the program.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("aarch64-linux-gnu-as", "binutils-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
    ("as", "binutils"),
    ("chromium", "chromium"),
    ("clang-16", "clang-16"),
    ("clang-19", "clang-19"),
    ("clang-22", "clang-22"),
    ("dpkg-deb", "dpkg"),
    ("gcc", "gcc"),
    ("gcc-12", "gcc-12"),
    ("git", "git"),
    ("kill", "procps"),
    ("ld", "binutils"),
    ("ld.lld-16", "lld-16"),
    ("ld.lld-19", "lld-19"),
    ("ld.lld-22", "lld-22"),
    ("llvm-ar-16", "llvm-16"),
    ("llvm-ar-19", "llvm-19"),
    ("llvm-ar-22", "llvm-22"),
    ("llvm-dis-16", "llvm-16"),
    ("llvm-dis-19", "llvm-19"),
    ("llvm-dis-22", "llvm-22"),
    ("llvm-dwarfdump-22", "llvm-22"),
    ("llvm-nm-19", "llvm-19"),
    ("llvm-nm-22", "llvm-22"),
    ("llvm-objcopy-22", "llvm-22"),
    ("make", "make"),
    ("mkfifo", "coreutils"),
    ("objdump", "binutils"),
    ("openssl", "openssl"),
    ("opt-16", "llvm-16"),
    ("opt-19", "llvm-19"),
    ("opt-22", "llvm-22"),
    ("sh", "dash"),
    ("sleep", "coreutils"),
    ("strip", "binutils"),
];

/// The Debian package of a program of [`PROGRAMS`].
pub fn package(program: &str) -> Option<&'static str> {
    PROGRAMS.iter().find(|(name, _)| *name == program).map(|(_, package)| *package)
}

/// A command that starts a program of [`PROGRAMS`]. The test fails if the machine does not have the program.
#[track_caller]
pub fn command(program: &str) -> Command {
    need(program);
    Command::new(program)
}

/// Fails the test if the machine does not have a program that klpx itself will start.
#[track_caller]
pub fn need(program: &str) {
    need_on(program, &std::env::var_os("PATH").unwrap_or_default());
}

#[track_caller]
fn need_on(program: &str, path: &OsStr) {
    let Some(package) = package(program) else {
        panic!("{program} is not in the table of programs that tests start (klpx_testkit::PROGRAMS)");
    };
    let executable = |file: std::fs::Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
    let there = std::env::split_paths(path)
        .any(|folder| std::fs::metadata(folder.join(program)).is_ok_and(executable));
    assert!(there, "this test needs {program}: install the package {package}");
}

/// Runs a command to its end and returns its output. The test fails if the command does not succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?} does not start: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}

/// The standard output of a command as text. The test fails as in [`run`].
#[track_caller]
pub fn said(command: &mut Command) -> String {
    String::from_utf8_lossy(&run(command).stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The message of a failing test.
    fn failure(test: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(test).expect_err("the test fails");
        *panic.downcast::<String>().expect("a message")
    }

    /// A folder of programs with `gcc` and a file that is not executable.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/bin/sh", folder.path().join("gcc")).expect("a link");
        std::fs::write(folder.path().join("clang-16"), "").expect("a file");
        let path = folder.path().to_owned();
        (folder, path)
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let (_folder, path) = folder();
        need_on("gcc", path.as_os_str());
        for (program, says) in [
            ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-gcc: install the package gcc-aarch64-linux-gnu"),
            ("aarch64-linux-gnu-as", "aarch64-linux-gnu-as: install the package binutils-aarch64-linux-gnu"),
            ("clang-16", "clang-16: install the package clang-16"),
            ("mkfifo", "mkfifo: install the package coreutils"),
        ] {
            let path = path.clone();
            let said = failure(move || need_on(program, path.as_os_str()));
            assert_eq!(said, format!("this test needs {says}"));
        }
    }

    #[test]
    fn a_program_without_a_row_is_refused_although_it_is_there() {
        let said = failure(|| drop(command("cat")));
        assert!(said.starts_with("cat is not in the table"), "{said}");
    }

    #[test]
    fn a_failure_shows_the_program_its_arguments_and_what_it_said() {
        let said = failure(|| drop(run(command("sh").args(["-c", "echo no such luck >&2; exit 3"]))));
        for part in ["\"sh\"", "\"-c\"", "exit status: 3", "no such luck"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = failure(|| drop(run(&mut Command::new("/no/such/program"))));
        assert!(said.contains("/no/such/program") && said.contains("does not start"), "{said}");
    }

    #[test]
    fn what_a_command_prints_is_given() {
        assert_eq!(said(command("sh").args(["-c", "echo one; echo two >&2"])), "one\n");
    }

    #[test]
    fn the_table_is_sorted_and_has_each_program_once() {
        assert!(PROGRAMS.is_sorted_by(|one, other| one.0 < other.0));
    }
}
