//! Every child process of klpx: its environment, its process group, its end. Never interprets a child's output.
//!
//! A child leads its own process group, so that the child and its descendants can be stopped together. It gets SIGTERM
//! when klpx dies (make then removes half-written targets). It inherits the workspace's lock, so that no second klpx
//! can enter a workspace while compilers of a killed klpx still write to it.

mod call;
mod group;
mod interrupt;
pub(crate) mod missing;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use klpx_diagnosis::{Diagnosis, Result, codes};

pub use call::{Answer, Call, CallOutcome};
use group::{before_exec, kill_group};
pub(crate) use group::{end_orphans, has_open};
pub use interrupt::{check_interrupt, interrupt_flag};
pub(crate) use interrupt::{interrupted, read};

/// How often klpx checks for a signal while a child runs.
const POLL: Duration = Duration::from_millis(50);
/// How long a process group may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// Environment variables that children keep. make turns its environment into make variables, so all others are removed.
const KEPT: [&str; 7] = ["PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH"];
/// Prefixes of variables that tool wrappers need.
const KEPT_PREFIXES: [&str; 2] = ["PYENV_", "NIX_"];

/// Starts and ends child processes.
#[derive(Clone, Debug)]
pub struct Runner {
    stop: Arc<AtomicBool>,
    hold: Option<ChildWorkspace>,
    /// True if children had to be killed without time to remove half-written files.
    killed: Arc<AtomicBool>,
}

/// The workspace of the children.
#[derive(Clone, Debug)]
struct ChildWorkspace {
    /// The workspace's lock, which children inherit.
    lock: Arc<File>,
    /// The file that records the process group of the last child.
    group: PathBuf,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner::new()
    }
}

impl Runner {
    /// A runner that obeys SIGINT and SIGTERM.
    pub fn new() -> Runner {
        Runner { stop: interrupt_flag(), hold: None, killed: Arc::default() }
    }

    /// The same runner, with children that also hold `lock` until the last of them ends. Records their process group in
    /// the file `group`.
    pub(crate) fn holding(&self, lock: Arc<File>, group: PathBuf) -> Runner {
        Runner {
            stop: Arc::clone(&self.stop),
            hold: Some(ChildWorkspace { lock, group }),
            killed: Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_flag(stop: Arc<AtomicBool>) -> Runner {
        Runner { stop, hold: None, killed: Arc::default() }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns true if a child did not end in time after SIGTERM and got SIGKILL. Its output files may be incomplete.
    pub(crate) fn killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Runs a program to its end and keeps its output.
    ///
    /// # Errors
    /// If the program can't be started (`klpx::missing-tool` if it is not installed), or klpx was interrupted.
    pub fn run(&self, call: &Call) -> Result<CallOutcome> {
        let mut lines = Vec::new();
        let success = self.stream(call, &mut |line| lines.push(line.to_owned()))?;
        Ok(CallOutcome { success, lines })
    }

    /// Runs a program to its end and keeps its standard output separate from standard error, since a warning is not
    /// data.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn ask(&self, call: &Call) -> Result<Answer> {
        let fail = |error: io::Error| Diagnosis::io("write to", &std::env::temp_dir(), &error);
        let mut file = tempfile::tempfile().map_err(fail)?;
        let output = file.try_clone().map_err(fail)?;
        let mut stderr = Vec::new();
        let success = self.stream_beside(call, Some(output), &mut |line| stderr.push(line.to_owned()))?;
        let mut data = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut data)).map_err(fail)?;
        Ok(Answer { success, data, messages: stderr })
    }

    /// Runs a program to its end and passes on each line of output as it arrives. Returns true if it ended with status
    /// 0.
    pub fn stream(&self, call: &Call, on_line: &mut dyn FnMut(&str)) -> Result<bool> {
        self.stream_beside(call, None, on_line)
    }

