//! The objtool options for a unit, from the tree's own makefiles. Never runs objtool.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use serde::{Deserialize, Serialize};

/// Options that only check. They change no code. On a single unit they report facts that depend on other units.
///
/// `--werror`, `--Werror`: scripts/Makefile.lib since 6.15. `--noinstr`, `--unret`: scripts/Makefile.vmlinux_o.
const JUDGING: [&str; 4] = ["--werror", "--Werror", "--noinstr", "--unret"];

/// How objtool treats a unit on the unit's way into the kernel.
///
/// kbuild runs objtool when it compiles a unit, or, with IBT or LTO (`delay-objtool` in scripts/Makefile.lib), when it
/// links `vmlinux.o` or a module of several units. For a single unit, the options of the later run are the unit's own
/// options and `--link`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjtoolRule {
    /// objtool never sees the unit.
    None,
    /// kbuild runs objtool with these options at the end of the unit's recorded command, so kbuild's object is
    /// finished. An object that is compiled without kbuild still needs the run.
    AlreadyRun(Vec<String>),
    /// kbuild runs objtool on the linked result. These options have the same effect on the unit alone.
    Run(Vec<String>),
}

impl ObjtoolRule {
    /// Parses the words that `units.mk` writes: the time (`now`, `later`, `never`), then options. No words mean that
    /// the kernel has no objtool. `None` for an unknown first word.
    pub(super) fn from_words(words: &[&str]) -> Option<ObjtoolRule> {
        let options =
            || words[1..].iter().filter(|w| !JUDGING.contains(w)).map(|w| (*w).to_owned()).collect();
        match words.first() {
            None | Some(&"never") => Some(ObjtoolRule::None),
            Some(&"now") => Some(ObjtoolRule::AlreadyRun(options())),
            Some(&"later") => Some(ObjtoolRule::Run(options())),
            Some(_) => None,
        }
    }

    /// The options for an object that was compiled without kbuild. `None` if objtool must not run on the object.
    pub fn options(&self) -> Option<&[String]> {
        match self {
            ObjtoolRule::None => None,
            ObjtoolRule::AlreadyRun(options) | ObjtoolRule::Run(options) => Some(options),
        }
    }
}

/// The diagnosis when objtool, or another program that changes a compiled unit, fails. `lines` are the program's
/// output.
pub fn failure(program: &str, unit: &str, lines: Vec<String>) -> Diagnosis {
    Diagnosis::new(
        &codes::OBJTOOL_FAILED,
        format!("{program} fails on a unit"),
        "without objtool's tables the code would not be what the kernel's own build makes",
        "report this unit and how the kernel was configured",
    )
    .place(DiagnosisPlace::file(unit, None))
    .detail(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kbuilds_words_become_a_rule_without_options_that_only_judge() {
        let options = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let cases: [(&[&str], Option<ObjtoolRule>); 7] = [
            (&[], Some(ObjtoolRule::None)),
            (&["never", "--orc"], Some(ObjtoolRule::None)),
            (
                &["now", "--orc", "--werror", "--module"],
                Some(ObjtoolRule::AlreadyRun(options(&["--orc", "--module"]))),
            ),
            (
                &["later", "--hacks=jump_label", "--noinstr", "--unret", "--link"],
                Some(ObjtoolRule::Run(options(&["--hacks=jump_label", "--link"]))),
            ),
            (&["now"], Some(ObjtoolRule::AlreadyRun(Vec::new()))),
            (&["y", "--orc"], None),
            (&["--orc"], None),
        ];
        for (words, rule) in cases {
            assert_eq!(ObjtoolRule::from_words(words), rule, "{words:?}");
        }
    }

    #[test]
    fn an_object_compiled_without_kbuild_gets_the_run_that_kbuild_would_give_it() {
        let orc = vec!["--orc".to_owned()];
        assert_eq!(ObjtoolRule::None.options(), None);
        assert_eq!(ObjtoolRule::AlreadyRun(orc.clone()).options(), Some(&orc[..]));
        assert_eq!(ObjtoolRule::Run(orc.clone()).options(), Some(&orc[..]));
    }
}
