//! Shows steps and their progress on standard error: a live line on a terminal, plain lines elsewhere, or events for
//! programs.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use klpx_diagnosis::Failure;
use klpx_engine::{Events, Stage};
use serde_json::{Value, json};

use crate::{render, report, terminal};

/// Width of the column that names a step.
const NAME: usize = 14;
/// Width of the column with a step's result; the time stands after it.
const RESULT: usize = 62;

/// How often the number of objects is shown: to people off a terminal (`SLOW`), and to programs (`QUICK`).
const SLOW: Duration = Duration::from_secs(30);
const QUICK: Duration = Duration::from_millis(200);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressForm {
    /// Lines for people, the current one live on a terminal
    Text,
    /// One event a line, as JSON (klpx schema progress)
    Json,
}

/// Shows the steps of one run.
pub(crate) struct ShownSteps {
    form: ProgressForm,
    terminal: bool,
    current: Mutex<Option<Current>>,
    ended: Mutex<Vec<report::StageReport>>,
}

struct Current {
    name: &'static str,
    started: Instant,
    bar: ProgressBar,
    announced: Instant,
}

impl ShownSteps {
    pub(crate) fn new(form: ProgressForm) -> ShownSteps {
        let terminal = form == ProgressForm::Text && std::io::stderr().is_terminal();
        ShownSteps { form, terminal, current: Mutex::default(), ended: Mutex::default() }
    }

    /// Shows a note that stops nothing. If a step is running, its line stays below.
    pub(crate) fn remark(&self, text: &str) {
        let guard = lock(&self.current);
        let print = || match self.form {
            ProgressForm::Text => print_line(&format!("  {:NAME$} {text}", "note")),
            ProgressForm::Json => print_event(&json!({"event": "note", "text": text})),
        };
        match guard.as_ref() {
            Some(current) => current.bar.suspend(print),
            None => print(),
        }
    }

    /// Drops the current step, because a failure is reported instead.
    pub(crate) fn abandon(&self) {
        if let Some(current) = lock(&self.current).take() {
            current.bar.finish_and_clear();
        }
    }

    /// The stages that ended, in their order.
    pub(crate) fn ended(&self) -> Vec<report::StageReport> {
        lock(&self.ended).clone()
    }

    /// Shows a text in place of the last one. Off a terminal, people see the text only if it is `due`.
    fn message(&self, text: &str, due: bool) {
        let mut guard = lock(&self.current);
        let Some(current) = guard.as_mut() else { return };
        current.bar.set_message(terminal::word(text).into_owned());
        if !self.terminal && due {
            current.announced = Instant::now();
            print_line(&format!("  {:NAME$} {text}", current.name));
        }
    }

    /// Returns true if at least this much time has passed since a message was shown.
    fn is_due(&self, after: Duration) -> bool {
        lock(&self.current).as_ref().is_some_and(|current| current.announced.elapsed() >= after)
    }

    /// Prints an event of the current stage.
    fn event(&self, mut event: Value) {
        let mut guard = lock(&self.current);
        if let Some(current) = guard.as_mut() {
            current.announced = Instant::now();
            event["stage"] = current.name.into();
        }
        print_event(&event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl klpx_build_driver::Progress for ShownSteps {
    fn step(&self, what: &str) {
        match self.form {
            ProgressForm::Text => self.message(what, true),
            ProgressForm::Json => self.event(json!({"event": "step", "text": what})),
        }
    }

    fn objects(&self, done: u64, total: Option<u64>) {
        let text = match total {
            Some(total) => format!("{done} of {total} objects"),
            None => format!("{done} objects"),
        };
        match self.form {
            ProgressForm::Text => self.message(&text, self.is_due(SLOW)),
            ProgressForm::Json if total == Some(done) || self.is_due(QUICK) => {
                self.event(json!({"event": "objects", "done": done, "total": total}));
            }
            ProgressForm::Json => {}
        }
    }

    fn note(&self, what: &str) {
        self.remark(what);
    }
}

impl Events for ShownSteps {
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
        *lock(&self.current) = Some(Current { name, started: now, bar, announced: now });
        if self.form == ProgressForm::Json {
            self.event(json!({"event": "begin"}));
        }
    }

    /// Ends the current stage. People see no time for short stages.
    fn end(&self, result: &str) {
        let Some(current) = lock(&self.current).take() else { return };
        current.bar.finish_and_clear();
        let Current { name, started, .. } = current;
        let seconds = started.elapsed().as_secs_f64();
        match self.form {
            ProgressForm::Text if seconds >= 0.05 => {
                print_line(&format!("  {name:NAME$} {result:RESULT$} {seconds:>7.1} s"));
            }
            ProgressForm::Text => print_line(&format!("  {name:NAME$} {result}")),
            ProgressForm::Json => {
                print_event(&json!({"event": "end", "stage": name, "result": result, "seconds": seconds}));
            }
        }
        lock(&self.ended).push(report::StageReport { name, result: result.to_owned(), seconds });
    }
}

/// Prints the failure that stopped a command.
pub(crate) fn print_failure(form: ProgressForm, failure: &Failure) {
    match form {
        ProgressForm::Text => print_line(&render::failure(failure)),
        ProgressForm::Json => {
            for diagnosis in failure.diagnoses() {
                print_event(&json!({"event": "error", "error": diagnosis}));
            }
        }
    }
}

/// Prints one event per line.
fn print_event(event: &Value) {
    let _ = writeln!(std::io::stderr().lock(), "{}", terminal::json(&event.to_string()));
}

/// Prints a line to standard error. If standard error is closed, the command still goes on.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", terminal::lines(line.trim_end()));
}
