//! The klpx command: arguments, terminal output, reports, exit codes. Does no ELF or DWARF work and runs no stages
//! itself.

mod against;
mod args;
mod build;
mod cache;
mod diff;
mod disassembly;
mod doctor;
mod explain;
mod inline_check;
mod inspect;
mod listing;
mod manual;
mod normalize;
mod outcome;
mod output;
mod package;
mod page;
mod progress;
mod report;
mod schema;
mod sign;
mod signer;
mod trial;
mod wanted;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use klpx_diagnosis::Result;
use klpx_terminal::{render, terminal};

use args::{Cli, Command};
use terminal::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Output::new(std::io::stdout().lock());
    match run(&cli.command, &mut out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            progress::print_failure(cli.command.progress(), &failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: &Command, out: &mut impl Write) -> Result<u8> {
    match command {
        Command::Host(command) => return klpx_host::run(command, out),
        Command::Build(args) => build::run(args, out),
        Command::Doctor(args) => doctor::run(args, out),
        Command::Diff(args) => diff::run(args, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Test(args) => trial::run(args, out),
        Command::Sign(args) => sign::run(args),
        Command::Package(args) => package::run(args, out),
        Command::Normalize(args) => normalize::run(args, out),
        Command::InlineCheck(args) => inline_check::run(args, out),
        Command::Cache(command) => cache::run(command, out),
        Command::Schema { name } => schema::run(*name, out),
        Command::Explain { code } => explain::run(code.as_deref(), out),
        Command::Completions { shell } => manual::completions(*shell, out),
        Command::Man { directory } => manual::man(directory.as_deref(), out),
    }
    .map(|()| 0)
}
