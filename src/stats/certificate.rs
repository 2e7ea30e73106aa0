//! What counts of noisy predictions prove: randomised smoothing as published, and bounds that hold however long one draws.
//!
//! Sources: Cohen, Rosenfeld & Kolter 2019 (certify, predict); Clopper & Pearson 1934; Robbins 1970 and Ville 1939 (the sequence).

use statrs::distribution::{Continuous, ContinuousCDF, Normal};

use super::beta::{at_least_half, bisect, ln_beta, quantile, regularised};

/// The one-sided lower Clopper-Pearson bound at level `1 - alpha` of a rate of which `k` hits of `n` were seen; 0 without hits.
pub fn lower(k: u64, n: u64, alpha: f64) -> f64 {
    match k {
        0 => 0.0,
        k if k >= n => alpha.powf(1.0 / n as f64),
        k => quantile(alpha, k as f64, (n - k) as f64 + 1.0),
    }
}

/// The lower end at `n` draws of a confidence sequence: `k` hits were seen, and a rate below it is wrong at any of all `n` together with
/// chance `alpha` at most. So drawing may stop whenever one likes.
///
/// The rates p that are left are those with `M_n(p) < 1 / alpha`, where M mixes the likelihood ratio to p uniformly over (p, 1):
/// `ln M = ln B(k+1, n-k+1) - k ln p - (n-k) ln(1-p) + ln(1 - I_p(k+1, n-k+1)) - ln(1-p)`.
pub fn anytime_lower(k: u64, n: u64, alpha: f64) -> f64 {
    if k == 0 || n == 0 {
        return 0.0;
    }
    let (hits, misses) = (k as f64, (n - k.min(n)) as f64);
    let whole = ln_beta(hits + 1.0, misses + 1.0);
    let log = |p: f64| {
        let rest = (-regularised(p, hits + 1.0, misses + 1.0)).ln_1p();
        whole - hits * p.ln() - (misses + 1.0) * (-p).ln_1p() + rest
    };
    let most = -alpha.ln();
    bisect(0.0, hits / (hits + misses), |p| log(p) >= most)
}

/// The upper end of the sequence that [`anytime_lower`] is the lower one of.
pub fn anytime_upper(k: u64, n: u64, alpha: f64) -> f64 {
    1.0 - anytime_lower(n - k.min(n), n, alpha)
}

/// The L2 radius that noise of `sigma` certifies where the class has at least the share `p` of the draws; 0 below one half.
pub fn radius(p: f64, sigma: f64) -> f64 {
    if p < 0.5 {
        return 0.0;
    }
    let normal = standard();
    let first = normal.inverse_cdf(p);
    // statrs leaves some 1e-11 of the share; a step of Newton's takes it away, in the upper tail, where 1 - p keeps its digits.
    let left = normal.sf(first) - (1.0 - p);
    sigma * if first.is_finite() { first + left / normal.pdf(first) } else { first }
}

/// The share of draws that a radius needs under noise of `sigma`.
pub fn share(radius: f64, sigma: f64) -> f64 {
    standard().cdf(radius / sigma)
}

fn standard() -> Normal {
    Normal::standard()
}

/// The two-sided exact p value of two classes with `first` and `second` draws being equally likely.
pub fn fair(first: u64, second: u64) -> f64 {
    if first == second {
        return 1.0;
    }
    (2.0 * at_least_half(first.max(second), first + second)).min(1.0)
}

/// A class that the smoothed classifier is certain of, or that it abstains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// `None`: it abstains.
    pub class: Option<usize>,
    /// 0 where it abstains.
    pub radius: f64,
    /// The lower bound of the share of draws of the class that was chosen.
    pub lower: f64,
}

/// Cohen's `certify`, from the class that draws of their own chose and its `k` of `n` further ones.
pub fn certify((class, k, n): (usize, u64, u64), sigma: f64, alpha: f64) -> Certificate {
    decided(class, lower(k, n, alpha), sigma)
}

/// The same by a bound of any kind.
pub fn decided(class: usize, lower: f64, sigma: f64) -> Certificate {
    match lower < 0.5 {
        true => Certificate { class: None, radius: 0.0, lower },
        false => Certificate { class: Some(class), radius: radius(lower, sigma), lower },
    }
}

