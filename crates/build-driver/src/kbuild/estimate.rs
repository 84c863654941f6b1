//! How long many units will take, from how long the first ones took. Measures nothing itself.

use std::fmt;
use std::time::Duration;

/// What compiling many units will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Units in all.
    pub units: usize,
    /// What is left to wait for. `None` before the first unit is done.
    pub left: Option<Duration>,
}

impl Estimate {
    /// `done` says how long each finished unit took by itself, while `jobs` of them run at a time.
    pub fn of(units: usize, done: &[Duration], jobs: usize) -> Estimate {
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        let left = u32::try_from(units.saturating_sub(done.len())).unwrap_or(u32::MAX);
        let jobs = u32::try_from(jobs.clamp(1, units.max(1))).unwrap_or(u32::MAX);
        let mean = done.iter().sum::<Duration>().checked_div(count);
        Estimate { units, left: mean.map(|mean| mean.saturating_mul(left) / jobs) }
    }
}

impl fmt::Display for Estimate {
    /// `57 units`, `57 units, about 40 s more`, `812 units, about 13 min more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.units, if self.units == 1 { "unit" } else { "units" })?;
        match self.left.map(|left| left.as_secs()) {
            None | Some(0) => Ok(()),
            Some(seconds) if seconds < 90 => write!(f, ", about {seconds} s more"),
            Some(seconds) => write!(f, ", about {} min more", (seconds + 30) / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_reckoned_from_the_first_units() {
        let done = |seconds: &[u64]| seconds.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let cases = [
            (57, done(&[]), 2, "57 units"),
            (1, done(&[]), 2, "1 unit"),
            (22, done(&[3, 5]), 2, "22 units, about 40 s more"),
            (402, done(&[4, 4]), 2, "402 units, about 13 min more"),
            (3, done(&[4, 4]), 8, "3 units, about 1 s more"),
            (2, done(&[4, 4]), 2, "2 units"),
        ];
        for (units, done, jobs, text) in cases {
            assert_eq!(Estimate::of(units, &done, jobs).to_string(), text);
        }
    }
}
