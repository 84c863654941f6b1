//! The search for one kernel's files, piece by piece. Decides between several places; downloads nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};

use super::banner::{self, Banner, VmlinuxKind};
use super::distribution;
use super::pattern::PatternValues;
use super::places::{PiecePath, places};
use super::roots::Roots;
use super::source::{self, Expected};
use super::which::{self, KernelChoice};
use super::{FileOrigin, KernelPiece, KernelSearch, Located, WantedKernel};
use crate::config::Config;
use crate::own;
use crate::tree::SourceTree;

/// The paths where make puts the image for boot loaders (arch/*/boot/Makefile).
const BOOT_IMAGES: [&str; 3] = ["arch/x86/boot/bzImage", "arch/arm64/boot/Image", "arch/arm64/boot/Image.gz"];

/// Searches for every piece of the kernel that the user means.
pub(super) fn search(wanted: &WantedKernel) -> Result<KernelSearch> {
    let roots = Roots::new(&wanted.sysroots);
    let which = which::which(wanted, &roots)?;
    let os_release = roots.file("etc/os-release").and_then(|path| std::fs::read_to_string(path).ok());
    let survey = KernelSearch {
        release: which.release.clone(),
        release_from: which.from.clone(),
        distribution: None,
        package: None,
        version: None,
        source_package: None,
        found: BTreeMap::new(),
        passed_over: Vec::new(),
        notes: Vec::new(),
        roots: roots.describe(),
        others: Vec::new(),
    };
    let mut search = Search { wanted, roots, which, survey };
    let system = os_release.as_deref().and_then(distribution::system_id);
    search.survey.distribution = distribution::of_kernel(&search.survey.release, None, system);
    let banner = search.which.banner.clone();
    search.learn(banner.as_ref());
    search.headers()?;
    search.config()?;
    search.symvers();
    search.vmlinux()?;
    search.boot_image();
    search.modules()?;
    search.source()?;
    search.survey.others = search.others();
    Ok(search.survey)
}

struct Search<'a> {
    wanted: &'a WantedKernel,
    roots: Roots,
    which: KernelChoice,
    survey: KernelSearch,
}

