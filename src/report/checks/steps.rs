//! S7: whether twice the steps find much more.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S7",
    name: "the attack has converged",
    rule: "twice the steps, of the same size and from the same start, break at most 1 image in 16 more",
    forbids: false,
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "longer",
        |trial| trial.longer.as_ref(),
        |longer| {
            let [own, twice] = longer.right;
            let verdict = match () {
                () if twice > own => Verdict::Fail,
                () if 16 * (own - twice) > longer.n => Verdict::Warn,
                () => Verdict::Pass,
            };
            let steps = longer.steps;
            let numbers = format!("{own} of {} right after {steps} steps, {twice} after {}", longer.n, 2 * steps);
            (verdict, numbers + &seen.at(), longer.broken_later.clone())
        },
    )
}
