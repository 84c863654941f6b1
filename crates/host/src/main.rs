//! The klpx-host command: livepatches on a host, without anything that builds them.

use std::process::ExitCode;

use clap::Parser;
use klpx_host::{Command, EXIT_CODES};
use klpx_terminal::{render, terminal};

/// Loads, watches and removes Linux kernel livepatches on a host.
#[derive(Debug, Parser)]
#[command(name = "klpx-host", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = terminal::Output::new(std::io::stdout().lock());
    match klpx_host::run(&cli.command, &mut out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprint!("{}", render::failure(&failure));
            ExitCode::from(failure.exit_code())
        }
    }
}
