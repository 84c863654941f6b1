//! `klpx diff --against`: whether another kernel's image has the same functions as an object.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_klp_emit::successor::{self, SuccessorVerdict};
use klpx_normalize::elf::ElfFile;
use serde::Serialize;

use crate::args::Diff;

#[derive(Serialize)]
struct AgainstLine {
    function: String,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sizes: Option<[usize; 2]>,
}

/// Runs the command.
pub(crate) fn run(args: &Diff, out: &mut impl Write) -> Result<()> {
    let image = args.against.as_deref().unwrap_or(Path::new(""));
    let files = (ElfFile::open(&args.original)?, ElfFile::open(image)?);
    let found = successor::compare(&files.0.parse()?, &files.1.parse()?);
    let lines: Vec<AgainstLine> = found.into_iter().map(line).collect();
    let text = match args.json {
        true => serde_json::to_string_pretty(&lines).unwrap_or_default() + "\n",
        false => lines.iter().map(in_words).collect(),
    };
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

fn line((function, verdict): (String, SuccessorVerdict)) -> AgainstLine {
    let (verdict, sizes) = match verdict {
        SuccessorVerdict::Equal => ("equal", None),
        SuccessorVerdict::Differs { unit_size, image_size } => ("differs", Some([unit_size, image_size])),
        SuccessorVerdict::Absent => ("absent", None),
    };
    AgainstLine { function, verdict, sizes }
}

fn in_words(line: &AgainstLine) -> String {
    match line.sizes {
        Some([unit_size, image_size]) => {
            format!("{}: {} ({unit_size} bytes, there {image_size})\n", line.function, line.verdict)
        }
        None => format!("{}: {}\n", line.function, line.verdict),
    }
}
