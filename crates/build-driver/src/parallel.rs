//! Several tasks at a time, up to a limit set by the user.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// Runs `count` tasks, `jobs` at a time, started in order. Returns the results in the same order.
pub fn each<T: Send>(jobs: usize, count: usize, task: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let numbered = || (0..count).par_bridge().map(|at| (at, task(at))).collect::<BTreeMap<_, _>>();
    match rayon::ThreadPoolBuilder::new().num_threads(jobs).build() {
        Ok(pool) => pool.install(numbered).into_values().collect(),
        // The system gives no more threads.
        Err(_) => (0..count).map(task).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_tasks() {
        assert_eq!(each(3, 20, |at| at * 2), (0..40).step_by(2).collect::<Vec<_>>());
        assert!(each(1, 0, |at| at).is_empty());
    }
}
