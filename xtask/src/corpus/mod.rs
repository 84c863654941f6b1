//! `cargo xtask corpus`: tries real fixes of a stable series, one file each, on one of the fixture kernels. klpx builds
//! a livepatch for every fix, at several levels of the stabilised rebuild on request. A guest loads and unloads every
//! module. For a stock kernel, the code is compared with the distribution's own next kernel.

mod fixes;
mod levels;
mod record;
mod successor;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compare;
use crate::guest::{self, ScenarioTask};
use crate::kernel::{self, BuiltKernel};
use crate::klpx::{self, Klpx};
use crate::packages;
use crate::ui;
use crate::workspace::CargoWorkspace;
use fixes::Fix;
use record::{Caused, Ending, FixBuild, Judged, KnownFix, Records};
use successor::Successor;

/// Files that a kernel's configuration compiles, in `kernel-fixtures/corpus`.
const LISTS: &[(&str, &str)] = &[("debian-6.12", "cloud-6.12.list")];
/// Number of livepatches that one guest loads.
const PER_BOOT: usize = 40;
/// The beginning of the guest's script for each livepatch: the patched module is loaded if the machine has the hardware
/// for it.
const OBJECTS: &str = r#"
for module in OBJECTS; do
    [ ! -f "/modules/$module.chain" ] || while read -r name; do
        [ -d "/sys/module/$name" ] || insmod "/modules/$name.ko" 2>/dev/null
    done <"/modules/$module.chain"
done
"#;
/// The rest of the script.
const ENDS: &str = r#"
load NAME
unload NAME
"#;
/// The rest of the script for a livepatch whose transition does not end, as a note of its build says.
const STAYS: &str = r#"
succeeds "insmod of NAME" insmod "livepatch-NAME.ko"
usleep 10000000
check "NAME stays in transition, as foretold" 1 "$(cat "$(livepatch_dir NAME)/transition")"
check "NAME replaces what it should" "$(cat replaces-NAME)" "$(replaced NAME)"
unload NAME
"#;
/// The note that a livepatch replaces the main function of a kernel thread.
const THREAD_MAIN: &str = "klpx::thread-main";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct CorpusArgs {
    /// The kernel; of its releases the last but one, or what --release names
    #[arg(long, value_name = "NAME", default_value = "debian-6.12")]
    kernel: String,
    /// Take fixes back: patches that lead from the tests' kernel to the release before, or to what --release names.
    /// No other kernel has to be made for that
    #[arg(long, conflicts_with = "successor")]
    back: bool,
    /// Build every livepatch at this level of the stabilised rebuild; may be repeated [default: klpx's own]
    #[arg(long, value_name = "LEVEL", conflicts_with = "successor")]
    level: Vec<String>,
    /// A file with the paths that are looked at, one a line [default: what the kernel's configuration compiles, where it
    /// is known]
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Only files whose path contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// No more than so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Compare every unit and every module with the distribution's own next kernel
    #[arg(long)]
    successor: bool,
    /// Forget what an earlier run found
    #[arg(long)]
    again: bool,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// Runs the corpus. Returns `Ok(false)` if something failed.
pub(crate) fn run(workspace: &CargoWorkspace, args: &CorpusArgs) -> Result<bool> {
    let kernel = kernel::select(std::slice::from_ref(&args.kernel))?[0];
    packages::ensure(kernel.needs)?;
    let (built, next) = match args.back {
        true => kernel::pair_back(workspace, kernel)?,
        false => kernel::pair(workspace, kernel)?,
    };
    let release = match &built.release {
        Some(release) => release.clone(),
        None => format!("{}@{}", kernel.name, built.source.version),
    };
    ui::line("corpus", &format!("{release} to {}", next.version), None);
    let klpx = Klpx::at_or_build(args.klpx.as_deref(), workspace)?;
    let folder = match args.back {
        true => workspace.cache_dir(&format!("results/corpus/{release}-back-to-{}", next.version))?,
        false => workspace.cache_dir(&format!("results/corpus/{release}"))?,
    };
    let list = list(workspace, args)?;
    let mut fixes = fixes::make(&built.source.tree, &next.tree, &folder.join("patches"), list.as_deref())?;
    fixes.retain(|fix| args.only.is_empty() || args.only.iter().any(|text| fix.path.contains(text)));
    if built.release.is_none() {
        // The configuration does not compile files for which the build tree has no object.
        fixes.retain(|fix| built.tree.join(&fix.path).with_extension("o").is_file());
    }
    fixes.truncate(args.limit.unwrap_or(usize::MAX));
    let successor = match args.successor {
        true => {
            Some(Successor::new(&built.source.tree, kernel::at_release(workspace, kernel, &next.version)?)?)
        }
        false => None,
    };
    let levels: Vec<Option<&str>> = match args.level.is_empty() {
        true => vec![None],
        false => args.level.iter().map(|level| Some(level.as_str())).collect(),
    };
    let mut corpus = Corpus {
        workspace,
        klpx: &klpx,
        built: &built,
        successor,
        folder: folder.clone(),
        level: None,
        records: Records::default(),
    };
    let (mut good, mut table) = (true, levels::LevelTable::default());
    for (at, level) in levels.iter().enumerate() {
        corpus.begin(*level, &folder, args.again)?;
        for (number, fix) in fixes.iter().enumerate() {
            corpus.build(fix, &format!("{} {}/{}", level.unwrap_or_default(), number + 1, fixes.len()))?;
        }
        // A user would get the modules of the last level.
        if at + 1 == levels.len() {
            corpus.in_guests(&fixes)?;
        }
        good &= corpus.show(&fixes);
        table.add(level.unwrap_or("default"), fixes.iter().map(|fix| (fix.path.as_str(), corpus.known(fix))));
    }
    table.show();
    ui::say(&format!("\nall of it is in {}", folder.display()));
    Ok(good)
}

/// Returns the paths of the files to try; `None` for all of the source.
fn list(workspace: &CargoWorkspace, args: &CorpusArgs) -> Result<Option<Vec<String>>> {
    let known = LISTS.iter().find(|(kernel, _)| *kernel == args.kernel);
    let own = known.map(|(_, file)| workspace.fixtures("corpus").join(file));
    let Some(file) = args.list.clone().or(own) else { return Ok(None) };
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(Some(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()))
}

/// A run.
struct Corpus<'a> {
    workspace: &'a CargoWorkspace,
    klpx: &'a Klpx,
    built: &'a BuiltKernel,
    successor: Option<Successor>,
    folder: PathBuf,
    /// The level of the stabilised rebuild; `None` for klpx's own choice.
    level: Option<String>,
    records: Records,
}

