//! `klpx inline-check`: which functions are inlined at some call sites and also exist out of line.

mod compare;
mod consistent;
mod function;
mod json;
mod list;
mod only;
mod page;

use std::io::Write;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_inline_check::survey::{CopyId, Function, FunctionId, Inlined, Summary, Survey, TextId};
use klpx_normalize::elf::{Elf, ElfFile, SectionId};

use crate::args::InlineCheck;
use crate::output::OutputFile;
use crate::render;

/// The flag of a section that contains code (SHF_EXECINSTR of the ELF specification).
const SHF_EXECINSTR: u64 = 4;

/// A file and the facts in its DWARF.
struct Surveyed {
    path: PathBuf,
    survey: Survey,
    summary: Summary,
    /// Bytes of code.
    code: u64,
}

impl Surveyed {
    fn read(path: &Path) -> Result<Surveyed> {
        let file = ElfFile::open(path)?;
        let elf = file.parse()?;
        Surveyed::new(path, &elf, Survey::read(&elf))
    }

    fn new(path: &Path, elf: &Elf<'_>, survey: Result<Survey>) -> Result<Surveyed> {
        let survey = survey.map_err(|failure| at(failure, path))?;
        let summary = Summary::count(&survey);
        // The final link of x86_64 puts a little code into `.data` (arch/x86/kernel/vmlinux.lds.S).
        let executable = |&id: &SectionId| {
            elf.section_flags(id) & SHF_EXECINSTR != 0 && !elf.section_name(id).starts_with(b".data")
        };
        let code = elf.section_ids().filter(executable).map(|id| elf.section_size(id)).sum();
        Ok(Surveyed { path: path.to_owned(), survey, summary, code })
    }

    /// Half-inlined functions, the ones with most inlined call sites first.
    fn half_inlined(&self) -> Vec<Listed<'_>> {
        let survey = &self.survey;
        let mut all: Vec<Listed<'_>> = survey
            .functions()
            .filter(|(_, function)| survey.is_half_inlined(function))
            .map(|(id, function)| Listed { id, function, sites: survey.call_sites(function) })
            .collect();
        all.sort_by_key(|listed| {
            std::cmp::Reverse((
                listed.sites,
                survey.inlined(listed.function).len(),
                std::cmp::Reverse(listed.id),
            ))
        });
        all
    }

    /// The functions with this name in the source; if there are none, those with an out-of-line copy whose symbol has
    /// this name.
    fn named(&self, name: &str) -> Result<Vec<&Function>> {
        let survey = &self.survey;
        let all = || survey.functions().map(|(_, function)| function);
        let mut found: Vec<&Function> = all().filter(|function| survey.text(function.name) == name).collect();
        if found.is_empty() {
            let symbol = |function: &&Function| {
                survey.copies(function).iter().any(|copy| survey.text(copy.symbol) == name)
            };
            found = all().filter(symbol).collect();
        }
        if found.is_empty() {
            return Err(Diagnosis::new(
                &codes::NO_SUCH_FUNCTION,
                format!("no function {name}"),
                format!("the debug information of {} has no copy of one", self.path.display()),
                "give its name as in the source; assembly and macros have no functions there",
            )
            .into());
        }
        Ok(found)
    }
}

/// A half-inlined function in a list.
struct Listed<'s> {
    id: FunctionId,
    function: &'s Function,
    sites: usize,
}

/// Inlined copies that look the same to a person.
struct EqualCalls<'s> {
    holder: CopyId,
    call: &'s Inlined,
    /// The inlined calls around this one, the holder's own call first.
    chain: Vec<&'s Inlined>,
    times: usize,
}

/// A function's inlined copies, with equal ones combined, by the holder's name.
fn calls<'s>(survey: &'s Survey, function: &Function) -> Vec<EqualCalls<'s>> {
    type CopyKey<'s> = (&'s str, CopyId, Vec<(&'s str, Option<&'s str>, u32, u32)>);
    let key = |calls: &EqualCalls<'s>| -> CopyKey<'s> {
        let place = |call: &&'s Inlined| {
            let name = survey.text(survey.function(call.function).name);
            (name, call.file.map(|file| survey.text(file)), call.line, call.column)
        };
        let places = calls.chain.iter().chain([&calls.call]).map(place).collect();
        (survey.text(survey.copy(calls.holder).symbol), calls.holder, places)
    };
    let mut all: Vec<(CopyKey<'s>, EqualCalls<'s>)> = survey
        .inlined(function)
        .iter()
        .map(|call| EqualCalls { holder: call.holder, call, chain: survey.chain(call), times: 1 })
        .map(|calls| (key(&calls), calls))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.dedup_by(|(this, calls), (before, first)| {
        let same = this == before;
        first.times += usize::from(same) * calls.times;
        same
    });
    all.into_iter().map(|(_, calls)| calls).collect()
}

