//! How a long step reports its progress to the caller: the trait, and a counter of objects. Knows no terminal.

use std::sync::atomic::{AtomicU64, Ordering};

/// Receives the driver's progress as it happens. The CLI displays it; tests use `()`.
pub trait Progress: Sync {
    /// A step begins: a lower-case fragment such as `copying the source`.
    fn step(&self, message: &str);
    /// The number of compiled objects, and the expected number if known.
    fn objects(&self, done: u64, total: Option<u64>);
    /// A note that stops nothing.
    fn note(&self, message: &str);
}

/// Counts the objects of one step.
pub(crate) struct ObjectCounter {
    done: AtomicU64,
    expected: Option<usize>,
}

impl ObjectCounter {
    /// A counter for a step with `expected` objects, if the number is known.
    pub(crate) fn new(expected: Option<usize>) -> ObjectCounter {
        ObjectCounter { done: AtomicU64::new(0), expected }
    }

    /// Adds made objects. make also makes whatever else is missing in the build tree. Once the count exceeds the
    /// expected number, the total is unknown.
    pub(crate) fn add(&self, more: usize, progress: &dyn Progress) {
        let done = self.done.fetch_add(more as u64, Ordering::Relaxed) + more as u64;
        progress.objects(done, self.expected.map(|total| total as u64).filter(|total| done <= *total));
    }

    /// The number of objects so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Progress for () {
    fn step(&self, _: &str) {}
    fn objects(&self, _: u64, _: Option<u64>) {}
    fn note(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Records the reported progress.
    #[derive(Default)]
    struct Told(Mutex<Vec<(u64, Option<u64>)>>);

    impl Progress for Told {
        fn step(&self, _: &str) {}
        fn objects(&self, done: u64, total: Option<u64>) {
            self.0.lock().expect("lock").push((done, total));
        }
        fn note(&self, _: &str) {}
    }

    #[test]
    fn progress_never_runs_past_its_total() {
        for (expected, reported) in [
            (Some(3), [(1, Some(3)), (3, Some(3)), (4, None), (5, None)]),
            (Some(9), [(1, Some(9)), (3, Some(9)), (4, Some(9)), (5, Some(9))]),
            (Some(0), [(1, None), (3, None), (4, None), (5, None)]),
            (None, [(1, None), (3, None), (4, None), (5, None)]),
        ] {
            let (objects, progress) = (ObjectCounter::new(expected), Told::default());
            for more in [1, 2, 1, 1] {
                objects.add(more, &progress);
            }
            assert_eq!(progress.0.into_inner().expect("told"), reported);
            assert_eq!(objects.done(), 5);
        }
    }
}
