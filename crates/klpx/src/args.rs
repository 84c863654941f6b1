//! The command line. Help, man pages and completions all come from here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use klpx_build_driver::language::ModinfoLine;
use serde::Serialize;

use crate::progress::ProgressForm;
use crate::schema::Schema;

/// Makes Linux kernel livepatch modules from source patches.
#[derive(Debug, Parser)]
#[command(name = "klpx", version, propagate_version = true, max_term_width = 100, after_help = crate::listing::exit_codes())]
pub(crate) struct KlpxCli {
    #[command(subcommand)]
    pub(crate) command: KlpxCommand,
}

const INLINE_CHECK: &str = "\
If the compiler inlines a function at some call sites and also keeps an out-of-line copy, anyone
tracing the function is misled: ftrace, kprobes and BPF see only the calls of the out-of-line copy.
A patch of the function must replace every function that holds an inlined copy.

What is counted:
  function        a name that is declared at one line of one file; a header's function counts once,
                  however many units compile it; assembly has none
  out-of-line     a copy of the function with an address of its own; clones count too
                  (f.constprop.0, f.part.0)
  inlined copy    a call of the function that was inlined, at any depth, into an out-of-line copy,
                  the holder
  call site       a place in the source from which inlined copies come; one place can give several
  half-inlined    with an out-of-line copy and an inlined copy, anywhere in the file
  across files    inlined into a unit that does not define the function; only LTO does this

What debug information can't tell:
  always_inline   looks like a choice of the compiler; functions that are only inlined are counted
                  apart
  lost copies     an inlined copy of which no instruction is left usually has no entry, and is not
                  counted

What a tracing user types:
    klpx inline-check vmlinux --function NAME
What a livepatch author types:
    klpx inline-check vmlinux.o --function NAME        (or vmlinux, or a module)

A kernel in which a probe sees every call:
    klpx inline-check --consistent -b BUILD --output DIR
        reads BUILD/vmlinux and the modules that were built there, makes lists, and says what to type
        for a build with the lists in DIR/build
    klpx inline-check --consistent -b DIR/build --output DIR
        reads the new build; run this after each build until nothing is left to do (usually two or
        three builds)

  Each function is then inlined nowhere. A header's function is inlined everywhere instead if that
  takes less code. The source is not changed: DIR/cc stands in for the compiler (make CC=DIR/cc) and
  gives each unit its list. For Clang the list becomes arguments for LLVM, and stays in the bitcode
  of LTO. For GCC the list becomes declarations behind the unit's text. A unit is compiled again if
  its list changed. DIR/functions.tsv has every choice. Keep DIR with the build tree: klpx build
  compiles a livepatch for such a kernel with the same lists.

  Functions that stay half-inlined are listed with the reason: always_inline functions that are also
  called through a pointer, functions that are inlined into code that may call nothing traced
  (.noinstr.text), and with Clang functions that are inlined into functions marked flatten.

  --only restricts the lists to functions that you trace. --hot leaves out functions that are called
  too often. A profile of a kernel that was built with lists names them, because an inlined function
  has no name in a profile (perf report --stdio -g none --percent-limit 1). Give --hot in every run.
  --budget takes the functions with the most inlined call sites for a byte of code first. The
  estimate counts an inlined copy as its bytes and a call as 10 bytes. It is good for an order of
  magnitude, and says nothing about speed. After each build klpx shows the real size.";

const DOCTOR: &str = "\
Nothing is installed, and nothing is downloaded without --fetch. Exit code 0: everything is there
that a livepatch needs; 6: the kernel's configuration rules livepatches out; 8: files of the kernel
or its compiler are missing.";

const PACKAGE: &str = "\
A package is for one kernel release and holds one livepatch, which has to be cumulative: it takes
the place of the one that is loaded. Installing it loads the livepatch (with klpx-host) where that
very build of the kernel runs, and does nothing more elsewhere: on another kernel, in the image of
another machine, in a container. Removing it leaves the running kernel as it is, unless
KLPX_UNLOAD=yes is in the environment.

