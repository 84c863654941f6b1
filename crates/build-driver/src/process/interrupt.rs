//! SIGINT and SIGTERM: the flag that they set, and the end of work that sees the flag.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use klpx_diagnosis::{Class, Diagnosis, Failure, Result, codes};

/// The flag that SIGINT and SIGTERM set. The first call installs the handler. A second signal ends klpx at once if it
/// comes at least one second after the first. (Some senders signal a process and its group at the same time.)
pub fn interrupt_flag() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let first = Arc::new(AtomicU64::new(u64::MAX));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let (flag, first) = (Arc::clone(&flag), Arc::clone(&first));
            let action = move || {
                let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
                if first.fetch_min(now, Ordering::Relaxed).saturating_add(1000) < now {
                    signal_hook::low_level::exit(i32::from(Class::Interrupted.exit_code()));
                }
                flag.store(true, Ordering::Relaxed);
            };
            // SAFETY: atomics, the clock and _exit are async-signal-safe. The call fails only for signals that can't be
            // caught.
            let _ = unsafe { signal_hook::low_level::register(signal, action) };
        }
        flag
    })
    .clone()
}

/// Returns an error if klpx was asked to stop. For long stages that start no process.
pub fn check_interrupt() -> Result<()> {
    if interrupt_flag().load(Ordering::Relaxed) { Err(interrupted()) } else { Ok(()) }
}

/// The bytes of a text that the user names. The file may be a pipe: SIGINT and SIGTERM end the wait.
pub(crate) fn read(path: &Path) -> io::Result<Result<Vec<u8>>> {
    let stop = interrupt_flag();
    let stopped = || stop.load(Ordering::Relaxed);
    match klpx_input::bytes_until(path, &stopped) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted && stopped() => Ok(Err(interrupted())),
        other => other,
    }
}

/// The failure of a command that a signal stopped.
pub(crate) fn interrupted() -> Failure {
    Diagnosis::new(
        &codes::INTERRUPTED,
        "stopped by a signal",
        "klpx ends at a signal, and the next run restores the files that were patched",
        "run klpx again",
    )
    .into()
}
