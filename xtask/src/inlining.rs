//! Tries `klpx inline-check` on a whole kernel: against a second count by other means, and its page in a browser.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use klpx_testkit::dwarfdump::{self, Count};
use serde::Deserialize;

use crate::kernel::BuiltKernel;
use crate::klpx::Klpx;
use crate::packages::Need;
use crate::process;
use crate::tried::Tried;
use crate::ui;

/// The needs of the checks besides a kernel.
pub(crate) const NEEDS: &[Need] = &[Need::Clang, Need::Browser];

/// The tool of the second count.
const DWARFDUMP: &str = "llvm-dwarfdump-22";

/// The parts of the JSON of `klpx inline-check` (schema 1) that the checks read.
#[derive(Deserialize)]
struct InliningReport {
    schema: u32,
    summary: ReportedSummary,
    half_inlined: Vec<ReportedFunction>,
}

#[derive(Deserialize)]
struct ReportedSummary {
    all: ReportedTally,
    global: ReportedTally,
    half_inlined_within_one_unit: usize,
    half_inlined_reached_by_ftrace: usize,
    only_inlined: OnlyInlined,
}

#[derive(Deserialize)]
struct ReportedTally {
    out_of_line: usize,
    half_inlined: usize,
    half_inlined_across_files: usize,
    inlined_copies: usize,
    inlined_copies_across_files: usize,
}

#[derive(Deserialize)]
struct OnlyInlined {
    functions: usize,
    inlined_copies: usize,
}

#[derive(Deserialize)]
struct ReportedFunction {
    function: String,
    declared: DeclaredPlace,
    inlined: Vec<ReportedCall>,
}

#[derive(Deserialize)]
struct DeclaredPlace {
    file: String,
    line: u32,
}

#[derive(Deserialize)]
struct ReportedCall {
    holder: String,
    copies: usize,
}

impl InliningReport {
    fn count(&self) -> Count {
        let all = &self.summary.all;
        let name = |f: &ReportedFunction| {
            let file = f.declared.file.rsplit('/').next().unwrap_or_default();
            (f.function.clone(), file.to_owned(), f.declared.line)
        };
        Count {
            out_of_line: all.out_of_line,
            half_inlined: all.half_inlined,
            half_inlined_across: all.half_inlined_across_files,
            inlined: all.inlined_copies,
            inlined_across: all.inlined_copies_across_files,
            half_inlined_global: self.summary.global.half_inlined,
            only_inlined: self.summary.only_inlined.functions,
            only_inlined_copies: self.summary.only_inlined.inlined_copies,
            by_unit: self.summary.half_inlined_within_one_unit,
            names: self.half_inlined.iter().map(name).collect(),
        }
    }
}

/// Runs the checks on one kernel: its image, the page about it, and one of its modules.
pub(crate) fn run(klpx: &Klpx, built: &BuiltKernel, results_dir: &Path) -> Result<Vec<Tried>> {
    let output = results_dir.join(built.kernel.name).join("inlining");
    fs::create_dir_all(&output)?;
    let page = output.join("inline-check.html");
    let (survey, elapsed) = survey(klpx, &built.vmlinux(), Some(&page))?;
    let failures = count(built, &survey, &built.vmlinux(), true);
    let mut results =
        vec![tried(built, "inline-count", "a second count of vmlinux agrees", failures, elapsed)];
    let failures = shown(&survey, &page)?;
    results.push(tried(built, "inline-page", "the page about it in a browser", failures, elapsed));
    if !built.kernel.has_debug_modules() {
        return Ok(results);
    }
    let (failures, elapsed) = match built.debug_module()? {
        Some(module) => {
            let (survey, elapsed) = self::survey(klpx, &module, None)?;
            (count(built, &survey, &module, false), elapsed)
        }
        None => (vec!["no module with debug information was found".to_owned()], Duration::ZERO),
    };
    results.push(tried(built, "inline-module", "a second count of a module agrees", failures, elapsed));
    Ok(results)
}

/// Returns the output of `klpx inline-check` for a file, and the time that it took.
fn survey(klpx: &Klpx, file: &Path, page: Option<&Path>) -> Result<(InliningReport, Duration)> {
    let start = Instant::now();
    let mut command = klpx.command();
    command.arg("inline-check").arg(file).arg("--json");
    if let Some(page) = page {
        command.arg("--html").arg(page);
    }
    let survey = serde_json::from_str(&process::output(&mut command)?).context("inline-check's JSON")?;
    Ok((survey, start.elapsed()))
}

