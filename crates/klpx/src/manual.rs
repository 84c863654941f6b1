//! `klpx man` and `klpx completions`, from the same source as `--help`.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use klpx_diagnosis::{Diagnosis, Result};

use crate::args::Cli;

/// Prints the main page, or writes all pages into a folder.
pub(crate) fn man(directory: Option<&Path>, out: &mut impl Write) -> Result<()> {
    let command = Cli::command();
    let failed = |path: &Path, e: &std::io::Error| Diagnosis::io("write", path, e);
    match directory {
        None => clap_mangen::Man::new(command)
            .render(out)
            .map_err(|e| failed(Path::new("standard output"), &e).into()),
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
            clap_mangen::generate_to(command, dir).map_err(|e| failed(dir, &e).into())
        }
    }
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell, out: &mut impl Write) -> Result<()> {
    // clap panics if it can't write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "klpx", &mut script);
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}
