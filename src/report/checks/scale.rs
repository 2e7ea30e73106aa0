//! S13: whether the logits leave the loss a gradient. A cross-entropy that is exactly 0 in float32 has none: the logits are too far apart
//! for this attack to see anything.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{OWN, Seen, or_not_run};
use crate::attack::{Loss, Target};
use crate::number::eps_label;

pub(super) const ROW: Row = Row {
    id: "S13",
    name: "the logits are not saturated",
    rule: "at most 1 % (5 %: fail) of the images have a cross-entropy of exactly 0 at every point of the attack, or a gradient of it below 10⁻⁶ of \
           that of the difference of logits ratio; the attack on that loss breaks no more (a quarter of the images: fail)",
    judge,
};

/// By the share of images that something is wrong with.
fn share(bad: usize, n: usize) -> Verdict {
    match () {
        () if 20 * bad > n => Verdict::Fail,
        () if 100 * bad > n => Verdict::Warn,
        () => Verdict::Pass,
    }
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let attack = &seen.run.config.attack;
    let entropy = attack.loss == Loss::CrossEntropy && attack.targeted == Target::None;
    let found = seen.undefended(|cells| {
        let own = |&&cell: &&usize| seen.run.cells[cell].eps > 0.0 && seen.run.cells[cell].channel == OWN;
        let &cell = cells.iter().rfind(own).filter(|_| entropy)?;
        let n = seen.outcomes(cell).count();
        let zero: Vec<u64> = seen.outcomes(cell).filter(|(_, o)| o.loss == 0.0).map(|(id, _)| id).collect();
        let eps = eps_label(seen.run.cells[cell].eps);
        let numbers = format!("{} of {n} images keep a loss of exactly 0 at eps {eps}", zero.len());
        Some((share(zero.len(), n), numbers, zero))
    });
    let mut found = or_not_run(found, "needs records of an untargeted attack on the cross-entropy at an eps above 0");
    if !entropy || seen.trials.is_none() {
        return found;
    }
    found.extend(seen.tried(
        "gradients",
        |trial| trial.gradients.as_ref(),
        |g| match &g.faint {
            Some(faint) => {
                let numbers = format!("{} of {} gradients below 10⁻⁶ of that of the other loss", faint.len(), g.n);
                (share(faint.len(), g.n as usize), numbers, faint.clone())
            }
            None => (Verdict::NotRun, "the difference of logits ratio needs three classes".into(), vec![]),
        },
    ));
    found.extend(seen.tried(
        "other_loss",
        |trial| trial.other_loss.as_ref(),
        |other| {
            let more = other.own.saturating_sub(other.other);
            let verdict = match () {
                () if 4 * more >= other.n.max(1) => Verdict::Fail,
                () if more > 0 => Verdict::Warn,
                () => Verdict::Pass,
            };
            let numbers =
                format!("{} of {} right, {} under the other loss{}", other.own, other.n, other.other, seen.at());
            (verdict, numbers, other.only_own.clone())
        },
    ));
    found
}
