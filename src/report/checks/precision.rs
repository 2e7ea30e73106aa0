//! S24: whether less than float32 changes predictions.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, not_run};
use crate::tape::Precision;

pub(super) const ROW: Row = Row {
    id: "S24",
    name: "float32 says the same",
    rule: "under 0.5 % of the clean images are taken for another class than in float32: else report float32",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    if seen.run.config.precision == Precision::F32 {
        return match seen.run.progress().0 {
            0 => not_run("needs records"),
            _ => vec![Finding::new(Verdict::Pass, "", "float32 is what ran")],
        };
    }
    seen.tried(
        "precision",
        |trial| trial.precision.as_ref(),
        |found| {
            let other = found.only_own.len();
            let many = 200 * other as u64 >= found.n.max(1) && other > 0;
            let numbers = format!("{other} of {} predictions are others in float32", found.n);
            (if many { Verdict::Warn } else { Verdict::Pass }, numbers, found.only_own.clone())
        },
    )
}
