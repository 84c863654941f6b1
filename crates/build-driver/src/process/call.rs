//! The call of a program, and its results.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A program, its arguments and its working directory.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) dir: Option<PathBuf>,
    pub(super) env: Vec<(OsString, OsString)>,
}

impl Call {
    /// A call of `program`. A name without a slash is looked up in PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Call {
        Call { program: program.as_ref().to_owned(), args: Vec::new(), dir: None, env: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Call {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Call {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Call {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Adds a variable to the reduced environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Call {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
}

/// The result of a call that started and was not interrupted.
#[derive(Clone, Debug, Default)]
pub struct CallOutcome {
    /// True if the program ended with status 0.
    pub success: bool,
    /// Standard output and standard error, in order of arrival, without line ends.
    pub lines: Vec<String>,
}

/// The result of a call whose standard output is data.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// True if the program ended with status 0.
    pub success: bool,
    /// Standard output.
    pub data: Vec<u8>,
    /// Standard error: warnings and errors for people, without line ends.
    pub messages: Vec<String>,
}

impl Answer {
    /// The data as lines, without line ends.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.data).lines().map(str::to_owned).collect()
    }
}
