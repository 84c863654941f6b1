//! The lists of exit codes and diagnosis codes, for the help and the man page.

use std::io::{self, Write};

use clap_mangen::roff::{Roff, bold, roman};
use klpx_diagnosis::{Class, codes};
use klpx_host::STATUS_CODES;

use crate::explain;

/// The exit codes, for the help.
pub(crate) fn exit_codes() -> String {
    let of_host = |class: &Class| matches!(class, Class::Reverted | Class::Stuck);
    let (host, rest): (Vec<Class>, Vec<Class>) = Class::ALL.into_iter().partition(of_host);
    let row = |(code, meaning): (u8, &str)| format!("\n{code:>5}  {meaning}");
    let classes = |all: Vec<Class>| {
        all.into_iter().map(|class| row((class.exit_code(), class.meaning()))).collect::<String>()
    };
    let states: String = STATUS_CODES.map(row).concat();
    format!(
        "Exit codes:{}{}\n  load, unload and status:{}{states}",
        row((0, "success")),
        classes(rest),
        classes(host)
    )
}

/// Writes the man page's section of diagnosis codes.
pub(crate) fn diagnosis_codes(out: &mut impl Write) -> io::Result<()> {
    let mut page = Roff::new();
    page.control("SH", ["DIAGNOSIS CODES"]);
    page.text([roman(
        "Each refusal, failure and note has a code. klpx explain CODE explains the code at length.",
    )]);
    for &subject in codes::Page::ALL {
        page.control("SS", [explain::subject(subject)]);
        for row in explain::rows(subject) {
            page.control("TP", []);
            page.text([bold(row.name)]);
            let exit = row.class.map(|class| format!(" Exit code {}.", class.exit_code()));
            page.text([roman(format!("{}{}", row.summary, exit.unwrap_or_default()))]);
        }
    }
    page.to_writer(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_man_page_lists_each_code() {
        let mut page = Vec::new();
        diagnosis_codes(&mut page).expect("written");
        let page = String::from_utf8(page).expect("text").replace("\\-", "-");
        for row in codes::ALL {
            assert!(page.contains(&format!("\\fB{}\\fR", row.name)), "{}", row.name);
        }
        assert!(page.contains("DIAGNOSIS CODES") && page.contains("Exit code 130."), "{page}");
    }

    #[test]
    fn the_help_has_the_exit_code_of_each_class() {
        let help = exit_codes();
        for class in Class::ALL {
            assert!(help.contains(&format!("\n{:>5}  {}", class.exit_code(), class.meaning())), "{class:?}");
        }
    }
}