/// `file:line`, or as much of it as is known.
fn place(survey: &Survey, file: Option<TextId>, line: u32) -> String {
    match (file, line) {
        (Some(file), 0) => survey.text(file).to_owned(),
        (Some(file), line) => format!("{}:{line}", survey.text(file)),
        (None, _) => "?".to_owned(),
    }
}

/// The linkage, and further facts that the debug information has about a declaration.
fn linkage(function: &Function) -> String {
    let declared = if function.declared_inline { ", declared inline" } else { "" };
    format!("{}{declared}", function.linkage().name())
}

/// Runs the command.
pub(crate) fn run(args: &InlineCheck, out: &mut impl Write) -> Result<()> {
    if let [before, after] = args.compare.as_slice() {
        let [before, after] = [Surveyed::read(before)?, Surveyed::read(after)?];
        let text =
            if args.json { json::comparison(&before, &after)? } else { compare::text(&before, &after) };
        return print(out, &text);
    }
    if args.consistent.consistent {
        return print(out, &consistent::run(args)?);
    }
    let Some(path) = &args.file else {
        return Err(Diagnosis::new(
            &codes::USAGE,
            "no file was named",
            "klpx inline-check reads the debug information of a file",
            "name a vmlinux, a module or an object with debug information",
        )
        .into());
    };
    let page = args.html.as_deref().map(|page| OutputFile::claim(page, 0o666)).transpose()?;
    if let Some(page) = &page {
        page.is_none_of([path.as_path()])?;
    }
    let surveyed = Surveyed::read(path)?;
    if let Some(page) = page {
        page.write(page::html(&surveyed)?.as_bytes())?;
    }
    let text = match &args.function {
        Some(name) if args.json => json::functions(&surveyed, &surveyed.named(name)?)?,
        Some(name) => {
            let shown = |function| function::text(&surveyed.survey, function);
            surveyed.named(name)?.into_iter().map(shown).collect::<Vec<_>>().join("\n")
        }
        None if args.json => json::file(&surveyed)?,
        None if args.csv => list::csv(&surveyed),
        None if args.list => list::text(&surveyed),
        None => summary(&surveyed),
    };
    print(out, &text)
}

fn print(out: &mut impl Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

/// A failure with the file in which it occurred.
fn at(failure: klpx_diagnosis::Failure, path: &Path) -> klpx_diagnosis::Failure {
    let place = klpx_diagnosis::DiagnosisPlace::file(path.display().to_string(), None);
    let placed = failure.diagnoses().cloned().map(|diagnosis| match diagnosis.place.is_empty() {
        true => diagnosis.place(place.clone()),
        false => diagnosis,
    });
    match klpx_diagnosis::Failure::all(placed.collect()) {
        Err(placed) => placed,
        Ok(()) => failure,
    }
}

/// Facts about the file: architecture, compilers, DWARF.
fn about(surveyed: &Surveyed) -> String {
    let survey = &surveyed.survey;
    let mut words = vec![survey.arch.name().to_owned()];
    words.extend(survey.producers.iter().map(|(name, _)| name.clone()));
    let versions: Vec<String> = survey.versions.iter().map(u16::to_string).collect();
    words.push(format!("DWARF {}", versions.join(" and ")));
    words.push(render::plural(survey.units, "unit"));
    words.join(" · ")
}

/// The counts, as text for people.
fn summary(surveyed: &Surveyed) -> String {
    let summary = &surveyed.summary;
    let mut text = format!("  {}  {}\n\n", surveyed.path.display(), about(surveyed));
    text.push_str(&render::numbers(&list::totals(summary)));
    let all = summary.all();
    if all.half_inlined > 0 {
        text.push_str(&format!(
            "\n  ftrace reaches {} of the {} half-inlined functions; {} are both within one unit\n",
            render::count(summary.half_inlined_reached),
            render::count(all.half_inlined),
            render::count(summary.by_unit),
        ));
    }
    if summary.only_inlined > 0 {
        let declared = match summary.only_inlined_declared {
            0 => String::new(),
            n => format!(", {} of them declared inline", render::count(n)),
        };
        text.push_str(&format!(
            "  only inlined: {}{declared}, {} (always_inline ones are among them)\n",
            render::plural(summary.only_inlined, "function"),
            match summary.only_inlined_copies {
                1 => "1 copy".to_owned(),
                n => format!("{} copies", render::count(n)),
            },
        ));
    }
    text
}
