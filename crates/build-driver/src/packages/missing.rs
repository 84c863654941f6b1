//! Reports the missing files of a kernel at once: everything found, everything missing, and one command to paste.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::Serialize;

use super::distribution::Manager;
use super::pattern::PatternValues;
use super::{KernelPiece, KernelSearch};
use crate::config::Config;
use crate::process::{Call, Runner};
use crate::toolchain::find_program;
use crate::toolchain::host::{self, Lack};

/// A missing piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingPiece {
    /// The piece.
    pub piece: KernelPiece,
    /// True if no livepatch can be made without the piece.
    pub required: bool,
    /// The package that contains the piece, if there is one.
    pub package: Option<String>,
}

/// A package to install.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NeededPackage {
    /// Package name.
    pub name: String,
    /// Exact version, if known.
    pub version: Option<String>,
    /// Download size in bytes, if the package manager knows the size.
    pub bytes: Option<u64>,
}

/// Everything that a kernel lacks, and how to get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shortage {
    /// The missing pieces.
    pub missing: Vec<MissingPiece>,
    /// Missing programs and headers that the kernel's makefiles need.
    pub tools: Vec<Lack>,
    /// The packages that contain the missing pieces.
    pub packages: Vec<NeededPackage>,
    /// One command to paste, if packages help.
    pub install: Option<String>,
    /// Further advice: preparations and alternatives.
    pub hints: Vec<String>,
}

impl Shortage {
    /// The pieces that a search did not find, with the package manager's data.
    ///
    /// # Errors
    /// If klpx is interrupted.
    pub fn find(survey: &KernelSearch, runner: &Runner) -> Result<Shortage> {
        let names: Vec<String> = candidates(survey).into_iter().flat_map(|(_, names)| names).collect();
        let archive = match survey.distribution.and_then(|row| row.manager) {
            Some(Manager::Apt) => PackageVersions::apt(&names, runner)?,
            None => PackageVersions::default(),
        };
        let config =
            survey.found.get(&KernelPiece::Config).and_then(|located| Config::read(&located.path).ok());
        // LTO compiles all units of a link.
        let what = match config.as_ref().is_some_and(|config| config.is("LTO_CLANG")) {
            true => host::BuildKind::Kernel,
            false => host::BuildKind::Units,
        };
        let tools = host::lacking(what, config.as_ref(), None, runner)?;
        Ok(Shortage::with(survey, &archive).and_tools(survey, tools))
    }

    /// Adds missing tools. One command installs everything.
    pub(super) fn and_tools(mut self, survey: &KernelSearch, tools: Vec<Lack>) -> Shortage {
        let apt = survey.distribution.filter(|row| row.manager == Some(Manager::Apt));
        if let Some(row) = apt.filter(|_| !tools.is_empty()) {
            let line = self.install.unwrap_or_else(|| row.install.to_owned());
            self.install = Some(format!("{line} {}", host::packages(&tools).join(" ")));
        }
        self.tools = tools;
        self
    }

    /// The diagnosis for missing tools, if nothing else is missing.
    pub fn tools_diagnosis(&self) -> Option<Diagnosis> {
        let diagnosis = host::diagnosis(&self.tools)?;
        Some(match &self.install {
            Some(line) => diagnosis.with_remedy(line.clone()),
            None => diagnosis,
        })
    }

