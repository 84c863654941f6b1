//! One ThinLTO link of the kernel, how to run the backend of a single unit of it, and how to make all of it again.
//!
//! `ld.lld --thinlto-single-module` makes the whole thin link and then runs one backend only, with the very
//! configuration of the full link (lld/ELF/LTO.cpp). Its result goes to an empty ThinLTO cache, and so tells the key
//! that the full link will look for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::remarks;
use serde::{Deserialize, Serialize};

use super::LTO_CACHE;
use crate::process::{Call, Runner};
use crate::recorded::Recorded;
use crate::workspace::Workspace;

/// A relocatable link, its inputs spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Everything but the program, the inputs and the output.
    flags: Vec<String>,
    /// Objects in link order, as paths from the build tree; archives that are searched stay as they are.
    pub(crate) inputs: Vec<String>,
    /// The commands that follow it, such as objtool's.
    rest: Vec<Vec<String>>,
    /// True when klpx itself made the original by it once more, and it came out the same to the byte.
    pub(crate) repeats: bool,
}

/// Where a link is made again.
pub(crate) struct Place<'a> {
    pub(crate) workspace: &'a Workspace,
    /// A folder for what it needs.
    pub(crate) scratch: &'a Path,
    /// The ThinLTO cache, where it is not the workspace's.
    pub(crate) cache: Option<&'a Path>,
}

/// What stands in for a unit's own object.
pub(crate) struct Swap<'a> {
    pub(crate) unit: &'a str,
    pub(crate) with: &'a Path,
}

/// What one backend gave.
#[derive(Clone)]
pub(crate) struct Backend {
    /// The native object.
    pub(crate) object: PathBuf,
    /// Its name in a ThinLTO cache. A link with the same inputs and options looks for it there.
    pub(crate) key: OsString,
    /// The inliner's remarks, one a line; none when LLVM was given options.
    pub(crate) remarks: String,
}

impl Link {
    /// The link that a record tells of. `ar` lists an archive's members.
    pub(crate) fn of(recorded: &Recorded, build: &Path, ar: &str, runner: &Runner) -> Result<Option<Link>> {
        let Some((at, words)) = recorded.link() else { return Ok(None) };
        let rest = recorded.commands[at + 1..].to_vec();
        let mut link = Link { flags: Vec::new(), inputs: Vec::new(), rest, repeats: false };
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

    /// The linker script that orders initcalls (scripts/generate_initcall_order.pl).
    pub(crate) fn script(&mut self) -> Option<&mut String> {
        let at = self.flags.iter().position(|flag| flag == "-T")?;
        self.flags.get_mut(at + 1)
    }

    /// Makes the link and what follows it, as kbuild does for `object`, but writes to `to`. False when one of its
    /// commands fails.
    pub(crate) fn again(&self, object: &Path, to: &Path, place: &Place<'_>) -> Result<bool> {
        let Some(ld) = place.workspace.linker_wrapper()? else { return Ok(false) };
        let list = place.scratch.join("inputs");
        std::fs::write(&list, self.inputs.join("\n"))
            .map_err(|error| Diagnosis::io("write", &list, &error))?;
        let mut link = vec![ld.display().to_string()];
        link.extend(self.flags.iter().cloned());
        link.extend(["-o".to_owned(), to.display().to_string(), format!("@{}", list.display())]);
        let named = |word: &String| match Path::new(word) == object {
            true => to.display().to_string(),
            false => word.clone(),
        };
        let rest = self.rest.iter().map(|words| words.iter().map(named).collect());
        let commands: Vec<Vec<String>> = std::iter::once(link).chain(rest).collect();
        run_commands(place.workspace, &commands, place.cache)
    }

    /// Runs the backend of `unit`, with other objects in the places of some, and with options of LLVM's or, without
    /// any, with remarks. Everything that it writes goes to `folder`. `None` when the linker fails.
    pub(crate) fn backend(
        &self,
        (ld, runner, build): (&str, &Runner, &Path),
        unit: &str,
        swaps: &[Swap<'_>],
        llvm: &[String],
        folder: &Path,
    ) -> Result<Option<Backend>> {
        let swapped = |input: &String| {
            let swap = swaps.iter().find(|swap| swap.unit == input);
            swap.map_or(input.clone(), |swap| swap.with.display().to_string())
        };
        let cache = folder.join("cache");
        std::fs::create_dir_all(&cache).map_err(|error| Diagnosis::io("create", &cache, &error))?;
        let inputs: Vec<String> = self.inputs.iter().map(swapped).collect();
        let list = folder.join("inputs");
        std::fs::write(&list, inputs.join("\n")).map_err(|error| Diagnosis::io("write", &list, &error))?;
        let mut call = Call::new(ld)
            .dir(build)
            .args(&self.flags)
            .arg("-o")
            .arg(folder.join("linked.o"))
            .arg(format!("--thinlto-single-module={}", swapped(&unit.to_owned())))
            .arg(format!("--thinlto-cache-dir={}", cache.display()))
            .args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]));
        if llvm.is_empty() {
            call = call.arg("--opt-remarks-filename").arg(folder.join(REMARKS));
            call = call.args(["--opt-remarks-passes", "inline"]);
        }
        let outcome = runner.run(&call.arg(format!("@{}", list.display())))?;
        let made = if outcome.success { only_entry(&cache)? } else { None };
        tracing::debug!(unit, good = made.is_some(), "backend");
        let Some(key) = made else { return Ok(None) };
        Ok(Some(Backend { object: cache.join(&key), key, remarks: read_remarks(folder)? }))
    }
}

