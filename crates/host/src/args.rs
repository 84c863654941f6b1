//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::exit::exit_codes;

const MONITORING: &str = "\
Exit codes for monitoring:
    0  every livepatch is enabled and through its transition
   12  no livepatch is loaded
   13  one is in transition
   14  one is disabled, and its module is loaded yet
   15  the machine went down while one was being loaded, and it is not loaded since

The most urgent one counts: 15, 13, 14, 12.";

const FORCE: &str = "\
A transition ends when every task has left the functions that are patched. A task that does not wake
up keeps it open. The livepatch is then taken back, and the kernel runs as before.

--force ends it anyway: the kernel takes every task as patched. A task that still is in an old
function goes on there, with data that new functions may use otherwise. Nobody but the author of the
livepatch can tell whether that is safe. Modules of that transition may not be removable until the
next boot.";

/// Loads, watches and removes Linux kernel livepatches on a host.
#[derive(Debug, Parser)]
#[command(name = "klpx-host", version, propagate_version = true, max_term_width = 100, after_help = exit_codes())]
pub struct HostCli {
    /// What to do.
    #[command(subcommand)]
    pub command: HostCommand,
}

/// What to do with livepatches on this machine.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Load a livepatch and wait until every task runs it
    #[command(after_long_help = FORCE)]
    Load(LoadArgs),
    /// Take a livepatch out of the kernel
    #[command(after_long_help = FORCE)]
    Unload(Unload),
    /// Show every livepatch that is loaded: its state, since when, its functions, what it mends
    #[command(after_help = MONITORING)]
    Status(JsonArgs),
    /// Check whether a livepatch could be loaded, and change nothing
    Check(CheckArgs),
    /// List the livepatches that are installed for each kernel
    List(JsonArgs),
    /// Install a livepatch beside the modules of its kernel, for the next boot; it is not loaded
    Install(Install),
    /// Remove an installed livepatch; one that is loaded stays loaded
    Uninstall(Uninstall),
}

/// What is loaded, and how.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Livepatch: a file, or the name of one that is installed for the running kernel
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath, required_unless_present = "installed")]
    pub module: Option<PathBuf>,
    /// Load what is installed for the running kernel: the newest cumulative livepatch, and newer ones on top. The word
    /// klpx.livepatch=off on the kernel's command line turns this off
    #[arg(long, conflicts_with_all = ["module", "retry"])]
    pub installed: bool,
    /// Load it although the machine went down when it was loaded before
    #[arg(long)]
    pub retry: bool,
    /// How long, and what then.
    #[command(flatten)]
    pub waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is taken out.
#[derive(Debug, Args)]
pub struct Unload {
    /// The livepatch, as klpx-host status shows it
    pub name: String,
    /// How long, and what then.
    #[command(flatten)]
    pub waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How long a transition may take.
#[derive(Clone, Debug, Args)]
pub struct WaitingArgs {
    /// Seconds that the transition may take before it is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub timeout: u32,
    /// End the transition by force instead of taking it back; see below
    #[arg(long)]
    pub force: bool,
}

impl WaitingArgs {
    /// The time that a transition may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

/// How a command answers.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is checked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Livepatch: a file, or the name of one that is installed for the running kernel
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub module: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is installed.
#[derive(Debug, Args)]
pub struct Install {
    /// Livepatch, compressed or not
    #[arg(value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub module: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is removed.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// The livepatch, as klpx-host list shows it
    pub name: String,
    /// The release that it is installed for; default: the running one
    #[arg(long, value_name = "RELEASE", conflicts_with = "unload")]
    pub release: Option<String>,
    /// Take it out of the kernel, too
    #[arg(long)]
    pub unload: bool,
    /// How long, and what then.
    #[command(flatten)]
    pub waiting: WaitingArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
