//! `klpx man` and `klpx completions`, from the same source as `--help`. The main page also lists the diagnosis codes.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use klpx_diagnosis::{Diagnosis, Result};

use crate::args::KlpxCli;
use crate::listing;

/// Prints the main page, or writes all pages into a folder.
pub(crate) fn man(directory: Option<&Path>, out: &mut impl Write) -> Result<()> {
    let failed = |path: &Path, e: &io::Error| Diagnosis::io("write", path, e);
    match directory {
        None => main_page(out).map_err(|e| failed(Path::new("standard output"), &e).into()),
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
            clap_mangen::generate_to(KlpxCli::command(), dir).map_err(|e| failed(dir, &e))?;
            let path = dir.join("klpx.1");
            let mut page = Vec::new();
            main_page(&mut page)
                .and_then(|()| std::fs::write(&path, page))
                .map_err(|e| failed(&path, &e).into())
        }
    }
}

/// Writes the main page: the options, the exit codes, and the diagnosis codes.
fn main_page(out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(KlpxCli::command()).render(out)?;
    listing::diagnosis_codes(out)
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell, out: &mut impl Write) -> Result<()> {
    // clap panics if it can't write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut KlpxCli::command(), "klpx", &mut script);
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}
