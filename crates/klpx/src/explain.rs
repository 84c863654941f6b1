//! `klpx explain`: what a code means, why klpx refuses, and what to do.
//!
//! The list comes from the table of codes. The sections come from the pages in `docs/refusals`, which are compiled in. A
//! section is printed exactly as written there.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::code::{PREFIX, Row};
use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use crate::render;

/// The text of a page.
fn text(page: codes::Page) -> &'static str {
    use klpx_diagnosis::codes::Page;
    match page {
        Page::Patch => include_str!("../../../docs/refusals/patch.md"),
        Page::Places => include_str!("../../../docs/refusals/places.md"),
        Page::Data => include_str!("../../../docs/refusals/data.md"),
        Page::Functions => include_str!("../../../docs/refusals/functions.md"),
        Page::Transition => include_str!("../../../docs/refusals/transition.md"),
        Page::Symbols => include_str!("../../../docs/refusals/symbols.md"),
        Page::SpecialSections => include_str!("../../../docs/refusals/special-sections.md"),
        Page::External => include_str!("../../../docs/refusals/external.md"),
        Page::Lto => include_str!("../../../docs/refusals/lto.md"),
        Page::Kernel => include_str!("../../../docs/refusals/kernel.md"),
        Page::Configuration => include_str!("../../../docs/refusals/configuration.md"),
        Page::Finding => include_str!("../../../docs/refusals/finding.md"),
        Page::Build => include_str!("../../../docs/refusals/build.md"),
        Page::Verification => include_str!("../../../docs/refusals/verification.md"),
        Page::Test => include_str!("../../../docs/refusals/test.md"),
        Page::Signing => include_str!("../../../docs/refusals/signing.md"),
        Page::Packaging => include_str!("../../../docs/refusals/packaging.md"),
        Page::Host => include_str!("../../../docs/refusals/host.md"),
        Page::Cache => include_str!("../../../docs/refusals/cache.md"),
        Page::Files => include_str!("../../../docs/refusals/files.md"),
        Page::Commands => include_str!("../../../docs/refusals/commands.md"),
    }
}

/// Runs the command: prints a code's section, or the list of all codes.
pub(crate) fn run(code: Option<&str>, out: &mut impl Write) -> Result<()> {
    let text = match code {
        Some(code) => explained(code)?,
        None => listed(),
    };
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

/// A page: a subject and the sections of its codes.
struct Page<'t> {
    subject: &'t str,
    sections: Vec<ExplainedSection<'t>>,
}

/// The section of one code.
struct ExplainedSection<'t> {
    /// The code without `klpx::`.
    name: &'t str,
    /// The text without empty lines around it.
    text: &'t str,
}

impl<'t> Page<'t> {
    /// Reads `# SUBJECT`, then for each code `## klpx::NAME` and its text. Code examples in a text are indented, so
    /// none of their lines is a heading.
    fn read(text: &'t str) -> Page<'t> {
        let mut parts = text.split("\n## ");
        let head = parts.next().unwrap_or_default().lines().next().unwrap_or_default();
        let section = |part: &'t str| {
            let (code, text) = part.split_once('\n').unwrap_or((part, ""));
            ExplainedSection { name: without_prefix(code.trim()), text: text.trim_matches('\n') }
        };
        Page { subject: head.trim_start_matches('#').trim(), sections: parts.map(section).collect() }
    }
}

fn without_prefix(code: &str) -> &str {
    code.strip_prefix(PREFIX).unwrap_or(code)
}

fn explained(code: &str) -> Result<String> {
    let wanted = without_prefix(code);
    let of_row = |row: &Row| {
        let mut sections = Page::read(text(row.page)).sections.into_iter();
        sections.find(|section| section.name == wanted)
    };
    let section = codes::ALL.iter().find(|row| row.short_name() == wanted).and_then(of_row);
    match section {
        Some(ExplainedSection { name, text }) => Ok(format!("{PREFIX}{name}\n\n{text}\n")),
        None => Err(unknown(code, &nearest(wanted))),
    }
}

/// The codes of a page, with their names and meanings.
pub(crate) fn rows(page: codes::Page) -> impl Iterator<Item = &'static Row> {
    codes::ALL.iter().filter(move |row| row.page == page)
}

/// The subject of a page.
pub(crate) fn subject(page: codes::Page) -> &'static str {
    Page::read(text(page)).subject
}

