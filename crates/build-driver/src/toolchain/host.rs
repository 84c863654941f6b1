//! The machine's prerequisites for a build: programs and headers. Names the Debian package of each missing one.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::Serialize;

use crate::config::Config;
use crate::process::missing::{TOOLS, package_of};
use crate::process::{Call, Runner};
use crate::toolchain::{HOST_CC, Toolchain, find_program};

/// Programs and headers that only the build of a whole kernel needs.
const WHOLE_ONLY: [&str; 6] = ["cpio", "pahole", "openssl", "rustc", "python3", "openssl/opensslv.h"];

/// The kind of build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuildKind {
    /// vmlinux and all modules.
    Kernel,
    /// Single units, with the headers and tools that they need.
    Units,
}

impl BuildKind {
    fn needs(self, thing: &str) -> bool {
        self == BuildKind::Kernel || !WHOLE_ONLY.contains(&thing)
    }
}

/// A program or header that a build needs and the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lack {
    /// Name, such as `flex` or `gelf.h`.
    pub name: String,
    /// The Debian package that contains it. Empty if unknown.
    pub package: String,
}

/// A header that a host program of the kernel build includes, its Debian package, and the symbols that require it.
const HEADERS: [(&str, &str, &[&str]); 2] = [
    ("gelf.h", "libelf-dev", &["OBJTOOL", "HAVE_OBJTOOL", "STACK_VALIDATION", "UNWINDER_ORC"]),
    ("openssl/opensslv.h", "libssl-dev", &["SYSTEM_TRUSTED_KEYRING", "MODULE_SIG"]),
];

/// The folder of headers, if there is no compiler to ask.
const HEADERS_FOLDER: &str = "/usr/include";

/// Every program and header that a build needs and the machine lacks, for this configuration or for any configuration.
///
/// # Errors
/// If klpx is interrupted.
pub(crate) fn lacking(
    what: BuildKind,
    config: Option<&Config>,
    toolchain: Option<&Toolchain>,
    runner: &Runner,
) -> Result<Vec<Lack>> {
    let called_for = |symbols: &[&str]| {
        symbols.is_empty() || config.is_none_or(|config| symbols.iter().any(|symbol| config.is(symbol)))
    };
    let mut found = Vec::new();
    for (tool, _, symbols) in TOOLS {
        if what.needs(tool) && called_for(symbols) && find_program(tool).is_none() {
            found.push(Lack { name: tool.to_owned(), package: package_of(tool) });
        }
    }
    let host = toolchain.map(|toolchain| toolchain.host_cc.as_str());
    if let Some(host) = host.filter(|host| find_program(host).is_none()) {
        found.push(Lack { name: host.to_owned(), package: package_of(host) });
    }
    for tool in ["nm", "objcopy", "ar", "strip", "readelf"] {
        let name = toolchain.map_or_else(|| tool.to_owned(), |toolchain| toolchain.tool(tool));
        if find_program(&name).is_none() {
            found.push(Lack { package: package_of(&name), name });
        }
    }
    for (header, package, symbols) in HEADERS {
        if what.needs(header) && called_for(symbols) && !has_header(header, toolchain, runner)? {
            found.push(Lack { name: header.to_owned(), package: package.to_owned() });
        }
    }
    Ok(found)
}

/// Refuses a build that this machine lacks the tools for.
///
/// # Errors
/// `klpx::missing-tool` with everything that is missing; an interrupt.
pub(crate) fn check(what: BuildKind, config: &Config, toolchain: &Toolchain, runner: &Runner) -> Result<()> {
    match diagnosis(&lacking(what, Some(config), Some(toolchain), runner)?) {
        Some(diagnosis) => Err(diagnosis.into()),
        None => Ok(()),
    }
}

/// One error with everything that is missing and a command to paste.
pub(crate) fn diagnosis(lacking: &[Lack]) -> Option<Diagnosis> {
    let names: Vec<&str> = lacking.iter().map(|lack| lack.name.as_str()).collect();
    let what = match names.as_slice() {
        [] => return None,
        [one] => format!("{one} is not installed"),
        several => format!("{} are not installed", several.join(", ")),
    };
    let packages = packages(lacking);
    let remedy = match packages.as_slice() {
        [] => "install what is missing".to_owned(),
        packages => format!("install what is missing (Debian: apt install {})", packages.join(" ")),
    };
    Some(Diagnosis::new(
        &codes::MISSING_TOOL,
        what,
        "the kernel's own makefiles need it to compile a unit",
        remedy,
    ))
}

/// The packages of the missing programs and headers, each once.
pub(crate) fn packages(lacking: &[Lack]) -> Vec<String> {
    let mut packages: Vec<String> = lacking.iter().map(|lack| lack.package.clone()).collect();
    packages.retain(|package| !package.is_empty());
    packages.sort();
    packages.dedup();
    packages
}

/// Returns true if the compiler of host programs finds the header.
fn has_header(header: &str, toolchain: Option<&Toolchain>, runner: &Runner) -> Result<bool> {
    let host = toolchain.map_or(HOST_CC, |toolchain| toolchain.host_cc.as_str());
    if find_program(host).is_none() {
        return Ok(Path::new(HEADERS_FOLDER).join(header).is_file());
    }
    let dir = tempfile::tempdir().map_err(|error| Diagnosis::io("create", &std::env::temp_dir(), &error))?;
    let file = dir.path().join("probe.c");
    std::fs::write(&file, format!("#include <{header}>\n"))
        .map_err(|error| Diagnosis::io("write", &file, &error))?;
    Ok(runner.run(&Call::new(host).args(["-fsyntax-only", "-w"]).arg(&file))?.success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_told_at_once_with_one_line_to_paste() {
        let lack = |name: &str, package: &str| Lack { name: name.to_owned(), package: package.to_owned() };
        assert_eq!(diagnosis(&[]), None);
        let one = diagnosis(&[lack("make", "make")]).expect("a diagnosis");
        assert_eq!(one.what, "make is not installed");
        let all = [lack("nm", "binutils"), lack("gelf.h", "libelf-dev"), lack("ar", "binutils")];
        let all = diagnosis(&all).expect("a diagnosis");
        assert_eq!(all.what, "nm, gelf.h, ar are not installed");
        assert!(all.remedy.ends_with("(Debian: apt install binutils libelf-dev)"), "{}", all.remedy);
    }

    #[test]
    fn units_need_less_than_a_kernel() {
        let config = Config::parse("CONFIG_RUST=y\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_IKHEADERS=y\n");
        let needs = |what: BuildKind| WHOLE_ONLY.iter().filter(|thing| what.needs(thing)).count();
        assert_eq!((needs(BuildKind::Units), needs(BuildKind::Kernel)), (0, WHOLE_ONLY.len()));
        let units = lacking(BuildKind::Units, Some(&config), None, &Runner::new()).expect("not interrupted");
        assert!(units.iter().all(|lack| lack.name != "rustc"), "{units:?}");
    }
}
