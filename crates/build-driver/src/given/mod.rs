//! The make variables from the command line of the kernel's build (`--make NAME=VALUE`): which variables are allowed,
//! the files that values name, and how klpx passes the variables to make.
//!
//! The contents of such a file are a part of the kernel; its path is not. klpx copies a file that the compiler reads to
//! the workspace, so that the commands of one kernel always name the same file, even if the user moves the original.

mod own;
pub(crate) mod profile;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::files;
use crate::language::{MakeName, MakeValue, MakeWord};
use crate::own as private;

/// The folder in a workspace for copies of the files.
const FOLDER: &str = "given";

/// The variable to which klpx adds its own flags.
pub(crate) const FLAGS: &str = "KCFLAGS";

/// Options of compilers and linkers that name a file, up to the file's name.
const OPTIONS: [&str; 8] = [
    "-fprofile-sample-use=",
    "-fprofile-instr-use=",
    "-fauto-profile=",
    "-fbasic-block-sections=list=",
    "-fprofile-list=",
    "--lto-sample-profile=",
    "--lto-basic-block-sections=",
    "--symbol-ordering-file=",
];

/// Variables of the kernel's makefiles that name files (scripts/Makefile.autofdo, scripts/Makefile.propeller), each
/// with the suffixes that the makefiles append to the value.
const VARIABLES: [(&str, &[&str]); 2] = [
    ("CLANG_AUTOFDO_PROFILE", &[""]),
    ("CLANG_PROPELLER_PROFILE_PREFIX", &["_cc_profile.txt", "_ld_profile.txt"]),
];

/// The make variables of a kernel's build, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    variables: Vec<Variable>,
}

/// One make variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    name: MakeName,
    /// The value as the user gave it.
    given: String,
    pieces: Vec<ValuePart>,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ValuePart {
    Text(MakeValue),
    /// A blank between two words.
    Blank,
    /// A file that klpx copies, or the common prefix of several such files.
    Copied(Vec<GivenFile>),
    /// A path that stays unchanged, and the file at this path.
    Named(MakeWord, GivenFile),
}

/// A file that a value names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenFile {
    path: PathBuf,
    /// The suffix that the makefiles append to the value.
    ending: &'static str,
    hash: blake3::Hash,
}

impl GivenFile {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file at a path that the user gave.
    fn open(path: &Path, ending: &'static str) -> Result<GivenFile> {
        let mut whole = path.as_os_str().to_owned();
        whole.push(ending);
        let path = std::path::absolute(&whole).unwrap_or_else(|_| PathBuf::from(&whole));
        let missing = |why: String| {
            let what = format!("there is no file {}", path.display());
            Diagnosis::new(
                &codes::MAKE_FILE,
                what,
                why,
                "name the file that the kernel's build was given; a path that does not begin with / \
                 is looked for in this folder",
            )
        };
        let meta = path.metadata().map_err(|error| missing(error.to_string()))?;
        if !meta.is_file() {
            return Err(missing("it is a folder, or no regular file".to_owned()).into());
        }
        let hash = hash(&path).map_err(|error| missing(error.to_string()))?;
        Ok(GivenFile { hash, path, ending })
    }

    /// Copies the file, unless an equal file is already at `to`.
    fn copy(&self, to: &Path) -> Result<()> {
        let is_there = || hash(to).is_ok_and(|found| found == self.hash);
        if is_there() {
            return Ok(());
        }
        files::copy(&self.path, to, false).map_err(|error| Diagnosis::io("copy", &self.path, &error))?;
        if is_there() {
            return Ok(());
        }
        let what = format!("{} changed while it was copied", self.path.display());
        Err(Diagnosis::new(
            &codes::MAKE_FILE,
            what,
            "what it holds is a part of the kernel",
            "run klpx again when nothing writes to it",
        )
        .into())
    }
}

fn hash(path: &Path) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut klpx_input::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

impl Given {
    /// Parses `NAME=VALUE` texts. Relative paths start at the current folder.
    ///
    /// # Errors
    /// `klpx::make-variable` for a variable or value that is not allowed, `klpx::make-file` for a missing file.
    pub fn read(texts: &[String]) -> Result<Given> {
        let mut variables = Vec::new();
        let mut names = BTreeSet::new();
        for text in texts {
            let variable = Variable::read(text)?;
            if !names.insert(variable.name.clone()) {
                let what = format!("--make gives {} twice", variable.name);
                return Err(refused(what, "make takes one value", "give all of it in one --make").into());
            }
            variables.push(variable);
        }
        variables.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Given { variables })
    }

    /// The variables, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The variable with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| *variable.name == *name)
    }

    /// Adds a variable whose value names files.
    fn add(&mut self, name: &str, value: &Path) -> Result<()> {
        self.variables.push(Variable::read(&format!("{name}={}", value.display()))?);
        self.variables.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    }

    /// The words for make's command line in a workspace, except [`FLAGS`].
    pub(crate) fn words<'g>(&'g self, workspace: &'g Path) -> impl Iterator<Item = String> + 'g {
        let others = self.variables.iter().filter(|variable| *variable.name != *FLAGS);
        others.map(move |variable| format!("{}={}", variable.name, variable.value(workspace)))
    }

    /// The compiler flags from [`FLAGS`]. Empty if the variable was not given.
    pub(crate) fn flags(&self, workspace: &Path) -> String {
        self.get(FLAGS).map(|variable| variable.value(workspace)).unwrap_or_default()
    }

    /// The identity of the variables: each name and value with the contents of its files. It tells kernels apart.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut part = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        };
        for variable in &self.variables {
            part(variable.name.as_bytes());
            part(variable.value(Path::new("")).as_bytes());
            let files: Vec<&GivenFile> = variable.files().collect();
            part(&(files.len() as u64).to_le_bytes());
            files.iter().for_each(|file| part(file.hash.as_bytes()));
        }
        text
    }

    /// Copies the files into a workspace, unless they are there already.
    pub(crate) fn place(&self, workspace: &Path) -> Result<()> {
        for variable in &self.variables {
            for (number, piece) in variable.pieces.iter().enumerate() {
                let ValuePart::Copied(list) = piece else { continue };
                let folder =
                    private::folder(&private::folder(&workspace.join(FOLDER))?.join(&*variable.name))?;
                for file in list {
                    file.copy(&folder.join(format!("{number}{}", file.ending)))?;
                }
            }
        }
        Ok(())
    }
}

