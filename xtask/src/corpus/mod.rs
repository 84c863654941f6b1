//! `cargo xtask corpus`: real fixes of a stable series, one file each, on a stock kernel. klpx is run on every one of them,
//! every module is loaded and unloaded in a guest, and the distribution's own next kernel says what the code should be.

mod fixes;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compare;
use crate::guest::{self, Task};
use crate::kernel::{self, Built};
use crate::klpx::{self, Klpx};
use crate::packages;
use crate::ui;
use crate::workspace::Workspace;
use fixes::Fix;
use record::{Build, Ending, Judged, Known, Records};

/// Files that a kernel's configuration compiles, in `kernel-fixtures/corpus`.
const LISTS: &[(&str, &str)] = &[("debian-6.12", "cloud-6.12.list")];
/// Livepatches that one guest loads.
const PER_BOOT: usize = 40;
/// What a guest does with each of them: its module's object is loaded where this machine has the hardware for it.
const SCRIPT: &str = r#"
for module in OBJECTS; do
    [ ! -f "/modules/$module.chain" ] || while read -r name; do
        [ -d "/sys/module/$name" ] || insmod "/modules/$name.ko" 2>/dev/null
    done <"/modules/$module.chain"
done
load NAME
unload NAME
"#;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The stock kernel; of its releases the last but one, or what --release names
    #[arg(long, value_name = "NAME", default_value = "debian-6.12")]
    kernel: String,
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
    /// Forget what an earlier run found
    #[arg(long)]
    again: bool,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// Runs the corpus. `Ok(false)`: something failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<bool> {
    let kernel = kernel::select(std::slice::from_ref(&args.kernel))?[0];
    packages::ensure(kernel.needs)?;
    let (built, newer, source) = kernel::pair(workspace, kernel)?;
    let release = built.release.clone().context("a stock kernel has a release")?;
    ui::line("corpus", &format!("{release} to {newer}"), None);
    let klpx = Klpx::at_or_build(args.klpx.as_deref(), workspace)?;
    let folder = workspace.cache_dir(&format!("results/corpus/{release}"))?;
    let list = list(workspace, args)?;
    let mut fixes = fixes::make(&built.source.tree, &source.tree, &folder.join("patches"), list.as_deref())?;
    fixes.retain(|fix| args.only.is_empty() || args.only.iter().any(|text| fix.path.contains(text)));
    fixes.truncate(args.limit.unwrap_or(usize::MAX));
    let file = folder.join(format!("results-{}.jsonl", &klpx.identity()?[..12]));
    if args.again && file.exists() {
        fs::remove_file(&file)?;
    }
    let mut corpus = Corpus { workspace, klpx: &klpx, built: &built, folder, records: Records::open(&file)? };
    for (number, fix) in fixes.iter().enumerate() {
        corpus.build(fix, &format!("{}/{}", number + 1, fixes.len()))?;
    }
    corpus.in_guests(&fixes)?;
    let good = corpus.show(&fixes);
    ui::say(&format!("\nall of it is in {}", file.display()));
    Ok(good)
}

/// The paths that are looked at; all of the source when nothing names them.
fn list(workspace: &Workspace, args: &Args) -> Result<Option<Vec<String>>> {
    let known = LISTS.iter().find(|(kernel, _)| *kernel == args.kernel);
    let own = known.map(|(_, file)| workspace.fixtures("corpus").join(file));
    let Some(file) = args.list.clone().or(own) else { return Ok(None) };
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(Some(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()))
}

/// A run.
struct Corpus<'a> {
    workspace: &'a Workspace,
    klpx: &'a Klpx,
    built: &'a Built,
    folder: PathBuf,
    records: Records,
}