impl Corpus<'_> {
    /// Switches to a level, with the known results of it.
    fn begin(&mut self, level: Option<&str>, folder: &Path, again: bool) -> Result<()> {
        self.level = level.map(str::to_owned);
        self.folder = level.map_or_else(|| folder.to_owned(), |level| folder.join(level));
        fs::create_dir_all(&self.folder)?;
        let file = self.folder.join(format!("results-{}.jsonl", &self.klpx.identity()?[..12]));
        if again && file.exists() {
            fs::remove_file(&file)?;
        }
        self.records = Records::open(&file)?;
        Ok(())
    }

    fn output(&self, fix: &Fix) -> PathBuf {
        self.folder.join("out").join(&fix.name)
    }

    fn module(&self, fix: &Fix) -> PathBuf {
        self.output(fix).join(format!("livepatch-{}.ko", fix.name))
    }

    fn known(&self, fix: &Fix) -> KnownFix {
        self.records.of(&fix.path).cloned().unwrap_or_default()
    }

    /// Returns true if an earlier run has all requested results. A missing module has to be made again.
    fn is_done(&self, fix: &Fix) -> bool {
        let known = self.known(fix);
        let compared = self.successor.is_none() || known.successor.is_some();
        known.build.is_some_and(|build| {
            let wanted = [Ending::Built, Ending::NothingChanged].contains(&build.ending);
            (build.ending != Ending::Built || self.module(fix).exists()) && (compared || !wanted)
        })
    }

    /// Builds the livepatch of a fix, unless an earlier run has built it, and compares it with the next kernel.
    fn build(&mut self, fix: &Fix, at: &str) -> Result<()> {
        if self.is_done(fix) {
            return Ok(());
        }
        let mut step = ui::step(at);
        step.at(&fix.path);
        let output = self.output(fix);
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let keep = self.successor.as_ref().map(|_| "--keep-work".to_owned());
        let level = self.level.iter().flat_map(|level| ["--stabilise".to_owned(), level.clone()]);
        let options: Vec<String> = keep.into_iter().chain(level).collect();
        let outcome = self.klpx.run(&klpx::BuildCall {
            built: self.built,
            patches: std::slice::from_ref(&fix.patch),
            name: &fix.name,
            options: &options,
            vmlinux: None,
            output: &output,
        })?;
        let build = judge(&outcome);
        let compared = match (&self.successor, &outcome.report) {
            (Some(successor), Some(report)) => {
                let module = Some(self.module(fix)).filter(|_| build.ending == Ending::Built);
                let judged = successor.judge(&fix.path, &build, &report.objects, module.as_deref())?;
                remove_work(&report.objects)?;
                Some(judged)
            }
            _ => None,
        };
        let word = match &build.code {
            Some(code) => format!("{} {code}", build.ending.word()),
            None => format!("{}, {}", build.ending.word(), ui::plural(build.changed.len(), "function")),
        };
        step.done(&format!("{} {word}", fix.path));
        self.records.add(&fix.path, KnownFix { build: Some(build), successor: compared, guest: None })
    }

    /// Loads and unloads the modules that no guest has loaded yet.
    fn in_guests(&mut self, fixes: &[Fix]) -> Result<()> {
        let mut tasks = Vec::new();
        for fix in fixes {
            let known = self.known(fix);
            let built = known.build.filter(|build| build.ending == Ending::Built);
            if let (Some(build), None) = (built, known.guest) {
                tasks.push((fix, self.task(fix, &build)?));
            }
        }
        let boots = tasks.len().div_ceil(PER_BOOT);
        for (number, some) in tasks.chunks(PER_BOOT).enumerate() {
            let mut step = ui::step(&format!("guest {}/{boots}", number + 1));
            step.at(&ui::plural(some.len(), "module"));
            let console = self.folder.join(format!("console-{}.log", number + 1));
            let of_guest: Vec<ScenarioTask> = some.iter().map(|(_, task)| task.clone()).collect();
            let verdicts = guest::run(self.workspace, self.built, &of_guest, &console)?;
            let mut good = 0;
            for (fix, task) in some {
                let verdict = verdicts.get(&task.name).cloned().unwrap_or_default();
                good += usize::from(verdict.good());
                let guest = Some(Judged { failures: verdict.problems(), ..Judged::default() });
                self.records.add(&fix.path, KnownFix { guest, ..KnownFix::default() })?;
            }
            step.done(&format!("{good} of {} load and unload", ui::plural(some.len(), "module")));
        }
        Ok(())
    }

    fn task(&self, fix: &Fix, build: &FixBuild) -> Result<ScenarioTask> {
        let items: Vec<String> = build.changed.iter().map(|item| format!("{item} changed")).collect();
        let objects: BTreeSet<&str> =
            build.changed.iter().filter_map(|item| item.split(':').next()).collect();
        let modules: Vec<String> =
            objects.into_iter().filter(|object| *object != "vmlinux").map(str::to_owned).collect();
        let script = self.output(fix).join("guest.sh");
        let rest = if build.notes.iter().any(|code| code == THREAD_MAIN) { STAYS } else { ENDS };
        let text = [&OBJECTS.replace("OBJECTS", &modules.join(" ")), rest].concat();
        fs::write(&script, text.replace("NAME", &fix.name))?;
        let file = self.module(fix);
        Ok(ScenarioTask {
            name: fix.name.clone(),
            script,
            files: vec![
                (format!("livepatch-{}.ko", fix.name), read(&file)?),
                (format!("replaces-{}", fix.name), compare::replaces(&items).into_bytes()),
            ],
            modules,
            helpers: Vec::new(),
            console: Vec::new(),
        })
    }

    /// Prints the tables; returns false if something failed.
    fn show(&self, fixes: &[Fix]) -> bool {
        ui::heading("results");
        let known: Vec<(&Fix, KnownFix)> = fixes.iter().map(|fix| (fix, self.known(fix))).collect();
        let rows: Vec<Vec<String>> = known.iter().filter_map(|(fix, known)| row(fix, known)).collect();
        ui::table(&["file", "how it ended", "functions", "time", "guest"], &rows);
        for (fix, known) in &known {
            for failure in known.guest.iter().flat_map(|guest| &guest.failures) {
                ui::say(&format!("{}: guest: {failure}", fix.path));
            }
        }
        let builds: Vec<&FixBuild> = known.iter().filter_map(|(_, known)| known.build.as_ref()).collect();
        let count = |ending| builds.iter().filter(|build| build.ending == ending).count();
        ui::heading(&format!("{} fixes", builds.len()));
        for (ending, word) in Ending::ALL {
            ui::line(word, &count(ending).to_string(), None);
            let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
            for build in builds.iter().filter(|build| build.ending == ending) {
                *codes.entry(build.code.as_deref().unwrap_or_default()).or_default() += 1;
            }
            for (code, n) in codes.iter().filter(|(code, _)| !code.is_empty()) {
                ui::line(&format!("  {code}"), &n.to_string(), None);
            }
        }
        let wanted = count(Ending::Built) + count(Ending::Refused) + count(Ending::Failed);
        let share = 100.0 * count(Ending::Built) as f64 / wanted.max(1) as f64;
        ui::line("of those that change code", &format!("{share:.0} % are built"), None);
        let loaded = known.iter().filter_map(|(_, known)| known.guest.as_ref());
        let bad = loaded.clone().filter(|guest| !guest.failures.is_empty()).count();
        ui::line("in a guest", &format!("{} loaded and unloaded, {bad} not", loaded.count() - bad), None);
        count(Ending::Failed) == 0 && bad == 0 && self.compared(&known)
    }

    /// Prints the comparison with the next kernel; returns true if nothing is left unexplained.
    fn compared(&self, known: &[(&Fix, KnownFix)]) -> bool {
        if self.successor.is_none() {
            return true;
        }
        ui::heading("the next kernel");
        let judged = || known.iter().filter_map(|(fix, known)| Some((fix, known.successor.as_ref()?)));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (what, n) in judged().flat_map(|(_, judged)| &judged.counts) {
            *counts.entry(what).or_default() += n;
        }
        ui::line("fixes compared", &judged().count().to_string(), None);
        for (what, n) in counts {
            ui::line(what, &n.to_string(), None);
        }
        let explained: usize = judged().map(|(_, judged)| judged.explained.len()).sum();
        ui::line("differ, for a known reason", &explained.to_string(), None);
        let unexplained: usize = judged().map(|(_, judged)| judged.failures.len()).sum();
        ui::line("differ, and nothing explains it", &unexplained.to_string(), None);
        for (fix, judged) in judged() {
            for failure in &judged.failures {
                ui::say(&format!("  {}: {failure}", fix.path));
            }
        }
        unexplained == 0
    }
}

