//! The command line. Help, man pages and completions all come from here.

mod build;
mod common;
mod inline_check;
mod package;
mod trial;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::progress::ProgressForm;
use crate::schema::Schema;

pub(crate) use build::{BuildArgs, SigningArgs};
pub(crate) use common::{Common, KernelArgs};
pub(crate) use inline_check::InlineCheck;
pub(crate) use package::PackageArgs;
pub(crate) use trial::TestArgs;

/// Makes Linux kernel livepatch modules from source patches.
#[derive(Debug, Parser)]
#[command(name = "klpx", version, propagate_version = true, max_term_width = 100, after_help = crate::listing::exit_codes())]
pub(crate) struct KlpxCli {
    #[command(subcommand)]
    pub(crate) command: KlpxCommand,
}

const DOCTOR: &str = "\
Nothing is installed, and nothing is downloaded without --fetch. Exit code 0: everything is there
that a livepatch needs; 6: the kernel's configuration rules livepatches out; 8: files of the kernel
or its compiler are missing.";

#[derive(Debug, Subcommand)]
pub(crate) enum KlpxCommand {
    /// Build a livepatch module from patches to a kernel's source
    ///
    /// klpx runs the commands in the makefiles and scripts of the kernel's source, and those that a patch adds, with the
    /// rights of the user who runs klpx. Use only sources and patches that you would build yourself.
    Build(Box<BuildArgs>),
    /// Say which parts of a kernel are on this machine, which are missing, and how to get them
    #[command(after_long_help = DOCTOR)]
    Doctor(Doctor),
    /// Compare two builds of an object: which functions differ, and why
    Diff(Diff),
    /// Show the contents of a livepatch module: objects, functions, symbols, livepatch relocations
    Inspect(Inspect),
    /// Try a livepatch module in a guest of its kernel
    Test(TestArgs),
    /// Append a detached signature to a module
    Sign(Sign),
    /// Make packages for hosts from livepatch modules, one for each kernel
    #[command(after_long_help = package::HELP, disable_version_flag = true)]
    Package(PackageArgs),
    /// The commands of klpx-host, the program for hosts without klpx
    #[command(flatten)]
    Host(klpx_host::HostCommand),
    /// Show which suffixes the compiler put on an object's names, and which names are not unique without them
    Normalize(Normalize),
    /// Show which functions are inlined at some call sites and also have an out-of-line copy
    #[command(after_long_help = inline_check::HELP)]
    InlineCheck(InlineCheck),
    /// List or prune what klpx keeps for the next run
    #[command(subcommand)]
    Cache(Cache),
    /// Print the JSON schema of what klpx prints or writes for programs
    Schema {
        /// Which one; default: a list of all
        name: Option<Schema>,
    },
    /// Explain a code: its meaning, why klpx refuses, and what to do; without a code, list all codes
    Explain {
        /// The code of a refusal or note, with or without klpx::
        code: Option<String>,
    },
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write the pages of all commands into a folder
    Man {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

impl KlpxCommand {
    /// How the command shows its progress, and what stops it.
    pub(crate) fn progress(&self) -> ProgressForm {
        match self {
            KlpxCommand::Build(args) => args.progress,
            _ => ProgressForm::Text,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) which: KernelArgs,
    /// Kernel source: a tree or a tarball; default: from the kernel's packages
    #[arg(short, long, value_name = "DIR|TARBALL", value_hint = ValueHint::AnyPath)]
    pub(crate) source: Option<PathBuf>,
    /// Build tree (O=) or headers folder of the kernel
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// Kernel configuration
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The kernel's vmlinux, with its symbols
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vmlinux: Option<PathBuf>,
    /// The kernel's modules
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modules: Option<PathBuf>,
    /// LLVM of a suffix (`--llvm=-22`) or in a folder; default: as .config was made
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub(crate) llvm: Option<String>,
    /// Prefix of the cross tools; default: as .config was made
    #[arg(long, value_name = "PREFIX")]
    pub(crate) cross_compile: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where klpx keeps kernels between runs; default: klpx in the user's cache folder
    #[arg(long, value_name = "DIR", env = "KLPX_CACHE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Object of the original build
    #[arg(value_name = "ORIG.o", value_hint = ValueHint::FilePath)]
    pub(crate) original: PathBuf,
    /// Object of the patched build
    #[arg(value_name = "PATCHED.o", value_hint = ValueHint::FilePath, required_unless_present = "against")]
    pub(crate) patched: Option<PathBuf>,
    /// Compare the functions of the one object given with those of the same name in a linked vmlinux or a shipped module
    #[arg(long, hide = true, value_name = "IMAGE", conflicts_with_all = ["patched", "explain", "verbose"])]
    pub(crate) against: Option<PathBuf>,
    /// Show the first differing instructions of a function, with its source line
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) explain: Option<String>,
    /// Say by which evidence the items of the two objects were matched
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Livepatch module
    #[arg(value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) module: PathBuf,
    /// Check the module's signature by this certificate (PEM or DER)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page with all of it, and with the code of the module's functions
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    pub(crate) page: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// Module without a signature
    #[arg(value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) module: PathBuf,
    /// The signature of the module's contents: a PKCS#7 message without the contents (DER)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) signature: PathBuf,
    /// Where the signed module goes; default: in the place of the unsigned one
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Normalize {
    /// Object: a .o, a module or vmlinux.o
    #[arg(value_name = "OBJ", value_hint = ValueHint::FilePath)]
    pub(crate) object: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List the kernels that klpx keeps
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove kernels that were not used for some days, or as many as it takes to have room
    Prune {
        /// Days; 0 removes all
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u32,
        /// Instead, remove those used longest ago until so many GB are free
        #[arg(long, value_name = "GB", conflicts_with = "days")]
        free: Option<u32>,
        /// Instead, remove the kernels whose key begins with this text; klpx cache list shows the keys
        #[arg(long, value_name = "KEY", conflicts_with_all = ["days", "free"])]
        key: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}