impl Variable {
    fn read(text: &str) -> Result<Variable> {
        let Some((name, value)) = text.split_once('=') else {
            let remedy = "give a name and a value, such as KCFLAGS=-march=x86-64-v3";
            return Err(refused(
                format!("--make {text:?} has no ="),
                "make would take it for a target",
                remedy,
            )
            .into());
        };
        let Some(name) = MakeName::new(name) else {
            let what = format!("--make: {name:?} is no variable that a kernel's build is given");
            let why = "a name begins with an upper-case letter or an underscore and has letters, digits, dots and dashes; \
                       others are kbuild's own";
            return Err(refused(what, why, "leave it out").into());
        };
        if let Some(row) = own::row(&name) {
            return Err(refused(format!("--make can't give {name}"), row.why, row.instead).into());
        }
        if let Some((_, endings)) = VARIABLES.iter().find(|(known, _)| *known == &*name) {
            let pieces = if value.is_empty() { Vec::new() } else { vec![copied(value, endings)?] };
            return Ok(Variable { name, given: value.to_owned(), pieces });
        }
        let words: Vec<Vec<ValuePart>> =
            value.split(' ').map(|word| pieces(&name, word, value)).collect::<Result<_>>()?;
        let mut pieces: Vec<ValuePart> = Vec::new();
        for word in words {
            if !pieces.is_empty() {
                pieces.push(ValuePart::Blank);
            }
            pieces.extend(word);
        }
        Ok(Variable { name, given: value.to_owned(), pieces })
    }

    /// The value that make gets in a workspace.
    fn value(&self, workspace: &Path) -> String {
        let mut value = String::new();
        for (number, piece) in self.pieces.iter().enumerate() {
            match piece {
                ValuePart::Text(text) => value.push_str(text),
                ValuePart::Blank => value.push(' '),
                ValuePart::Named(path, _) => value.push_str(path),
                ValuePart::Copied(_) => {
                    let path = workspace.join(FOLDER).join(&*self.name).join(number.to_string());
                    value.push_str(&path.display().to_string());
                }
            }
        }
        value
    }

    /// The files that the value names.
    pub fn files(&self) -> impl Iterator<Item = &GivenFile> {
        self.pieces.iter().flat_map(|piece| match piece {
            ValuePart::Text(_) | ValuePart::Blank => &[][..],
            ValuePart::Copied(files) => files,
            ValuePart::Named(_, file) => std::slice::from_ref(file),
        })
    }
}

impl std::fmt::Display for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.given)
    }
}

/// Splits one word of a value into pieces.
fn pieces(name: &MakeName, word: &str, value: &str) -> Result<Vec<ValuePart>> {
    if let Some(option) = OPTIONS.iter().find(|option| word.starts_with(**option)) {
        let text = MakeValue::new(option).map(ValuePart::Text);
        return Ok(text.into_iter().chain([copied(&word[option.len()..], &[""])?]).collect());
    }
    let Some(text) = MakeValue::new(word) else {
        let what = format!("--make {name}: make and its shell don't take {word:?} as it stands");
        let why = "quotes, dollars, backslashes, semicolons, hashes and the like are instructions to them";
        let remedy = "give words of letters, digits and / . _ + - @ = , : ~ ^ with one blank between two";
        return Err(refused(what, why, remedy).into());
    };
    let is_path = word == value && ["/", "./", "../"].iter().any(|start| word.starts_with(start));
    if !is_path {
        return Ok(vec![ValuePart::Text(text)]);
    }
    let file = GivenFile::open(Path::new(word), "")?;
    Ok(vec![ValuePart::Named(MakeWord::path(&file.path)?, file)])
}

/// Opens the files that `path` names with each of `endings`.
fn copied(path: &str, endings: &[&'static str]) -> Result<ValuePart> {
    let files =
        endings.iter().map(|ending| GivenFile::open(Path::new(path), ending)).collect::<Result<_>>()?;
    Ok(ValuePart::Copied(files))
}

fn refused(what: String, why: &str, remedy: &str) -> Diagnosis {
    Diagnosis::new(&codes::MAKE_VARIABLE, what, why, remedy)
}

#[cfg(test)]
mod tests;
