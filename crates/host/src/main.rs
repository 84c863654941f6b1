//! The klpx-host command: manages livepatches on a host, without any code that builds them.

use std::process::ExitCode;

use clap::Parser;
use klpx_host::HostCli;
use klpx_terminal::{render, terminal};

fn main() -> ExitCode {
    let cli = HostCli::parse();
    let mut out = terminal::Output::new(std::io::stdout().lock());
    match klpx_host::run(&cli.command, &mut out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprint!("{}", render::failure(&failure));
            ExitCode::from(failure.exit_code())
        }
    }
}
