//! `klpx inline-check --consistent`: lists for a kernel without half-inlined functions, and how far the builds have come.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use klpx_build_driver::consistent::{Consistent, Inlining, Request};
use klpx_diagnosis::{Class, Diagnosis, Place, Result};
use klpx_inline_check::consistent::{Attribute, Choice, Guarded, Key, Left, Lists, Wish, by_unit, choose};
use klpx_inline_check::survey::Survey;
use klpx_normalize::elf::ElfFile;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::only::Only;
use super::{Surveyed, about};
use crate::args::InlineCheck;
use crate::render::{self, count, plural};
use crate::report::to_text;

/// What was chosen, in the folder for lists.
const FUNCTIONS: &str = "functions.tsv";
/// The builds that were read, in the folder for lists.
const BUILDS: &str = "builds.tsv";
/// The first line of that file.
const HEADING: &str = "out of line\thalf-inlined\tinlined copies\tbytes of code";

/// The figures of one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Build {
    out_of_line: u64,
    half_inlined: u64,
    inlined: u64,
    code: u64,
}

/// A file that is linked by itself: the kernel, or a module. A function is half-inlined within one.
struct Image {
    surveyed: Surveyed,
    guarded: Guarded,
}

impl Image {
    fn read(path: &Path) -> Result<Image> {
        let file = ElfFile::open(path)?;
        let elf = file.parse()?;
        let surveyed = Surveyed::of(path, &elf, Survey::measured(&elf))?;
        Ok(Image { surveyed, guarded: Guarded::read(&elf) })
    }
}

/// What a run found and did.
struct Outcome<'a> {
    project: &'a Consistent,
    images: &'a [Image],
    plan: &'a Plan,
    builds: &'a [Build],
    /// Which of them this is, from 1.
    build: usize,
    /// Units whose list changed.
    changed: usize,
    /// Modules of the build tree that were not made.
    missing: usize,
    /// Functions that stay half-inlined for a reason of their own, and the reason.
    explained: Vec<(&'a Half, String)>,
    /// Functions whose list was in effect, without a reason that klpx knows.
    unexplained: Vec<&'a Half>,
    not_wanted: usize,
    over_budget: usize,
}

/// What all images together have.
struct Plan {
    lists: Lists,
    /// Half-inlined functions that have a choice now which was not in effect in this build.
    chosen: usize,
    /// Half-inlined functions that stay so.
    left: Vec<(Half, Left)>,
    /// Bytes of code that the choices add, by their estimate.
    estimate: i64,
}

/// A half-inlined function.
struct Half {
    key: Key,
    /// The module that it is half-inlined in, by its path in the build tree; `None` for the kernel.
    module: Option<String>,
}

/// Runs the command; what it prints.
pub(super) fn run(args: &InlineCheck) -> Result<String> {
    let wanted = &args.consistent;
    let build_dir = wanted.build_dir.clone().unwrap_or_default();
    let project = Consistent::open(&Request {
        build: build_dir.clone(),
        source: wanted.source.clone(),
        llvm: wanted.llvm.clone(),
        cross_compile: wanted.cross_compile.clone(),
        dir: wanted.output.clone(),
    })?;
    let only = Only::read(&wanted.only)?;
    // A file that is named stands for all that was built.
    let modules = if args.file.is_none() { project.modules()? } else { Vec::new() };
    let (modules, missing): (Vec<PathBuf>, Vec<PathBuf>) =
        modules.into_iter().partition(|module| module.is_file());
    let kernel = args.file.clone().unwrap_or_else(|| build_dir.join("vmlinux"));
    let paths: Vec<&PathBuf> = std::iter::once(&kernel).chain(&modules).collect();
    let images = paths.into_par_iter().map(|path| Image::read(path)).collect::<Result<Vec<_>>>()?;

    let mut builds = read_builds(&project.dir().join(BUILDS))?;
    let build = number(&mut builds, figures(&images));
    let lists = read_lists(&project.dir().join(FUNCTIONS))?;
    let declarations = Declarations { source: project.source(), files: RefCell::default() };
    let mut plan = Plan { lists, chosen: 0, left: Vec::new(), estimate: 0 };
    let mut units: BTreeSet<String> = BTreeSet::new();
    for image in &images {
        let survey = &image.surveyed.survey;
        let known = Units { project: &project, root: &survey.root, known: RefCell::default() };
        let wish = Wish {
            wanted: &|name| only.has(name),
            budget: wanted.budget,
            unit: &|file| known.of(file),
            file: &|file| project.file(&survey.root, file),
            forced: &|key| declarations.always_inline(key),
        };
        let number = u32::try_from(build).unwrap_or(u32::MAX);
        let of_image = choose(survey, &image.guarded, plan.lists, number, &wish);
        plan.lists = of_image.lists;
        plan.chosen += of_image.chosen;
        plan.estimate = of_image.estimate;
        let path = &image.surveyed.path;
        let module = (*path != kernel).then(|| project.file(&survey.root, &path.to_string_lossy()));
        let half = |(key, left)| (Half { key, module: module.clone() }, left);
        plan.left.extend(of_image.left.into_iter().map(half));
        units.extend(survey.unit_files().iter().filter_map(|&file| known.of(survey.text(file))));
    }
    let changed = project.write(&inlining(&plan.lists, units))?;
    write(&project.dir().join(FUNCTIONS), &plan.lists.to_text())?;
    write(&project.dir().join(BUILDS), &builds_text(&builds))?;

    let mut outcome = Outcome {
        project: &project,
        images: &images,
        plan: &plan,
        builds: &builds,
        build,
        changed,
        missing: missing.len(),
        explained: Vec::new(),
        unexplained: Vec::new(),
        not_wanted: 0,
        over_budget: 0,
    };
    explain(&mut outcome);
    let next = project.dir().join("build");
    if args.json { json(&outcome, &next) } else { Ok(text(&outcome, &next)) }
}

