//! S23: whether other batches change a flag.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S23",
    name: "other batches change no flag",
    rule: "attacked again in a batch of their own, the first images have the flags that are recorded",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "longer",
        |trial| trial.longer.as_ref(),
        |longer| match &longer.differ {
            Some(differ) => {
                let verdict = if differ.is_empty() { Verdict::Pass } else { Verdict::Fail };
                (verdict, format!("{} of {} flags differ{}", differ.len(), longer.n, seen.at()), differ.clone())
            }
            None => {
                let why = "the trials' attack is not quite the run's: needs one restart of pgd, fgsm or mim, in floats";
                (Verdict::NotRun, why.into(), vec![])
            }
        },
    )
}
