//! The arguments and the help of `klpx package`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

pub(super) const HELP: &str = "\
A package is for one kernel release and holds one livepatch, which has to be cumulative: it takes
the place of the one that is loaded. Installing it loads the livepatch (with klpx-host) where that
very build of the kernel runs, and does nothing more elsewhere: on another kernel, in the image of
another machine, in a container. Removing it leaves the running kernel as it is, unless
KLPX_UNLOAD=yes is in the environment.

Beside the module are its report, when --report names it, and a statement of its provenance
(in-toto, SLSA version 1). The same inputs give the same bytes: the only time in a package is
SOURCE_DATE_EPOCH, or else that of the newest module.";

#[derive(Debug, Args)]
pub(crate) struct PackageArgs {
    /// Livepatch modules, at most one for each kernel
    #[arg(required = true, value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) modules: Vec<PathBuf>,
    /// The form of the packages
    #[arg(long, value_enum)]
    pub(crate) format: PackageFormat,
    /// Version of the packages; default: that of each module (klpx build --module-version)
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// What changed, a line an item; default: each module's description
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) changelog: Option<PathBuf>,
    /// Who answers for the packages
    #[arg(long, value_name = "NAME <ADDRESS>", env = "KLPX_MAINTAINER")]
    pub(crate) maintainer: String,
    /// The report of a module's build (klpx build --report); may be repeated
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub(crate) report: Vec<PathBuf>,
    /// Where the packages go
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What installs a package.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PackageFormat {
    /// dpkg
    Deb,
    /// rpm
    Rpm,
}

impl From<PackageFormat> for klpx_package::Format {
    fn from(format: PackageFormat) -> Self {
        match format {
            PackageFormat::Deb => Self::Deb,
            PackageFormat::Rpm => Self::Rpm,
        }
    }
}
