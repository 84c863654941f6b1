//! The lock of a workspace: its holder, and the wait for it. Never follows a link, never waits without a message, and
//! never waits for a process that has ended.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use crate::process::{self, Runner};
use crate::progress::Progress;

/// How long the children of a killed klpx may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often klpx tries again to take a lock that is held.
const POLL: Duration = Duration::from_millis(200);

/// The lock file of a workspace. It contains the process ID of its holder.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Takes a workspace's lock, or waits for it.
///
/// # Errors
/// An interrupt, or `klpx::cache-locked` if no running klpx holds the lock and it does not become free.
pub(crate) fn take(dir: &Path, runner: &Runner, progress: &dyn Progress) -> Result<File> {
    take_within(dir, runner, progress, PATIENCE)
}

fn take_within(dir: &Path, runner: &Runner, progress: &dyn Progress, patience: Duration) -> Result<File> {
    let file = open(dir, true)?;
    let mut announced = None;
    let mut without_owner: Option<Instant> = None;
    while !held(&file, dir)? {
        let holder = LockHolder::find(&file, dir);
        if announced != Some(holder) {
            progress.step(&holder.waiting());
            announced = Some(holder);
        }
        match holder {
            LockHolder::Runs(_) => without_owner = None,
            LockHolder::Gone(_) | LockHolder::Unknown => {
                // The holder was killed, and its children still work here.
                process::end_orphans(&dir.join("group"), dir);
                if without_owner.get_or_insert_with(Instant::now).elapsed() > patience {
                    return Err(locked(dir));
                }
            }
        }
        if runner.stopped() {
            return Err(process::interrupted());
        }
        std::thread::sleep(POLL);
    }
    sign(&file);
    Ok(file)
}

/// Takes a workspace's lock if it is free.
pub(crate) fn try_take(dir: &Path) -> Result<Option<File>> {
    let file = open(dir, true)?;
    let free = held(&file, dir)?;
    if free {
        sign(&file);
    }
    Ok(free.then_some(file))
}

/// Returns true if the workspace's lock is held. Creates no lock file.
pub(crate) fn is_taken(dir: &Path) -> bool {
    open(dir, false).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn open(dir: &Path, create: bool) -> Result<File> {
    let path = path(dir);
    let fail = |error: &std::io::Error| Failure::from(Diagnosis::io("lock", &path, error));
    let file = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        // With O_NONBLOCK, neither a FIFO nor a device in the place of the lock can make the open wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(|error| fail(&error))?;
    let meta = file.metadata().map_err(|error| fail(&error))?;
    if meta.is_file() && meta.nlink() == 1 {
        return Ok(file);
    }
    let what = format!("{} is no lock file of klpx's", path.display());
    Err(Diagnosis::new(&codes::CACHE_CORRUPT, what, "a lock is a regular file with one name", "remove it")
        .into())
}

/// Takes the lock if it is free.
fn held(file: &File, dir: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Diagnosis::io("lock", &path(dir), &error).into()),
    }
}

/// The holder of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockHolder {
    /// A running klpx with this process ID.
    Runs(i32),
    /// A killed klpx with this process ID.
    Gone(i32),
    /// The lock file does not tell.
    Unknown,
}

impl LockHolder {
    fn find(lock: &File, dir: &Path) -> LockHolder {
        let text = std::fs::read_to_string(path(dir)).ok();
        match text.and_then(|text| text.trim().parse().ok()) {
            Some(pid) if process::has_open(pid, lock) => LockHolder::Runs(pid),
            Some(pid) => LockHolder::Gone(pid),
            None => LockHolder::Unknown,
        }
    }

    fn waiting(self) -> String {
        match self {
            LockHolder::Runs(pid) => format!("waiting for another klpx (pid {pid})"),
            LockHolder::Gone(pid) => format!("ending what a klpx that was killed (pid {pid}) left running"),
            LockHolder::Unknown => "waiting for the lock of the kernel's workspace".to_owned(),
        }
    }
}

