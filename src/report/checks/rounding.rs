//! S22: whether adversarial images survive 8 bits.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S22",
    name: "adversarial images survive 8 bits",
    rule: "at most 1 image in 16 is right again once their pixels are rounded to k/255: beyond, keep float arrays (--save npz)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "rounded",
        |trial| trial.rounded.as_ref(),
        |rounded| {
            let back = rounded.only_other.len();
            let numbers =
                format!("{} of {} right, {} once rounded{}", rounded.own, rounded.n, rounded.other, seen.at());
            let many = 16 * back > rounded.n as usize;
            (if many { Verdict::Warn } else { Verdict::Pass }, numbers, rounded.only_other.clone())
        },
    )
}
