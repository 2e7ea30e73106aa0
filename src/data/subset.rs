//! Which images of a source are evaluated.

use std::collections::{BTreeSet, HashMap};

use rand_mt::Mt;

/// Which images a limit keeps. Either way they stay in the order of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The first images of the source.
    #[default]
    First,
    /// As many of each class as of any other, give or take one: the first of each.
    Balanced,
    /// The first of a shuffled order: that of `numpy.random.seed(seed)` and `numpy.random.shuffle`, so that a subset drawn in
    /// Python is drawn here too.
    Random(u32),
}

impl Select {
    /// The indices that `limit` keeps of a source with these labels, ascending. No limit keeps all.
    pub fn indices(self, labels: &[u32], limit: Option<usize>) -> Vec<usize> {
        self.among(labels, limit, &BTreeSet::new())
    }

    /// The same without those in `bad`, in whose place others come, by the same order.
    pub(super) fn among(self, labels: &[u32], limit: Option<usize>, bad: &BTreeSet<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        if let Select::Random(seed) = self {
            shuffle(&mut order, seed);
        }
        order.retain(|i| !bad.contains(i));
        if self == Select::Balanced {
            let mut seen = HashMap::new();
            let ranked = order.iter().map(|&i| {
                let count = seen.entry(labels[i]).or_insert(0usize);
                *count += 1;
                (*count, labels[i], i)
            });
            let mut ranked: Vec<(usize, u32, usize)> = ranked.collect();
            ranked.sort_unstable();
            order = ranked.into_iter().map(|(_, _, i)| i).collect();
        }
        order.truncate(limit.unwrap_or(labels.len()));
        order.sort_unstable();
        order
    }
}

/// Fisher-Yates from the end, each partner drawn by rejection under the smallest mask; MT19937 (Matsumoto & Nishimura 1998).
fn shuffle(order: &mut [usize], seed: u32) {
    let mut random = Mt::new(seed);
    for i in (1..order.len()).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let draw = (random.next_u32() & mask) as usize;
            if draw <= i {
                break draw;
            }
        };
        order.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_its_known_start() {
        // The first output and the 10,000th for the seed that the reference implementation uses.
        let mut random = Mt::new(5489);
        assert_eq!(random.next_u32(), 3_499_211_612);
        assert_eq!((1..10_000).map(|_| random.next_u32()).last(), Some(4_123_659_995));
    }

    #[test]
    fn what_is_bad_is_replaced() {
        let among = |how: Select, limit, bad: &[usize]| {
            how.among(&[0, 0, 0, 1, 1], Some(limit), &bad.iter().copied().collect())
        };
        assert_eq!(among(Select::First, 2, &[0]), [1, 2]);
        assert_eq!(among(Select::Balanced, 2, &[0, 3]), [1, 4]);
        assert_eq!(among(Select::Balanced, 4, &[3]), [0, 1, 2, 4]);
        // Those that numpy's shuffle by this seed puts next.
        assert_eq!(Select::Random(42).among(&[0; 10], Some(3), &[8].into()), [0, 1, 5]);
    }

    #[test]
    fn random_subsets_are_those_of_numpy() {
        let shuffled = |n, seed| {
            let mut order: Vec<usize> = (0..n).collect();
            shuffle(&mut order, seed);
            order
        };
        assert_eq!(shuffled(10, 42), [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
        assert_eq!(shuffled(50_000, 42)[..6], [33553, 9427, 199, 12447, 39489, 42724]);
        assert_eq!(shuffled(1000, 0)[..6], [993, 859, 298, 553, 672, 971]);
        assert_eq!(Select::Random(42).indices(&[0; 10], Some(3)), [1, 5, 8]);
        assert!(shuffled(0, 1).is_empty());
    }
}
