//! `klpx inline-check --consistent`: makes lists for a kernel without half-inlined functions, and shows how far the
//! builds have come.

mod hot;
mod kept;
mod output;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use klpx_build_driver::consistent::{ConsistentBuild, ConsistentRequest, InlineAttribute};
use klpx_build_driver::language::Identifier;
use klpx_diagnosis::Result;
use klpx_inline_check::consistent::{
    Attribute, ChoiceLists, FunctionKey, Guarded, LeftReason, Wish, by_unit, choose,
};
use klpx_inline_check::survey::Survey;
use klpx_normalize::elf::ElfFile;
use rayon::prelude::*;

use super::Surveyed;
use super::only::Only;
use crate::args::InlineCheck;
use hot::Hot;
use kept::{BuildFigures, KeptRuns};
use source::{SourceDeclarations, Units};

/// A file that is linked by itself: the kernel, or a module. Functions are half-inlined within one image.
struct LinkedImage {
    surveyed: Surveyed,
    guarded: Guarded,
}

impl LinkedImage {
    fn read(path: &Path) -> Result<LinkedImage> {
        let file = ElfFile::open(path)?;
        let elf = file.parse()?;
        let surveyed = Surveyed::new(path, &elf, Survey::measured(&elf))?;
        Ok(LinkedImage { surveyed, guarded: Guarded::read(&elf) })
    }
}

/// The results of a run.
struct ConsistentOutcome<'a> {
    project: &'a ConsistentBuild,
    images: &'a [LinkedImage],
    plan: &'a ImagesPlan,
    kept: &'a KeptRuns,
    /// The number of this build among the kept ones, from 1.
    build: usize,
    /// The number of units whose list changed.
    changed: usize,
    /// The number of modules that the build tree lists but that were not built.
    missing: usize,
    /// Functions that stay half-inlined for a known reason, with the reason.
    explained: Vec<(&'a Half, String)>,
    /// Functions that stay half-inlined although their list was in effect, without a known reason.
    unexplained: Vec<&'a Half>,
    not_wanted: usize,
    over_budget: usize,
}

/// The plan for all images together, besides the lists.
struct ImagesPlan {
    /// The number of half-inlined functions with a choice that was not yet in effect in this build.
    chosen: usize,
    /// The number of functions that lost their choice because they are hot.
    freed: usize,
    /// Half-inlined functions that stay half-inlined, with the reason.
    left: Vec<(Half, LeftReason)>,
    /// The estimate of the bytes of code that the choices add.
    estimate: i64,
}

/// A half-inlined function.
struct Half {
    key: FunctionKey,
    /// The module in which the function is half-inlined, as a path in the build tree; `None` for the kernel.
    module: Option<String>,
}

