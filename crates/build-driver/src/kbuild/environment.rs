//! The environment that the kernel's top Makefile passes to the makefiles of its folders. In this environment,
//! `scripts/Makefile.build` makes one object with exactly the flags of the whole build, and without the work of the top
//! Makefile. klpx captures the environment once for a kernel. Every folder is made by `$(MAKE) $(build)=FOLDER`
//! (scripts/Kbuild.include). klpx replaces `build`, so that the call for the root folder writes its environment. This
//! call comes last, because recipes of `prepare` add flags (arm64's `stack_protector_prepare` takes a flag from a
//! generated header).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files;
use crate::kbuild::UnitList;
use crate::kbuild::make::{MakeResult, MakeSettings, USELESS, original_does_not_build, without_useless};
use crate::process::{Call, CallOutcome};

/// The makefile that replaces `scripts/Makefile.build`. Everything else is made already, so the calls before the call
/// for the kernel's root folder have nothing to do.
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

/// The goal of the kernel's Makefile for the root folder, which includes all others.
const ROOT: &str = ".";

/// Variables that make itself sets, and variables that the call for a folder sets.
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
    /// Variables with another value in some folders, by folder: parent folders add flags.
    folders: BTreeMap<String, Vec<(String, String)>>,
}

impl Environment {
    /// Captures the environment from the top Makefile. `dir` is a folder for the captured files.
    pub(crate) fn capture(make: &MakeSettings<'_>, dir: &Path) -> Result<Environment> {
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

    /// Stores the variables that have another value in some folders.
    pub(crate) fn keep_folders(list: &UnitList, dir: &Path) -> Result<()> {
        let folders: BTreeMap<&str, &[(String, String)]> = list.inherited().collect();
        let text = serde_json::to_vec(&folders).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        files::write_durably(&dir.join("folders.json"), &text)
    }

    /// Reads the environment that an earlier run captured.
    pub(crate) fn read(dir: &Path) -> Result<Environment> {
        let path = dir.join("environment");
        let text = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let path = dir.join("folders.json");
        let folders = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let folders =
            serde_json::from_slice(&folders).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        Ok(Environment { folders, ..Environment::parse(&text) })
    }

    /// Parses `NAME=VALUE` entries. Each ends with a NUL.
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

    /// A call of make in this environment, without a goal.
    fn call(&self, make: &MakeSettings<'_>) -> Call {
        let call = Call::new("make")
            .dir(make.build)
            .args(["-rR", "--no-print-directory", "--output-sync=target"])
            .arg(format!("-j{}", make.kernel.jobs()))
            .args(make.variables());
        self.variables.iter().fold(call, |call, (name, value)| call.env(name, value))
    }

    /// The units that kbuild lists for the source as it is.
    pub(crate) fn units(&self, make: &MakeSettings<'_>) -> Result<UnitList> {
        UnitList::ask(make.src, make.build, &mut |words| {
            let mut lines = Vec::new();
            let call = self.call(make).args(words);
            let success = make.runner.stream(&call, &mut |line| lines.push(line.to_owned()))?;
            Ok(CallOutcome { success, lines })
        })
    }

    /// Makes objects of one folder. The makefile of `folder` has their rules. `objects` are paths in the build tree.
    pub(crate) fn make(
        &self,
        make: &MakeSettings<'_>,
        folder: &str,
        objects: &[PathBuf],
        on_line: &mut dyn FnMut(&str),
    ) -> Result<MakeResult> {
        run(make, &self.folder_call(make, folder).args(objects), objects.len(), on_line)
    }

    /// Makes preprocessed texts of units of one folder. The makefile `rules` has rules of texts that kbuild can't make.
    pub(crate) fn make_texts(
        &self,
        make: &MakeSettings<'_>,
        folder: &str,
        texts: &[PathBuf],
        rules: &Path,
    ) -> Result<MakeResult> {
        let call = self.folder_call(make, folder).arg("-f").arg(rules).args(texts);
        run(make, &call, texts.len(), &mut |_| {})
    }

    /// A call of make for one folder, without a goal.
    fn folder_call(&self, make: &MakeSettings<'_>, folder: &str) -> Call {
        let call = self.call(make).arg("-f").arg(make.src.join("scripts/Makefile.build")).args([
            format!("obj={folder}"),
            "need-builtin=1".to_owned(),
            "need-modorder=1".to_owned(),
        ]);
        let inherited = self.folders.get(folder).into_iter().flatten();
        let call = inherited.fold(call, |call, (name, value)| call.env(name, value));
        let call = make.environment().into_iter().fold(call, |call, (name, value)| call.env(name, value));
        // The top Makefile sets both for single objects.
        call.env("KBUILD_BUILTIN", "1").env("KBUILD_MODULES", "1")
    }
}

fn run(
    make: &MakeSettings<'_>,
    call: &Call,
    units: usize,
    on_line: &mut dyn FnMut(&str),
) -> Result<MakeResult> {
    let mut lines = Vec::new();
    let success = make.runner.stream(call, &mut |line| {
        on_line(line);
        lines.push(line.to_owned());
    })?;
    Ok(MakeResult { success, units: units as u64, lines })
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
