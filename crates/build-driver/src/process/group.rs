//! Process groups of children: their begin, their end, and groups that a killed klpx left behind.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Runs in the child between fork and exec.
pub(super) fn before_exec(parent: i32, lock: Option<RawFd>) -> io::Result<()> {
    // SAFETY: plain system calls on values that the child owns.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent {
            // klpx died before the prctl call took effect.
            libc::_exit(1);
        }
        if let Some(fd) = lock
            && libc::fcntl(fd, libc::F_SETFD, 0) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sends a signal to a process group. A group that has ended is no error.
pub(super) fn kill_group(group: i32, signal: i32) {
    if group > 1 {
        // SAFETY: a plain system call.
        unsafe { libc::killpg(group, signal) };
    }
}

/// Kills the processes that a killed klpx left running: those of the group recorded in the file `group` that work below
/// `dir`. The second condition protects unrelated processes that got the same group number later.
pub(crate) fn end_orphans(group: &Path, dir: &Path) {
    let Some(group) = std::fs::read_to_string(group).ok().and_then(|text| text.trim().parse::<i32>().ok())
    else {
        return;
    };
    let Ok(listing) = std::fs::read_dir("/proc") else { return };
    for entry in listing.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        // SAFETY: plain system calls on numbers.
        if inside && unsafe { libc::getpgid(pid) } == group {
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// Returns true if the process has the file open, or if klpx may not look.
pub(crate) fn has_open(pid: i32, file: &File) -> bool {
    let Ok(wanted) = file.metadata() else { return true };
    let listing = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(listing) => listing,
        Err(error) => return error.kind() == io::ErrorKind::PermissionDenied,
    };
    let is_it = |path: PathBuf| {
        path.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino()))
    };
    listing.flatten().any(|entry| is_it(entry.path()))
}
