//! Confidence intervals for an accuracy of `k` right out of `n`, and the comparison of two models on the same images.

pub mod beta;
pub mod certificate;

use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

/// The two-sided 95 % quantile of the normal distribution.
pub const Z95: f64 = 1.959_963_984_540_054;

/// An interval of probabilities, `0 <= lo <= hi <= 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub lo: f64,
    pub hi: f64,
}

/// The Wilson interval at 95 %. Without images it is [0, 1].
pub fn wilson(k: u64, n: u64) -> Interval {
    wilson_z(k, n, Z95)
}

/// The Wilson interval `z` standard errors to either side. `k` beyond `n` counts as `n`.
///
/// Source: Wilson 1927.
pub fn wilson_z(k: u64, n: u64, z: f64) -> Interval {
    if n == 0 {
        return Interval { lo: 0.0, hi: 1.0 };
    }
    let (k, size) = (k.min(n), n as f64);
    let p = k as f64 / size;
    let scale = 1.0 + z * z / size;
    let centre = (p + z * z / (2.0 * size)) / scale;
    let half = z * (p * (1.0 - p) / size + z * z / (4.0 * size * size)).sqrt() / scale;
    // At the ends the bound is exact; elsewhere rounding must not leave [0, 1].
    let lo = if k == 0 { 0.0 } else { (centre - half).max(0.0) };
    let hi = if k == n { 1.0 } else { (centre + half).min(1.0) };
    Interval { lo, hi }
}

/// The Clopper-Pearson interval at level `1 - alpha`: it never covers less than that. Without images it is [0, 1].
///
/// Source: Clopper & Pearson 1934.
pub fn clopper_pearson(k: u64, n: u64, alpha: f64) -> Interval {
    let k = k.min(n);
    let quantile = |p: f64, a: u64, b: u64| beta::quantile(p, a as f64, b as f64);
    let lo = if k == 0 { 0.0 } else { quantile(alpha / 2.0, k, n - k + 1) };
    let hi = if k == n { 1.0 } else { quantile(1.0 - alpha / 2.0, k + 1, n - k) };
    Interval { lo, hi }
}

/// The class of the largest logit, the lowest among equals.
pub fn top_class(logits: &[f32]) -> usize {
    let larger = |best: (usize, f32), (k, &z): (usize, &f32)| if z > best.1 { (k, z) } else { best };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0
}

/// Softmax in float64.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.get(top_class(logits)).copied().unwrap_or_default();
    let powers: Vec<f64> = logits.iter().map(|&z| (f64::from(z) - f64::from(top)).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// Whether fewer than `count` logits are ahead of the label's, ties going to the lower class.
pub fn in_top(count: usize, logits: &[f32], label: u32) -> bool {
    let own = logits[label as usize];
    let ahead = |&(k, &z): &(usize, &f32)| z > own || (z == own && k < label as usize);
    logits.iter().enumerate().filter(ahead).count() < count
}

/// Two-sided p values of a paired comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mcnemar {
    pub exact: f64,
    /// The exact value less half the probability of what was found: exact tests of counts err on the safe side.
    pub mid_p: f64,
}

/// McNemar's test of `b` images that only the first model has right against `c` that only the second has. 1 without either.
///
/// Source: McNemar 1947; Fagerland 2014 (mid-p).
pub fn mcnemar(b: u64, c: u64) -> Mcnemar {
    let Some(binomial) = (b + c > 0).then(|| Binomial::new(0.5, b + c).ok()).flatten() else {
        return Mcnemar { exact: 1.0, mid_p: 1.0 };
    };
    let twice = 2.0 * binomial.cdf(b.min(c));
    Mcnemar { exact: twice.min(1.0), mid_p: (twice - binomial.pmf(b.min(c))).min(1.0) }
}

/// Accuracy of the first model less that of the second on the same images, with its 95 % interval: `a` images that both have
/// right, `b` only the first, `c` only the second, `d` neither. 0 within [-1, 1] without images.
///
/// Source: Newcombe 1998 (square-and-add, with correlation).
pub fn newcombe(a: u64, b: u64, c: u64, d: u64) -> (f64, Interval) {
    let n = a + b + c + d;
    if n == 0 {
        return (0.0, Interval { lo: -1.0, hi: 1.0 });
    }
    let (p1, p2) = ((a + b) as f64 / n as f64, (a + c) as f64 / n as f64);
    let (first, second) = (wilson(a + b, n), wilson(a + c, n));
    let [a, b, c, d] = [a, b, c, d].map(|count| count as f64);
    let product = a * d - b * c;
    let corrected = if product > 0.0 { (product - n as f64 / 2.0).max(0.0) } else { product };
    let root = ((a + b) * (c + d) * (a + c) * (b + d)).sqrt();
    let phi = if root > 0.0 { corrected / root } else { 0.0 };
    let reach = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let difference = p1 - p2;
    let lo = difference - reach(p1 - first.lo, second.hi - p2);
    let hi = difference + reach(first.hi - p1, p2 - second.lo);
    (difference, Interval { lo, hi })
}

