//! Prepares a kernel that is compiled by units for its first patch: the private source copy, the unchanged
//! configuration, the headers and tools that kbuild generates, kbuild's environment and its list of units. Never builds
//! the kernel itself.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::files::remove_file;
use crate::kbuild::UnitList;
use crate::kbuild::environment::Environment;
use crate::kbuild::make::{original_does_not_build, without_useless};
use crate::kernel::{FORMAT, PINNED_FILES, PINNED_RUST};
use crate::progress::Progress;
use crate::toolchain::host;
use crate::workspace::Workspace;

/// The format of `prepared.json`, which is written last.
#[derive(Debug, Serialize, Deserialize)]
struct PreparedManifest {
    format: u32,
    key: String,
}

/// A workspace in which units can be compiled.
#[derive(Debug)]
pub struct Ready {
    /// The units that kbuild lists.
    pub units: UnitList,
    /// True if an earlier run prepared the workspace.
    pub cached: bool,
}

impl Workspace {
    /// Prepares the workspace for units. Takes seconds if it is not prepared yet.
    ///
    /// # Errors
    /// If the machine lacks something, the source can't be prepared, the configuration does not fit the source and the
    /// tools, or klpx is interrupted.
    pub fn prepare(&self, progress: &dyn Progress) -> Result<Ready> {
        if let Some(units) = self.prepared() {
            return Ok(Ready { units, cached: true });
        }
        let (config, toolchain) = (self.kernel.config(), self.kernel.toolchain());
        host::check(host::BuildKind::Units, config, toolchain, &self.runner)?;
        self.copy_source(progress)?;
        progress.step("configuring");
        self.place_configuration(progress)?;
        progress.step("making headers and tools");
        let words = without_useless(&["prepare", "modules_prepare"]);
        self.with_make(|make| {
            let built = make.run(&words, progress, None)?;
            if built.success { Ok(()) } else { Err(original_does_not_build(make, &built)) }
        })?;
        self.check_configuration()?;
        progress.step("asking kbuild for its units");
        let units = self.with_make(|make| Environment::capture(make, &self.dir)?.units(make))?;
        Environment::keep_folders(&units, &self.dir)?;
        let write = |name: &str, text: serde_json::Result<Vec<u8>>| {
            files::write_durably(
                &self.dir.join(name),
                &text.map_err(|error| Diagnosis::internal(&error.to_string()))?,
            )
        };
        write("units.json", serde_json::to_vec(&units))?;
        let manifest = PreparedManifest { format: FORMAT, key: self.kernel.key().to_owned() };
        write("prepared.json", serde_json::to_vec(&manifest))?;
        Ok(Ready { units, cached: false })
    }

    /// The unit list of a workspace that an earlier run prepared.
    fn prepared(&self) -> Option<UnitList> {
        let manifest: PreparedManifest =
            serde_json::from_slice(&std::fs::read(self.dir.join("prepared.json")).ok()?).ok()?;
        if manifest.format != FORMAT || manifest.key != self.kernel.key() {
            return None;
        }
        serde_json::from_slice(&std::fs::read(self.dir.join("units.json")).ok()?).ok()
    }

    /// Installs the configuration: unchanged if Kconfig's output for it is available, otherwise through Kconfig, which
    /// must not change it.
    fn place_configuration(&self, progress: &dyn Progress) -> Result<()> {
        let Some(pinned) = self.kernel.pinned() else { return self.configure(progress) };
        let build = self.build_dir();
        for name in PINNED_FILES.into_iter().chain([PINNED_RUST]) {
            let (from, to) = (pinned.join(name), build.join(name));
            if name == PINNED_RUST && !from.exists() {
                continue;
            }
            let parent = to.parent().unwrap_or(&build);
            std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
            files::copy(&from, &to, false).map_err(|error| Diagnosis::io("copy", &from, &error))?;
        }
        for (name, text) in self.kernel.local_files() {
            let path = build.join(name);
            std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
        }
        // Kconfig's output must be newer than the files that make would make it from.
        let later = SystemTime::now() + Duration::from_millis(20);
        let command = build.join("include/config/auto.conf.cmd");
        std::fs::write(&command, "").map_err(|error| Diagnosis::io("write", &command, &error))?;
        for path in [build.join(PINNED_FILES[1]), command, build.join(PINNED_FILES[2])] {
            touch(&path, later)?;
        }
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }

    /// Refuses a configuration that the build changed.
    fn check_configuration(&self) -> Result<()> {
        let Some(pinned) = self.kernel.pinned() else { return Ok(()) };
        let build = self.build_dir();
        let mut other = Vec::new();
        for name in PINNED_FILES {
            let path = build.join(name);
            let same = files::same(&pinned.join(name), &path)
                .map_err(|error| Diagnosis::io("read", &path, &error))?;
            if !same {
                other.push(name);
                remove_file(&path)?;
            }
        }
        if other.is_empty() {
            return Ok(());
        }
        let what = "kbuild made another configuration of the one that it was given";
        Err(Diagnosis::new(
            &codes::CONFIG_CHANGED,
            what,
            format!("{} is not what {} has", other.join(", "), pinned.display()),
            "give klpx the source that the configuration was made with",
        )
        .into())
    }
}

fn touch(path: &Path, time: SystemTime) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
        .map_err(|error| Diagnosis::io("write", path, &error).into())
}
