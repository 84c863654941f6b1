//! Brings patched code near to the original for single units of Clang kernels without LTO, and reports the result, for
//! ThinLTO links as well.

use std::path::Path;

use klpx_build_driver::{AppliedPatch, CompilerFamily, UnitPairs, Workspace, each};
use klpx_diagnosis::{Result, words};
use klpx_thinlto::single::{self, Single, SingleSetup};
use klpx_thinlto::{Level, ObjectResult, ReplayOutcome, SourceSide};

use crate::events::Events;
use crate::overlays::overlays;
use crate::results::{Results, Stabilised};
use crate::running::Build;

/// Reports which level an object reached.
pub(crate) fn report_level(object: &str, made: &ObjectResult, events: &dyn Events, results: &mut Results) {
    results.frozen += made.frozen;
    results.held_back += made.held_back;
    if made.spared > 0 {
        let spared = words::plural(made.spared, "function");
        events.note(&format!("{object}: {spared} of untouched units inline what they inlined before"));
    }
    if let Some(outcome) = &made.outcome {
        report_outcome(object, outcome, Level::Imports, events, results);
    }
}

/// Reports the outcome of replaying the inlining. `below` is the level that is reached without it.
fn report_outcome(
    object: &str,
    outcome: &ReplayOutcome,
    below: Level,
    events: &dyn Events,
    results: &mut Results,
) {
    let (level, why) = match &outcome.given_up {
        None => (Level::Inlining, String::new()),
        Some(why) => (below, why.clone()),
    };
    events.note(&match level {
        Level::Inlining => format!(
            "{object} with the original's inlining: {} instead of {}",
            words::plural(outcome.taken, "function"),
            words::count(outcome.plain)
        ),
        _ => format!("{object} is not stabilised further: {why}"),
    });
    let (plain, taken) = (outcome.plain, outcome.taken);
    results.stabilised.push(Stabilised { object: object.to_owned(), level, plain, taken, why });
}

/// For units of a Clang kernel without LTO: takes patched objects with the original's inlining where they are nearer to
/// the original.
pub(crate) fn single_units(
    build: &mut Build<'_>,
    workspace: &Workspace,
    prepared: &AppliedPatch,
    pairs: &mut UnitPairs,
) -> Result<()> {
    if build.request.level < Level::Inlining
        || workspace.kernel().toolchain().compiler != CompilerFamily::Clang
    {
        return Ok(());
    }
    let work = pairs.work_dir().join("inlining");
    let overlays = overlays(workspace, prepared, &work)?;
    let candidates: Vec<usize> = (0..pairs.pairs.len())
        .filter(|&at| !pairs.pairs[at].is_new && !pairs.pairs[at].unit.objects.is_empty())
        .collect();
    let jobs = workspace.kernel().jobs();
    let at_once = jobs.min(candidates.len()).max(1);
    let replayed = each(at_once, candidates.len(), |at| -> Result<_> {
        let pair = &pairs.pairs[candidates[at]];
        let unit = klpx_thinlto::UnitCommands {
            object: pair.unit.object().to_owned(),
            recorded: workspace.record(&pair.unit)?,
        };
        let place = SingleSetup {
            runner: workspace.runner(),
            jobs: (jobs / at_once).max(1),
            build: &workspace.build_dir(),
            overlays: &overlays,
            work: &work.join("units").join(pair.unit.object()),
        };
        let finish = |side: SourceSide, to: &Path, more: &[String]| {
            let mut more = more.to_vec();
            more.extend(overlays.options(side));
            workspace.compile_again(&pair.unit, to, &more)
        };
        let single = Single { unit: &unit, original: &pair.original, patched: &pair.patched };
        single::with_inlining(&single, &place, &finish)
    });
    for (at, result) in candidates.into_iter().zip(replayed) {
        let Some((nearer, outcome)) = result? else { continue };
        let pair = &mut pairs.pairs[at];
        report_outcome(pair.unit.object(), &outcome, Level::Off, build.events, build.results);
        if let Some(object) = nearer {
            pair.patched = object;
        }
    }
    Ok(())
}