/// Cohen's `predict`: the class of most draws unless the second is as likely; `None` abstains.
pub fn predict(counts: &[u64], alpha: f64) -> Option<usize> {
    let (first, second) = top_two(counts)?;
    (fair(counts[first], second.map_or(0, |class| counts[class])) <= alpha).then_some(first)
}

/// The classes with most and second most draws, the lowest among equals.
pub fn top_two(counts: &[u64]) -> Option<(usize, Option<usize>)> {
    let best = |but: Option<usize>| {
        let open = counts.iter().enumerate().filter(|&(class, _)| Some(class) != but);
        open.fold(None, |best: Option<(usize, u64)>, (class, &count)| match best {
            Some((_, most)) if most >= count => best,
            _ => Some((class, count)),
        })
    };
    let (first, _) = best(None)?;
    Some((first, best(Some(first)).map(|(class, _)| class)))
}

/// An accuracy below which that of a certificate lies with chance `rho` at most, over the draws of `m` images of failure chance `alpha` each.
///
/// Source: Cohen et al. 2019, by Bernstein's inequality. Not below 0.
pub fn sure_accuracy(accuracy: f64, m: u64, alpha: f64, rho: f64) -> f64 {
    let (m, log) = (m as f64, -rho.ln());
    (accuracy - alpha - (alpha * (1.0 - alpha) * log / m).sqrt() - log / (3.0 * m)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::{assert_abs_diff_eq, assert_relative_eq};

    /// n, k, lower bound, radius over sigma; alpha .001. `None` abstains.
    const COHEN: [(u64, u64, f64, Option<f64>); 17] = [
        (100, 100, 0.933254301, Some(1.5004750)),
        (100, 80, 0.653557271, Some(0.3949423)),
        (100, 66, 0.501649951, Some(0.0041358)),
        (100, 65, 0.491375611, None),
        (1000, 1000, 0.993116048, Some(2.4632626)),
        (1000, 900, 0.867464018, Some(1.1144832)),
        (1000, 550, 0.500675960, Some(0.0016944)),
        (1000, 549, 0.499673064, None),
        (10_000, 9900, 0.986531159, Some(2.2124197)),
        (10_000, 7500, 0.736403567, Some(0.6322969)),
        (10_000, 5156, 0.500099968, Some(0.0002506)),
        (10_000, 5155, 0.499999939, None),
        (100_000, 100_000, 0.999930925, Some(3.8114566)),
        (100_000, 99_000, 0.988989340, Some(2.2900000)),
        (100_000, 75_000, 0.745746842, Some(0.6611653)),
        (100_000, 50_490, 0.500008949, Some(0.0000224)),
        (100_000, 50_489, 0.499998948, None),
    ];

    #[test]
    fn published_bounds_and_radii() {
        for (n, k, bound, radius) in COHEN {
            let found = certify((3, k, n), 0.25, 0.001);
            assert_abs_diff_eq!(found.lower, bound, epsilon = 5.1e-10);
            assert_eq!(found.class, radius.map(|_| 3), "{k} of {n}");
            assert_abs_diff_eq!(found.radius / 0.25, radius.unwrap_or(0.0), epsilon = 5.1e-8);
        }
    }

    /// As SciPy has them: tools/reference/statistics_reference.py.
    #[test]
    fn bounds_are_those_of_scipy() {
        #[derive(serde::Deserialize)]
        struct Reference {
            lower: Vec<(u64, u64, f64, f64)>,
            radius: Vec<(f64, f64)>,
            fair: Vec<(u64, u64, f64)>,
            beta: Vec<(f64, f64, f64, f64)>,
        }
        let known: Reference = serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap();
        for (k, n, alpha, want) in known.lower {
            assert_abs_diff_eq!(lower(k, n, alpha), want, epsilon = 1e-12);
        }
        for (p, want) in known.radius {
            assert_abs_diff_eq!(radius(p, 1.0), want, epsilon = 1e-10);
        }
        for (first, second, want) in known.fair {
            assert_relative_eq!(fair(first, second), want, max_relative = 1e-10);
        }
        for (x, a, b, want) in known.beta {
            assert_relative_eq!(regularised(x, a, b), want, max_relative = 1e-10);
        }
    }

    #[test]
    fn p_values_of_two_classes() {
        for (first, second, p) in [
            (10, 0, 0.001953125),
            (11, 0, 0.0009765625),
            (60, 40, 0.0568879336),
            (66, 34, 0.00178993039),
            (67, 33, 0.000873719837),
            (550, 450, 0.00173053608),
            (5165, 4835, 0.00100091487),
            (7, 7, 1.0),
        ] {
            assert_abs_diff_eq!(fair(first, second), p, epsilon = 5e-11);
            assert_eq!(fair(first, second), fair(second, first));
        }
        let votes = |first: u64, second: u64| predict(&[0, second, first], 0.001);
        assert_eq!((votes(10, 0), votes(11, 0), votes(66, 34), votes(67, 33)), (None, Some(2), None, Some(2)));
        assert_eq!((predict(&[], 0.001), predict(&[12], 0.001)), (None, Some(0)));
        assert_eq!(top_two(&[1, 4, 4]), Some((1, Some(2))));
    }

    #[test]
    fn bounds_that_hold_at_every_n() {
        for (n, k, bound, ratio) in [
            (1000, 990, 0.97152635, 1.903715),
            (10_000, 9900, 0.98527007, 2.177277),
            (100_000, 99_000, 0.98855935, 2.275411),
        ] {
            let found = anytime_lower(k, n, 0.001);
            assert_abs_diff_eq!(found, bound, epsilon = 1e-7 / 2.0);
            assert_abs_diff_eq!(radius(found, 1.0), ratio, epsilon = 1.1e-6);
            assert_abs_diff_eq!(anytime_upper(n - k, n, 0.001), 1.0 - found, epsilon = 1e-15);
            assert!(found < lower(k, n, 0.001), "it costs something");
        }
        assert_eq!((anytime_lower(0, 9, 0.01), anytime_lower(0, 0, 0.01), anytime_upper(9, 9, 0.01)), (0.0, 0.0, 1.0));
        // With hits alone: the first n that certifies .25 at sigma .25 and alpha .001.
        let needed = share(0.25, 0.25);
        assert_eq!((1..).find(|&n| anytime_lower(n, n, 0.001) >= needed), Some(53));
    }

    #[test]
    fn accuracy_with_high_probability() {
        for (accuracy, sure) in [(0.66744731, 0.65703473), (0.49414520, 0.48373262)] {
            assert_abs_diff_eq!(sure_accuracy(accuracy, 427, 0.001, 0.001), sure, epsilon = 1.1e-8);
        }
        assert_eq!(sure_accuracy(0.001, 10, 0.001, 0.001), 0.0);
    }

    #[test]
    fn radius_and_share_are_inverse() {
        for p in [0.5, 0.6, 0.9, 0.999, 0.99993] {
            assert_abs_diff_eq!(share(radius(p, 0.5), 0.5), p, epsilon = 1e-12);
        }
        assert_eq!((radius(0.4999, 1.0), radius(0.5, 1.0)), (0.0, 0.0));
    }

    /// How often a run of draws at a rate is ever told that the rate is higher than it is.
    #[test]
    fn the_sequence_is_wrong_as_rarely_as_it_says() {
        const RUNS: u64 = 10_000;
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut coin = |rate: f64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (state ^ (state >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
            ((mixed ^ (mixed >> 33)) >> 11) as f64 / (1u64 << 53) as f64 <= rate
        };
        for rate in [0.6915, 0.8413, 0.55] {
            // The fewest hits at each n that would rule the rate out.
            let limits: Vec<u64> = (1..=1000)
                .scan(0, |k: &mut u64, n| {
                    while *k <= n && anytime_lower(*k, n, 0.01) <= rate {
                        *k += 1;
                    }
                    Some(*k)
                })
                .collect();
            let mut wrong = 0;
            for _ in 0..RUNS {
                let mut hits = 0;
                wrong += u64::from(limits.iter().any(|&limit| {
                    hits += u64::from(coin(rate));
                    hits >= limit
                }));
            }
            assert!(wrong <= RUNS / 100, "{wrong} of {RUNS} at {rate}");
            assert!(wrong > RUNS / 500, "{wrong} of {RUNS} at {rate}: the draws do not reach the bound");
        }
    }
}
