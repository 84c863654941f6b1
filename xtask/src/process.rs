//! Runs host commands: with a clean environment for kernel builds, with logs, and with the last lines of a failure
//! shown.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The number of lines of a failed command's output that are shown.
const TAIL: usize = 25;

/// Variables that change what a kernel build makes; a fixture must not depend on them.
const KBUILD_VARIABLES: &[&str] = &[
    "ARCH",
    "CC",
    "CROSS_COMPILE",
    "HOSTCC",
    "KBUILD_OUTPUT",
    "KCFLAGS",
    "KCONFIG_CONFIG",
    "LD",
    "LLVM",
    "LOCALVERSION",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "O",
];

/// Makes builds the same everywhere: user, host, time and locale are fixed.
pub(crate) fn kbuild_environment(command: &mut Command) -> &mut Command {
    for variable in KBUILD_VARIABLES {
        command.env_remove(variable);
    }
    command
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 2026")
        .env("KBUILD_BUILD_USER", "klpx")
        .env("KBUILD_BUILD_HOST", "fixtures")
        .env("KBUILD_BUILD_VERSION", "1")
        .env("LC_ALL", "C")
}

/// Returns the command as a person would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs a command to its end and returns standard output; a failure contains the last lines of both streams.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result =
        command.stdin(Stdio::null()).output().with_context(|| format!("can't run {}", shown(command)))?;
    let stdout = String::from_utf8_lossy(&result.stdout).into_owned();
    if !result.status.success() {
        let stderr = String::from_utf8_lossy(&result.stderr);
        bail!("{} failed ({})\n{}", shown(command), result.status, tail(&format!("{stdout}{stderr}")));
    }
    Ok(stdout)
}

/// Runs a command with the terminal's own streams.
pub(crate) fn inherit(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("can't run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and writes both streams to `log`; `progress` gets each line as it comes.
pub(crate) fn logged(command: &mut Command, log: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("can't write {}", log.display()))?;
    writeln!(file, "$ {}", shown(command))?;
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("can't run {}", shown(command)))?;
    // `command` still holds the writing ends, so a reader would wait for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut last = Vec::new();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        file.write_all(&bytes)?;
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        progress(&line);
        last.push(line);
        if last.len() > TAIL {
            last.remove(0);
        }
        bytes.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status}), log in {}\n{}", shown(command), log.display(), last.join("\n"));
    }
    Ok(())
}

/// Returns the last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