fn tried(built: &BuiltKernel, name: &str, title: &str, failures: Vec<String>, elapsed: Duration) -> Tried {
    let kernel = built.kernel.name;
    Tried { name: name.to_owned(), title: title.to_owned(), kernel, passed: 0, failures, elapsed }
}

/// Compares the survey with a count that shares nothing with klpx.
fn count(built: &BuiltKernel, survey: &InliningReport, file: &Path, linked: bool) -> Vec<String> {
    let mut step = ui::step(&format!("{} inlining", built.kernel.name));
    step.at(DWARFDUMP);
    let klpx_count = survey.count();
    let second = dwarfdump::count(DWARFDUMP, file, linked);
    let mut failures = Vec::new();
    let mut equal = |what: &str, klpx_count: usize, second: usize| {
        if klpx_count != second {
            failures.push(format!("{what}: {klpx_count}, by the second count {second}"));
        }
    };
    equal("schema", survey.schema as usize, 1);
    equal("functions out of line", klpx_count.out_of_line, second.out_of_line);
    equal("half-inlined functions", klpx_count.half_inlined, second.half_inlined);
    equal("half-inlined across files", klpx_count.half_inlined_across, second.half_inlined_across);
    equal("inlined copies", klpx_count.inlined, second.inlined);
    equal("inlined copies across files", klpx_count.inlined_across, second.inlined_across);
    equal("half-inlined global functions", klpx_count.half_inlined_global, second.half_inlined_global);
    equal("only inlined functions", klpx_count.only_inlined, second.only_inlined);
    equal("their copies", klpx_count.only_inlined_copies, second.only_inlined_copies);
    equal("half-inlined within one unit", klpx_count.by_unit, second.by_unit);
    let listed: usize = survey.half_inlined.iter().flat_map(|f| &f.inlined).map(|call| call.copies).sum();
    equal("copies in the list", listed, second.inlined);
    let differ: Vec<String> = klpx_count
        .names
        .symmetric_difference(&second.names)
        .take(5)
        .map(|name| format!("{name:?}"))
        .collect();
    if !differ.is_empty() {
        failures.push(format!("only one count has {}", differ.join(", ")));
    }
    if survey.summary.half_inlined_reached_by_ftrace * 2 < klpx_count.half_inlined {
        failures.push("ftrace reaches less than half of the half-inlined functions".to_owned());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let result = format!("{name}: {} half-inlined of {}", klpx_count.half_inlined, klpx_count.out_of_line);
    if failures.is_empty() {
        step.done(&result)
    } else {
        step.failed(&result)
    };
    failures
}

/// Opens the page at its first function, and checks what the browser made of the page.
fn shown(survey: &InliningReport, page: &Path) -> Result<Vec<String>> {
    let first = survey.half_inlined.first().context("no half-inlined function")?;
    let mut browser = Command::new("chromium");
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("file://{}#{}", page.display(), first.function));
    let dom = process::output(&mut browser)?;
    // The page's script made the text before and after the data.
    let (before, rest) =
        dom.split_once("<script type=\"application/json\"").context("no data in the page")?;
    let source = fs::read_to_string(page)?;
    let mut failures = Vec::new();
    let mut wants = |what: &str, there: bool| {
        if !there {
            failures.push(format!("the page lacks {what}"));
        }
    };
    let word = first.function.to_lowercase();
    let found =
        |f: &&ReportedFunction| format!("{} {}", f.function, f.declared.file).to_lowercase().contains(&word);
    let found = survey.half_inlined.iter().filter(found).count();
    let status = format!("{} of {} functions", grouped(found), grouped(survey.half_inlined.len()));
    wants(&format!("the line '{status}'"), before.contains(&status));
    wants("the totals", before.contains(&format!(">{}</td>", grouped(survey.summary.all.out_of_line))));
    wants("bars", before.matches("class=\"over\"").count() >= 5);
    wants("the opened function", before.contains("<td class=\"detail\""));
    let holders: BTreeSet<&str> = first.inlined.iter().map(|call| call.holder.as_str()).collect();
    for holder in holders.iter().take(20) {
        wants(
            &format!("the holder {holder}"),
            before.contains(&format!("<span class=\"mono\">{holder}</span>")),
        );
    }
    wants("its end", rest.contains("</html>"));
    let own = source.split_once("id=\"data\">").map_or("", |(head, _)| head);
    wants(
        "independence of other files",
        !["http", "src=", "@import", "url("].iter().any(|word| own.contains(word)),
    );
    Ok(failures)
}

/// Formats a number as the page does.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_as_a_browser_does() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
