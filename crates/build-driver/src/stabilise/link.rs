//! One ThinLTO link of the kernel, and how to run the backend of a single unit of it.
//!
//! `ld.lld --thinlto-single-module` makes the whole thin link and then runs one backend only, with the very configuration of the full
//! link; `--lto-obj-path` names its result (lld/ELF/LTO.cpp).

use std::path::{Path, PathBuf};

use klpx_diagnosis::Result;

use super::recorded::Recorded;
use crate::process::{Call, Runner};

/// A relocatable link, its inputs spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Everything but the program, the inputs and the output.
    flags: Vec<String>,
    /// Objects in link order, as paths from the build tree; archives that are searched stay as they are.
    pub(crate) inputs: Vec<String>,
}

/// What stands in for a unit's own object.
pub(crate) struct Swap<'a> {
    pub(crate) unit: &'a str,
    pub(crate) with: &'a Path,
}

/// What one backend gave.
pub(crate) struct Backend {
    /// The native object.
    pub(crate) object: PathBuf,
    /// What the linker said: remarks.
    pub(crate) output: String,
}

impl Link {
    /// The link that a record tells of. `ar` lists an archive's members.
    pub(crate) fn of(recorded: &Recorded, build: &Path, ar: &str, runner: &Runner) -> Result<Option<Link>> {
        let Some((_, words)) = recorded.link() else { return Ok(None) };
        let mut link = Link { flags: Vec::new(), inputs: Vec::new() };
        let mut whole = false;
        let mut words = words.iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-o" => {
                    words.next();
                }
                "--whole-archive" => whole = true,
                "--no-whole-archive" => whole = false,
                "--start-group" | "--end-group" => {}
                archive if archive.ends_with(".a") && whole => {
                    let Some(members) = members(archive, build, ar, runner)? else { return Ok(None) };
                    link.inputs.extend(members);
                }
                object if object.ends_with(".o") || object.ends_with(".a") => {
                    link.inputs.push(object.to_owned());
                }
                list if list.starts_with('@') => {
                    let Ok(text) = std::fs::read_to_string(build.join(&list[1..])) else { return Ok(None) };
                    link.inputs.extend(text.split_whitespace().map(str::to_owned));
                }
                flag => link.flags.push(flag.to_owned()),
            }
        }
        Ok((!link.inputs.is_empty()).then_some(link))
    }

    /// Runs the backend of `unit`, with other objects in the places of some. `None` when the linker fails.
    pub(crate) fn backend(
        &self,
        (ld, runner, build): (&str, &Runner, &Path),
        unit: &str,
        swaps: &[Swap<'_>],
        llvm: &[String],
        output: &Path,
    ) -> Result<Option<Backend>> {
        let swapped = |input: &String| {
            let swap = swaps.iter().find(|swap| swap.unit == input);
            swap.map_or(input.clone(), |swap| swap.with.display().to_string())
        };
        let inputs: Vec<String> = self.inputs.iter().map(swapped).collect();
        let list = output.with_extension("list");
        std::fs::write(&list, inputs.join("\n"))
            .map_err(|error| klpx_diagnosis::Diagnosis::io("write", &list, &error))?;
        let call = Call::new(ld)
            .dir(build)
            .args(&self.flags)
            .arg("-o")
            .arg(output)
            .arg(format!("--thinlto-single-module={}", swapped(&unit.to_owned())))
            .arg(format!("--lto-obj-path={}", output.display()))
            .args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]))
            .arg(format!("@{}", list.display()));
        let outcome = runner.run(&call)?;
        // The first path would be that of a regular LTO unit.
        let object = PathBuf::from(format!("{}1", output.display()));
        let good = outcome.success && object.is_file();
        tracing::debug!(unit, good, ?call, "backend");
        Ok(good.then(|| Backend { object, output: outcome.lines.join("\n") }))
    }
}

/// The members of a thin archive, as paths from the build tree.
fn members(archive: &str, build: &Path, ar: &str, runner: &Runner) -> Result<Option<Vec<String>>> {
    let outcome = runner.run(&Call::new(ar).dir(build).args(["t", archive]))?;
    let relative = |line: &String| {
        Path::new(line).strip_prefix(build).map_or(line.clone(), |path| path.display().to_string())
    };
    Ok(outcome.success.then(|| outcome.lines.iter().map(relative).collect()))
}