fn listed() -> String {
    let mut listed = String::new();
    for &page in codes::Page::ALL {
        let gap = if listed.is_empty() { "" } else { "\n" };
        listed.push_str(&format!("{gap}{}\n", subject(page)));
        let row = |row: &Row| vec![row.short_name().to_owned(), row.summary.to_owned()];
        listed.push_str(&render::table(&rows(page).map(row).collect::<Vec<_>>()));
    }
    listed
}

/// How similar two names must be, from 0 to 1, to count one as a misspelling of the other.
const ALIKE: f64 = 0.85;
/// How many names a refusal offers.
const OFFERED: usize = 3;

/// The codes that the user may have meant, the most similar first.
fn nearest(wanted: &str) -> Vec<String> {
    let mut all: Vec<(f64, &str)> = codes::ALL
        .iter()
        .map(|row| (strsim::jaro_winkler(wanted, row.short_name()), row.short_name()))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    all.into_iter().take(OFFERED).map(|(_, name)| format!("{PREFIX}{name}")).collect()
}

fn unknown(code: &str, nearest: &[String]) -> Failure {
    let remedy = match nearest {
        [] => "klpx explain lists all codes".to_owned(),
        some => format!("did you mean {}? klpx explain lists all codes", some.join(", ")),
    };
    let what = format!("{code:?} is no code of klpx");
    Diagnosis::new(&codes::NO_SUCH_CODE, what, "no page of klpx explain has it", remedy).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ExplainedSection<'_> {
        /// The first sentence, on one line.
        fn first_sentence(&self) -> String {
            let paragraph = self.text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
            let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
            paragraph[..end].to_owned()
        }
    }

    fn pages() -> impl Iterator<Item = Page<'static>> {
        codes::Page::ALL.iter().map(|&page| Page::read(text(page)))
    }

    /// Each page has the codes of the table in the table's order, and each section begins with the code's meaning.
    #[test]
    fn the_pages_and_the_table_agree() {
        for &page in codes::Page::ALL {
            let sections = Page::read(text(page)).sections;
            let of_page: Vec<_> = sections.iter().map(|one| (one.name, one.first_sentence())).collect();
            let of_table: Vec<_> = rows(page).map(|row| (row.short_name(), row.summary.to_owned())).collect();
            assert_eq!(of_page, of_table, "docs/refusals/{}.md and the table of codes differ", page.file());
        }
    }

    #[test]
    fn a_page_is_a_subject_and_sections() {
        let text = "# Some things\n\nAbout them.\n\n## klpx::one\n\nIt is 6.1\nor more. So\nit is.\n\n    # no heading\n    \
                    ## nor this\n\n## klpx::two\n\nShort.\n";
        let page = Page::read(text);
        assert_eq!(page.subject, "Some things");
        let sections: Vec<_> = page.sections.iter().map(|one| (one.name, one.first_sentence())).collect();
        assert_eq!(sections, [("one", "It is 6.1 or more.".to_owned()), ("two", "Short.".to_owned())]);
        assert_eq!(
            page.sections[0].text,
            "It is 6.1\nor more. So\nit is.\n\n    # no heading\n    ## nor this"
        );
    }

    #[test]
    fn any_text_is_a_page() {
        for text in ["", "\n", "# ", "## klpx::one", "\n## ", "\n## klpx::\n\n", "# a\n## b\n## c"] {
            let page = Page::read(text);
            assert!(
                page.sections.iter().all(|section| section.first_sentence().len() <= text.len()),
                "{text:?}"
            );
        }
    }

    /// What pages must look like to read well on a terminal.
    #[test]
    fn sections_are_short_and_say_what_to_do() {
        for section in pages().flat_map(|page| page.sections) {
            let (name, text) = (section.name, section.text);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{name}: a line is too long");
            assert!(!text.contains("```"), "{name}: examples are indented");
            assert!(text.contains("\nWhat to do"), "{name} does not say what to do");
            assert!(text.lines().count() <= 40, "{name} is too long");
            let first = section.first_sentence();
            assert!(first.chars().count() <= 80 && first.ends_with('.'), "{name}: {first}");
        }
    }

    #[test]
    fn a_slip_leads_to_the_code_that_was_meant() {
        for (typed, meant) in
            [("changed-dat", "changed-data"), ("layouts", "layout"), ("not-tracable", "not-traceable")]
        {
            assert_eq!(nearest(typed).first(), Some(&format!("klpx::{meant}")), "{typed}");
        }
        assert!(nearest("xyzzy").is_empty());
        assert!(nearest("").is_empty());
    }
}
