//! What the machine must have before a build: programs, headers, disk space. Names the Debian package of what is
//! missing.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

use crate::config::Config;
use crate::process::{Call, Runner};
use crate::toolchain::{Compiler, Toolchain, find_program};

/// Programs and headers that only the build of a whole kernel needs.
const WHOLE_ONLY: [&str; 5] = ["cpio", "pahole", "openssl", "rustc", "openssl/opensslv.h"];

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// All of vmlinux and the modules.
    Kernel,
    /// Single units, after the headers and tools that they need.
    Units,
}

impl Make {
    fn needs(self, thing: &str) -> bool {
        self == Make::Kernel || !WHOLE_ONLY.contains(&thing)
    }
}

/// A program a kernel build runs, its Debian package, and the symbols that call for it (none: always).
const TOOLS: [(&str, &str, &[&str]); 13] = [
    ("make", "make", &[]),
    ("flex", "flex", &[]),
    ("bison", "bison", &[]),
    ("bc", "bc", &[]),
    ("git", "git", &[]),
    ("perl", "perl", &[]),
    ("python3", "python3", &[]),
    ("awk", "mawk", &[]),
    ("gcc", "gcc", &["CC_IS_GCC"]),
    ("cpio", "cpio", &["IKHEADERS"]),
    ("pahole", "pahole", &["DEBUG_INFO_BTF"]),
    ("openssl", "openssl", &["MODULE_SIG"]),
    ("rustc", "rustc", &["RUST"]),
];

/// A header that a host program of the kernel build includes, its Debian package, and the symbols that call for it.
const HEADERS: [(&str, &str, &[&str]); 2] = [
    ("gelf.h", "libelf-dev", &["OBJTOOL", "HAVE_OBJTOOL", "STACK_VALIDATION", "UNWINDER_ORC"]),
    ("openssl/opensslv.h", "libssl-dev", &["SYSTEM_TRUSTED_KEYRING", "MODULE_SIG"]),
];

/// The Debian package that has a program, where the name alone does not say.
fn package_of(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    if let Some((_, package, _)) = TOOLS.iter().find(|(tool, _, _)| *tool == name) {
        return (*package).to_owned();
    }
    let (base, suffix) = match name.rsplit_once('-') {
        Some((base, suffix)) if suffix.chars().all(|c| c.is_ascii_digit()) => (base, format!("-{suffix}")),
        _ => (name, String::new()),
    };
    match base {
        "ld.lld" => format!("lld{suffix}"),
        "clang" => format!("clang{suffix}"),
        _ if base.starts_with("llvm-") => format!("llvm{suffix}"),
        _ if base.ends_with("-ld") => format!("binutils-{}", base.trim_end_matches("-ld").replace('_', "-")),
        "ld" | "nm" | "objcopy" | "ar" | "strip" | "readelf" => "binutils".to_owned(),
        _ => String::new(),
    }
}

/// The diagnosis of a program that is not installed.
pub(crate) fn missing_tool(program: &str) -> Diagnosis {
    let package = package_of(program);
    let remedy = if package.is_empty() {
        "install it".to_owned()
    } else {
        format!("install it (Debian: apt install {package})")
    };
    Diagnosis::new("klpx::missing-tool", Class::Environment, format!("{program} is not installed"))
        .why("building a kernel needs it")
        .remedy(remedy)
}

fn called_for(config: &Config, symbols: &[&str]) -> bool {
    symbols.is_empty() || symbols.iter().any(|symbol| config.is(symbol))
}