/// Units by the names that the debug information has for them. Each is looked for on disk once.
struct Units<'a> {
    project: &'a Consistent,
    root: &'a str,
    known: RefCell<HashMap<String, Option<String>>>,
}

impl Units<'_> {
    fn of(&self, file: &str) -> Option<String> {
        if let Some(unit) = self.known.borrow().get(file) {
            return unit.clone();
        }
        let unit = self.project.unit(self.root, file);
        self.known.borrow_mut().insert(file.to_owned(), unit.clone());
        unit
    }
}

/// Declarations as they stand in the source. Each file is read once.
struct Declarations<'a> {
    source: &'a Path,
    files: RefCell<HashMap<String, Vec<String>>>,
}

impl Declarations<'_> {
    /// True when a declaration says `always_inline`: on its line, or on those before it that belong to it. What a macro makes of a
    /// function is not seen here; the compiler wrapper finds that out.
    fn always_inline(&self, key: &Key) -> bool {
        let mut files = self.files.borrow_mut();
        let lines = files.entry(key.file.clone()).or_insert_with(|| {
            let text = std::fs::read(self.source.join(&key.file)).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
        });
        let at = (key.line as usize).min(lines.len());
        let Some((own, above)) = lines[..at].split_last() else { return false };
        let ends = |line: &&String| {
            line.trim().is_empty() || line.trim_end().ends_with([';', '}', '/']) || line.starts_with('#')
        };
        let declaration = std::iter::once(own).chain(above.iter().rev().take_while(|line| !ends(line)));
        declaration.take(5).any(|line| line.contains("always_inline"))
    }
}

/// The lists in the build driver's words.
fn inlining(
    lists: &Lists,
    units: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Vec<(String, Inlining)>> {
    let word = |attribute| match attribute {
        Attribute::AlwaysInline => Inlining::Always,
        Attribute::NoInline => Inlining::Never,
        Attribute::NoInlineNoClone => Inlining::NeverNorClone,
        Attribute::NoAnalysis => Inlining::Opaque,
    };
    let all = by_unit(lists, units).into_iter();
    let unit = |(unit, functions): (String, Vec<(String, Attribute)>)| {
        (unit, functions.into_iter().map(|(name, attribute)| (name, word(attribute))).collect())
    };
    all.map(unit).collect()
}

/// The figures of all images together.
fn figures(images: &[Image]) -> Build {
    let mut sum = Build { out_of_line: 0, half_inlined: 0, inlined: 0, code: 0 };
    for Image { surveyed, .. } in images {
        let all = surveyed.summary.all();
        sum.out_of_line += all.out_of_line as u64;
        sum.half_inlined += all.half_inlined as u64;
        sum.inlined += all.inlined as u64;
        sum.code += surveyed.code;
    }
    sum
}

/// The number of a build, from 1: that of an earlier one when it is the same.
fn number(builds: &mut Vec<Build>, this: Build) -> usize {
    let at = builds.iter().position(|build| *build == this).unwrap_or_else(|| {
        builds.push(this);
        builds.len() - 1
    });
    at + 1
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Diagnosis::io("read", path, &error).into()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Diagnosis::io("write", path, &error).into())
}

