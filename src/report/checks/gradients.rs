//! S11: whether there is a gradient to follow.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;
use crate::report::words::significant;

pub(super) const ROW: Row = Row {
    id: "S11",
    name: "the gradient is not masked",
    rule: "at most 1 % of the gradients at clean images are zero (5 %: fail), none shorter than 10⁻¹² or not finite",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "gradients",
        |trial| trial.gradients.as_ref(),
        |g| {
            let [zero, tiny, not_finite] = [&g.zero, &g.tiny, &g.not_finite].map(|images| images.len() as u64);
            let verdict = match () {
                () if not_finite > 0 || 20 * zero > g.n => Verdict::Fail,
                () if 100 * zero > g.n || tiny > 0 => Verdict::Warn,
                () => Verdict::Pass,
            };
            let decades = g.lengths.iter().map(|(decade, count)| format!("{count} of 10^{decade}"));
            let numbers = format!(
                "{zero} of {} zero, {tiny} shorter than 10⁻¹², {not_finite} not finite; median length {}; {}",
                g.n,
                significant(10f64.powf(g.median_log10)),
                decades.collect::<Vec<_>>().join(", ")
            );
            (verdict, numbers.trim_end_matches("; ").to_owned(), [&g.zero[..], &g.tiny, &g.not_finite].concat())
        },
    )
}