Beside the module are its report, when --report names it, and a statement of its provenance
(in-toto, SLSA version 1). The same inputs give the same bytes: the only time in a package is
SOURCE_DATE_EPOCH, or else that of the newest module.";

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
    #[command(after_long_help = PACKAGE, disable_version_flag = true)]
    Package(PackageArgs),
    /// The commands of klpx-host, the program for hosts without klpx
    #[command(flatten)]
    Host(klpx_host::HostCommand),
    /// Show which suffixes the compiler put on an object's names, and which names are not unique without them
    Normalize(Normalize),
    /// Show which functions are inlined at some call sites and also have an out-of-line copy
    #[command(after_long_help = INLINE_CHECK)]
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
pub(crate) struct BuildArgs {
    /// Patches, applied in this order with -p1
    #[arg(required = true, value_name = "PATCH", value_hint = ValueHint::FilePath)]
    pub(crate) patches: Vec<PathBuf>,
    /// Kernel source: a tree or a tarball; default: from the kernel's packages, or the tree one stands in
    #[arg(short, long, value_name = "DIR|TARBALL", value_hint = ValueHint::AnyPath)]
    pub(crate) source: Option<PathBuf>,
    /// Build tree (O=) or headers folder of the kernel to be patched; default: from the kernel's packages
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// Kernel configuration; default: the build tree's .config
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The kernel's vmlinux, with its symbols; default: the build tree's, or the debug package's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vmlinux: Option<PathBuf>,
    /// The kernel's modules; default: the build tree's, or those in /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modules: Option<PathBuf>,
    /// Patch an external module: the folder of its source, whose Kbuild or Makefile builds it; needs --module
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "module")]
    pub(crate) module_source: Option<PathBuf>,
    /// The external module as it is loaded, compressed or not; needs --module-source
    #[arg(long, value_name = "FILE.ko", value_hint = ValueHint::FilePath, requires = "module_source")]
    pub(crate) module: Option<PathBuf>,
    /// Where the module goes; default: livepatch-NAME.ko in this folder
    #[arg(short, long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    /// Name of the livepatch; default: from the first patch's file name
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// What the livepatch is for, as modinfo shows it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<ModinfoLine>,
    /// Version of the livepatch, as modinfo shows it
    #[arg(long, value_name = "VERSION")]
    pub(crate) module_version: Option<ModinfoLine>,
    /// A vulnerability that the livepatch mends, as modinfo shows it; may be repeated
    #[arg(long, value_name = "CVE-ID")]
    pub(crate) cve: Vec<ModinfoLine>,
    /// Parallel jobs; default: one for each processor
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) signing: SigningArgs,
    /// Try the module in a guest, as klpx test does
    #[arg(long)]
    pub(crate) test: bool,
    /// Do not replace livepatches that are loaded already
    #[arg(long)]
    pub(crate) no_replace: bool,
    /// Accept that this type's layout changes, or what this __init function sets up, after a review; may be repeated
    #[arg(long, value_name = "TYPE|FUNCTION")]
    pub(crate) allow_layout: Vec<String>,
    /// Let a hunk apply when this many of its context lines differ
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fuzz: u32,
    /// Build with LLVM, optionally of a suffix (`--llvm=-22`) or in a folder; default: as .config was made
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub(crate) llvm: Option<String>,
    /// Prefix of the cross tools; default: as .config was made
    #[arg(long, value_name = "PREFIX")]
    pub(crate) cross_compile: Option<String>,
    /// A variable of make with which the kernel was built, such as KCFLAGS=-march=x86-64-v3; files that the value names
    /// belong to the kernel; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) make: Vec<String>,
    /// Folder that klpx inline-check --consistent wrote, when the kernel was built with it; default: as the build tree
    /// records
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) consistent: Option<PathBuf>,
    /// Which decisions of the original the patched build keeps where they are still valid
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LevelArg::Inlining)]
    pub(crate) stabilise: LevelArg,
    /// How progress is shown on standard error
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ProgressForm::Text)]
    pub(crate) progress: ProgressForm,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
    /// Write a page for the person who approves the livepatch
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    pub(crate) page: Option<PathBuf>,
    /// Keep the objects of this run, and say where they are
    #[arg(long)]
    pub(crate) keep_work: bool,
    #[command(flatten)]
    pub(crate) which: KernelArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Which kernel is to be patched, and where its packages are looked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelArgs {
    /// The kernel to be patched; default: the build tree one stands in, else the running kernel
    #[arg(short, long, value_name = "RELEASE|running|VMLINUX", value_hint = ValueHint::AnyPath)]
    pub(crate) kernel: Option<String>,
    /// Look for the kernel's packages below this folder instead of /; may be repeated, the first that has a file wins
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) sysroot: Vec<PathBuf>,
    /// Download packages that are missing into the cache and unpack them there; nothing is installed
    #[arg(long)]
    pub(crate) fetch: bool,
}

