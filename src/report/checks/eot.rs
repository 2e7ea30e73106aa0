//! S14: whether enough draws are averaged for a gradient through the noise.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S14",
    name: "enough draws make the gradient through the noise",
    rule: "two independent gradients of as many draws as the attack takes have a cosine of at least .2",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let used = seen.run.config.defense.eot();
    seen.tried(
        "eot",
        |trial| trial.eot.as_ref(),
        |eot| {
            let own = eot.curve.iter().rfind(|(draws, ..)| *draws <= used);
            let Some((draws, cosine, _)) = own else { return (Verdict::NotRun, "no draws".into(), vec![]) };
            let curve =
                eot.curve.iter().map(|(k, cosine, signs)| format!("{k}: {cosine:.2} and {:.0} %", 100.0 * signs));
            let numbers = format!(
                "cosine {cosine:.2} at {draws} draws of {used}, sigma {}; draws, cosine and equal signs {}",
                eot.sigma,
                curve.collect::<Vec<_>>().join(", ")
            );
            (if *cosine < 0.2 || cosine.is_nan() { Verdict::Warn } else { Verdict::Pass }, numbers, vec![])
        },
    )
}