impl Corpus<'_> {
    fn output(&self, fix: &Fix) -> PathBuf {
        self.folder.join("out").join(&fix.name)
    }

    fn module(&self, fix: &Fix) -> PathBuf {
        self.output(fix).join(format!("livepatch-{}.ko", fix.name))
    }

    fn known(&self, fix: &Fix) -> Known {
        self.records.of(&fix.path).cloned().unwrap_or_default()
    }

    /// Builds one, unless an earlier run has.
    fn build(&mut self, fix: &Fix, at: &str) -> Result<()> {
        let known = self.known(fix).build;
        // A module that is gone is to be made again.
        if known.is_some_and(|build| build.ending != Ending::Built || self.module(fix).exists()) {
            return Ok(());
        }
        let mut step = ui::step(at);
        step.at(&fix.path);
        let output = self.output(fix);
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let outcome = self.klpx.run(&klpx::Build {
            built: self.built,
            patches: std::slice::from_ref(&fix.patch),
            name: &fix.name,
            options: &[],
            vmlinux: None,
            output: &output,
        })?;
        let build = judge(&outcome);
        let word = match &build.code {
            Some(code) => format!("{} {code}", build.ending.word()),
            None => format!("{}, {}", build.ending.word(), ui::plural(build.changed.len(), "function")),
        };
        step.done(&format!("{} {word}", fix.path));
        self.records.add(&fix.path, Known { build: Some(build), ..Known::default() })
    }

    /// Loads and unloads the modules that no guest has had yet.
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
            step.at(&ui::plural(some.len(), "livepatch"));
            let console = self.folder.join(format!("console-{}.log", number + 1));
            let of_guest: Vec<Task> = some.iter().map(|(_, task)| task.clone()).collect();
            let verdicts = guest::run(self.workspace, self.built, &of_guest, &console)?;
            let mut good = 0;
            for (fix, task) in some {
                let verdict = verdicts.get(&task.name).cloned().unwrap_or_default();
                good += usize::from(verdict.good());
                let guest = Some(Judged { failures: verdict.problems(), ..Judged::default() });
                self.records.add(&fix.path, Known { guest, ..Known::default() })?;
            }
            step.done(&format!("{good} of {} load and unload", ui::plural(some.len(), "livepatch")));
        }
        Ok(())
    }

    fn task(&self, fix: &Fix, build: &Build) -> Result<Task> {
        let items: BTreeSet<String> = build.changed.iter().map(|item| format!("{item} changed")).collect();
        let objects: BTreeSet<&str> =
            build.changed.iter().filter_map(|item| item.split(':').next()).collect();
        let modules: Vec<String> =
            objects.into_iter().filter(|object| *object != "vmlinux").map(str::to_owned).collect();
        let script = self.output(fix).join("guest.sh");
        fs::write(&script, SCRIPT.replace("OBJECTS", &modules.join(" ")).replace("NAME", &fix.name))?;
        let file = self.module(fix);
        Ok(Task {
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

    /// The tables; false when something failed.
    fn show(&self, fixes: &[Fix]) -> bool {
        ui::heading("results");
        let known: Vec<(&Fix, Known)> = fixes.iter().map(|fix| (fix, self.known(fix))).collect();
        let rows: Vec<Vec<String>> = known.iter().filter_map(|(fix, known)| row(fix, known)).collect();
        ui::table(&["file", "how it ended", "functions", "time", "guest"], &rows);
        for (fix, known) in &known {
            for failure in known.guest.iter().flat_map(|guest| &guest.failures) {
                ui::say(&format!("{}: guest: {failure}", fix.path));
            }
        }
        let builds: Vec<&Build> = known.iter().filter_map(|(_, known)| known.build.as_ref()).collect();
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
        count(Ending::Failed) == 0 && bad == 0
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("can't read {}", file.display()))
}

/// What an outcome amounts to.
fn judge(outcome: &klpx::Outcome) -> Build {
    let report = outcome.report.clone().unwrap_or_default();
    let code = report.errors.first().map(|problem| problem.code.clone());
    let ending = Ending::of(outcome.exit, code.as_deref());
    let items = |kind: &str| {
        let of_kind = report.changes.iter().filter(|change| change.kind == kind);
        of_kind.map(|change| format!("{}:{}", change.object, change.function)).collect()
    };
    let about = code.as_ref().and_then(|code| outcome.text.lines().find(|line| line.contains(code)));
    let said = about.or(outcome.text.lines().last()).unwrap_or_default().trim().to_owned();
    Build {
        ending,
        said,
        seconds: outcome.elapsed.as_secs_f64(),
        changed: items("changed"),
        new: items("new"),
        code,
    }
}

fn row(fix: &Fix, known: &Known) -> Option<Vec<String>> {
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