/// Runs the command and returns its output.
pub(super) fn run(args: &InlineCheck) -> Result<String> {
    let wanted = &args.consistent;
    let build_dir = wanted.build_dir.clone().unwrap_or_default();
    let project = ConsistentBuild::open(&ConsistentRequest {
        build: build_dir.clone(),
        source: wanted.source.clone(),
        llvm: wanted.llvm.clone(),
        cross_compile: wanted.cross_compile.clone(),
        dir: wanted.output.clone(),
    })?;
    let only = Only::read(&wanted.only)?;
    let hot = Hot::read(&wanted.hot)?;
    // If the user names a file, only this file is read.
    let modules = if args.file.is_none() { project.modules()? } else { Vec::new() };
    let (modules, missing): (Vec<PathBuf>, Vec<PathBuf>) =
        modules.into_iter().partition(|module| module.is_file());
    let kernel = args.file.clone().unwrap_or_else(|| build_dir.join("vmlinux"));
    let paths: Vec<&PathBuf> = std::iter::once(&kernel).chain(&modules).collect();
    let images = paths.into_par_iter().map(|path| LinkedImage::read(path)).collect::<Result<Vec<_>>>()?;

    let mut kept = KeptRuns::read(project.dir())?;
    let build = kept.number(figures(&images));
    let declarations = SourceDeclarations::new(project.source());
    let mut plan = ImagesPlan { chosen: 0, freed: 0, left: Vec::new(), estimate: 0 };
    let mut units: BTreeSet<String> = BTreeSet::new();
    for image in &images {
        let survey = &image.surveyed.survey;
        let known = Units::new(&project, &survey.root);
        let wish = Wish {
            wanted: &|name| only.has(name),
            hot: &|name| hot.has(name),
            budget: wanted.budget,
            unit: &|file| known.of(file),
            file: &|file| project.file(&survey.root, file),
            named: &|key| Identifier::new(&key.function).is_some() && !key.file.contains(char::is_control),
            // An `always_inline` or `flatten` that comes from a macro shows only in the compiler wrapper.
            forced: &|key| declarations.says(key, "always_inline"),
            flattens: &|key| declarations.says(key, "flatten"),
        };
        let number = u32::try_from(build).unwrap_or(u32::MAX);
        let of_image = choose(survey, &image.guarded, kept.lists, number, &wish);
        kept.lists = of_image.lists;
        plan.chosen += of_image.chosen;
        plan.freed += of_image.freed;
        plan.estimate = of_image.estimate;
        let path = &image.surveyed.path;
        let module = (*path != kernel).then(|| project.file(&survey.root, &path.to_string_lossy()));
        let half = |(key, left)| (Half { key, module: module.clone() }, left);
        plan.left.extend(of_image.left.into_iter().map(half));
        units.extend(survey.unit_files().iter().filter_map(|&file| known.of(survey.text(file))));
    }
    let changed = project.write(&inlining(&kept.lists, units)?)?;
    kept.write(project.dir())?;

    let mut outcome = ConsistentOutcome {
        project: &project,
        images: &images,
        plan: &plan,
        kept: &kept,
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
    if args.json { output::json(&outcome, &next) } else { Ok(output::text(&outcome, &next)) }
}

/// Translates the lists into the build driver's types.
fn inlining(
    lists: &ChoiceLists,
    units: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Vec<(Identifier, InlineAttribute)>>> {
    let word = |attribute| match attribute {
        Attribute::AlwaysInline => InlineAttribute::Always,
        Attribute::NoInline => InlineAttribute::Never,
        Attribute::NoInlineNoClone => InlineAttribute::NeverNorClone,
        Attribute::NoAnalysis => InlineAttribute::Opaque,
    };
    let all = by_unit(lists, units).into_iter();
    let unit = |(unit, functions): (String, Vec<(String, Attribute)>)| {
        let function = |(name, attribute): (String, Attribute)| {
            let name = Identifier::new(&name).ok_or_else(|| kept::bad_name(&name))?;
            Ok((name, word(attribute)))
        };
        Ok((unit, functions.into_iter().map(function).collect::<Result<_>>()?))
    };
    all.map(unit).collect()
}

/// The sums over all images.
fn figures(images: &[LinkedImage]) -> BuildFigures {
    let mut sum = BuildFigures::default();
    for LinkedImage { surveyed, .. } in images {
        let all = surveyed.summary.all();
        sum.out_of_line += all.out_of_line as u64;
        sum.half_inlined += all.half_inlined as u64;
        sum.inlined += all.inlined as u64;
        sum.code += surveyed.code;
    }
    sum
}

/// Explains why each remaining function stays half-inlined.
fn explain(outcome: &mut ConsistentOutcome<'_>) {
    let (project, plan, lists) = (outcome.project, outcome.plan, &outcome.kept.lists);
    for (half, left) in &plan.left {
        let key = &half.key;
        let why = match left {
            LeftReason::NotWanted => {
                outcome.not_wanted += 1;
                continue;
            }
            LeftReason::OverBudget => {
                outcome.over_budget += 1;
                continue;
            }
            LeftReason::Guarded(section) => {
                format!("inlined into {section}, which may call nothing that is traced")
            }
            LeftReason::Hot => "hot, and so as the compiler chooses (--hot)".to_owned(),
            LeftReason::Forced => "always_inline in the source".to_owned(),
            LeftReason::Flattened(holder) => format!("inlined into {holder}, which says flatten"),
            LeftReason::Unnamed => "its name is none of C, so that no list can have it".to_owned(),
            LeftReason::NoUnit => "its unit is not compiled from a file of this source".to_owned(),
            LeftReason::Ignored => {
                let units = || lists.get(key).into_iter().flat_map(|entry| &entry.units);
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
