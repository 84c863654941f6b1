//! One translation unit that a patch touches, compiled apart from the build tree: from its original or its patched
//! source, at the same path, with the kernel's own words.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::process::{Call, Runner};
use crate::recorded::Recorded;

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Original,
    Patched,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Original => "original",
            Side::Patched => "patched",
        }
    }
}

/// What a compilation gives besides remarks.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// Bitcode for the link.
    Bitcode,
    /// LLVM IR as text, before any pass, without debug information.
    Text,
}

/// A unit and the commands that kbuild makes it with.
pub(crate) struct Unit {
    /// Its object, as a path from the build tree.
    pub(crate) object: String,
    pub(crate) recorded: Recorded,
    /// Its bitcode in the baseline, where the build keeps that.
    pub(crate) original: Option<PathBuf>,
    /// True when a module is made of it alone: its record goes on with the link, and the result takes the place of the
    /// bitcode.
    pub(crate) is_whole: bool,
}

/// Where and how to compile.
#[derive(Clone, Copy)]
pub(crate) struct Compiler<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) build: &'a Path,
    /// A clang overlay that shows the original sources where the patched ones are.
    pub(crate) overlay: &'a Path,
    /// Results go below it.
    pub(crate) work: &'a Path,
}

/// A finished compilation.
pub(crate) struct Compiled {
    pub(crate) file: PathBuf,
    /// What the compiler said: remarks.
    pub(crate) output: String,
}

impl Compiler<'_> {
    /// Compiles a unit. `None` when the compiler fails. `name` keeps the results of one unit apart.
    pub(crate) fn compile(
        &self,
        unit: &Unit,
        side: Side,
        form: Form,
        name: &str,
        llvm: &[String],
    ) -> Result<Option<Compiled>> {
        let Some(words) = unit.recorded.compilation() else { return Ok(None) };
        let file = match form {
            Form::Bitcode => self.work.join(name).join(&unit.object),
            Form::Text => self.work.join(name).join(&unit.object).with_extension("ll"),
        };
        let parent = file.parent().unwrap_or(self.work);
        std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
        let mut call = Call::new(&words[0]).dir(self.build);
        let mut rest = words[1..].iter();
        while let Some(word) = rest.next() {
            match (word.as_str(), form) {
                ("-o", _) => {
                    rest.next();
                }
                ("-c", Form::Text) => {}
                (word, _) if word.starts_with("-Wp,-MMD") || word.starts_with("-Wp,-MD") => {}
                (word, _) => call = call.arg(word),
            }
        }
        call = match form {
            Form::Bitcode => call.arg("-Rpass=inline"),
            Form::Text => call.args(["-S", "-emit-llvm", "-g0", "-Xclang", "-disable-llvm-passes"]),
        };
        if side == Side::Original {
            call = call.arg("-ivfsoverlay").arg(self.overlay);
        }
        call = call.args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]));
        let outcome = self.runner.run(&call.arg("-o").arg(&file))?;
        let good = outcome.success && file.is_file();
        tracing::debug!(unit = unit.object, ?side, good, "compiled");
        Ok(good.then(|| Compiled { file, output: outcome.lines.join("\n") }))
    }
}

/// Writes the overlay that shows each file of `originals` (its path in the tree, its original's path).
pub(crate) fn write_overlay(path: &Path, originals: &[(PathBuf, PathBuf)]) -> Result<()> {
    let roots: Vec<_> = originals
        .iter()
        .filter_map(|(shown, original)| {
            let name = shown.file_name()?.to_str()?;
            Some(serde_json::json!({
                "type": "directory",
                "name": shown.parent()?.to_str()?,
                "contents": [{ "type": "file", "name": name, "external-contents": original.to_str()? }],
            }))
        })
        .collect();
    let overlay = serde_json::json!({ "version": 0, "use-external-names": false, "roots": roots });
    std::fs::write(path, overlay.to_string()).map_err(|error| Diagnosis::io("write", path, &error).into())
}
