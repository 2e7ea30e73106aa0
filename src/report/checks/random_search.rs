//! S10: whether points drawn at random break what the attack did not.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S10",
    name: "random search finds nothing new",
    rule: "1000 points drawn at random within the budget break no image that the attack left",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "random",
        |trial| trial.random.as_ref(),
        |random| {
            let broken = random.only_own.len();
            let numbers = match random.n {
                0 => "no image stands that could be broken".to_owned(),
                n => format!("{broken} of {n} that stood, by {} points each", random.asked),
            };
            (if broken == 0 { Verdict::Pass } else { Verdict::Fail }, numbers + &seen.at(), random.only_own.clone())
        },
    )
}
