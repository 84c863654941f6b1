//! The workspace's own tooling: host packages, fixture kernels, guests, the demo, the tests and the benches.
//! Never needed by a user of an installed `klpx`.

mod apt;
mod bench;
mod busybox;
mod compare;
mod consistent;
mod corpus;
mod demo;
mod disk;
mod dist;
mod distro;
mod external;
mod faults;
mod fingerprint;
mod fuzz;
mod guest;
mod host;
mod inlining;
mod kernel;
mod kernel_run;
mod klpx;
mod levels;
mod linker;
mod machine;
mod made;
mod mutants;
mod packages;
mod pipeline;
mod process;
mod refusal;
mod robust;
mod room;
mod scenario;
mod source;
mod stock;
mod test;
mod tools;
mod trials;
mod tried;
mod ui;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::CargoWorkspace;

/// Tooling of the klpx workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct XtaskCli {
    #[command(flatten)]
    fixtures: FixtureOptions,
    #[command(subcommand)]
    command: XtaskCommand,
}

/// Where the fixture kernels come from.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct FixtureOptions {
    /// Linux source to use instead of the distribution's package: an unpacked tree (only read) or a tarball
    #[arg(long, global = true, value_name = "DIR|TARBALL", env = "KLPX_KERNEL_SRC")]
    kernel_src: Option<PathBuf>,
    /// Finished kernel build tree, or directory with a stock kernel's unpacked packages, to use instead of making one;
    /// may be repeated
    #[arg(long, global = true, value_name = "KERNEL=DIR")]
    kernel_build: Vec<String>,
    /// Release of a stock kernel to use instead of the newest one known, such as 6.12.115+deb12-cloud-amd64; may be
    /// repeated
    #[arg(long, global = true, value_name = "RELEASE")]
    release: Vec<String>,
    /// Ask the archive for newer stock kernels than those in the cache
    #[arg(long, global = true)]
    newest: bool,
    /// Where sources and fixture kernels are kept [default: klpx-fixtures in the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "KLPX_FIXTURES")]
    fixture_cache: Option<PathBuf>,
    /// Parallel jobs for kernel builds [default: one per processor]
    #[arg(long, short, global = true, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Subcommand)]
enum XtaskCommand {
    /// Install host packages, fetch the kernel source, build the fixture kernels
    Setup(SetupArgs),
    /// From nothing to a livepatch that changes a kernel in QEMU
    Demo(demo::DemoArgs),
    /// Everything: formatting, lints, docs, unit tests, then scenarios and refusals
    Test(test::TestArgs),
    /// Scenarios on kernels that the tests leave out: other series, other compilers, FullLTO
    Matrix(test::MatrixArgs),
    /// Real fixes of a stable series on a stock kernel
    Corpus(corpus::CorpusArgs),
    /// Change sets of small patches at each level of the stabilised rebuild
    Levels(levels::LevelsArgs),
    /// Which single faults in the code that decides the tests without a kernel see
    Mutants(mutants::MutantsArgs),
    /// Which single faults in finished modules the verification finds
    Faults(faults::FaultsArgs),
    /// Random inputs to whatever reads files that others wrote
    Fuzz(fuzz::FuzzArgs),
    /// Measure analysis and a whole build
    Bench(bench::BenchArgs),
    /// Packages of klpx and klpx-host, in target/dist
    Dist(dist::DistArgs),
    /// Boot a fixture kernel to a shell or run one guest script
    Boot(guest::BootArgs),
}

#[derive(clap::Args)]
struct SetupArgs {
    /// Fixture kernels to build [default: all]
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Stop after the host packages
    #[arg(long)]
    packages_only: bool,
}

fn main() -> ExitCode {
    let cli = XtaskCli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command. Returns `Ok(false)` if everything ran and something did not pass.
fn run(cli: &XtaskCli) -> Result<bool> {
    let workspace = CargoWorkspace::new(&cli.fixtures)?;
    match &cli.command {
        XtaskCommand::Setup(args) => {
            packages::ensure(packages::Need::ALL)?;
            if !args.packages_only {
                for kernel in kernel::select(&args.kernel)? {
                    kernel::ensure(&workspace, kernel)?;
                }
            }
            Ok(true)
        }
        XtaskCommand::Demo(args) => demo::run(&workspace, args),
        XtaskCommand::Test(args) => test::run(&workspace, args),
        XtaskCommand::Matrix(args) => test::matrix(&workspace, args),
        XtaskCommand::Corpus(args) => corpus::run(&workspace, args),
        XtaskCommand::Levels(args) => levels::run(&workspace, args),
        XtaskCommand::Mutants(args) => mutants::run(&workspace, args),
        XtaskCommand::Faults(args) => faults::run(&workspace, args),
        XtaskCommand::Fuzz(args) => fuzz::run(&workspace, args),
        XtaskCommand::Bench(args) => bench::run(&workspace, args),
        XtaskCommand::Dist(args) => dist::run(&workspace, args),
        XtaskCommand::Boot(args) => guest::boot(&workspace, args),
    }
}
