//! Classes of failures: their exit codes, and which of several classes decides the exit code.

use serde::Serialize;

/// What kind of failure a diagnosis is; each kind has one documented exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The command line asks for something that can't be done.
    Usage,
    /// The patch can't be read, leaves the tree, or does not apply.
    Patch,
    /// A build failed: the patched source does not compile, the tree is unusable.
    Build,
    /// The patch changes no code or data: there is nothing to livepatch.
    Unchanged,
    /// The change can't be made by a livepatch, or klpx does not support it.
    NotLivepatchable,
    /// The baseline or the finished module disagrees with the kernel to be patched.
    Verification,
    /// The host lacks something: a tool, disk space, a permission.
    Environment,
    /// A file is not what it should be: truncated, corrupt, another format.
    Input,
    /// A livepatch's transition did not end in time and was reversed.
    Reverted,
    /// A livepatch's transition ends in neither direction.
    Stuck,
    /// Stopped by a signal.
    Interrupted,
    /// A fault in klpx itself.
    Internal,
}

impl Class {
    /// Every class, in the order of the exit codes.
    pub const ALL: [Class; 12] = [
        Class::Usage,
        Class::Patch,
        Class::Build,
        Class::Unchanged,
        Class::NotLivepatchable,
        Class::Verification,
        Class::Environment,
        Class::Input,
        Class::Reverted,
        Class::Stuck,
        Class::Internal,
        Class::Interrupted,
    ];

    /// Every class, the gravest first, each with the reason for its rank. A failure with several classes has the exit
    /// code of the gravest one. A script must first know that a machine needs attention, then that klpx's result is
    /// not reliable, then what to repair outside of the patch, and last the result for the patch.
    pub const GRAVEST_FIRST: [(Class, &'static str); 12] = [
        (Class::Stuck, "a running kernel is between two states, and somebody must act"),
        (Class::Internal, "nothing else that klpx says is reliable"),
        (Class::Interrupted, "the run is incomplete, so other failures may be effects of the signal"),
        (Class::Reverted, "a running kernel is not in the wanted state"),
        (
            Class::Verification,
            "a file belongs to another kernel or must not be loaded, so no result is valid",
        ),
        (Class::Environment, "the machine must be repaired before any input can be judged"),
        (Class::Input, "a damaged file gives no result for the patch"),
        (Class::Usage, "the command must be corrected before the patch can be judged"),
        (Class::Build, "what does not build was not compared"),
        (Class::Patch, "a patch that does not apply was not compared"),
        (Class::NotLivepatchable, "the result for the patch is negative, and the patch must change"),
        (Class::Unchanged, "nothing has to be done"),
    ];

    /// The process exit code, stable across versions. 0 is success, 1 is never used.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Usage => 2,
            Class::Patch => 3,
            Class::Build => 4,
            Class::Unchanged => 5,
            Class::NotLivepatchable => 6,
            Class::Verification => 7,
            Class::Environment => 8,
            Class::Input => 9,
            Class::Reverted => 10,
            Class::Stuck => 11,
            Class::Internal => 70,
            Class::Interrupted => 130,
        }
    }

    /// The meaning of the exit code, for the lists in the help, the man page and README.
    pub const fn meaning(self) -> &'static str {
        match self {
            Class::Usage => "usage",
            Class::Patch => "the patch can't be read or does not apply",
            Class::Build => "a build failed",
            Class::Unchanged => "the patch changes nothing in the kernel's code or data",
            Class::NotLivepatchable => "the change can't be made by a livepatch",
            Class::Verification => "the kernel or the finished module is not what it should be",
            Class::Environment => "the host lacks a tool, disk space or a permission",
            Class::Input => "a file is truncated, corrupt or of another format",
            Class::Reverted => "the transition did not end in time, and was taken back",
            Class::Stuck => "the transition does not end, and could not be taken back",
            Class::Internal => "a fault in klpx",
            Class::Interrupted => "stopped by a signal",
        }
    }

    /// The rank in [`Class::GRAVEST_FIRST`]; 0 is the gravest.
    pub(crate) fn rank(self) -> usize {
        let of_self = |(class, _): &(Class, &str)| *class == self;
        Class::GRAVEST_FIRST.iter().position(of_self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Class;

    #[test]
    fn each_class_has_one_rank_and_one_exit_code() {
        let all = BTreeSet::from(Class::ALL);
        assert_eq!(all.len(), Class::ALL.len());
        assert_eq!(Class::GRAVEST_FIRST.map(|(class, _)| class).into_iter().collect::<BTreeSet<_>>(), all);
        for (rank, (class, why)) in Class::GRAVEST_FIRST.iter().enumerate() {
            assert_eq!(class.rank(), rank);
            assert!(!why.is_empty(), "{class:?}");
        }
        let codes = Class::ALL.map(Class::exit_code);
        assert!(codes.is_sorted() && codes.iter().collect::<BTreeSet<_>>().len() == codes.len());
    }
}