/// Runs recorded commands in the build tree, with another ThinLTO cache where one is named. False when one fails.
pub(crate) fn run_commands(
    workspace: &Workspace,
    commands: &[Vec<String>],
    cache: Option<&Path>,
) -> Result<bool> {
    let build = workspace.build_dir();
    for (program, words) in commands.iter().filter_map(|words| words.split_first()) {
        // `./tools/objtool/objtool` is a path from the build tree.
        let program = match Path::new(program) {
            path if program.contains('/') && path.is_relative() => build.join(path),
            path => path.to_owned(),
        };
        let mut call = Call::new(program).dir(&build).args(words);
        if let Some(cache) = cache {
            call = call.env(LTO_CACHE, cache);
        }
        if !workspace.runner.run(&call)?.success {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the names of remark files begin with; the linker adds the task's number.
const REMARKS: &str = "remarks";

/// What the names of entries of a ThinLTO cache begin with (llvm/lib/Support/Caching.cpp).
pub(crate) const ENTRY: &str = "llvmcache-";

/// The only entry of a ThinLTO cache.
fn only_entry(cache: &Path) -> Result<Option<OsString>> {
    let names = file_names(cache)?;
    let mut entries = names.into_iter().filter(|name| name.to_string_lossy().starts_with(ENTRY));
    Ok(entries.next().filter(|_| entries.next().is_none()))
}

fn read_remarks(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for name in file_names(folder)?.iter().filter(|name| name.to_string_lossy().starts_with(REMARKS)) {
        let path = folder.join(name);
        let file = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        text.push_str(&remarks::from_yaml(&String::from_utf8_lossy(&file)));
    }
    Ok(text)
}

/// The names of what lies in a folder, sorted.
pub(crate) fn file_names(folder: &Path) -> Result<Vec<OsString>> {
    let fail = |error: std::io::Error| Diagnosis::io("read", folder, &error);
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(folder).map_err(fail)?.collect();
    let mut names: Vec<OsString> = entries.map_err(fail)?.iter().map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

/// The members of a thin archive, as paths from the build tree.
fn members(archive: &str, build: &Path, ar: &str, runner: &Runner) -> Result<Option<Vec<String>>> {
    let outcome = runner.run(&Call::new(ar).dir(build).args(["t", archive]))?;
    let relative = |line: &String| {
        Path::new(line).strip_prefix(build).map_or(line.clone(), |path| path.display().to_string())
    };
    Ok(outcome.success.then(|| outcome.lines.iter().map(relative).collect()))
}