/// Levels of the stabilised rebuild; each holds the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelArg {
    /// The names of promoted locals (ThinLTO)
    Off,
    /// The code of units that import only functions that are the same to the letter (ThinLTO)
    Names,
    /// The imports of touched units: no new ones (ThinLTO)
    Imports,
    /// The inliner's decisions about functions that are the same in both sources (ThinLTO; Clang without LTO)
    Inlining,
}

impl From<LevelArg> for klpx_engine::Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Off => Self::Off,
            LevelArg::Names => Self::Names,
            LevelArg::Imports => Self::Imports,
            LevelArg::Inlining => Self::Inlining,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where klpx keeps kernels between runs; default: klpx in the user's cache folder
    #[arg(long, value_name = "DIR", env = "KLPX_CACHE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Say more: each changed function's reasons
    #[arg(short, long)]
    pub(crate) verbose: bool,
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
pub(crate) struct TestArgs {
    /// Livepatch module; it is tried on the kernel that its vermagic names
    #[arg(value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) module: PathBuf,
    #[command(flatten)]
    pub(crate) which: KernelArgs,
    /// Build tree (O=) of the kernel
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// The kernel's boot image; default: from its packages or build tree
    #[arg(long, value_name = "VMLINUZ", value_hint = ValueHint::FilePath)]
    pub(crate) image: Option<PathBuf>,
    /// The kernel's modules; default: the build tree's, or those in /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modules: Option<PathBuf>,
    /// A static busybox for the guest; default: the one that is installed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) busybox: Option<PathBuf>,
    /// An earlier livepatch: the module takes its place while it is loaded
    #[arg(long, value_name = "OLD.ko", value_hint = ValueHint::FilePath)]
    pub(crate) previous: Option<PathBuf>,
    /// A command and what it prints before the livepatch is loaded, a pattern of the shell; may be repeated
    #[arg(long, value_name = "COMMAND => OUTPUT")]
    pub(crate) before: Vec<klpx_guest::Expectation>,
    /// The same while the livepatch is loaded
    #[arg(long, value_name = "COMMAND => OUTPUT")]
    pub(crate) after: Vec<klpx_guest::Expectation>,
    /// A script for busybox's shell that runs while the livepatch is loaded; each check is a line: check WHAT EXPECTED
    /// ACTUAL, or pass WHAT, or fail WHAT
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) script: Option<PathBuf>,
    /// Keep the guest's console in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// Where klpx keeps kernels between runs; default: klpx in the user's cache folder
    #[arg(long, value_name = "DIR", env = "KLPX_CACHE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a module is signed with.
