//! Whether klpx can livepatch a found kernel on this machine, judged by configuration and compiler. Compiles nothing.

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use super::Distribution;
use crate::arch::KernelArch;
use crate::config::{self, Config};
use crate::process::Runner;
use crate::toolchain::{self, Toolchain, Wishes};
use crate::tree::Version;

/// The result of examining a kernel's configuration and this machine's tools.
#[derive(Debug)]
pub struct Capability {
    /// The architecture, if klpx knows it.
    pub arch: Option<KernelArch>,
    /// The compiler that the kernel was built with, as named in the configuration.
    pub wanted_compiler: String,
    /// This compiler and its linker on this machine.
    pub toolchain: Option<Toolchain>,
    /// All obstacles.
    pub problems: Vec<Diagnosis>,
}

/// The make variables with which a user chooses tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolWishes<'a> {
    /// make's LLVM variable.
    pub llvm: Option<&'a str>,
    /// make's CROSS_COMPILE variable.
    pub cross_compile: Option<&'a str>,
}

/// Examines a configuration. `version` is the version of the source, if known.
///
/// # Errors
/// If klpx is interrupted.
pub fn capability(
    config: &Config,
    version: Option<&str>,
    distribution: Option<&Distribution>,
    wishes: ToolWishes<'_>,
    runner: &Runner,
) -> Result<Capability> {
    let wanted_compiler = config.value("CC_VERSION_TEXT").unwrap_or_default().to_owned();
    let mut found = Capability { arch: None, wanted_compiler, toolchain: None, problems: Vec::new() };
    let arch = match KernelArch::of(config) {
        Ok(arch) => arch,
        Err(failure) => {
            found.problems.extend(failure.diagnoses().cloned());
            return Ok(found);
        }
    };
    found.arch = Some(arch);
    let version = version.and_then(Version::parse);
    // Without a known version, no rule about old versions may refuse the kernel.
    let version = version.unwrap_or(Version { major: u32::MAX, ..Version::default() });
    if let Err(failure) = config::check(config, arch, &version) {
        found.problems.extend(failure.diagnoses().cloned());
    }
    let wishes = Wishes { llvm: wishes.llvm, cross: wishes.cross_compile };
    match toolchain::choose(config, arch, &wishes, runner) {
        Ok(toolchain) => found.toolchain = Some(toolchain),
        Err(failure) if runner.stopped() => return Err(failure),
        Err(failure) => found.problems.extend(with_packages(&failure, config, distribution)),
    }
    Ok(found)
}

/// The diagnoses, with the distribution's command to install the compiler.
fn with_packages(failure: &Failure, config: &Config, distribution: Option<&Distribution>) -> Vec<Diagnosis> {
    let clang = config.is("CC_IS_CLANG");
    let major = config.number(if clang { "CLANG_VERSION" } else { "GCC_VERSION" }) / 10_000;
    let line = distribution.map(|row| format!("{} {}", row.install, row.compiler(clang, major)));
    let with_command = |diagnosis: &Diagnosis| match &line {
        Some(line) if diagnosis.code == codes::COMPILER_MISMATCH.name => {
            let other = "or name the tools with --llvm=SUFFIX or --cross-compile";
            diagnosis.clone().with_remedy(format!("{line}   (the version must be the same), {other}"))
        }
        _ => diagnosis.clone(),
    };
    failure.diagnoses().map(with_command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::DISTRIBUTIONS;

    #[test]
    fn every_problem_is_told_with_the_distributions_own_packages() {
        let config = Config::parse(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_KALLSYMS=y\nCONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION=70500\n\
             CONFIG_CC_VERSION_TEXT=\"gcc (SUSE Linux) 7.5.0\"\n",
        );
        let suse = DISTRIBUTIONS.iter().find(|row| row.name == "SUSE").expect("a row");
        let found = capability(&config, Some("6.4.0"), Some(suse), ToolWishes::default(), &Runner::new());
        let found = found.expect("not interrupted");
        let codes: Vec<_> = found.problems.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["klpx::no-livepatch", "klpx::compiler-mismatch"]);
        assert!(found.problems[1].remedy.contains("gcc7"), "{}", found.problems[1].remedy);
        assert_eq!(found.wanted_compiler, "gcc (SUSE Linux) 7.5.0");
    }

    #[test]
    fn an_old_arm64_kernel_is_refused_by_its_version_only() {
        let config =
            Config::parse("CONFIG_ARM64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\n");
        let codes = |version| {
            let found = capability(&config, version, None, ToolWishes::default(), &Runner::new());
            found.expect("not interrupted").problems.iter().map(|d| d.code).collect::<Vec<_>>()
        };
        assert!(codes(Some("6.12.115")).contains(&"klpx::arm64-too-old"));
        assert!(!codes(Some("7.3.4")).contains(&"klpx::arm64-too-old"));
        assert!(!codes(None).contains(&"klpx::arm64-too-old"));
    }
}
