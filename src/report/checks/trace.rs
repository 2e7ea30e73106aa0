//! S20: whether the loss rises with the steps and then settles.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;
use crate::run::trials::Longer;

pub(super) const ROW: Row = Row {
    id: "S20",
    name: "the loss rises and settles",
    rule: "the highest loss so far ends above where it began, and its last quarter of the steps, ten at most, adds under 5 % of its rise per step",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried("longer", |trial| trial.longer.as_ref(), judged)
}

fn judged(longer: &Longer) -> (Verdict, String, Vec<u64>) {
    let (own, best) = (longer.steps as usize, &longer.best);
    let at = |step: usize| best.get(step).copied().unwrap_or(f64::NAN);
    let range = at(own) - at(0);
    if best.iter().any(|loss| !loss.is_finite()) || !range.is_finite() {
        return (Verdict::Fail, "a mean loss is not finite".into(), vec![]);
    }
    let window = (own / 4).clamp(1, 10);
    let change = (at(own) - at(own - window.min(own))) / window as f64;
    let verdict = match () {
        () if range <= 0.0 => Verdict::Fail,
        () if own < 4 => Verdict::NotRun,
        () if change > 0.05 * range => Verdict::Warn,
        () => Verdict::Pass,
    };
    let shown = [0, own / 4, own / 2, own, 2 * own].map(|step| (step, at(step)));
    let mut points: Vec<String> = shown.iter().map(|(step, loss)| format!("{step}: {loss:.3}")).collect();
    points.dedup();
    if verdict == Verdict::NotRun {
        return (verdict, format!("needs an attack of 4 steps or more, found {own}"), vec![]);
    }
    let share = if range > 0.0 { 100.0 * change / range } else { 0.0 };
    (
        verdict,
        format!("mean of the highest loss after steps {}; {share:.1} % a step at the end", points.join(", ")),
        vec![],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_does_not_rise_fails_and_one_that_goes_on_rising_is_noted() {
        let of = |loss: fn(usize) -> f64| {
            judged(&Longer { steps: 20, best: (0..=40).map(loss).collect(), ..Longer::default() }).0
        };
        assert_eq!(of(|step| 1.0 - 0.5f64.powi(step as i32)), Verdict::Pass);
        assert_eq!(of(|step| 2f64.powi(step as i32)), Verdict::Warn);
        assert_eq!(of(|_| 0.7), Verdict::Fail);
        let short =
            |steps| judged(&Longer { steps, best: (0..=2 * steps).map(f64::from).collect(), ..Longer::default() }).0;
        assert_eq!((short(3), short(4)), (Verdict::NotRun, Verdict::Warn));
        assert_eq!(of(|step| if step == 30 { f64::NAN } else { step as f64 }), Verdict::Fail);
    }
}
