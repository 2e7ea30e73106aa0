//! The regularised incomplete beta function and what follows from it, for counts of up to a million.
//!
//! statrs has one as well, but ends its continued fraction after 140 terms, which a hundred thousand draws outrun.

use statrs::function::gamma::ln_gamma;

/// `ln B(a, b)` for positive `a` and `b`.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// `I_x(a, b)` for positive `a` and `b`: the chance that a Beta(a, b) variable is at most `x`.
///
/// Source: the continued fraction of Abramowitz & Stegun 1964, 26.5.8, by Lentz's method.
pub fn regularised(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = density(x, a, b);
    // On either side of the mean one of the two fractions converges quickly.
    if x < (a + 1.0) / (a + b + 2.0) {
        (front * fraction(x, a, b) / a).min(1.0)
    } else {
        (1.0 - front * fraction(1.0 - x, b, a) / b).max(0.0)
    }
}

/// `x^a (1 - x)^b / B(a, b)`. Logarithms of large counts are large themselves and nearly cancel, so that for these the differences are taken
/// first (Stirling's series).
fn density(x: f64, a: f64, b: f64) -> f64 {
    const LARGE: f64 = 20.0;
    if a < LARGE || b < LARGE {
        return (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp();
    }
    let rest = |z: f64| {
        let square = 1.0 / (z * z);
        (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))) / z
    };
    let middle = a / (a + b);
    let away = a * ((x - middle) / middle).ln_1p() + b * ((middle - x) / (1.0 - middle)).ln_1p();
    let root = (a * b / (2.0 * std::f64::consts::PI * (a + b))).sqrt();
    root * (away + rest(a + b) - rest(a) - rest(b)).exp()
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    /// The terms needed grow with the root of the larger count.
    const MOST: usize = 20_000;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..MOST {
        let m = m as f64;
        let even = m * (b - m) * x / ((a - 1.0 + 2.0 * m) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 1.0 + 2.0 * m));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() < 1e-16 {
            break;
        }
    }
    h
}

/// The point up to which a Beta(a, b) variable lies with chance `p`.
pub fn quantile(p: f64, a: f64, b: f64) -> f64 {
    bisect(0.0, 1.0, |x| regularised(x, a, b) < p)
}

/// Where a condition that holds from `lo` on ceases to, to the last bit.
pub fn bisect(mut lo: f64, mut hi: f64, holds: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = 0.5 * (lo + hi);
        if middle <= lo || middle >= hi {
            return lo;
        }
        if holds(middle) {
            lo = middle;
        } else {
            hi = middle;
        }
    }
}

/// The chance of at least `k` of `n` fair coins on one side.
pub fn at_least_half(k: u64, n: u64) -> f64 {
    if k == 0 { 1.0 } else { regularised(0.5, k as f64, (n - k.min(n)) as f64 + 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Beta(a, 1), Beta(1, b) and the symmetric one have forms of their own.
    #[test]
    fn closed_forms() {
        for x in [1e-9, 0.1, 0.4999, 0.5, 0.93, 1.0 - 1e-9] {
            for k in [1.0, 2.0, 7.0, 1000.0, 100_000.0] {
                assert_relative_eq!(regularised(x, k, 1.0), x.powf(k), max_relative = 1e-9, epsilon = 1e-300);
                let want = -(k * (-x).ln_1p()).exp_m1();
                assert_relative_eq!(regularised(x, 1.0, k), want, max_relative = 1e-9, epsilon = 1e-13);
                assert_relative_eq!(regularised(0.5, k, k), 0.5, max_relative = 1e-13);
            }
        }
        assert_eq!((regularised(0.0, 3.0, 4.0), regularised(1.0, 3.0, 4.0)), (0.0, 1.0));
    }

    #[test]
    fn coins_by_hand() {
        assert_relative_eq!(at_least_half(3, 4), 5.0 / 16.0, max_relative = 1e-12);
        assert_eq!(at_least_half(0, 4), 1.0);
        assert_relative_eq!(at_least_half(60, 100), 0.02844396682049044, max_relative = 1e-11);
    }

    #[test]
    fn quantiles_turn_back() {
        for (p, a, b) in [(0.001, 900.0, 101.0), (0.5, 3.0, 4.0), (1e-6, 99_000.0, 1_001.0), (0.999, 1.0, 5e5)] {
            assert_relative_eq!(regularised(quantile(p, a, b), a, b), p, max_relative = 1e-8);
        }
    }
}
