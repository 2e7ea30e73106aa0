//! S8: whether restarts and other steps find much that the attack does not.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S8",
    name: "restarts and other steps add little",
    rule: "neither five restarts nor steps of half or twice the size break more than 1 image in 8 more; restarts never fewer",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "restarts",
        |trial| trial.restarts.as_ref(),
        |found| {
            let least =
                [found.five.unwrap_or(found.one), found.half, found.twice].into_iter().min().unwrap_or_default();
            let verdict = match () {
                () if found.five.is_some_and(|five| five > found.one) => Verdict::Fail,
                () if 8 * found.one.saturating_sub(least) > found.n => Verdict::Warn,
                () => Verdict::Pass,
            };
            let five =
                found.five.map_or("no random start to repeat".into(), |five| format!("{five} after five restarts"));
            let numbers = format!(
                "{} of {} right, {five}, {} with steps of half the size, {} with twice{}",
                found.one,
                found.n,
                found.half,
                found.twice,
                seen.at()
            );
            (verdict, numbers, found.broken.clone())
        },
    )
}
