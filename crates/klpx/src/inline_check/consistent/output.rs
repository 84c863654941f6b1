//! The output of a run, for people and for machines: the builds so far, the lists, the remaining functions and the
//! reasons, and the next commands.

use std::path::Path;

use klpx_diagnosis::Result;
use klpx_inline_check::consistent::{Choice, ChoiceLists, FunctionKey};
use serde_json::{Value, json};

use super::kept::BuildFigures;
use super::{ConsistentOutcome, Half};
use crate::inline_check::about;
use crate::json::to_text;
use crate::render::{self, count, plural};

impl ConsistentOutcome<'_> {
    /// Returns true if another build would be the same.
    fn done(&self) -> bool {
        self.plan.chosen == 0 && self.plan.freed == 0
    }

    /// The commands for the next build and for checking it.
    fn commands(&self, next: &Path) -> Vec<String> {
        let mut commands = self.project.commands(next);
        commands.push(format!(
            "klpx inline-check --consistent -b {} --output {}",
            next.display(),
            self.project.dir().display()
        ));
        commands
    }
}

pub(super) fn text(outcome: &ConsistentOutcome<'_>, next: &Path) -> String {
    let lists = &outcome.kept.lists;
    let mut text = String::new();
    if let [kernel, modules @ ..] = outcome.images {
        let kernel = &kernel.surveyed;
        let with = match modules.len() {
            0 => String::new(),
            n => format!(" · with {}", plural(n, "module")),
        };
        text.push_str(&format!("  {}  {}{with}\n\n", kernel.path.display(), about(kernel)));
    }
    text.push_str(&render::numbers(&progress(outcome)));
    text.push_str(&format!(
        "\n  lists  {} never inlined, {} inlined everywhere, {} out of line as before; {} changed\n",
        plural(never_inlined(lists), "function"),
        count(lists.count(Choice::Everywhere)),
        count(lists.count(Choice::Kept)),
        plural(outcome.changed, "unit"),
    ));
    let estimate = outcome.plan.estimate;
    let word = if estimate < 0 { "save" } else { "add" };
    text.push_str(&format!(
        "  cost   they {word} about {} bytes of code\n",
        render::bytes(estimate.unsigned_abs())
    ));
    for (n, why) in [(outcome.not_wanted, "not asked for (--only)"), (outcome.over_budget, "over the budget")]
    {
        if n > 0 {
            text.push_str(&format!("  left   {}: {why}\n", plural(n, "function")));
        }
    }
    if outcome.plan.freed > 0 {
        let freed = plural(outcome.plan.freed, "function");
        text.push_str(&format!("  freed  {freed}: hot (--hot), in no list any more\n"));
    }
    if outcome.missing > 0 {
        let missing = plural(outcome.missing, "module");
        text.push_str(&format!("  left   {missing} of the configuration: not built\n"));
    }
    let mut rows = vec![["left half-inlined", "declared at", "why"].map(str::to_owned).to_vec()];
    let unknown = "inlined although its list forbids it".to_owned();
    let unexplained = outcome.unexplained.iter().map(|half| (*half, unknown.clone()));
    for (Half { key, module }, mut why) in outcome.explained.iter().cloned().chain(unexplained) {
        if let Some(module) = module {
            why.push_str(&format!(" (in {module})"));
        }
        rows.push(vec![key.function.clone(), format!("{}:{}", key.file, key.line), why]);
    }
    render::section(&mut text, &rows);
    if outcome.done() {
        let rest = outcome.explained.len() + outcome.unexplained.len();
        let but = if rest == 0 { String::new() } else { format!(" but the {} above", count(rest)) };
        text.push_str(&format!(
            "\n  done: nothing is left to choose; no chosen function is half-inlined{but}\n"
        ));
        return text;
    }
    if outcome.build < outcome.kept.builds.len() {
        text.push_str(&format!(
            "\n  this is build {} again: later lists are not in effect in it\n",
            outcome.build
        ));
    }
    text.push_str("\n  to build with the lists, and look again:\n");
    for command in outcome.commands(next) {
        text.push_str(&format!("    {command}\n"));
    }
    text
}

fn never_inlined(lists: &ChoiceLists) -> usize {
    lists.count(Choice::OutOfLine) + lists.count(Choice::Opaque)
}

/// The table's heading and one row for each build.
fn progress(outcome: &ConsistentOutcome<'_>) -> Vec<Vec<String>> {
    let heading = ["build", "out of line", "half-inlined", "inlined copies", "bytes of code", "change"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let first = outcome.kept.builds.first().map_or(0, |build| build.code);
    for (n, build) in outcome.kept.builds.iter().enumerate() {
        let mut row = vec![(n + 1).to_string()];
        let figures = [build.out_of_line, build.half_inlined, build.inlined, build.code];
        row.extend(figures.map(render::bytes));
        row.push(if n == 0 { String::new() } else { change(first, build.code) });
        rows.push(row);
    }
    rows
}

/// The change of a size, in percent.
fn change(from: u64, to: u64) -> String {
    match from {
        0 => String::new(),
        from => format!("{:+.2} %", (to as f64 - from as f64) * 100.0 / from as f64),
    }
}

pub(super) fn json(outcome: &ConsistentOutcome<'_>, next: &Path) -> Result<String> {
    let lists = &outcome.kept.lists;
    let place = |Half { key, module }: &Half| -> Value {
        let FunctionKey { function, file, line } = key;
        json!({"function": function, "file": file, "line": line, "module": module})
    };
    let build = |b: &BuildFigures| {
        json!({
            "out_of_line": b.out_of_line,
            "half_inlined": b.half_inlined,
            "inlined_copies": b.inlined,
            "code_bytes": b.code,
        })
    };
    let explained = |(half, why): &(&Half, String)| -> Value {
        let mut value = place(half);
        value["why"] = json!(why);
        value
    };
    to_text(&json!({
        "schema": crate::inline_check::json::SCHEMA,
        "build": outcome.build,
        "builds": outcome.kept.builds.iter().map(build).collect::<Vec<_>>(),
        "never_inlined": never_inlined(lists),
        "inlined_everywhere": lists.count(Choice::Everywhere),
        "kept": lists.count(Choice::Kept),
        "chosen": outcome.plan.chosen,
        "freed": outcome.plan.freed,
        "changed_units": outcome.changed,
        "estimated_bytes": outcome.plan.estimate,
        "not_wanted": outcome.not_wanted,
        "over_budget": outcome.over_budget,
        "explained": outcome.explained.iter().map(explained).collect::<Vec<_>>(),
        "unexplained": outcome.unexplained.iter().map(|half| place(half)).collect::<Vec<_>>(),
        "modules": outcome.images.len() - 1,
        "missing_modules": outcome.missing,
        "done": outcome.done(),
        "compiler": outcome.project.compiler(),
        "commands": outcome.commands(next),
    }))
}
