//! Why a command stopped: one or more diagnoses, and the exit code.

use std::fmt;

use crate::Diagnosis;

/// Why a command stopped: one or more diagnoses. The gravest class decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    first: Box<Diagnosis>,
    rest: Vec<Diagnosis>,
    /// Failures of work after the stop. They do not decide the exit code.
    afterwards: Vec<Diagnosis>,
}

impl Failure {
    /// A failure with every diagnosis, sorted, or `Ok` if there is none.
    pub fn all(mut diagnoses: Vec<Diagnosis>) -> Result<(), Failure> {
        diagnoses.sort();
        diagnoses.dedup();
        let mut rest = diagnoses.into_iter();
        match rest.next() {
            None => Ok(()),
            Some(first) => Err(Failure { rest: rest.collect(), ..Failure::from(first) }),
        }
    }

    /// The result of a command and of work after the command, such as the writing of a report. Both failures are told.
    /// The command's failure decides the exit code.
    pub fn both(command: Result<()>, afterwards: Result<()>) -> Result<()> {
        match (command, afterwards) {
            (Err(mut failure), Err(later)) => {
                failure.afterwards.extend(later.diagnoses().cloned());
                Err(failure)
            }
            (command, afterwards) => command.and(afterwards),
        }
    }

    /// The failure with each diagnosis replaced by the result of `tell`.
    pub fn map(self, mut tell: impl FnMut(Diagnosis) -> Diagnosis) -> Failure {
        Failure {
            first: Box::new(tell(*self.first)),
            rest: self.rest.into_iter().map(&mut tell).collect(),
            afterwards: self.afterwards.into_iter().map(&mut tell).collect(),
        }
    }

    /// The diagnoses, in order.
    pub fn diagnoses(&self) -> impl Iterator<Item = &Diagnosis> {
        self.deciding().chain(&self.afterwards)
    }

    /// The diagnoses that decide the exit code.
    fn deciding(&self) -> impl Iterator<Item = &Diagnosis> {
        std::iter::once(&*self.first).chain(&self.rest)
    }

    /// The exit code of the gravest class.
    pub fn exit_code(&self) -> u8 {
        let gravest = self.deciding().map(|diagnosis| diagnosis.class).min_by_key(|class| class.rank());
        gravest.unwrap_or(self.first.class).exit_code()
    }
}

impl From<Diagnosis> for Failure {
    fn from(diagnosis: Diagnosis) -> Failure {
        Failure { first: Box::new(diagnosis), rest: Vec::new(), afterwards: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnosis) in self.diagnoses().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnosis}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The result of a fallible operation in klpx.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use crate::{Diagnosis, Failure, codes};

    fn failure(codes: &[&crate::Code]) -> Failure {
        let all = codes.iter().map(|code| Diagnosis::new(code, "what", "why", "remedy"));
        Failure::all(all.collect()).expect_err("a failure")
    }

    /// The order of the names would give another exit code.
    #[test]
    fn the_gravest_class_decides_the_exit_code() {
        for (all, exit) in [
            (&[&codes::ARM64_TOO_OLD, &codes::COMPILER_MISMATCH][..], 8),
            (&[&codes::ASSEMBLY, &codes::PATCH_BINARY], 3),
            (&[&codes::ASSEMBLY, &codes::INTERNAL, &codes::IO], 70),
            (&[&codes::IO, &codes::TRANSITION_STUCK], 11),
            (&[&codes::ASSEMBLY], 6),
        ] {
            assert_eq!(failure(all).exit_code(), exit);
        }
    }

    #[test]
    fn diagnoses_keep_the_order_of_their_codes() {
        let told = failure(&[&codes::IO, &codes::ASSEMBLY]);
        assert_eq!(told.diagnoses().map(|one| one.code).collect::<Vec<_>>(), ["klpx::assembly", "klpx::io"]);
    }

    #[test]
    fn work_after_a_failure_does_not_decide_the_exit_code() {
        let both = Failure::both(Err(failure(&[&codes::ASSEMBLY])), Err(failure(&[&codes::IO])));
        let both = both.expect_err("two failures");
        assert_eq!(both.diagnoses().map(|one| one.code).collect::<Vec<_>>(), ["klpx::assembly", "klpx::io"]);
        assert_eq!(both.exit_code(), 6);
        let after = Failure::both(Ok(()), Err(failure(&[&codes::IO]))).expect_err("a failure");
        assert_eq!(after.exit_code(), 8);
        assert_eq!(Failure::both(Ok(()), Ok(())), Ok(()));
    }
}
