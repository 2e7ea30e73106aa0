//! When an image is looked at, and when nothing more is to be drawn of it.

use super::store::Tally;
use crate::config::certify::Certify;
use crate::stats::certificate::{anytime_lower, anytime_upper, share};

/// The fewest draws between two looks at whether an image is decided.
const LOOK: u32 = 8;

/// After how many draws an image that has `n` is looked at next, of `most` at most. A rule of its own, so that results depend on no batch:
/// every eighth draw at first, then every sixteenth part of the draws so far.
pub(super) fn next_look(n: u32, most: u32) -> u32 {
    (n + (n / 16 / LOOK * LOOK).max(LOOK)).min(most)
}

/// What is known of each radius that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Certified,
    /// The class's share is too low for it; or so it is once all draws are spent.
    Out,
    Open,
}

/// The state of each wanted radius after `k` hits of `n` draws.
pub(super) fn reached(certify: &Certify, sigma: f64, k: u64, n: u64) -> Vec<Reach> {
    if certify.radius.is_empty() || n == 0 {
        return vec![Reach::Open; certify.radius.len()];
    }
    let (lower, upper) = (anytime_lower(k, n, certify.alpha), anytime_upper(k, n, certify.alpha));
    let of = |&radius: &f64| match share(radius, sigma) {
        needed if lower >= needed => Reach::Certified,
        needed if upper < needed || n >= u64::from(certify.n) => Reach::Out,
        _ => Reach::Open,
    };
    certify.radius.iter().map(of).collect()
}

/// Whether nothing more is to be drawn of an image.
pub(super) fn is_done(certify: &Certify, sigma: f64, tally: &Tally) -> bool {
    tally.choice.draws == certify.n0
        && (tally.bound.draws == certify.n
            || (!certify.radius.is_empty()
                && reached(certify, sigma, tally.hits(), u64::from(tally.bound.draws))
                    .iter()
                    .all(|&reach| reach != Reach::Open)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_at_fixed_draws_and_end() {
        let looks: Vec<u32> =
            std::iter::successors(Some(0), |&n| (n < 1000).then(|| next_look(n, 1000))).skip(1).collect();
        assert_eq!(looks[..5], [8, 16, 24, 32, 40]);
        assert_eq!(looks.last(), Some(&1000));
        assert!(looks.windows(2).all(|pair| pair[1] - pair[0] <= 8.max(pair[0] / 16)));
        assert!(looks.len() < 70, "{}", looks.len());
    }
}