#[derive(Debug, Args)]
pub(crate) struct SigningArgs {
    /// Sign the module with this private key, at last; KBUILD_SIGN_PIN holds its passphrase
    #[arg(long, value_name = "FILE|pkcs11:URI", requires = "sign_cert")]
    pub(crate) sign_key: Option<OsString>,
    /// The certificate of the key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign_key")]
    pub(crate) sign_cert: Option<PathBuf>,
    /// Hash function of the signature; default: as the kernel's configuration has it
    #[arg(long, value_name = "NAME", requires = "sign_key")]
    pub(crate) sign_hash: Option<String>,
    /// Read the passphrase of the key from this open descriptor
    #[arg(long, value_name = "N", requires = "sign_key")]
    pub(crate) sign_pin_fd: Option<u32>,
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

impl TestArgs {
    /// The trial of a module that was built just now, for the kernel that the build was for.
    pub(crate) fn of_built(build: &BuildArgs, module: PathBuf) -> TestArgs {
        TestArgs {
            module,
            which: build.which.clone(),
            build_dir: build.build_dir.clone(),
            image: None,
            modules: build.modules.clone(),
            busybox: None,
            previous: None,
            before: Vec::new(),
            after: Vec::new(),
            script: None,
            log: None,
            cache_dir: build.common.cache_dir.clone(),
            json: false,
        }
    }
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

#[derive(Debug, Args)]
pub(crate) struct InlineCheck {
    /// vmlinux, vmlinux.o, a module or an object, with debug information
    #[arg(required_unless_present_any = ["compare", "consistent"], conflicts_with = "compare",
        value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Show one function: its copies, the holders of inlined copies, calls that a probe misses, functions to replace
    #[arg(long, value_name = "NAME", conflicts_with_all = ["list", "csv", "html", "compare"])]
    pub(crate) function: Option<String>,
    /// List half-inlined functions, the ones with most inlined call sites first
    #[arg(long, conflicts_with_all = ["csv", "json"])]
    pub(crate) list: bool,
    /// List them as CSV; a name that a spreadsheet would take for a formula has ' before it
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Compare two files: which functions became half-inlined, and which no longer are
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["list", "csv", "html"],
        value_hint = ValueHint::FilePath)]
    pub(crate) compare: Vec<PathBuf>,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) consistent: ConsistentArgs,
}

/// How to make a kernel without half-inlined functions.
#[derive(Debug, Args)]
#[command(next_help_heading = "A kernel without half-inlined functions")]
pub(crate) struct ConsistentArgs {
    /// Make the lists and the compiler wrapper for a kernel without half-inlined functions (FILE: by default
    /// BUILD/vmlinux and its modules)
    #[arg(long, requires = "build_dir", conflicts_with_all = ["function", "list", "csv", "html", "compare"])]
    pub(crate) consistent: bool,
    /// The build tree (O=) that vmlinux comes from: first the plain one, then that of each build with the lists; only
    /// read
    #[arg(short, long, value_name = "BUILD", requires = "consistent", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// Where lists and wrapper go; what earlier runs left there is read, and added to
    #[arg(short, long, value_name = "DIR", default_value = "klpx-inlining", requires = "consistent",
        value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
    /// Only these functions: a name, a pattern with * and ?, or a file with one of these on each line; may be repeated
    #[arg(long, value_name = "PATTERN|FILE", requires = "consistent")]
    pub(crate) only: Vec<String>,
    /// Functions that are left to the compiler, because a call costs too much: a file with one name on each line, or the
    /// output of perf report --stdio -g none; may be repeated
    #[arg(long, value_name = "PROFILE|LIST", requires = "consistent", value_hint = ValueHint::FilePath)]
    pub(crate) hot: Vec<PathBuf>,
    /// Bytes of code that all choices together may add by their estimate; a choice that saves code is always taken
    #[arg(long, value_name = "BYTES", requires = "consistent")]
    pub(crate) budget: Option<u64>,
    /// Kernel source tree; default: what the build tree was made from
    #[arg(short, long, value_name = "DIR", requires = "consistent", value_hint = ValueHint::DirPath)]
    pub(crate) source: Option<PathBuf>,
    /// LLVM of a suffix (`--llvm=-22`) or in a folder; default: as .config was made
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, require_equals = true, default_missing_value = "1",
        requires = "consistent")]
    pub(crate) llvm: Option<String>,
    /// Prefix of the cross tools; default: as .config was made
    #[arg(long, value_name = "PREFIX", requires = "consistent")]
    pub(crate) cross_compile: Option<String>,
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
