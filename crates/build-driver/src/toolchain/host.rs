//! What the machine must have before a build: programs, headers, disk space. Names the Debian package of what is
//! missing.

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

use crate::config::Config;
use crate::process::missing::{TOOLS, missing_tool};
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

/// A header that a host program of the kernel build includes, its Debian package, and the symbols that call for it.
const HEADERS: [(&str, &str, &[&str]); 2] = [
    ("gelf.h", "libelf-dev", &["OBJTOOL", "HAVE_OBJTOOL", "STACK_VALIDATION", "UNWINDER_ORC"]),
    ("openssl/opensslv.h", "libssl-dev", &["SYSTEM_TRUSTED_KEYRING", "MODULE_SIG"]),
];

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
