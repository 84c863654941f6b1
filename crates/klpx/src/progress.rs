//! Steps and their progress on standard error: a live line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use klpx_engine::{Events, Stage};

use crate::terminal;

/// Width of the column that names a step.
const NAME: usize = 14;
/// Width of the column that says what came of it; the time stands after it.
const RESULT: usize = 62;

/// Shows the steps of one run.
pub(crate) struct Steps {
    terminal: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    name: &'static str,
    started: Instant,
    bar: ProgressBar,
    announced: Instant,
}

impl Steps {
    pub(crate) fn new() -> Steps {
        Steps { terminal: std::io::stderr().is_terminal(), current: Mutex::new(None) }
    }

    /// Something to know that stops nothing; while a step is under way its line stays below.
    pub(crate) fn remark(&self, text: &str) {
        let guard = self.lock();
        let print = || print_line(&format!("  {:NAME$} {text}", "note"));
        match guard.as_ref() {
            Some(current) => current.bar.suspend(print),
            None => print(),
        }
    }

    /// Forgets the step that is under way: a failure is reported instead.
    pub(crate) fn abandon(&self) {
        if let Some(current) = self.lock().take() {
            current.bar.finish_and_clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn message(&self, text: &str, plain: bool) {
        let mut guard = self.lock();
        let Some(current) = guard.as_mut() else { return };
        current.bar.set_message(terminal::word(text).into_owned());
        if !self.terminal && plain {
            current.announced = Instant::now();
            print_line(&format!("  {:NAME$} {text}", current.name));
        }
    }
}

impl klpx_build_driver::Progress for Steps {
    fn step(&self, what: &str) {
        self.message(what, true);
    }

    fn objects(&self, done: u64, total: Option<u64>) {
        let text = match total {
            Some(total) => format!("{done} of {total} objects"),
            None => format!("{done} objects"),
        };
        // Off a terminal a line each half minute shows that it lives.
        let due = self.lock().as_ref().is_some_and(|c| c.announced.elapsed() >= Duration::from_secs(30));
        self.message(&text, due);
    }

    fn note(&self, what: &str) {
        self.remark(what);
    }
}

impl Events for Steps {
    fn begin(&self, stage: Stage) {
        let name = stage.name();
        let bar = if self.terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if self.terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template(&format!("  {{prefix:{NAME}}} {{msg:.dim}} {{elapsed:.dim}}"));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        let now = Instant::now();
        *self.lock() = Some(Current { name, started: now, bar, announced: now });
    }

    /// Short steps show no time.
    fn end(&self, result: &str) {
        let Some(current) = self.lock().take() else { return };
        current.bar.finish_and_clear();
        let elapsed = current.started.elapsed();
        let line = if elapsed >= Duration::from_millis(50) {
            format!("  {:NAME$} {result:RESULT$} {:>7.1} s", current.name, elapsed.as_secs_f64())
        } else {
            format!("  {:NAME$} {result}", current.name)
        };
        print_line(&line);
    }
}

/// Standard error may be closed; that is no reason to stop.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", terminal::lines(line.trim_end()));
}
