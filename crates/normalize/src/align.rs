//! Pairs things of one build with things of another when their names alone do not tell which is which.

/// Returns the order-keeping pairing of two sequences that has the largest sum of scores. Pairs that score nothing are
/// left out. Computes and keeps a score for each possible pair, so it suits only the few files of one name.
pub fn best_in_order<T: Copy>(left: &[T], right: &[T], score: impl Fn(T, T) -> usize) -> Vec<(T, T)> {
    let (left_count, right_count) = (left.len(), right.len());
    let width = right_count + 1;
    let scores: Vec<usize> =
        left.iter().flat_map(|&x| right.iter().map(move |&y| (x, y))).map(|(x, y)| score(x, y)).collect();
    // The largest sum that can still be reached from each place.
    let mut best = vec![0usize; (left_count + 1) * width];
    for n in (0..left_count).rev() {
        for m in (0..right_count).rev() {
            let pair = best[(n + 1) * width + m + 1] + scores[n * right_count + m];
            best[n * width + m] = pair.max(best[(n + 1) * width + m]).max(best[n * width + m + 1]);
        }
    }
    let (mut n, mut m, mut pairs) = (0, 0, Vec::new());
    while n < left_count && m < right_count {
        let score = scores[n * right_count + m];
        let here = best[n * width + m];
        if score > 0 && here == best[(n + 1) * width + m + 1] + score {
            pairs.push((left[n], right[m]));
            (n, m) = (n + 1, m + 1);
        } else if here == best[(n + 1) * width + m] {
            n += 1;
        } else {
            m += 1;
        }
    }
    pairs
}

/// Returns the pairs in which each thing is the only one that fits the other, as indices, in the order of `left`.
pub fn mutual<L, R>(left: &[L], right: &[R], fit: impl Fn(&L, &R) -> bool) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (n, x) in left.iter().enumerate() {
        let Some(m) = only(right, |y| fit(x, y)) else { continue };
        let back = only(left, |x| fit(x, &right[m]));
        if back == Some(n) {
            pairs.push((n, m));
        }
    }
    pairs
}

/// Returns the index of the only thing that is wanted.
fn only<T>(things: &[T], is_wanted: impl Fn(&T) -> bool) -> Option<usize> {
    let mut found = things.iter().enumerate().filter(|(_, thing)| is_wanted(thing)).map(|(n, _)| n);
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_that_share_most_are_taken_in_order() {
        let table = [[1, 5, 0], [4, 0, 0], [0, 0, 2]];
        let score = |n: usize, m: usize| table[n][m];
        assert_eq!(best_in_order(&[0, 1, 2], &[0, 1, 2], score), [(0, 1), (2, 2)]);
        assert_eq!(best_in_order(&[], &[0, 1, 2], |_, _| 1), []);
        assert_eq!(best_in_order(&[0, 1], &[0, 1], |_, _| 0), []);
    }

    #[test]
    fn only_pairs_without_a_rival_on_either_side_are_mutual() {
        let fits =
            |table: [[u8; 3]; 3]| mutual(&[0, 1, 2], &[0, 1, 2], |&n: &usize, &m: &usize| table[n][m] == 1);
        assert_eq!(fits([[0, 1, 0], [1, 0, 0], [0, 0, 1]]), [(0, 1), (1, 0), (2, 2)]);
        // The first has two fits, and the two others share one.
        assert_eq!(fits([[1, 1, 0], [0, 0, 1], [0, 0, 1]]), []);
    }
}
