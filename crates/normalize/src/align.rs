//! Pairs two sequences and keeps their order, to find which file of one build is which of the other when the names
//! alone do not tell.

/// Returns the order-keeping pairing of `0..left` with `0..right` that has the largest sum of scores. Pairs that score
/// nothing are left out. Computes and keeps `left * right` scores, so it suits only the few files of one name.
pub fn best_in_order(
    left: usize,
    right: usize,
    score: impl Fn(usize, usize) -> usize,
) -> Vec<(usize, usize)> {
    let width = right + 1;
    let scores: Vec<usize> =
        (0..left).flat_map(|n| (0..right).map(move |m| (n, m))).map(|(n, m)| score(n, m)).collect();
    // The largest sum that can still be reached from each place.
    let mut best = vec![0usize; (left + 1) * width];
    for n in (0..left).rev() {
        for m in (0..right).rev() {
            let pair = best[(n + 1) * width + m + 1] + scores[n * right + m];
            best[n * width + m] = pair.max(best[(n + 1) * width + m]).max(best[n * width + m + 1]);
        }
    }
    let (mut n, mut m, mut pairs) = (0, 0, Vec::new());
    while n < left && m < right {
        let score = scores[n * right + m];
        let here = best[n * width + m];
        if score > 0 && here == best[(n + 1) * width + m + 1] + score {
            pairs.push((n, m));
            (n, m) = (n + 1, m + 1);
        } else if here == best[(n + 1) * width + m] {
            n += 1;
        } else {
            m += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_that_share_most_are_taken_in_order() {
        let table = [[1, 5, 0], [4, 0, 0], [0, 0, 2]];
        assert_eq!(best_in_order(3, 3, |n, m| table[n][m]), [(0, 1), (2, 2)]);
        assert_eq!(best_in_order(0, 3, |_, _| 1), []);
        assert_eq!(best_in_order(2, 2, |_, _| 0), []);
    }
}