fn broken(path: &Path, line: usize) -> Diagnosis {
    let what = "a list of an earlier run can't be read";
    Diagnosis::new("klpx::bad-list", Class::Input, what)
        .place(Place::file(path.display().to_string(), u32::try_from(line).ok()))
        .why("klpx did not write this line")
        .remedy("start again from the plain build in another folder")
}

fn read_lists(path: &Path) -> Result<Lists> {
    let Some(text) = read(path)? else { return Ok(Lists::default()) };
    Ok(Lists::parse(&text).map_err(|error| broken(path, error.0))?)
}

fn read_builds(path: &Path) -> Result<Vec<Build>> {
    let Some(text) = read(path)? else { return Ok(Vec::new()) };
    let row = |(n, line): (usize, &str)| {
        let cells: Option<Vec<u64>> = line.split('\t').map(|cell| cell.parse().ok()).collect();
        match cells.as_deref() {
            Some(&[out_of_line, half_inlined, inlined, code]) => {
                Ok(Build { out_of_line, half_inlined, inlined, code })
            }
            _ => Err(broken(path, n + 1).into()),
        }
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

fn builds_text(builds: &[Build]) -> String {
    let row = |b: &Build| format!("{}\t{}\t{}\t{}\n", b.out_of_line, b.half_inlined, b.inlined, b.code);
    std::iter::once(format!("{HEADING}\n")).chain(builds.iter().map(row)).collect()
}

/// Says of each function that stays half-inlined why it does.
fn explain(outcome: &mut Outcome<'_>) {
    let (project, plan) = (outcome.project, outcome.plan);
    for (half, left) in &plan.left {
        let key = &half.key;
        let why = match left {
            Left::NotWanted => {
                outcome.not_wanted += 1;
                continue;
            }
            Left::OverBudget => {
                outcome.over_budget += 1;
                continue;
            }
            Left::Guarded(section) => {
                format!("inlined into {section}, which may call nothing that is traced")
            }
            Left::Forced => "always_inline in the source".to_owned(),
            Left::NoUnit => "its unit is not compiled from a file of this source".to_owned(),
            Left::Ignored => {
                let units = || plan.lists.get(key).into_iter().flat_map(|entry| &entry.units);
                if let Some(unit) = units().find(|unit| project.failed(unit)) {
                    format!("{unit} does not compile with its list (see failed/{unit})")
                } else if units().any(|unit| project.forced(unit, &key.function)) {
                    "always_inline, as the compiler sees it".to_owned()
                } else {
                    outcome.unexplained.push(half);
                    continue;
                }
            }
        };
        outcome.explained.push((half, why));
    }
}

impl Outcome<'_> {
    /// True when another build would be the same.
    fn done(&self) -> bool {
        self.plan.chosen == 0
    }

    /// The commands for the next build, and the look at it.
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

fn text(outcome: &Outcome<'_>, next: &Path) -> String {
    let lists = &outcome.plan.lists;
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
    if outcome.build < outcome.builds.len() {
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

fn never_inlined(lists: &Lists) -> usize {
    lists.count(Choice::OutOfLine) + lists.count(Choice::Opaque)
}

/// A row for each build, with a heading.
fn progress(outcome: &Outcome<'_>) -> Vec<Vec<String>> {
    let heading = ["build", "out of line", "half-inlined", "inlined copies", "bytes of code", "change"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let first = outcome.builds.first().map_or(0, |build| build.code);
    for (n, build) in outcome.builds.iter().enumerate() {
        let mut row = vec![(n + 1).to_string()];
        let figures = [build.out_of_line, build.half_inlined, build.inlined, build.code];
        row.extend(figures.map(render::bytes));
        row.push(if n == 0 { String::new() } else { change(first, build.code) });
        rows.push(row);
    }
    rows
}

/// By how much a size differs from another, in percent.
fn change(from: u64, to: u64) -> String {
    match from {
        0 => String::new(),
        from => format!("{:+.2} %", (to as f64 - from as f64) * 100.0 / from as f64),
    }
}

fn json(outcome: &Outcome<'_>, next: &Path) -> Result<String> {
    let lists = &outcome.plan.lists;
    let place = |Half { key, module }: &Half| json!({"function": key.function, "file": key.file, "line": key.line, "module": module});
    let build = |b: &Build| {
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
        "schema": super::json::SCHEMA,
        "build": outcome.build,
        "builds": outcome.builds.iter().map(build).collect::<Vec<_>>(),
        "never_inlined": never_inlined(lists),
        "inlined_everywhere": lists.count(Choice::Everywhere),
        "kept": lists.count(Choice::Kept),
        "chosen": outcome.plan.chosen,
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
