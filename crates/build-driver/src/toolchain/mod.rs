//! The compiler and linker of a configuration, and the same tools on this machine. Compiles nothing.

pub(crate) mod host;

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::arch::KernelArch;
use crate::config::Config;
use crate::language::MakeWord;
use crate::process::{Call, Runner};

/// The compiler family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompilerFamily {
    /// GCC.
    Gcc,
    /// Clang.
    Clang,
}

/// The kernel's link-time optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lto {
    /// No link-time optimisation.
    None,
    /// Clang ThinLTO.
    Thin,
    /// Clang full LTO.
    Full,
}

impl Lto {
    fn from_config(config: &Config) -> Lto {
        if config.is("LTO_CLANG_THIN") || config.is("LTO_CLANG_THIN_DIST") {
            Lto::Thin
        } else if config.is("LTO_CLANG_FULL") || config.is("LTO_CLANG") {
            Lto::Full
        } else {
            Lto::None
        }
    }
}

/// The tools that a kernel is built with, as found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler family.
    pub compiler: CompilerFamily,
    /// The first line of the compiler's `--version`.
    pub version_text: String,
    /// The compiler's version, such as `22.1.8`.
    pub version: String,
    /// Link-time optimisation.
    pub lto: Lto,
    /// The compiler program, as passed to make.
    pub cc: String,
    /// The compiler for programs that the build runs on this machine.
    pub(crate) host_cc: String,
    /// The linker program, as passed to make unless a wrapper replaces it.
    pub ld: String,
    /// The first line of the linker's `--version`.
    pub ld_text: String,
    /// True if the linker is LLD.
    pub lld: bool,
    /// The words on make's command line that choose these tools.
    pub(crate) make: Vec<String>,
    /// The prefix and suffix of the LLVM tools, or the prefix of the GNU tools.
    pub(crate) affixes: (String, String),
}

impl Toolchain {
    /// The identity of the tools for the objects: versions, not paths.
    pub(crate) fn identity(&self) -> String {
        format!("{}\n{}\n{:?}\n", self.version_text, self.ld_text, self.lto)
    }

    /// The name of a binary utility of this toolchain, such as `nm` or `objcopy`.
    pub fn tool(&self, name: &str) -> String {
        let (prefix, suffix) = &self.affixes;
        let llvm = if self.compiler == CompilerFamily::Clang && self.lld { "llvm-" } else { "" };
        format!("{prefix}{llvm}{name}{suffix}")
    }

    /// The name of LLVM's optimizer, which most packages install with the other tools.
    pub fn opt(&self) -> String {
        let (prefix, suffix) = &self.affixes;
        format!("{prefix}opt{suffix}")
    }

    /// A short name for people, such as `clang 22.1.8 ThinLTO`.
    pub fn describe(&self) -> String {
        let name = match self.compiler {
            CompilerFamily::Gcc => "gcc",
            CompilerFamily::Clang => "clang",
        };
        let lto = match self.lto {
            Lto::None => "",
            Lto::Thin => " ThinLTO",
            Lto::Full => " FullLTO",
        };
        format!("{name} {}{lto}", self.version)
    }
}

/// The user's choice of tools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes<'a> {
    /// `--llvm[=SUFFIX]`: the value of make's LLVM variable. Empty or `1` for tools without a suffix.
    pub(crate) llvm: Option<&'a str>,
    /// `--cross-compile PREFIX`.
    pub(crate) cross: Option<&'a str>,
}

/// One candidate set of tool names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ToolCandidate {
    cc: String,
    ld: String,
    make: Vec<String>,
    affixes: (String, String),
}

