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
mod json;
mod listing;
mod log;
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

use args::{KlpxCli, KlpxCommand};
use terminal::Output;

fn main() -> ExitCode {
    let cli = KlpxCli::parse();
    let mut out = Output::new(std::io::stdout().lock());
    match run(&cli.command, &mut out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            progress::print_failure(cli.command.progress(), &failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: &KlpxCommand, out: &mut impl Write) -> Result<u8> {
    log::begin()?;
    match command {
        KlpxCommand::Host(command) => return klpx_host::run(command, out),
        KlpxCommand::Build(args) => build::run(args, out),
        KlpxCommand::Doctor(args) => doctor::run(args, out),
        KlpxCommand::Diff(args) => diff::run(args, out),
        KlpxCommand::Inspect(args) => inspect::run(args, out),
        KlpxCommand::Test(args) => trial::run(args, out),
        KlpxCommand::Sign(args) => sign::run(args),
        KlpxCommand::Package(args) => package::run(args, out),
        KlpxCommand::Normalize(args) => normalize::run(args, out),
        KlpxCommand::InlineCheck(args) => inline_check::run(args, out),
        KlpxCommand::Cache(command) => cache::run(command, out),
        KlpxCommand::Schema { name } => schema::run(*name, out),
        KlpxCommand::Explain { code } => explain::run(code.as_deref(), out),
        KlpxCommand::Completions { shell } => manual::completions(*shell, out),
        KlpxCommand::Man { directory } => manual::man(directory.as_deref(), out),
    }
    .map(|()| 0)
}
