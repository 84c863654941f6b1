//! The arguments and the help of `klpx inline-check`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const HELP: &str = "\
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