/// Finds the installed tools that `config` was made with.
///
/// # Errors
/// `klpx::compiler-mismatch` if the exact compiler is not installed, `klpx::linker-mismatch` if the linker is not.
pub(crate) fn choose(
    config: &Config,
    arch: KernelArch,
    wishes: &Wishes<'_>,
    runner: &Runner,
) -> Result<Toolchain> {
    let wanted = config.value("CC_VERSION_TEXT").unwrap_or_default().to_owned();
    if wanted.is_empty() {
        let what = "the configuration does not say which compiler it was made with";
        return Err(Diagnosis::new(
            &codes::CONFIG_INVALID,
            what,
            "CONFIG_CC_VERSION_TEXT is not set",
            "use the .config of the kernel's own build, as it was left there",
        )
        .into());
    }
    for (option, value) in [("--llvm", wishes.llvm), ("--cross-compile", wishes.cross)] {
        if let Some(value) = value.filter(|value| MakeWord::new(value).is_none()) {
            let what = format!("{option} {value:?} is no word that make takes as it stands");
            return Err(Diagnosis::new(
                &codes::USAGE,
                what,
                "other characters have a meaning of their own in make and its shell",
                "name tools by a prefix, suffix or folder of letters, digits, dots and dashes",
            )
            .into());
        }
    }
    let mut seen = Vec::new();
    for candidate in candidates(config, arch, wishes, &wanted) {
        let Some(text) = version_line(runner, &candidate.cc)? else { continue };
        if same_compiler(&text, &wanted) {
            return with_linker(config, candidate, text, runner);
        }
        seen.push(format!("{}: {text}", candidate.cc));
    }
    Err(mismatch(config, &wanted, seen).into())
}

fn with_linker(
    config: &Config,
    candidate: ToolCandidate,
    text: String,
    runner: &Runner,
) -> Result<Toolchain> {
    let Some(ld_text) = version_line(runner, &candidate.ld)? else {
        return Err(crate::process::missing::missing_tool(&candidate.ld).into());
    };
    let lld = config.is("LD_IS_LLD");
    let wanted = config.number(if lld { "LLD_VERSION" } else { "LD_VERSION" });
    let found = linker_version(&ld_text, lld);
    if wanted != 0 && found.is_some_and(|found| found != wanted) {
        let what = format!("{} is not the linker the kernel was built with", candidate.ld);
        return Err(Diagnosis::new(
            &codes::LINKER_MISMATCH,
            what,
            format!("it says {ld_text:?}, the configuration says version {wanted}"),
            "install the linker's exact version, or name the tools with --llvm or --cross-compile",
        )
        .into());
    }
    let gcc = config.is("CC_IS_GCC");
    let mut make = candidate.make;
    let host_cc = host_compiler(&candidate.cc, &candidate.affixes.0, !gcc && lld);
    if host_cc == candidate.cc && find_program(HOST_CC).is_none() {
        make.push(format!("HOSTCC={host_cc}"));
    }
    Ok(Toolchain {
        compiler: if gcc { CompilerFamily::Gcc } else { CompilerFamily::Clang },
        version: version_number(&text, gcc),
        version_text: text,
        lto: Lto::from_config(config),
        cc: candidate.cc,
        host_cc,
        ld: candidate.ld,
        ld_text,
        lld,
        make,
        affixes: candidate.affixes,
    })
}

/// The compiler for host programs (HOSTCC) in the kernel's makefiles, without LLVM=.
const HOST_CC: &str = "gcc";

/// The compiler for host programs. With LLVM=, the kernel's compiler. Without LLVM=, gcc. If there is no plain gcc, as
/// with a distribution's kernel headers, the kernel's compiler, unless it is a cross compiler.
fn host_compiler(cc: &str, cross: &str, llvm: bool) -> String {
    let own = llvm || (cross.is_empty() && find_program(HOST_CC).is_none());
    if own { cc.to_owned() } else { HOST_CC.to_owned() }
}