/// Every program and header that a build of this configuration needs and the machine lacks.
pub(crate) fn check_build_tools(
    what: Make,
    config: &Config,
    toolchain: &Toolchain,
    runner: &Runner,
) -> Result<()> {
    let mut found = Vec::new();
    for (tool, _, symbols) in TOOLS {
        if what.needs(tool) && called_for(config, symbols) && find_program(tool).is_none() {
            found.push(missing_tool(tool));
        }
    }
    for tool in ["nm", "objcopy", "ar", "strip", "readelf"] {
        let name = toolchain.tool(tool);
        if find_program(&name).is_none() {
            found.push(missing_tool(&name));
        }
    }
    for (header, package, symbols) in HEADERS {
        if what.needs(header) && called_for(config, symbols) && !has_header(header, toolchain, runner)? {
            let what = format!("the header {header} is not installed");
            found.push(
                Diagnosis::new("klpx::missing-header", Class::Environment, what)
                    .why("a program that the kernel build runs on this machine needs it")
                    .remedy(format!("install it (Debian: apt install {package})")),
            );
        }
    }
    Failure::all(found)
}

/// Asks the host compiler whether it finds a header.
fn has_header(header: &str, toolchain: &Toolchain, runner: &Runner) -> Result<bool> {
    let host =
        if toolchain.compiler == Compiler::Clang && toolchain.lld { toolchain.cc.as_str() } else { "gcc" };
    if find_program(host).is_none() {
        return Ok(true);
    }
    let dir = tempfile::tempdir().map_err(|error| Diagnosis::io("create", &std::env::temp_dir(), &error))?;
    let file = dir.path().join("probe.c");
    std::fs::write(&file, format!("#include <{header}>\n"))
        .map_err(|error| Diagnosis::io("write", &file, &error))?;
    Ok(runner.run(&Call::new(host).args(["-fsyntax-only", "-w"]).arg(&file))?.success)
}

/// How many bytes a baseline is likely to need: the source twice over at most, objects by the number of symbols set. A
/// ThinLTO build of 790 symbols with DWARF was measured at 3 GB.
pub(crate) fn estimate(config: &Config) -> u64 {
    const MIB: u64 = 1 << 20;
    let symbols = config.len() as u64;
    let debug = config.is("DEBUG_INFO");
    let each = if debug { 2 * MIB } else { MIB / 2 };
    2048 * MIB + symbols * each
}

/// What headers, tools and some hundred units take at most.
pub(crate) const UNITS: u64 = 1 << 30;

/// Refuses to start when the file system of `dir` has less than `needed` bytes free.
pub(crate) fn check_space(dir: &Path, needed: u64) -> Result<()> {
    let free = free_space(dir).unwrap_or(u64::MAX);
    if free >= needed {
        return Ok(());
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let what = format!("not enough disk space for the kernel builds in {}", dir.display());
    Err(Diagnosis::new("klpx::disk-full", Class::Environment, what)
        .why(format!("{} are free, about {} are needed", gib(free), gib(needed)))
        .remedy(format!(
            "free some space (klpx cache prune --free {} removes the kernels used longest ago), or name another cache \
             directory with --cache-dir",
            needed.div_ceil(1_000_000_000)
        ))
        .into())
}

/// Bytes that a file system has free for whoever runs this.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: `stat` is plain data that the call fills, `path` ends with a NUL.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut stat) == 0).then(|| stat.f_bavail * stat.f_frsize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let cases = [
            ("flex", "apt install flex"),
            ("ld.lld-22", "apt install lld-22"),
            ("llvm-objcopy-19", "apt install llvm-19"),
            ("aarch64-linux-gnu-ld", "apt install binutils-aarch64-linux-gnu"),
            ("/usr/lib/llvm-22/bin/llvm-ar", "apt install llvm"),
            ("strange", "install it"),
        ];
        for (tool, remedy) in cases {
            assert!(missing_tool(tool).remedy.contains(remedy), "{tool}: {}", missing_tool(tool).remedy);
        }
    }

    #[test]
    fn too_little_space_is_refused_with_numbers() {
        assert!(check_space(Path::new("/"), 1).is_ok());
        let failure = check_space(Path::new("/"), u64::MAX / 2).expect_err("refused");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!(diagnosis.code, "klpx::disk-full");
        assert!(diagnosis.why.contains("GiB are free"));
        assert!(diagnosis.remedy.contains("klpx cache prune --free 9223372037 "), "{}", diagnosis.remedy);
    }
}