impl Search<'_> {
    fn found(&mut self, piece: KernelPiece, path: PathBuf, from: FileOrigin) {
        self.survey.found.insert(piece, Located { path, from });
    }

    fn pass_over(&mut self, path: &Path, why: impl Into<String>) {
        let entry = (path.to_owned(), why.into());
        if !self.survey.passed_over.contains(&entry) {
            self.survey.passed_over.push(entry);
        }
    }

    /// The existing files and folders at the usual places of a piece, in order.
    fn candidates(&self, piece: KernelPiece) -> Vec<Located> {
        let package = self.survey.package.clone().unwrap_or_default();
        let kernel = PatternValues { release: &self.survey.release, package: &package };
        let places = places(self.survey.distribution, piece, &kernel);
        let located = |place: PiecePath| {
            let from = place.package.map_or(FileOrigin::Place, FileOrigin::Package);
            self.roots.find(&place.path).map(|path| Located { path, from })
        };
        places.into_iter().filter_map(located).collect()
    }

    /// The build tree, if it has a whole vmlinux: it is the kernel's own build tree, not a headers package.
    fn build_tree(&self) -> Option<PathBuf> {
        let (folder, _) = self.which.build.as_ref()?;
        let image = folder.join("vmlinux");
        let whole = image.is_file() && matches!(banner::look(&image), Ok(VmlinuxKind::Kernel(_)));
        whole.then(|| folder.clone())
    }

    fn headers(&mut self) -> Result<()> {
        if let Some((folder, from)) = self.which.build.clone() {
            if which::is_build_tree(&folder) {
                self.check_headers(&folder)?;
                self.found(KernelPiece::Headers, folder, from);
            } else {
                self.pass_over(&folder, "make was not run there: it has no generated configuration");
            }
            return Ok(());
        }
        for located in self.candidates(KernelPiece::Headers) {
            if !which::is_build_tree(&located.path) {
                self.pass_over(&located.path, "it has no generated configuration");
                continue;
            }
            match Banner::of_headers(&located.path) {
                Some(banner) if banner.release != self.survey.release => {
                    self.pass_over(&located.path, format!("it is of {}", banner.release));
                }
                banner => {
                    self.agree("headers", banner.as_ref(), &located.path)?;
                    self.found(KernelPiece::Headers, located.path, located.from);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Checks that a folder named by the user belongs to the kernel named by the user.
    fn check_headers(&mut self, folder: &Path) -> Result<()> {
        let banner = Banner::of_headers(folder);
        if let Some(found) = banner.as_ref().filter(|banner| banner.release != self.survey.release) {
            return Err(self.other_release("the build tree", folder, &found.release));
        }
        self.agree("headers", banner.as_ref(), folder)
    }

    /// Learns distribution and package version from a banner.
    fn learn(&mut self, banner: Option<&Banner>) {
        let Some(banner) = banner else { return };
        let survey = &mut self.survey;
        survey.distribution = distribution::of_kernel(&survey.release, Some(banner), None);
        let version = |row: &distribution::Distribution| row.package_version(&survey.release, Some(banner));
        survey.package = survey.distribution.and_then(version);
    }

    fn config(&mut self) -> Result<()> {
        let headers = self.survey.found.get(&KernelPiece::Headers).cloned();
        let beside = headers.map(|h| Located { path: h.path.join(".config"), from: h.from });
        let unprepared = self.which.build.clone().map(|(folder, from)| (folder.join(".config"), from));
        let unprepared = unprepared.map(|(path, from)| Located { path, from });
        let named = self.wanted.config.clone();
        let named = named.map(|path| Located { path, from: FileOrigin::Option("--config") });
        let usual = self.candidates(KernelPiece::Config);
        let all = [named.clone(), beside, unprepared].into_iter().flatten().chain(usual);
        let Some(located) = all.into_iter().find(|l| l.path.is_file() || Some(l) == named.as_ref()) else {
            return Ok(());
        };
        let config = Config::read(&located.path)?;
        self.survey.version = source::configured_version(config.text());
        self.found(KernelPiece::Config, located.path, located.from);
        Ok(())
    }

    fn symvers(&mut self) {
        let headers = self.survey.found.get(&KernelPiece::Headers).cloned();
        let beside = headers.map(|h| Located { path: h.path.join("Module.symvers"), from: h.from });
        let named = self.wanted.vmlinux.as_ref().and_then(|path| path.parent());
        let named = named.map(|folder| Located {
            path: folder.join("Module.symvers"),
            from: FileOrigin::Option("--vmlinux"),
        });
        let tree = self.which.build.clone();
        let tree = tree.map(|(folder, from)| Located { path: folder.join("Module.symvers"), from });
        let all = beside.into_iter().chain(tree).chain(named).chain(self.candidates(KernelPiece::Symvers));
        if let Some(located) = all.into_iter().find(|located| located.path.is_file()) {
            self.found(KernelPiece::Symvers, located.path, located.from);
        }
    }

    fn vmlinux(&mut self) -> Result<()> {
        if let Some((path, option)) = self.which.vmlinux.clone() {
            return self.named_vmlinux(&path, option);
        }
        let build = self.build_tree().map(|folder| folder.join("vmlinux"));
        let build = build.map(|path| Located { path, from: FileOrigin::BuildTree });
        for located in build.into_iter().chain(self.candidates(KernelPiece::Vmlinux)) {
            if !located.path.is_file() {
                continue;
            }
            match banner::look(&located.path)? {
                VmlinuxKind::Unusable(why) => self.pass_over(&located.path, why),
                VmlinuxKind::Kernel(Some(banner)) if banner.release != self.survey.release => {
                    self.pass_over(&located.path, format!("it is of {}", banner.release));
                }
                VmlinuxKind::Kernel(banner) => {
                    self.take_vmlinux(banner.as_ref(), located)?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn named_vmlinux(&mut self, path: &Path, option: &'static str) -> Result<()> {
        match banner::look(path)? {
            VmlinuxKind::Unusable(why) => {
                let what = format!("{} is no vmlinux to patch", path.display());
                Err(Diagnosis::new(
                    &codes::BAD_VMLINUX,
                    what,
                    why,
                    "name the vmlinux of the build tree or of the distribution's debug package",
                )
                .place(DiagnosisPlace::file(path.display().to_string(), None))
                .into())
            }
            VmlinuxKind::Kernel(Some(banner)) if banner.release != self.survey.release => {
                Err(self.other_release("vmlinux", path, &banner.release))
            }
            VmlinuxKind::Kernel(banner) => {
                let located = Located { path: source::absolute(path), from: FileOrigin::Option(option) };
                self.take_vmlinux(banner.as_ref(), located)
            }
        }
    }

    fn take_vmlinux(&mut self, banner: Option<&Banner>, located: Located) -> Result<()> {
        self.agree("vmlinux", banner, &located.path)?;
        if banner.is_none() {
            let note = "vmlinux holds no banner: that it is of this release was not checked";
            self.survey.notes.push(Note::new(&codes::NO_BANNER, note));
        }
        self.found(KernelPiece::Vmlinux, located.path, located.from);
        Ok(())
    }

    /// Checks that all pieces have one package version: a distribution may build one release twice.
    fn agree(&mut self, piece: &str, banner: Option<&Banner>, path: &Path) -> Result<()> {
        let before = self.survey.package.clone();
        self.learn(banner);
        match (before, &self.survey.package) {
            (Some(before), Some(found)) if before != *found => {
                let what = "the files found are of different builds of the kernel";
                Err(Diagnosis::new(
                    &codes::PACKAGE_MISMATCH,
                    what,
                    format!("{piece} is of version {found}, what was found before is of {before}"),
                    "install all packages of the kernel in the version of the image that runs",
                )
                .place(DiagnosisPlace::file(path.display().to_string(), None))
                .into())
            }
            _ => Ok(()),
        }
    }

    fn other_release(&self, what: &str, path: &Path, found: &str) -> Failure {
        let what = format!("{what} is of Linux {found}, not {}", self.survey.release);
        Diagnosis::new(
            &codes::RELEASE_MISMATCH,
            what,
            format!("the release {} comes from {}", self.survey.release, self.survey.release_from),
            "name files of one kernel",
        )
        .place(DiagnosisPlace::file(path.display().to_string(), None))
        .into()
    }

    fn boot_image(&mut self) {
        let build =
            self.build_tree().into_iter().flat_map(|folder| BOOT_IMAGES.map(|image| folder.join(image)));
        let build = build.map(|path| Located { path, from: FileOrigin::BuildTree });
        let mut all = build.chain(self.candidates(KernelPiece::BootImage));
        if let Some(located) = all.find(|located| located.path.is_file()) {
            self.found(KernelPiece::BootImage, located.path, located.from);
        }
    }

    fn modules(&mut self) -> Result<()> {
        if let Some(path) = &self.wanted.modules {
            if !path.is_dir() {
                let what = format!("no folder of modules at {}", path.display());
                return Err(Diagnosis::new(
                    &codes::NO_SUCH_FOLDER,
                    what,
                    "--modules must name a folder that exists",
                    "make the folder, or correct the path: the kernel's modules are in /lib/modules/RELEASE",
                )
                .into());
            }
            self.found(KernelPiece::Modules, source::absolute(path), FileOrigin::Option("--modules"));
        } else if let Some(folder) = self.build_tree() {
            self.found(KernelPiece::Modules, folder, FileOrigin::BuildTree);
        } else {
            self.first_with_modules(KernelPiece::Modules);
        }
        self.first_with_modules(KernelPiece::DebugModules);
        let Some(modules) = self.survey.found.get(&KernelPiece::Modules).cloned() else { return Ok(()) };
        for (piece, name) in
            [(KernelPiece::ModulesOrder, "modules.order"), (KernelPiece::ModulesBuiltin, "modules.builtin")]
        {
            let path = modules.path.join(name);
            if path.is_file() {
                self.found(piece, path, modules.from.clone());
            }
        }
        Ok(())
    }

    /// Finds the first usual place that has modules. Packages also make the folder for other files.
    fn first_with_modules(&mut self, piece: KernelPiece) {
        let all = self.candidates(piece).into_iter();
        if let Some(located) = all.into_iter().find(|located| located.path.join("kernel").is_dir()) {
            self.found(piece, located.path, located.from);
        }
    }

    fn source(&mut self) -> Result<()> {
        if let Some(path) = &self.wanted.source {
            let path = source::absolute(path);
            let notes = self.check_source(&path, None)??;
            self.survey.notes.extend(notes);
            self.found(KernelPiece::Source, path, FileOrigin::Option("--source"));
            return Ok(());
        }
        for located in self.possible_sources() {
            let installed = match &located.from {
                FileOrigin::Package(name) => {
                    self.roots.layer_of(&located.path).map(|root| (root, name.clone()))
                }
                _ => None,
            };
            let installed = installed.and_then(|(root, name)| source::package_version(root, &name));
            // A folder that is no source tree, such as Debian's common headers, needs no message.
            let Ok(checked) = self.check_source(&located.path, installed.as_deref()) else { continue };
            match checked {
                Ok(notes) => {
                    self.survey.notes.extend(notes);
                    self.survey.source_package = installed;
                    self.found(KernelPiece::Source, located.path, located.from);
                    break;
                }
                Err(failure) => {
                    let why = failure.diagnoses().map(|d| d.why.clone()).collect::<Vec<_>>().join("; ");
                    self.pass_over(&located.path, why);
                }
            }
        }
        Ok(())
    }

    /// The possible places of the source: the source of the build tree, the current folder, the usual places.
    fn possible_sources(&self) -> Vec<Located> {
        let build = self.which.build.iter().flat_map(|(folder, _)| [folder.join("source"), folder.clone()]);
        let build = build.map(|path| Located { path: source::absolute(&path), from: FileOrigin::BuildTree });
        let here = self
            .wanted
            .here
            .iter()
            .filter(|folder| own::check(folder).is_ok())
            .cloned()
            .map(|path| Located { path, from: FileOrigin::Place });
        let all = build.chain(here).chain(self.candidates(KernelPiece::Source));
        all.filter(|located| located.path.exists()).collect()
    }

    /// The outer error means that the path is no source at all, the inner error that the source belongs to another
    /// kernel.
    fn check_source(&self, path: &Path, installed: Option<&str>) -> Result<Result<Vec<Note>>> {
        let kernel = Expected {
            release: &self.survey.release,
            version: self.survey.version.as_deref(),
            package: self.survey.package.as_deref(),
        };
        if path.is_file() && source::is_tarball(path) {
            return Ok(source::check_tarball(&kernel, path, installed));
        }
        let tree = SourceTree::open(path)?;
        Ok(source::check_tree(&kernel, &tree, installed))
    }

    /// Other kernels with files below the roots, if this kernel is incomplete.
    fn others(&self) -> Vec<String> {
        if self.survey.is_complete() {
            return Vec::new();
        }
        which::releases(&self.roots).into_iter().filter(|release| *release != self.survey.release).collect()
    }
}
