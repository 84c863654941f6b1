//! Measures a command: its time, its own processor time without its children's, and the memory of all of them together.

use std::fs;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// Interval between samples of a running command.
const PERIOD: Duration = Duration::from_millis(20);

/// The kernel's names of compiler and assembler processes (proc_pid_comm(5)).
const COMPILERS: [&str; 5] = ["cc1", "as", "clang", "clang-19", "clang-22"];

/// The measurements of one run of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Wall clock.
    pub(super) elapsed: Duration,
    /// Processor time of the process itself, without its children.
    pub(super) own: Duration,
    /// Wall clock during which a descendant compiler ran, to the nearest sample.
    pub(super) compiling: Duration,
    /// Most resident memory of the process and its descendants together at one time, in bytes.
    pub(super) memory: u64,
}

/// Returns the fastest of some runs.
pub(super) fn best(runs: u32, mut command: impl FnMut() -> Command) -> Result<Usage> {
    let mut best: Option<Usage> = None;
    for _ in 0..runs.max(1) {
        let usage = measure(&mut command())?;
        if best.is_none_or(|best| usage.elapsed < best.elapsed) {
            best = Some(usage);
        }
    }
    best.context("no run")
}

/// Measures a command that must succeed.
pub(super) fn measure(command: &mut Command) -> Result<Usage> {
    let (usage, status) = measure_any(command.stderr(Stdio::null()))?;
    if !status.success() {
        bail!("{} failed ({status})", process::shown(command));
    }
    Ok(usage)
}

/// Runs a command to its end and takes samples meanwhile.
pub(super) fn measure_any(command: &mut Command) -> Result<(Usage, ExitStatus)> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("can't run {}", process::shown(command)))?;
    let mut usage = Usage::default();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let looked = Instant::now();
        let compiles = look(child.id(), &mut usage);
        std::thread::sleep(PERIOD);
        if compiles {
            usage.compiling += looked.elapsed();
        }
    };
    usage.elapsed = start.elapsed();
    Ok((usage, status))
}

/// Takes a sample and returns true if a compiler runs. A process that has ended meanwhile adds nothing.
fn look(process: u32, usage: &mut Usage) -> bool {
    usage.own = own_time(process).unwrap_or(usage.own);
    let family = family(process);
    let memory = family.iter().filter_map(|process| resident(*process)).sum();
    usage.memory = usage.memory.max(memory);
    family.iter().any(|process| is_compiler(*process))
}

fn is_compiler(process: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    COMPILERS.contains(&name.trim_end())
}

/// Returns the processor time that a process has used (proc_pid_stat(5), utime and stime).
fn own_time(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    // SAFETY: a plain call without pointers.
    let second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|n| *n > 0)?;
    Some(Duration::from_millis(ticks * 1000 / second))
}

/// Returns the resident bytes of a process (proc_pid_statm(5)).
fn resident(process: u32) -> Option<u64> {
    let pages: u64 =
        fs::read_to_string(format!("/proc/{process}/statm")).ok()?.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: a plain call without pointers.
    Some(pages * u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?)
}

/// Returns a process and its descendants.
fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_not_the_childrens() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut alone = Command::new("sh");
        alone.args(["-c", busy]);
        let mut by_child = Command::new("sh");
        by_child.args(["-c", &format!("sh -c '{busy}'; sleep 0.1")]);
        let (alone, by_child) = (measure(&mut alone).expect("runs"), measure(&mut by_child).expect("runs"));
        assert!(alone.own > 2 * by_child.own, "{alone:?} {by_child:?}");
        assert!(alone.memory > 100_000, "{alone:?}");
    }

    #[test]
    fn a_compilers_time_is_told_apart() {
        let scratch = tempfile::tempdir().expect("a folder");
        let compiler = scratch.path().join("cc1");
        std::os::unix::fs::symlink("/bin/sleep", &compiler).expect("a link");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} 0.4; sleep 0.4", compiler.display())]);
        let usage = measure(&mut command).expect("runs");
        assert!(usage.compiling > Duration::from_millis(200), "{usage:?}");
        assert!(usage.elapsed > usage.compiling + Duration::from_millis(200), "{usage:?}");
    }
}
