//! Runs klpx with disks that are too small, in a mount namespace of that klpx.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};

use super::running::{Ended, RunningKlpx};
use super::{BUILDING, NAME, Setting};

/// The exit code of this file's scripts if the machine does not let them mount.
const NO_MOUNT: i32 = 99;

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Runs a call in a separate mount namespace, so that nothing stays mounted whatever happens. In `script`, `"$@"` is
/// the call.
fn in_namespace(script: &str, call: &Command, variables: &[(&str, &Path)]) -> Result<Ended> {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", script, "sh"]).arg(call.get_program()).args(call.get_args());
    for (name, value) in call.get_envs() {
        command.env(name, value.unwrap_or(&OsString::new()));
    }
    command.envs(variables.iter().copied());
    let ended = RunningKlpx::start(command)?.wait()?;
    if ended.code() == Some(NO_MOUNT) || ended.text.starts_with("unshare:") {
        bail!(
            "a full disk can't be tried here: this needs root or user namespaces, to mount\n{}",
            ended.tail()
        );
    }
    Ok(ended)
}

pub(super) fn small_disk(setting: &Setting<'_>) -> Result<Vec<String>> {
    full_cache(setting, "small-disk", "size=64m", &["are free, about", "--cache-dir"])
}

/// Tries a disk with plenty of free space on which no file can be created after some thousands.
pub(super) fn disk_fills_in_copy(setting: &Setting<'_>) -> Result<Vec<String>> {
    full_cache(setting, "disk-fills-in-copy", "size=256g,nr_inodes=3000", &["No space left on device"])
}

/// Builds with an empty cache on a small disk.
fn full_cache(setting: &Setting<'_>, name: &str, options: &str, mentions: &[&str]) -> Result<Vec<String>> {
    let job = setting.job(name, 0)?;
    let cache = tempfile::tempdir()?;
    let mut call = job.command();
    call.env("KLPX_CACHE_DIR", cache.path());
    let script =
        format!("mount -t tmpfs -o {options} tmpfs \"$KLPX_CACHE_DIR\" || exit {NO_MOUNT}; exec \"$@\"");
    let ended = in_namespace(&script, &call, &[])?;
    let mut failures = job.judge(&ended, 8, "klpx::disk-full", mentions);
    failures.extend(
        fs::read_dir(cache.path())?
            .flatten()
            .map(|entry| format!("written below the mount: {}", entry.path().display())),
    );
    Ok(failures)
}

/// Lays a small disk over klpx's cache, which then has no room for an object with debug information. The disk then
/// grows, and klpx goes on with the same workspace.
pub(super) fn disk_fills_in_build(setting: &Setting<'_>) -> Result<Vec<String>> {
    let job = setting.job("disk-fills-in-build", 1)?;
    let disk = tempfile::tempdir()?;
    let first = setting.dir.join("disk-fills-in-build.first");
    fs::create_dir_all(&first)?;
    let variables = [
        ("ROBUST_CACHE", setting.klpx.cache()),
        ("ROBUST_DISK", disk.path()),
        ("ROBUST_OUTPUT", &job.output),
        ("ROBUST_FIRST", &first),
    ];
    // A user namespace can't keep overlayfs' notes where root keeps them.
    let notes = if is_root() { "" } else { ",userxattr" };
    let script = format!(
        "mount -t tmpfs -o size=1m tmpfs \"$ROBUST_DISK\" || exit {NO_MOUNT}
         mkdir \"$ROBUST_DISK/upper\" \"$ROBUST_DISK/work\"
         mount -t overlay -o \"lowerdir=$ROBUST_CACHE,upperdir=$ROBUST_DISK/upper,workdir=$ROBUST_DISK/work{notes}\" \\
             overlay \"$ROBUST_CACHE\" || exit {NO_MOUNT}
         \"$@\" > \"$ROBUST_FIRST/log\" 2>&1
         echo $? > \"$ROBUST_FIRST/exit\"
         mv \"$ROBUST_OUTPUT/{NAME}.json\" \"$ROBUST_FIRST\"
         ls -A \"$ROBUST_OUTPUT\" > \"$ROBUST_FIRST/left\"
         mount -t tmpfs -o remount,size=8g tmpfs \"$ROBUST_DISK\" || exit {NO_MOUNT}
         exec \"$@\""
    );
    let second = in_namespace(&script, &job.command(), &variables)?;
    let code: i32 = fs::read_to_string(first.join("exit"))?.trim().parse()?;
    let text = fs::read_to_string(first.join("log"))?;
    let full = Ended { status: ExitStatus::from_raw(code << 8), text };
    let mut failures = full.judge(8, "klpx::disk-full", &[BUILDING, "No space left on device"]);
    let left = fs::read_to_string(first.join("left"))?;
    failures.extend(left.lines().map(|file| format!("left in the output folder: {file}")));
    failures.extend(setting.same_module(&job, &second));
    Ok(failures)
}