    /// As `stream`. With a file, standard output goes to the file, and only standard error is passed on.
    fn stream_beside(
        &self,
        call: &Call,
        output: Option<File>,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<bool> {
        if self.stopped() {
            return Err(interrupted());
        }
        tracing::debug!(?call, "runs");
        let reader = self.expression(call, output).reader().map_err(|error| cannot_start(call, &error))?;
        let group = reader.pids().first().map_or(0, |pid| pid.cast_signed());
        if let Some(hold) = &self.hold {
            // Only for the next klpx, if this one is killed. Without the record, the next klpx waits for the children
            // to end.
            let _ = std::fs::write(&hold.group, group.to_string());
        }
        let result = std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel::<io::Result<String>>();
            let output = &reader;
            scope.spawn(move || {
                for line in BufReader::new(output).split(b'\n') {
                    let line = line.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
            self.pump(&receiver, group, on_line)
        });
        match result {
            Ok(()) => {}
            Err(Stopped::Signal) => return Err(interrupted()),
            Err(Stopped::Read(error)) => {
                return Err(Diagnosis::new(
                    &codes::IO,
                    "can't read a tool's output",
                    error.to_string(),
                    "run klpx again; if the failure comes back, check the machine's memory and limits",
                )
                .into());
            }
        }
        match reader.try_wait() {
            Ok(Some(output)) => Ok(output.status.success()),
            Ok(None) => Ok(false),
            Err(error) => Err(cannot_start(call, &error).into()),
        }
    }

    /// Passes on lines until the output ends. Stops the whole group if klpx must stop.
    fn pump(
        &self,
        receiver: &mpsc::Receiver<io::Result<String>>,
        group: i32,
        on_line: &mut dyn FnMut(&str),
    ) -> std::result::Result<(), Stopped> {
        let mut terminated: Option<Instant> = None;
        let mut failed = None;
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(Ok(line)) => on_line(line.trim_end_matches('\r')),
                Ok(Err(error)) => failed = Some(error),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            match terminated {
                None if self.stopped() => {
                    kill_group(group, libc::SIGTERM);
                    terminated = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE => {
                    self.killed.store(true, Ordering::Relaxed);
                    kill_group(group, libc::SIGKILL);
                }
                _ => {}
            }
        }
        match (terminated, failed) {
            (Some(_), _) => {
                kill_group(group, libc::SIGKILL);
                Err(Stopped::Signal)
            }
            (None, Some(error)) => Err(Stopped::Read(error)),
            (None, None) => Ok(()),
        }
    }

    fn expression(&self, call: &Call, output: Option<File>) -> duct::Expression {
        let parent = std::process::id().cast_signed();
        let lock = self.hold.as_ref().map(|hold| Arc::clone(&hold.lock));
        let command = duct::cmd(&call.program, &call.args);
        let command = match output {
            Some(file) => command.stdout_file(file),
            None => command,
        };
        let mut expression = command
            .stdin_null()
            .stderr_to_stdout()
            .unchecked()
            .full_env(environment(&call.env))
            .before_spawn(move |command| {
                command.process_group(0);
                let lock = lock.as_ref().map(|file| file.as_raw_fd());
                // SAFETY: `before_exec` only makes system calls that are async-signal-safe.
                unsafe { command.pre_exec(move || before_exec(parent, lock)) };
                Ok(())
            });
        if let Some(dir) = &call.dir {
            expression = expression.dir(dir);
        }
        expression
    }
}

enum Stopped {
    Signal,
    Read(io::Error),
}

fn environment(extra: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let kept = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| kept(name)).collect();
    env.push(("LC_ALL".into(), "C".into()));
    env.extend(extra.iter().cloned());
    env
}

fn cannot_start(call: &Call, error: &io::Error) -> Diagnosis {
    let program = call.program.to_string_lossy();
    if error.kind() == io::ErrorKind::NotFound {
        return missing::missing_tool(&program);
    }
    Diagnosis::new(
        &codes::CANNOT_RUN,
        format!("can't run {program}"),
        error.to_string(),
        "check that the file is executable and made for this machine, and that its folder is \
         not mounted with noexec",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> (Runner, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (Runner::with_flag(Arc::clone(&flag)), flag)
    }

    fn sh(script: &str) -> Call {
        Call::new("sh").args(["-c", script])
    }

    #[test]
    fn output_of_both_streams_comes_in_order() {
        let (runner, _) = runner();
        let outcome = runner.run(&sh("echo one; echo two >&2; echo three; exit 3")).expect("runs");
        assert!(!outcome.success);
        assert_eq!(outcome.lines, ["one", "two", "three"]);
    }

    #[test]
    fn data_is_kept_apart_from_what_is_said() {
        let (runner, _) = runner();
        let answer = runner.ask(&sh("echo careful >&2; printf 'a\\0b\\n'; echo more >&2")).expect("runs");
        assert!(answer.success);
        assert_eq!(answer.data, b"a\0b\n");
        assert_eq!(answer.messages, ["careful", "more"]);
        assert!(!runner.ask(&sh("exit 1")).expect("runs").success);
    }

    #[test]
    fn a_missing_program_is_named() {
        let (runner, _) = runner();
        let failure = runner.run(&Call::new("no-such-program-here")).expect_err("fails");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!(diagnosis.code, "klpx::missing-tool");
        assert!(diagnosis.what.contains("no-such-program-here"));
    }

    #[test]
    fn the_environment_is_scrubbed() {
        let (runner, _) = runner();
        let is_there = |(name, _): (OsString, OsString)| name.to_string_lossy().starts_with("CARGO");
        assert!(std::env::vars_os().any(is_there), "there is something to scrub: run this by cargo");
        let outcome = runner.run(&sh("env").env("KEEP_ME", "1")).expect("runs");
        let names: Vec<&str> = outcome.lines.iter().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"KEEP_ME") && names.contains(&"LC_ALL"));
        assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    }

    #[test]
    fn an_interrupt_ends_the_whole_process_group() {
        let (runner, flag) = runner();
        let dir = tempfile::tempdir().expect("dir");
        let pidfile = dir.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; echo up; wait", pidfile.display());
        let start = Instant::now();
        let result = runner.stream(&sh(&script), &mut |_| flag.store(true, Ordering::Relaxed));
        let failure = result.expect_err("interrupted");
        assert_eq!(failure.exit_code(), 130);
        assert!(start.elapsed() < Duration::from_secs(20));
        let pid: i32 = std::fs::read_to_string(&pidfile).expect("pid").trim().parse().expect("number");
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            // SAFETY: signal 0 only tests whether the process exists.
            let alive = unsafe { libc::kill(pid, 0) } == 0;
            let zombie =
                std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
            !alive || zombie
        });
        assert!(gone, "grandchild {pid} still runs");
    }
}
