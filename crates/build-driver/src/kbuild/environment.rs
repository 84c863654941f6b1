//! What the kernel's top Makefile hands to the makefiles of its folders: the environment in which
//! `scripts/Makefile.build` makes one object, with exactly the flags of the whole build, and without the top Makefile's
//! own work. It is asked once for a kernel: every folder is made by `$(MAKE) $(build)=FOLDER` (scripts/Kbuild.include),
//! and with another `build` the call for the root folder writes down its environment. That call comes last: recipes of
//! `prepare` add flags (arm64's `stack_protector_prepare` takes one from a generated header).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files;
use crate::kbuild::UnitList;
use crate::kbuild::make::{Built, Make, USELESS, original_does_not_build, without_useless};
use crate::process::{Call, Outcome};

/// The makefile that takes the place of `scripts/Makefile.build`. Everything else is made already, so the calls before
/// the one for the kernel's root folder have nothing to do.
const CAPTURE: &str = r"# Written by klpx.
ifeq ($(obj),scripts/kconfig)
$(error klpx: $(MAKECMDGOALS) of $(obj) has to be made first)
endif
.PHONY: klpx-environment
ifeq ($(obj):$(need-builtin),.:1)
klpx-environment:
	@env -0 > $(KLPX_ENVIRONMENT)
else
klpx-environment: ;
.DEFAULT: ;
endif
";

/// The goal of the kernel's Makefile that calls for the root folder, and so for all others.
const ROOT: &str = ".";

/// What make itself puts into the environment, and what the call for a folder decides.
const OWN: [&str; 12] = [
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "MAKE_TERMOUT",
    "MAKE_TERMERR",
    "KLPX_ENVIRONMENT",
    "KBUILD_BUILTIN",
    "KBUILD_MODULES",
    "O",
    "build",
    "obj",
];

/// The captured environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    variables: Vec<(OsString, OsString)>,
    /// What folders have other values of, by folder: the folders above them add flags.
    folders: BTreeMap<String, Vec<(String, String)>>,
}

impl Environment {
    /// Asks the top Makefile. `dir` is a folder for the files of this.
    pub(crate) fn capture(make: &Make<'_>, dir: &Path) -> Result<Environment> {
        let (rules, output) = (dir.join("environment.mk"), dir.join("environment.new"));
        std::fs::write(&rules, CAPTURE).map_err(|error| Diagnosis::io("write", &rules, &error))?;
        let build = format!("build=-f {} obj", rules.display());
        let place = format!("KLPX_ENVIRONMENT={}", output.display());
        let built = make.run(&without_useless(&[ROOT, &build, &place]), &(), None)?;
        if !built.success {
            return Err(original_does_not_build(make, &built));
        }
        let text = std::fs::read(&output).map_err(|error| Diagnosis::io("read", &output, &error))?;
        let environment = Environment::parse(&text);
        files::write_durably(&dir.join("environment"), &environment.text())?;
        Ok(environment)
    }

    /// Keeps what folders have other values of.
    pub(crate) fn keep_folders(list: &UnitList, dir: &Path) -> Result<()> {
        let folders: BTreeMap<&str, &[(String, String)]> = list.inherited().collect();
        let text = serde_json::to_vec(&folders).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&dir.join("folders.json"), &text)
    }

    /// The environment that an earlier run captured.
    pub(crate) fn read(dir: &Path) -> Result<Environment> {
        let path = dir.join("environment");
        let text = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let path = dir.join("folders.json");
        let folders = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let folders =
            serde_json::from_slice(&folders).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        Ok(Environment { folders, ..Environment::parse(&text) })
    }

    /// `NAME=VALUE`, each with a NUL behind it.
    fn parse(text: &[u8]) -> Environment {
        let variable = |line: &[u8]| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            let name = OsStr::from_bytes(&line[..at]);
            let is_own = OWN.iter().any(|own| name == *own);
            let is_off = USELESS.iter().any(|word| word.strip_suffix('=').is_some_and(|off| name == off));
            (!is_own && !is_off).then(|| (name.to_owned(), OsString::from_vec(line[at + 1..].to_vec())))
        };
        let mut variables: Vec<_> = text.split(|&byte| byte == 0).filter_map(variable).collect();
        variables.sort();
        Environment { variables, folders: BTreeMap::new() }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in &self.variables {
            text.extend_from_slice(name.as_bytes());
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
            text.push(0);
        }
        text
    }

    /// make in this environment, without a goal.
    fn call(&self, make: &Make<'_>) -> Call {
        let call = Call::new("make")
            .dir(make.build)
            .args(["-rR", "--no-print-directory", "--output-sync=target"])
            .arg(format!("-j{}", make.kernel.jobs()))
            .args(make.variables());
        self.variables.iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// kbuild's units, of the source as it is.
    pub(crate) fn units(&self, make: &Make<'_>) -> Result<UnitList> {
        UnitList::ask(make.src, make.build, &mut |words| {
            let mut lines = Vec::new();
            let call = self.call(make).args(words);
            let success = make.runner.stream(&call, &mut |line| lines.push(line.to_owned()))?;
            Ok(Outcome { success, lines })
        })
    }

    /// Makes objects of one folder: `folder` is the one whose makefile has them, `objects` are paths in the build tree.
    pub(crate) fn make(
        &self,
        make: &Make<'_>,
        folder: &str,
        objects: &[PathBuf],
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Built> {
        let mut call = self
            .call(make)
            .arg("-f")
            .arg(make.src.join("scripts/Makefile.build"))
            .args([format!("obj={folder}"), "need-builtin=1".to_owned(), "need-modorder=1".to_owned()])
            .args(objects);
        for (name, value) in self.folders.get(folder).into_iter().flatten() {
            call = call.env(name, value);
        }
        for (name, value) in make.environment() {
            call = call.env(name, value);
        }
        // As the top Makefile has both for single objects.
        call = call.env("KBUILD_BUILTIN", "1").env("KBUILD_MODULES", "1");
        let mut lines = Vec::new();
        let success = make.runner.stream(&call, &mut |line| {
            on_line(line);
            lines.push(line.to_owned());
        })?;
        Ok(Built { success, units: objects.len() as u64, lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_make_puts_in_by_itself_is_left_out() {
        let text = b"srctree=/ws/src\0MAKEFLAGS=rR -- O=/ws/build\0KBUILD_CFLAGS=-O2 -DX='a b'\0EMPTY=\0LINES=a\nb\0";
        let environment = Environment::parse(text);
        let wanted =
            [("EMPTY", ""), ("KBUILD_CFLAGS", "-O2 -DX='a b'"), ("LINES", "a\nb"), ("srctree", "/ws/src")];
        let found: Vec<_> = environment.variables.iter().map(|(n, v)| (n.to_str(), v.to_str())).collect();
        assert_eq!(found, wanted.map(|(n, v)| (Some(n), Some(v))));
        assert_eq!(Environment::parse(&environment.text()), environment);
    }
}