/// The candidate sets of tool names, the likeliest first.
fn candidates(config: &Config, arch: KernelArch, wishes: &Wishes<'_>, wanted: &str) -> Vec<ToolCandidate> {
    let cross = wishes.cross.unwrap_or_else(|| arch.cross()).to_owned();
    let lld = config.is("LD_IS_LLD");
    if config.is("CC_IS_CLANG") || wishes.llvm.is_some() {
        let major = (config.number("CLANG_VERSION") / 10_000).to_string();
        let values = match wishes.llvm {
            Some(value) => vec![if value.is_empty() { "1".to_owned() } else { value.to_owned() }],
            None => vec!["1".to_owned(), format!("-{major}"), format!("/usr/lib/llvm-{major}/bin/")],
        };
        return values.iter().map(|value| clang(value, lld, &cross)).collect();
    }
    let major = config.number("GCC_VERSION") / 10_000;
    let first = wanted.split(' ').next().unwrap_or("gcc").to_owned();
    let mut names = vec![format!("{cross}gcc"), format!("{cross}gcc-{major}")];
    if wishes.cross.is_none()
        && MakeWord::new(&first).is_some()
        && !first.contains('/')
        && first.starts_with(&cross)
    {
        names.insert(0, first);
    }
    names.dedup();
    names.into_iter().map(|name| gcc(name, lld, &cross)).collect()
}

fn clang(value: &str, lld: bool, cross: &str) -> ToolCandidate {
    let (prefix, suffix) = match value {
        "1" => ("", ""),
        value if value.ends_with('/') => (value, ""),
        value => ("", value),
    };
    let cc = format!("{prefix}clang{suffix}");
    if lld {
        let ld = format!("{prefix}ld.lld{suffix}");
        let make = vec![format!("LLVM={value}")];
        return ToolCandidate { cc, ld, make, affixes: (prefix.to_owned(), suffix.to_owned()) };
    }
    let make = vec![format!("CC={cc}"), format!("CROSS_COMPILE={cross}")];
    ToolCandidate { cc, ld: format!("{cross}ld"), make, affixes: (cross.to_owned(), String::new()) }
}

fn gcc(name: String, lld: bool, cross: &str) -> ToolCandidate {
    let mut make = vec![format!("CC={name}"), format!("CROSS_COMPILE={cross}")];
    let ld = if lld { "ld.lld".to_owned() } else { format!("{cross}ld") };
    if lld {
        make.push(format!("LD={ld}"));
    }
    ToolCandidate { cc: name, ld, make, affixes: (cross.to_owned(), String::new()) }
}

/// The first line of `PROGRAM --version`. `None` if the program is missing or fails.
fn version_line(runner: &Runner, program: &str) -> Result<Option<String>> {
    if find_program(program).is_none() {
        return Ok(None);
    }
    let answer = runner.ask(&Call::new(program).arg("--version"))?;
    Ok(answer.lines().into_iter().next().filter(|_| answer.success))
}

/// The path of a program, as the shell would find it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| runs(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| runs(path))
}

/// Returns true if both are the same compiler: the version texts are equal, and only the names of GCC programs may
/// differ. kbuild drops `#` from the text (CC_VERSION_TEXT in the kernel's Makefile).
fn same_compiler(found: &str, wanted: &str) -> bool {
    let rest = |text: &str| text.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned());
    let found = found.replace('#', "");
    found == wanted || (wanted.contains("gcc") && found.contains("gcc") && rest(&found) == rest(wanted))
}

/// The number that scripts/ld-version.sh computes from a linker's version line.
fn linker_version(text: &str, lld: bool) -> Option<u64> {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let word = if lld { word } else { text.split_whitespace().last() }?;
    let mut parts = word.split(['.', '-', '+']).map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(0)
    });
    let (major, minor, patch) = (parts.next()?, parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    // The third part can be a date, as in 2.40.50.20230625, rather than a patch level. The kernel's script uses it
    // unchanged.
    Some(major * 10_000 + minor * 100 + patch)
}

fn version_number(text: &str, gcc: bool) -> String {
    let mut words = text.split_whitespace();
    let word = if gcc {
        words.next_back()
    } else {
        words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    };
    word.unwrap_or_default().to_owned()
}

