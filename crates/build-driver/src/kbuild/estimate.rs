//! Rough estimates of the time for many units. Measures nothing.

use std::time::Duration;

/// The product that is made from a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    /// The preprocessed text.
    Text,
    /// The object.
    Object,
}

/// klpx announces an estimate that is longer than this.
const LONG: Duration = Duration::from_secs(60);

impl Making {
    /// The time for a unit of average size, on one processor a few years old.
    fn each(self) -> Duration {
        match self {
            Making::Text => Duration::from_millis(450),
            Making::Object => Duration::from_millis(1600),
        }
    }
}

/// The estimated time for many units of both sources, on `jobs` processors: `about 13 min`. `None` if it is short.
pub(crate) fn long(making: Making, units: usize, jobs: usize) -> Option<String> {
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    let jobs = u32::try_from(jobs.max(1)).unwrap_or(u32::MAX);
    let time = making.each().saturating_mul(units).saturating_mul(2) / jobs;
    (time > LONG).then(|| format!("about {} min", (time.as_secs() + 30) / 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_in_minutes() {
        assert_eq!(long(Making::Object, 37, 2), None);
        assert_eq!(long(Making::Object, 57, 2).as_deref(), Some("about 2 min"));
        assert_eq!(long(Making::Object, 57, 16), None);
        assert_eq!(long(Making::Text, 3000, 2).as_deref(), Some("about 23 min"));
        assert!(long(Making::Text, usize::MAX, 0).is_some());
    }
}
