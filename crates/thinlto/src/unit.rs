//! Compiles one translation unit that a patch touches, outside the build tree: from its original or its patched source,
//! at the same path, with the kernel's own compiler words.

use std::path::{Path, PathBuf};

use klpx_build_driver::RecordedCommands;
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use crate::files;

/// One of the two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceSide {
    /// The source from which the kernel was built.
    Original,
    /// The source with the patch.
    Patched,
}

impl SourceSide {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SourceSide::Original => "original",
            SourceSide::Patched => "patched",
        }
    }
}

/// The output of a compilation, besides remarks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutputForm {
    /// Bitcode for the link.
    Bitcode,
    /// LLVM IR as text, before any pass, without debug information.
    Text,
    /// Native code of an empty file, with the unit's flags.
    Nothing,
}

/// A unit and the commands with which kbuild makes it.
#[derive(Clone, Debug)]
pub struct UnitCommands {
    /// The unit's object file, as a path from the build tree.
    pub object: String,
    /// kbuild's record of the unit.
    pub recorded: RecordedCommands,
}

/// How clang finds the two sources. The source tree holds one of them; an overlay shows the other one to clang.
#[derive(Clone, Debug, Default)]
pub struct Overlays {
    /// The overlay for the original, if the tree is patched.
    pub original: Option<PathBuf>,
    /// The overlay for the patched source, if the tree is original.
    pub patched: Option<PathBuf>,
}

impl Overlays {
    /// The words that make the compiler see one side's source.
    pub fn options(&self, side: SourceSide) -> Vec<String> {
        let overlay = match side {
            SourceSide::Original => &self.original,
            SourceSide::Patched => &self.patched,
        };
        let words = overlay.iter().map(|path| ["-ivfsoverlay".to_owned(), path.display().to_string()]);
        words.flatten().collect()
    }
}

/// Where and how to compile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnitCompiler<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) build: &'a Path,
    pub(crate) overlays: &'a Overlays,
    /// The folder for results.
    pub(crate) work: &'a Path,
}

/// The text that is compiled, and what is made of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompilationInput<'a> {
    pub(crate) unit: &'a UnitCommands,
    pub(crate) side: SourceSide,
    pub(crate) form: OutputForm,
}

/// A finished compilation.
#[derive(Clone, Debug)]
pub(crate) struct Compilation {
    pub(crate) file: PathBuf,
    /// The compiler's output, which holds the remarks.
    pub(crate) output: String,
}

impl UnitCompiler<'_> {
    /// Compiles a unit. `name` keeps the results of different compilations apart.
    ///
    /// # Errors
    /// Fails if the compiler fails.
    pub(crate) fn compile(
        &self,
        unit: &UnitCommands,
        side: SourceSide,
        form: OutputForm,
        name: &str,
    ) -> Result<Compilation> {
        let input = CompilationInput { unit, side, form };
        self.try_compile(input, name, &[])?.map_err(|lines| does_not_compile(unit, side, lines))
    }

    /// Compiles a unit with further LLVM options. The inner error is the output of a compiler that failed.
    pub(crate) fn try_compile(
        &self,
        input: CompilationInput<'_>,
        name: &str,
        llvm: &[String],
    ) -> Result<std::result::Result<Compilation, Vec<String>>> {
        let CompilationInput { unit, side, form } = input;
        let words = unit.recorded.compilation().unwrap_or_default();
        let file = match form {
            OutputForm::Bitcode | OutputForm::Nothing => self.work.join(name).join(&unit.object),
            OutputForm::Text => self.work.join(name).join(&unit.object).with_extension("ll"),
        };
        files::create_dir(file.parent().unwrap_or(self.work))?;
        let Some((program, rest)) = words.split_first() else {
            return Ok(Err(vec!["kbuild's record of it holds no compilation".to_owned()]));
        };
        let mut call = Call::new(program).dir(self.build);
        // The last word is the source.
        let (source, rest) = rest.split_last().map_or(("", rest), |(source, rest)| (source.as_str(), rest));
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match (word.as_str(), form) {
                ("-o", _) => {
                    rest.next();
                }
                ("-c", OutputForm::Text) => {}
                (word, _) if word.starts_with("-Wp,-MMD") || word.starts_with("-Wp,-MD") => {}
                (word, _) => call = call.arg(word),
            }
        }
        call = match form {
            OutputForm::Bitcode => call.arg("-Rpass=inline"),
            OutputForm::Text => call.args(["-S", "-emit-llvm", "-g0", "-Xclang", "-disable-llvm-passes"]),
            OutputForm::Nothing => call.arg("-fno-lto"),
        };
        call = match form {
            OutputForm::Nothing => call.args(["-x", "c", "/dev/null"]),
            OutputForm::Bitcode | OutputForm::Text => call.arg(source),
        };
        call = call.args(self.overlays.options(side));
        call = call.args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]));
        let outcome = self.runner.run(&call.arg("-o").arg(&file))?;
        let good = outcome.success && file.is_file();
        tracing::debug!(unit = unit.object, ?side, good, "compiled");
        match good {
            true => Ok(Ok(Compilation { file, output: outcome.lines.join("\n") })),
            false => Ok(Err(outcome.lines)),
        }
    }
}

fn does_not_compile(unit: &UnitCommands, side: SourceSide, lines: Vec<String>) -> Failure {
    let (code, what, remedy) = match side {
        SourceSide::Original => (
            &codes::ORIGINAL_SOURCE_DOES_NOT_BUILD,
            "the unpatched kernel source does not build",
            "build it by hand with the same configuration and tools to see whether it does",
        ),
        SourceSide::Patched => (
            &codes::PATCHED_SOURCE_DOES_NOT_COMPILE,
            "the patched kernel source does not compile",
            "correct the patch",
        ),
    };
    let is_remark = |line: &&String| !line.contains(": remark: ");
    Diagnosis::new(code, what, format!("the compiler fails on {}", unit.object), remedy)
        .detail(lines.iter().filter(is_remark).cloned())
        .into()
}

/// Writes a clang overlay. `shown` holds, for each file, the path at which clang sees it and the file to show there.
///
/// # Errors
/// Fails if the overlay can't be written.
pub fn write_overlay(path: &Path, shown: &[(PathBuf, PathBuf)]) -> Result<()> {
    let roots: Vec<_> = shown
        .iter()
        .filter_map(|(shown, file)| {
            let name = shown.file_name()?.to_str()?;
            Some(serde_json::json!({
                "type": "directory",
                "name": shown.parent()?.to_str()?,
                "contents": [{ "type": "file", "name": name, "external-contents": file.to_str()? }],
            }))
        })
        .collect();
    let overlay = serde_json::json!({ "version": 0, "use-external-names": false, "roots": roots });
    files::write(path, overlay.to_string())
}
