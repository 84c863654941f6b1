//! The exit codes of these commands, for the help: those of failures come from the table of classes.

use klpx_diagnosis::Class;

/// A condition of the livepatches that `status` finds: its exit code, and its meaning for the help.
pub type StatusCode = (u8, &'static str);

/// No livepatch is loaded.
pub(crate) const NONE: StatusCode = (12, "no livepatch is loaded");
/// A livepatch is in transition.
pub(crate) const TRANSITION: StatusCode = (13, "a livepatch is in transition");
/// A livepatch is disabled.
pub(crate) const DISABLED: StatusCode = (14, "a livepatch is disabled");
/// A livepatch is held back after a crash.
pub(crate) const CRASHED: StatusCode =
    (15, "a livepatch is not loaded since the machine went down while it was");

/// The exit codes of `status` that are no failures.
pub const STATUS_CODES: [StatusCode; 4] = [NONE, TRANSITION, DISABLED, CRASHED];

/// The meaning of a class where it is a failure of these commands. `None` for a class that none of them has.
fn meaning(class: Class) -> Option<&'static str> {
    match class {
        Class::Usage => Some("usage; what is named is not installed or not loaded"),
        Class::Verification => {
            Some("the livepatch is not for this kernel as it runs, or the kernel refuses it")
        }
        Class::Environment => Some("the host lacks a permission, disk space or kernel support"),
        Class::Input => Some("a file is no livepatch, or damaged"),
        Class::Reverted | Class::Stuck | Class::Internal => Some(class.meaning()),
        Class::Patch | Class::Build | Class::Unchanged | Class::NotLivepatchable | Class::Interrupted => None,
    }
}

/// The exit codes, for the help of a program with these commands.
pub fn exit_codes() -> String {
    let mut rows = vec![(0, "success".to_owned())];
    rows.extend(
        Class::ALL.into_iter().filter_map(|class| Some((class.exit_code(), meaning(class)?.to_owned()))),
    );
    rows.extend(STATUS_CODES.map(|(code, meaning)| (code, format!("status: {meaning}"))));
    rows.sort();
    let row = |(code, meaning): &(u8, String)| format!("\n{code:>5}  {meaning}");
    format!("Exit codes:{}", rows.iter().map(row).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_exit_code_has_two_meanings() {
        let of_classes = Class::ALL.map(Class::exit_code);
        assert!(STATUS_CODES.iter().all(|(code, _)| !of_classes.contains(code)));
        assert!(STATUS_CODES.is_sorted_by_key(|(code, _)| code));
    }

    #[test]
    fn the_help_lists_each_exit_code_once_and_in_order() {
        let help = exit_codes();
        let listed: Vec<u8> = help.lines().skip(1).map(|line| line[..5].trim().parse().unwrap()).collect();
        assert_eq!(listed, [0, 2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 70]);
        assert!(
            help.contains("\n   11  the transition does not end, and could not be taken back\n"),
            "{help}"
        );
    }
}