    /// The shortage, with an archive that was queried before.
    pub(super) fn with(survey: &KernelSearch, archive: &PackageVersions) -> Shortage {
        let missing = survey.missing();
        let Some(row) = survey.distribution.filter(|_| !missing.is_empty()) else {
            return Shortage::of_nobody(survey, &missing);
        };
        let mut shortage = Shortage::default();
        for (piece, names) in candidates(survey) {
            let known = names.iter().find(|name| archive.versions.contains_key(*name));
            let package = known.or(names.last()).cloned();
            shortage.missing.push(MissingPiece { piece, required: piece.is_required(), package });
        }
        let version = survey.package.clone().or_else(|| archive.version_of_kernel(&survey.release));
        shortage.packages(archive, version.as_deref(), row.manager == Some(Manager::Apt));
        if !shortage.packages.is_empty() {
            let arguments: Vec<String> = shortage.packages.iter().map(NeededPackage::argument).collect();
            shortage.install = Some(format!("{} {}", row.install, arguments.join(" ")));
        }
        let kernel =
            PatternValues { release: &survey.release, package: version.as_deref().unwrap_or_default() };
        let lacks_source = missing.contains(&KernelPiece::Source);
        shortage.hints.extend(row.source.filter(|_| lacks_source).map(|line| kernel.fill(line)));
        shortage.hints.extend(Some(row.note.to_owned()).filter(|note| !note.is_empty()));
        if archive.asked && shortage.packages.iter().any(|package| package.bytes.is_none()) {
            let place = kernel.fill(row.old_versions);
            let place = place.trim_end_matches('/');
            shortage.hints.push(format!(
                "the package manager does not know every one of these: renew its lists, or see {place}"
            ));
        }
        if !row.tried {
            shortage.hints.push(format!("klpx was not tried on kernels of {} yet", row.name));
        }
        shortage
    }

    /// The shortage of a kernel without a known distribution: there is nothing to install.
    fn of_nobody(survey: &KernelSearch, missing: &[KernelPiece]) -> Shortage {
        let missing = missing.iter();
        let missing = missing
            .map(|&piece| MissingPiece { piece, required: piece.is_required(), package: None })
            .collect();
        let mut hints = Vec::new();
        if !survey.is_complete() {
            hints.push(
                "no distribution that klpx knows has such a kernel: name its build tree with --build-dir, or \
                 its files with --source, --config and --vmlinux"
                    .to_owned(),
            );
        }
        Shortage { missing, hints, ..Shortage::default() }
    }

    fn packages(&mut self, archive: &PackageVersions, version: Option<&str>, exact: bool) {
        let mut names: Vec<&String> = self.missing.iter().filter_map(|m| m.package.as_ref()).collect();
        names.sort();
        names.dedup();
        let package = |name: &String| {
            let version = version.filter(|_| exact);
            let bytes = archive.size(name, version);
            NeededPackage { name: name.clone(), version: version.map(str::to_owned), bytes }
        };
        self.packages = names.into_iter().map(package).collect();
    }

    /// One error with everything found, everything missing, and the command to paste.
    pub fn diagnosis(&self, survey: &KernelSearch) -> Diagnosis {
        let what = format!("files of the kernel {} are missing", survey.release);
        let required = |missing: &&MissingPiece| missing.required;
        let names: Vec<String> =
            self.missing.iter().filter(required).map(|missing| missing.piece.to_string()).collect();
        let found = survey.found.iter().map(|(piece, located)| {
            format!("found    {:22}  {}  ({})", piece.to_string(), located.path.display(), located.from)
        });
        let missing = self.missing.iter().map(|missing| {
            let from = missing.package.as_deref().map(|name| format!("  ({name})")).unwrap_or_default();
            format!("missing  {:22}  {}{from}", missing.piece.to_string(), missing.piece.purpose())
        });
        let tools = self.tools.iter().map(|lack| {
            let from = Some(&lack.package).filter(|name| !name.is_empty());
            let from = from.map(|name| format!("  ({name})")).unwrap_or_default();
            format!("missing  {:22}  the kernel's makefiles need it{from}", lack.name)
        });
        let passed =
            survey.passed_over.iter().map(|(path, why)| format!("passed   {}: {why}", path.display()));
        let others = Some(&survey.others).filter(|others| !others.is_empty());
        let others = others.map(|others| format!("other kernels here: {}", others.join(", ")));
        let mut remedy: Vec<String> = Vec::new();
        if let Some(line) = &self.install {
            remedy.push(match self.bytes() {
                Some(bytes) => format!("{line}   ({bytes} to download)"),
                None => line.clone(),
            });
        }
        remedy.extend(self.hints.iter().cloned());
        if remedy.is_empty() {
            let options = "--source, --build-dir, --config, --vmlinux and --modules";
            remedy.push(format!("install the kernel's packages, or name the files with {options}"));
        }
        Diagnosis::new(
            &codes::KERNEL_INCOMPLETE,
            what,
            format!("not found below {}: {}", survey.roots, names.join(", ")),
            remedy.join("\n         "),
        )
        .detail(found.chain(missing).chain(tools).chain(passed).chain(others))
    }

