//! Which options objtool has to be run with on a unit, as the tree's own makefiles say. Never runs objtool.

use serde::{Deserialize, Serialize};

/// Options that judge and do not write. They make no code, and on one unit they complain of what another unit holds.
///
/// `--werror`, `--Werror`: scripts/Makefile.lib since 6.15. `--noinstr`, `--unret`: scripts/Makefile.vmlinux_o.
const JUDGING: [&str; 4] = ["--werror", "--Werror", "--noinstr", "--unret"];

/// What objtool does to a unit on the unit's way into the kernel.
///
/// kbuild runs objtool when it compiles a unit, or, with IBT or LTO (`delay-objtool` in scripts/Makefile.lib), when it
/// links `vmlinux.o` or a module of several units. The options of that later run, on one unit, are the unit's own with
/// `--link`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjtoolRule {
    /// objtool never sees the unit.
    None,
    /// kbuild runs objtool with these options when it compiles the unit: its recorded command ends with that run. The
    /// object that kbuild leaves is finished. An object that is compiled without kbuild needs the run.
    AlreadyRun(Vec<String>),
    /// kbuild runs objtool on what the unit is linked into. These options do the same to the unit alone.
    Run(Vec<String>),
}

impl ObjtoolRule {
    /// The rule from the words that `units.mk` writes: when (`now`, `later`, `never`), then options. No words at all
    /// say that the kernel has no objtool. `None` for anything else.
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

    /// The options for an object that was compiled without kbuild. `None` when objtool must not be run on it.
    pub fn options(&self) -> Option<&[String]> {
        match self {
            ObjtoolRule::None => None,
            ObjtoolRule::AlreadyRun(options) | ObjtoolRule::Run(options) => Some(options),
        }
    }
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