/// The one-sided exact p value of finding at least `more` of `more + fewer` fair coins on one side.
pub fn sign_test(more: u64, fewer: u64) -> f64 {
    let n = more + fewer;
    match (more > 0).then(|| Binomial::new(0.5, n).ok()).flatten() {
        Some(binomial) => binomial.sf(more - 1).min(1.0),
        None => 1.0,
    }
}

/// P values adjusted for being several, in the order given.
///
/// Source: Holm 1979.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let (mut adjusted, mut largest) = (vec![1.0; p.len()], 0.0f64);
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[i]).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    fn check(got: Interval, lo: f64, hi: f64) {
        assert_abs_diff_eq!(got.lo, lo, epsilon = 6e-7);
        assert_abs_diff_eq!(got.hi, hi, epsilon = 6e-7);
    }

    #[test]
    fn logits_are_ranked_and_shared_out() {
        let logits = [1.0, 5.0, 5.0, 0.0, 7.0, 1.0, 1.0];
        let found: Vec<bool> = (0..7).map(|label| in_top(5, &logits, label)).collect();
        assert_eq!(found, [true, true, true, false, true, true, false]);
        assert_eq!((top_class(&logits), top_class(&[2.0, 2.0]), top_class(&[f32::NAN, 1.0])), (4, 0, 1));
        let share = softmax(&[0.0, 0.0, 2f32.ln()]);
        for (got, want) in share.iter().zip([0.25, 0.25, 0.5]) {
            assert_abs_diff_eq!(*got, want, epsilon = 1e-7);
        }
        assert_eq!(softmax(&[1000.0, 0.0])[0], 1.0);
    }

    #[test]
    fn mcnemar_known_answers() {
        for (b, c, exact, mid_p) in [
            (10, 25, 0.01667385, 0.01133098),
            (0, 7, 0.015625, 0.0078125),
            (48, 30, 0.05354439, 0.04216544),
            (121, 80, 0.00466005, 0.00380862),
            (3, 3, 1.0, 1.0),
            (0, 0, 1.0, 1.0),
        ] {
            let got = mcnemar(b, c);
            assert_abs_diff_eq!(got.exact, exact, epsilon = 5e-9);
            assert_abs_diff_eq!(got.mid_p, mid_p, epsilon = 5e-9);
        }
    }

    #[test]
    fn newcombe_known_answers() {
        for ([a, b, c, d], difference, lo, hi) in
            [([1, 1, 7, 12], -0.285714, -0.506920, -0.025559), ([20, 12, 2, 16], 0.2, 0.056156, 0.329207)]
        {
            let (got, interval) = newcombe(a, b, c, d);
            assert_abs_diff_eq!(got, difference, epsilon = 6e-7);
            check(interval, lo, hi);
        }
    }

    #[test]
    fn sign_tests_and_holm_by_hand() {
        assert_abs_diff_eq!(sign_test(3, 0), 0.125, epsilon = 1e-12);
        assert_abs_diff_eq!(sign_test(3, 1), 5.0 / 16.0, epsilon = 1e-12);
        assert_eq!((sign_test(0, 5), sign_test(0, 0)), (1.0, 1.0));
        let adjusted = holm(&[0.04, 0.01, 0.03, 0.5]);
        for (got, want) in adjusted.iter().zip([0.09, 0.04, 0.09, 0.5]) {
            assert_abs_diff_eq!(*got, want, epsilon = 1e-12);
        }
    }

    #[test]
    fn wilson_known_answers() {
        check(wilson(0, 100), 0.0, 0.036993);
        check(wilson(37, 100), 0.281824, 0.467795);
        check(wilson(512, 1000), 0.481033, 0.542876);
        check(wilson(4710, 10000), 0.461230, 0.480793);
    }

    #[test]
    fn clopper_pearson_known_answers() {
        check(clopper_pearson(0, 100, 0.05), 0.0, 0.036217);
        check(clopper_pearson(37, 100, 0.05), 0.275567, 0.472352);
        check(clopper_pearson(512, 1000, 0.05), 0.480523, 0.543407);
    }

    #[test]
    fn ends_are_exact_and_nothing_is_everything() {
        assert_eq!(wilson(0, 7).lo, 0.0);
        assert_eq!(wilson(7, 7).hi, 1.0);
        assert_eq!(wilson(0, 0), Interval { lo: 0.0, hi: 1.0 });
        assert_eq!(clopper_pearson(0, 0, 0.05), Interval { lo: 0.0, hi: 1.0 });
        assert_eq!(wilson(9, 7), wilson(7, 7));
    }

    proptest::proptest! {
        #[test]
        fn interval_holds_the_estimate(n in 1u64..100_000, share in 0.0f64..=1.0) {
            let k = (share * n as f64) as u64;
            let Interval { lo, hi } = wilson(k, n);
            let p = k as f64 / n as f64;
            proptest::prop_assert!(0.0 <= lo && lo <= p && p <= hi && hi <= 1.0);
        }
    }
}