    /// The download size of all packages, for people. `None` if a size is unknown.
    fn bytes(&self) -> Option<String> {
        let bytes = self.packages.iter().map(|package| package.bytes).sum::<Option<u64>>()?;
        Some(format!("{} MB", bytes.div_ceil(1_000_000)))
    }
}

/// The packages that may contain each missing piece.
fn candidates(survey: &KernelSearch) -> Vec<(KernelPiece, Vec<String>)> {
    let Some(row) = survey.distribution else { return Vec::new() };
    let kernel =
        PatternValues { release: &survey.release, package: survey.package.as_deref().unwrap_or_default() };
    survey.missing().into_iter().map(|piece| (piece, row.packages(piece, &kernel))).collect()
}

impl NeededPackage {
    /// The argument for the package manager.
    pub(super) fn argument(&self) -> String {
        match &self.version {
            Some(version) => format!("{}={version}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The package manager's data on some packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PackageVersions {
    /// True if a package manager was available.
    asked: bool,
    /// By name: each version and its size, the preferred version first.
    versions: BTreeMap<String, Vec<(String, Option<u64>)>>,
}

impl PackageVersions {
    fn apt(names: &[String], runner: &Runner) -> Result<PackageVersions> {
        if find_program("apt-cache").is_none() || names.is_empty() {
            return Ok(PackageVersions::default());
        }
        let answer = runner.ask(&apt("apt-cache").arg("show").args(names))?;
        Ok(PackageVersions::parse(&answer.lines()))
    }

    /// Parses stanzas of `apt-cache show`.
    pub(super) fn parse(lines: &[String]) -> PackageVersions {
        let mut archive = PackageVersions { asked: true, ..PackageVersions::default() };
        let mut name = None;
        for line in lines {
            if let Some(found) = line.strip_prefix("Package: ") {
                name = Some(found.to_owned());
            } else if let (Some(version), Some(name)) = (line.strip_prefix("Version: "), &name) {
                archive.versions.entry(name.clone()).or_default().push((version.to_owned(), None));
            } else if let (Some(size), Some(name)) = (line.strip_prefix("Size: "), &name)
                && let Some((_, bytes)) = archive.versions.get_mut(name).and_then(|all| all.last_mut())
            {
                *bytes = size.trim().parse().ok();
            }
        }
        archive
    }

    fn size(&self, name: &str, version: Option<&str>) -> Option<u64> {
        let versions = self.versions.get(name)?;
        let mut wanted = versions.iter().filter(|(found, _)| version.is_none_or(|version| version == found));
        wanted.find_map(|(_, bytes)| *bytes)
    }

    /// The version of the packages whose names contain the release, if all have the same version.
    fn version_of_kernel(&self, release: &str) -> Option<String> {
        let named = self.versions.iter().filter(|(name, _)| name.contains(release));
        let mut versions: Vec<&String> = named.flat_map(|(_, all)| all.iter().map(|(v, _)| v)).collect();
        versions.sort();
        versions.dedup();
        match versions.as_slice() {
            [only] => Some((*only).clone()),
            _ => None,
        }
    }
}

/// A call of one of apt's programs. Honours the user's own configuration of apt.
pub(super) fn apt(program: &str) -> Call {
    let call = Call::new(program);
    match std::env::var_os("APT_CONFIG") {
        Some(path) => call.env("APT_CONFIG", path),
        None => call,
    }
}