fn locked(dir: &Path) -> Failure {
    let path = path(dir);
    let remedy = format!("end the process that has it (fuser {}), and run klpx again", path.display());
    Diagnosis::new(
        &codes::CACHE_LOCKED,
        "the kernel's workspace is locked",
        "no klpx that runs has the lock, and it does not come free",
        remedy,
    )
    .place(DiagnosisPlace::file(path.display().to_string(), None))
    .into()
}

/// Writes this process's ID into a lock file that it holds, for waiting processes.
fn sign(file: &File) {
    let _ = file.set_len(0);
    let _ = std::os::unix::fs::FileExt::write_all_at(file, std::process::id().to_string().as_bytes(), 0);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use klpx_testkit::{command, run};

    use super::*;

    /// Records the messages.
    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Progress for Said {
        fn step(&self, what: &str) {
            self.0.lock().expect("lock").push(what.to_owned());
        }
        fn objects(&self, _: u64, _: Option<u64>) {}
        fn note(&self, _: &str) {}
    }

    fn workspace() -> (tempfile::TempDir, PathBuf) {
        let cache = tempfile::tempdir().expect("dir");
        let dir = cache.path().join("aaaaaaaaaaaa");
        std::fs::create_dir(&dir).expect("mkdir");
        (cache, dir)
    }

    /// A lock that this process holds. `says` is the text of the lock file, which may be wrong.
    fn taken(dir: &Path, says: &str) -> File {
        let file = File::create(path(dir)).expect("created");
        file.lock().expect("locked");
        std::fs::write(path(dir), says).expect("written");
        file
    }

    fn wait(dir: &Path, said: &Said) -> String {
        let failure = take_within(dir, &Runner::new(), said, Duration::from_millis(300)).expect_err("locked");
        failure.diagnoses().next().expect("one").code.to_owned()
    }

    #[test]
    fn a_lock_that_nobody_alive_has_is_told_and_ends_in_an_error() {
        // A process ID without a process, a process that does not have the lock open, an empty text.
        let mut stranger = command("sleep").arg("30").spawn().expect("started");
        for (says, told) in [
            ("4000000".to_owned(), "was killed (pid 4000000)"),
            (stranger.id().to_string(), "was killed"),
            (String::new(), "waiting for the lock"),
        ] {
            let (_cache, dir) = workspace();
            let _lock = taken(&dir, &says);
            let said = Said::default();
            assert_eq!(wait(&dir, &said), "klpx::cache-locked", "{says}");
            let said = said.0.into_inner().expect("said");
            assert!(said.len() == 1 && said[0].contains(told), "{said:?}");
        }
        stranger.kill().expect("killed");
        stranger.wait().expect("ended");
    }

    #[test]
    fn a_klpx_that_runs_is_waited_for() {
        let (_cache, dir) = workspace();
        let lock = taken(&dir, &std::process::id().to_string());
        assert!(is_taken(&dir) && try_take(&dir).expect("tried").is_none());
        let said = Said::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(1));
                drop(lock);
            });
            take_within(&dir, &Runner::new(), &said, Duration::from_millis(300)).expect("taken at last");
        });
        let said = said.0.into_inner().expect("said");
        assert_eq!(said, [format!("waiting for another klpx (pid {})", std::process::id())]);
    }

    #[test]
    fn what_stands_in_the_place_of_a_lock_is_not_touched() {
        let (cache, dir) = workspace();
        let precious = cache.path().join("precious");
        std::fs::write(&precious, "text").expect("write");
        let place = path(&dir);
        let plant: [fn(&Path, &Path) -> std::io::Result<()>; 2] = [
            |target, place| std::os::unix::fs::symlink(target, place),
            |target, place| std::fs::hard_link(target, place),
        ];
        for plant in plant {
            plant(&precious, &place).expect("planted");
            assert!(take(&dir, &Runner::new(), &()).is_err() && try_take(&dir).is_err());
            assert_eq!(std::fs::read_to_string(&precious).expect("read"), "text");
            std::fs::remove_file(&place).expect("removed");
        }
        run(command("mkfifo").arg(&place));
        assert!(take(&dir, &Runner::new(), &()).is_err());
    }
}
