//! Installs further cargo commands that the packages need, each in a fixed version and in a separate folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// A program, whose crate has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Adds the list of crates to a binary.
pub(crate) const AUDITABLE: Tool = Tool { name: "cargo-auditable", version: "0.7.7" };
/// Makes packages for dpkg.
pub(crate) const DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
/// Makes packages for rpm.
pub(crate) const RPM: Tool = Tool { name: "cargo-generate-rpm", version: "0.21.1" };
/// Makes bills of materials.
pub(crate) const CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9" };
/// Checks licences and sources of the crates.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

impl Tool {
    /// Returns the program, which the first call compiles.
    pub(crate) fn ensure(self, workspace: &CargoWorkspace) -> Result<PathBuf> {
        let Tool { name, version } = self;
        let root = workspace.cache_dir("cargo-tools")?.join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        let _lock = workspace.lock(name)?;
        if program.is_file() {
            return Ok(program);
        }
        let mut step = ui::step(name);
        step.at(&format!("cargo install {name} {version}"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // Each program runs for seconds only, so an optimised build would take longer than it saves.
        command
            .args(["install", "--locked", "--debug", "--quiet", name, "--version", version, "--root"])
            .arg(&root);
        process::output(&mut command).with_context(|| format!("can't install {name} {version}"))?;
        step.done(version);
        Ok(program)
    }

    /// Returns `cargo NAME` for the workspace.
    pub(crate) fn command(self, workspace: &CargoWorkspace) -> Result<Command> {
        let mut command = Command::new(self.ensure(workspace)?);
        // Cargo also passes the command's name as the first argument.
        command.current_dir(&workspace.root).arg(self.name.trim_start_matches("cargo-"));
        Ok(command)
    }
}
