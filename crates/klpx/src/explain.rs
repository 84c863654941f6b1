//! `klpx explain`: what a code means, why klpx refuses, and what to do.
//!
//! This file reads the pages in `docs/refusals`, which are compiled in. The pages own their text: a section is printed
//! exactly as written there.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

use crate::render;

/// The beginning of every code.
const PREFIX: &str = "klpx::";

/// The pages, in the order of the list.
const PAGES: [&str; 21] = [
    include_str!("../../../docs/refusals/patch.md"),
    include_str!("../../../docs/refusals/places.md"),
    include_str!("../../../docs/refusals/data.md"),
    include_str!("../../../docs/refusals/functions.md"),
    include_str!("../../../docs/refusals/transition.md"),
    include_str!("../../../docs/refusals/symbols.md"),
    include_str!("../../../docs/refusals/special-sections.md"),
    include_str!("../../../docs/refusals/external.md"),
    include_str!("../../../docs/refusals/lto.md"),
    include_str!("../../../docs/refusals/kernel.md"),
    include_str!("../../../docs/refusals/configuration.md"),
    include_str!("../../../docs/refusals/finding.md"),
    include_str!("../../../docs/refusals/build.md"),
    include_str!("../../../docs/refusals/verification.md"),
    include_str!("../../../docs/refusals/test.md"),
    include_str!("../../../docs/refusals/signing.md"),
    include_str!("../../../docs/refusals/packaging.md"),
    include_str!("../../../docs/refusals/host.md"),
    include_str!("../../../docs/refusals/cache.md"),
    include_str!("../../../docs/refusals/files.md"),
    include_str!("../../../docs/refusals/commands.md"),
];

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
    sections: Vec<Section<'t>>,
}

/// The section of one code.
struct Section<'t> {
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
            Section { name: without_prefix(code.trim()), text: text.trim_matches('\n') }
        };
        Page { subject: head.trim_start_matches('#').trim(), sections: parts.map(section).collect() }
    }
}

impl Section<'_> {
    /// The first sentence, on one line.
    fn first_sentence(&self) -> String {
        let paragraph = self.text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
        paragraph[..end].to_owned()
    }
}

fn pages() -> impl Iterator<Item = Page<'static>> {
    PAGES.iter().map(|text| Page::read(text))
}

fn without_prefix(code: &str) -> &str {
    code.strip_prefix(PREFIX).unwrap_or(code)
}

fn explained(code: &str) -> Result<String> {
    let wanted = without_prefix(code);
    let section = pages().flat_map(|page| page.sections).find(|section| section.name == wanted);
    match section {
        Some(Section { name, text }) => Ok(format!("{PREFIX}{name}\n\n{text}\n")),
        None => Err(unknown(code, &nearest(wanted))),
    }
}

fn listed() -> String {
    let mut text = String::new();
    for page in pages() {
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{}\n", page.subject));
        let row = |section: &Section<'_>| vec![section.name.to_owned(), section.first_sentence()];
        text.push_str(&render::table(&page.sections.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// How similar two names must be, from 0 to 1, to count one as a misspelling of the other.
const ALIKE: f64 = 0.85;
/// How many names a refusal offers.
const OFFERED: usize = 3;

/// The codes that the user may have meant, the most similar first.
fn nearest(wanted: &str) -> Vec<String> {
    let mut all: Vec<(f64, &str)> = pages()
        .flat_map(|page| page.sections)
        .map(|section| (strsim::jaro_winkler(wanted, section.name), section.name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    all.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    all.into_iter().take(OFFERED).map(|(_, name)| format!("{PREFIX}{name}")).collect()
}

fn unknown(code: &str, nearest: &[String]) -> Failure {
    let diagnosis =
        Diagnosis::new("klpx::no-such-code", Class::Usage, format!("{code:?} is no code of klpx"));
    match nearest {
        [] => diagnosis.remedy("klpx explain lists all codes"),
        some => diagnosis.remedy(format!("did you mean {}? klpx explain lists all codes", some.join(", "))),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
