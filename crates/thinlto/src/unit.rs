//! One translation unit that a patch touches, compiled apart from the build tree: from its original or its patched
//! source, at the same path, with the kernel's own words.

use std::path::{Path, PathBuf};

use klpx_build_driver::Recorded;
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

use crate::files;

/// Which source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// As the kernel was built.
    Original,
    /// With the patch.
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
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Bitcode for the link.
    Bitcode,
    /// LLVM IR as text, before any pass, without debug information.
    Text,
    /// Native code of an empty file with the unit's flags.
    Nothing,
}

/// A unit and the commands that kbuild makes it with.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its object, as a path from the build tree.
    pub object: String,
    /// kbuild's record of it.
    pub recorded: Recorded,
}

/// Where the two sources are. What the source tree holds is one of them; the other one is shown to clang by an overlay.
#[derive(Clone, Debug, Default)]
pub struct Overlays {
    /// For the original, where the tree is patched.
    pub original: Option<PathBuf>,
    /// For the patched source, where the tree is original.
    pub patched: Option<PathBuf>,
}

impl Overlays {
    /// The compiler's words that show it one side's source.
    pub fn options(&self, side: Side) -> Vec<String> {
        let overlay = match side {
            Side::Original => &self.original,
            Side::Patched => &self.patched,
        };
        let words = overlay.iter().map(|path| ["-ivfsoverlay".to_owned(), path.display().to_string()]);
        words.flatten().collect()
    }
}

/// Where and how to compile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compiler<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) build: &'a Path,
    pub(crate) overlays: &'a Overlays,
    /// Results go below it.
    pub(crate) work: &'a Path,
}

/// A finished compilation.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) file: PathBuf,
    /// What the compiler said: remarks.
    pub(crate) output: String,
}

impl Compiler<'_> {
    /// Compiles a unit. `name` keeps the results of one unit apart; `llvm` are options of LLVM's.
    ///
    /// # Errors
    /// The compiler fails.
    pub(crate) fn compile(&self, unit: &Unit, side: Side, form: Form, name: &str) -> Result<Compiled> {
        self.try_compile((unit, side, form), name, &[])?.map_err(|lines| does_not_compile(unit, side, lines))
    }

    /// The same with options of LLVM's. The inner error is what the compiler said when it failed.
    pub(crate) fn try_compile(
        &self,
        (unit, side, form): (&Unit, Side, Form),
        name: &str,
        llvm: &[String],
    ) -> Result<std::result::Result<Compiled, Vec<String>>> {
        let words = unit.recorded.compilation().unwrap_or_default();
        let file = match form {
            Form::Bitcode | Form::Nothing => self.work.join(name).join(&unit.object),
            Form::Text => self.work.join(name).join(&unit.object).with_extension("ll"),
        };
        files::create_dir(file.parent().unwrap_or(self.work))?;
        let Some((program, rest)) = words.split_first() else {
            return Ok(Err(vec!["kbuild's record of it holds no compilation".to_owned()]));
        };
        let mut call = Call::new(program).dir(self.build);
        // The source is the last word.
        let (source, rest) = rest.split_last().map_or(("", rest), |(source, rest)| (source.as_str(), rest));
        let mut rest = rest.iter();
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
            Form::Nothing => call.arg("-fno-lto"),
        };
        call = match form {
            Form::Nothing => call.args(["-x", "c", "/dev/null"]),
            Form::Bitcode | Form::Text => call.arg(source),
        };
        call = call.args(self.overlays.options(side));
        call = call.args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]));
        let outcome = self.runner.run(&call.arg("-o").arg(&file))?;
        let good = outcome.success && file.is_file();
        tracing::debug!(unit = unit.object, ?side, good, "compiled");
        match good {
            true => Ok(Ok(Compiled { file, output: outcome.lines.join("\n") })),
            false => Ok(Err(outcome.lines)),
        }
    }
}

fn does_not_compile(unit: &Unit, side: Side, lines: Vec<String>) -> Failure {
    let (code, what, remedy) = match side {
        Side::Original => (
            "klpx::original-source-does-not-build",
            "the unpatched kernel source does not build",
            "build it by hand with the same configuration and tools to see whether it does",
        ),
        Side::Patched => (
            "klpx::patched-source-does-not-compile",
            "the patched kernel source does not compile",
            "correct the patch",
        ),
    };
    let is_remark = |line: &&String| !line.contains(": remark: ");
    Diagnosis::new(code, Class::Build, what)
        .why(format!("the compiler fails on {}", unit.object))
        .remedy(remedy)
        .detail(lines.iter().filter(is_remark).cloned())
        .into()
}

/// Writes a clang overlay that shows each file: the path at which it is seen, and the file that is there then.
///
/// # Errors
/// It can't be written.
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
