//! S7: whether twice the steps find much more.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S7",
    name: "the attack has converged",
    rule: "twice the steps, of the same size and from the same start, break at most 1 image in 16 more (warn); of an attack that PGD stands in for \
           here, PGD of 20 steps breaks at most 1 in 16 that it did not (fail)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "longer",
        |trial| trial.longer.as_ref(),
        |longer| {
            let steps = longer.steps;
            if let Some(beside) = &longer.recorded {
                let verdict =
                    if 16 * (beside.only_own.len() as u64) > beside.n { Verdict::Fail } else { Verdict::Pass };
                let numbers = format!(
                    "{} of {} right after {}, {} after pgd of {} steps, {} of them by pgd alone",
                    beside.own,
                    beside.n,
                    seen.run.config.attack.method,
                    beside.other,
                    2 * steps,
                    beside.only_own.len()
                );
                return (verdict, numbers + &seen.at(), beside.only_own.clone());
            }
            let [own, twice] = longer.right;
            let verdict = match () {
                () if twice > own => Verdict::Fail,
                () if 16 * (own - twice) > longer.n => Verdict::Warn,
                () => Verdict::Pass,
            };
            let numbers = format!("{own} of {} right after {steps} steps, {twice} after {}", longer.n, 2 * steps);
            (verdict, numbers + &seen.at(), longer.broken_later.clone())
        },
    )
}
