//! How long it takes to make many units, about. Measures nothing.

use std::time::Duration;

/// Something that is made of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    /// Its preprocessed text.
    Text,
    /// Its object.
    Object,
}

/// What takes longer than this is worth a word beforehand.
const LONG: Duration = Duration::from_secs(60);

impl Making {
    /// What one processor takes for a unit of average size, a few years old.
    fn each(self) -> Duration {
        match self {
            Making::Text => Duration::from_millis(450),
            Making::Object => Duration::from_millis(1600),
        }
    }
}

/// About how long it takes to make this of many units from both sources, with so many processors: `about 13 min`.
/// `None` when that is soon.
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
