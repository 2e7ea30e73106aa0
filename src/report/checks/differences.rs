//! S12: whether the gradient is that of the loss.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;
use crate::run::trials::Differences;

pub(super) const ROW: Row = Row {
    id: "S12",
    name: "the gradient is that of the loss",
    rule: "along it and along three random directions the margin changes as it says, within 5 % (median; 20 %: fail) and 20 % (each; a quarter \
           beyond 50 %: fail): float32 and the kinks of ReLUs leave 1 to 4 %; behind a denoiser with the noise held still",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let mut found = seen.tried("differences", |trial| trial.differences.as_ref(), |found| judged(found, "undefended"));
    if !seen.run.config.defense.sigma.is_empty() && seen.trials.is_some() {
        found.extend(seen.tried(
            "differences_defended",
            |trial| trial.differences_defended.as_ref(),
            |found| judged(found, "behind the denoiser"),
        ));
    }
    found
}

fn judged(found: &Differences, at: &str) -> (Verdict, String, Vec<u64>) {
    let beyond = |limit: f64| -> Vec<u64> {
        found.worst.iter().filter(|(_, error)| error.is_nan() || *error > limit).map(|(id, _)| *id).collect()
    };
    let (n, off, far) = (found.worst.len(), beyond(0.2), beyond(0.5));
    let mut errors: Vec<f64> = found.worst.iter().map(|(_, error)| *error).collect();
    errors.sort_by(f64::total_cmp);
    let at_place = |place: usize| errors.get(place).copied().unwrap_or_default();
    let (median, largest) = (at_place(n / 2), at_place(n.saturating_sub(1)));
    let verdict = match () {
        () if median.is_nan() || median > 0.2 || 4 * far.len() > n => Verdict::Fail,
        () if median > 0.05 || !off.is_empty() => Verdict::Warn,
        () => Verdict::Pass,
    };
    let numbers = format!(
        "{at}, {} of {n} images beyond 20 %; median error {:.2} %, largest {:.2} %",
        off.len(),
        100.0 * median,
        100.0 * largest
    );
    (verdict, numbers, off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kink_is_noted_and_a_wrong_gradient_fails() {
        let of = |errors: &[f64]| {
            let worst = errors.iter().enumerate().map(|(i, &error)| (i as u64, error)).collect();
            let (verdict, _, images) = judged(&Differences { worst }, "undefended");
            (verdict, images)
        };
        assert_eq!(of(&[0.001; 8]), (Verdict::Pass, vec![]));
        assert_eq!(of(&[0.001, 0.001, 0.3, 0.001, 0.001, 0.001, 0.001, 0.001]), (Verdict::Warn, vec![2]));
        assert_eq!(of(&[0.07; 8]), (Verdict::Warn, vec![]));
        assert_eq!(of(&[1.0; 8]).0, Verdict::Fail);
        assert_eq!(of(&[0.001, 0.001, 0.6, 0.6]).0, Verdict::Fail);
        assert_eq!(of(&[f64::NAN]).0, Verdict::Fail);
    }
}