fn mismatch(config: &Config, wanted: &str, seen: Vec<String>) -> Diagnosis {
    let clang = config.is("CC_IS_CLANG");
    let major = config.number(if clang { "CLANG_VERSION" } else { "GCC_VERSION" }) / 10_000;
    let package = if clang { format!("clang-{major} and lld-{major}") } else { format!("gcc-{major}") };
    let why = if seen.is_empty() {
        "no such compiler is installed".to_owned()
    } else {
        "a livepatch needs the very compiler: another version optimises otherwise".to_owned()
    };
    Diagnosis::new(
        &codes::COMPILER_MISMATCH,
        format!("the kernel was built with {wanted:?}"),
        why,
        format!(
            "install that exact version (Debian: {package}), or name the tools with \
             --llvm=SUFFIX or --cross-compile"
        ),
    )
    .detail(seen.into_iter().map(|line| format!("found {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_the_same_by_their_whole_version_text() {
        let cases = [
            ("gcc (Debian 12.2.0-14) 12.2.0", "gcc (Debian 12.2.0-14) 12.2.0", true),
            ("gcc-12 (Debian 12.2.0-14) 12.2.0", "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0", true),
            ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc (Debian 12.2.0-14) 12.2.0", false),
            ("Debian clang version 22.1.8 (1)", "Debian clang version 22.1.8 (1)", true),
            ("Debian clang version 22.1.7 (1)", "Debian clang version 22.1.8 (1)", false),
            ("gcc (Ubuntu #1) 9.1", "gcc (Ubuntu 1) 9.1", true),
        ];
        for (found, wanted, same) in cases {
            assert_eq!(same_compiler(found, wanted), same, "{found} / {wanted}");
        }
    }

    #[test]
    fn linker_versions_are_numbers_as_kconfig_has_them() {
        assert_eq!(linker_version("GNU ld (GNU Binutils for Debian) 2.40", false), Some(24_000));
        assert_eq!(linker_version("GNU ld version 2.35.2-13.el9", false), Some(23_502));
        assert_eq!(linker_version("Debian LLD 22.1.8 (compatible with GNU linkers)", true), Some(220_108));
        assert_eq!(linker_version("LLD 16.0.6", true), Some(160_006));
    }

    #[test]
    fn candidates_follow_the_configuration_and_the_user() {
        let clang = Config::parse("CONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y\nCONFIG_CLANG_VERSION=220108\n");
        let ccs = |config: &Config, arch, wishes: &Wishes<'_>, text: &str| -> Vec<String> {
            candidates(config, arch, wishes, text).into_iter().map(|c| c.cc).collect()
        };
        assert_eq!(
            ccs(&clang, KernelArch::X86_64, &Wishes::default(), "clang"),
            ["clang", "clang-22", "/usr/lib/llvm-22/bin/clang"]
        );
        let wishes = Wishes { llvm: Some("-19"), cross: None };
        assert_eq!(ccs(&clang, KernelArch::X86_64, &wishes, "clang"), ["clang-19"]);
        let gcc = Config::parse("CONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION=120200\n");
        let wishes = Wishes { llvm: None, cross: Some("x-") };
        assert_eq!(ccs(&gcc, KernelArch::X86_64, &wishes, "gcc-12 (Debian)"), ["x-gcc", "x-gcc-12"]);
    }

    #[test]
    fn tools_are_words_of_make() {
        let config =
            Config::parse("CONFIG_CC_VERSION_TEXT=\"gcc (Nobody 1.2.3-4) 1.2.3\"\nCONFIG_CC_IS_GCC=y\n");
        for wishes in [
            Wishes { llvm: Some("$(shell touch x)"), cross: None },
            Wishes { llvm: None, cross: Some("x y-") },
        ] {
            let failure = choose(&config, KernelArch::X86_64, &wishes, &Runner::new()).expect_err("refused");
            assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::usage");
        }
        let named = candidates(&config, KernelArch::X86_64, &Wishes::default(), "$(id) 1.2");
        assert!(named.iter().all(|candidate| candidate.cc.starts_with("gcc")));
    }

    #[test]
    fn a_compiler_that_is_not_installed_is_refused() {
        let config = Config::parse(
            "CONFIG_CC_VERSION_TEXT=\"gcc (Nobody 1.2.3-4) 1.2.3\"\nCONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION=10203\n",
        );
        let failure =
            choose(&config, KernelArch::X86_64, &Wishes::default(), &Runner::new()).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::compiler-mismatch");
    }
}
