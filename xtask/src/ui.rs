//! Output for the user: one line for each step with its time, a spinner on a terminal, plain lines elsewhere, and
//! tables.

use std::io::{IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Interval at which a long step reports that it is alive, if there is no terminal.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The spinners of all steps under way.
static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A step under way. Ends with [`Step::done`] or [`Step::failed`].
pub(crate) struct Step {
    label: String,
    start: Instant,
    spoke: Instant,
    bar: Option<ProgressBar>,
}

/// Starts a step.
pub(crate) fn step(label: &str) -> Step {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("  {prefix:<32} {spinner} {wide_msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = SPINNERS.add(ProgressBar::new_spinner());
        let bar = bar.with_style(style).with_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    Step { label: label.to_owned(), start: Instant::now(), spoke: Instant::now(), bar }
}

impl Step {
    /// Shows the step's present work. Cheap; call it often.
    pub(crate) fn at(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None if self.spoke.elapsed() >= HEARTBEAT => {
                self.spoke = Instant::now();
                line(&self.label, &format!("... {message}"), Some(self.start.elapsed()));
            }
            None => {}
        }
    }

    /// Ends the step with success.
    pub(crate) fn done(self, message: &str) -> Duration {
        self.end(message)
    }

    /// Ends the step with a failure.
    pub(crate) fn failed(self, message: &str) -> Duration {
        self.end(&format!("FAILED  {message}"))
    }

    fn end(self, message: &str) -> Duration {
        let elapsed = self.start.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        line(&self.label, message, Some(elapsed));
        elapsed
    }
}

/// Prints one aligned line: label, message, time.
pub(crate) fn line(label: &str, message: &str, elapsed: Option<Duration>) {
    let time = elapsed.map(|elapsed| format!("{:.1} s", elapsed.as_secs_f64())).unwrap_or_default();
    let text = format!("  {label:<32} {message:<50} {time:>9}");
    say(text.trim_end());
}

/// Prints a line to standard output, in order with the output of child processes.
pub(crate) fn say(text: &str) {
    SPINNERS.suspend(|| {
        let mut out = std::io::stdout().lock();
        // The reader may have closed the pipe on purpose.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    });
}

/// `1 function`, `2 functions`.
pub(crate) fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Prints a heading between groups of steps.
pub(crate) fn heading(text: &str) {
    say(&format!("\n{text}"));
}

/// Prints left-aligned columns of the necessary width.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut width: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let show = |cells: Vec<&str>| {
        let mut text = String::from(" ");
        for (cell, width) in cells.iter().zip(&width) {
            text.push_str(&format!(" {cell:<width$} "));
        }
        say(text.trim_end());
    };
    show(head.to_vec());
    for row in rows {
        show(row.iter().map(String::as_str).collect());
    }
}