/// Removes the files of a run that klpx kept for the comparison: `<workspace>/work/<run>`.
fn remove_work(objects: &[klpx::ReportObjects]) -> Result<()> {
    for objects in objects {
        let mut folders = objects.patched.ancestors();
        let run = folders.find(|folder| folder.parent().is_some_and(|parent| parent.ends_with("work")));
        if let Some(run) = run.filter(|run| run.is_dir()) {
            fs::remove_dir_all(run).with_context(|| format!("can't remove {}", run.display()))?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("can't read {}", file.display()))
}

/// Converts an outcome of klpx into a build's record.
fn judge(outcome: &klpx::KlpxOutput) -> FixBuild {
    let report = outcome.report.clone().unwrap_or_default();
    let code = report.errors.first().map(|problem| problem.code.clone());
    let ending = Ending::from_exit(outcome.exit, code.as_deref());
    let items = |kind: &str| {
        let of_kind = report.changes.iter().filter(|change| change.kind == kind);
        of_kind.map(|change| format!("{}:{}", change.object, change.function)).collect()
    };
    let about = code.as_ref().and_then(|code| outcome.text.lines().find(|line| line.contains(code)));
    let last_line = about.or(outcome.text.lines().last()).unwrap_or_default().trim().to_owned();
    let causes = report.changes.iter().filter(|change| change.cause.as_deref() != Some("edited"));
    let causes = causes.map(|change| Caused {
        function: format!("{}:{}", change.object, change.function),
        cause: change.cause.clone().unwrap_or_default(),
        why: change.why.clone(),
    });
    FixBuild {
        ending,
        notes: report.notes.iter().map(|note| note.code.clone()).collect(),
        causes: causes.collect(),
        message: last_line,
        seconds: outcome.elapsed.as_secs_f64(),
        changed: items("changed"),
        new: items("new"),
        code,
    }
}

fn row(fix: &Fix, known: &KnownFix) -> Option<Vec<String>> {
    let build = known.build.as_ref()?;
    let how = match &build.code {
        Some(code) => format!("{}: {code}", build.ending.word()),
        None => build.ending.word().to_owned(),
    };
    let functions = if build.ending == Ending::Built {
        format!("{} + {}", build.changed.len(), build.new.len())
    } else {
        String::new()
    };
    let guest = match &known.guest {
        None => "",
        Some(guest) if guest.failures.is_empty() => "ok",
        Some(_) => "FAILED",
    };
    Some(vec![fix.path.clone(), how, functions, format!("{:.1} s", build.seconds), guest.to_owned()])
}
