//! A1 to A4: what AutoAttack's authors warn of before its numbers are believed.
//!
//! Source: fra31/auto-attack, `flags_doc.md`.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, not_run};
use crate::attack::autoattack;
use crate::report::words::significant;
use crate::run::trials::Signs;

const fn row(id: &'static str, name: &'static str, rule: &'static str, judge: fn(&Seen) -> Vec<Finding>) -> Row {
    Row { id, name, rule, judge }
}

pub(super) const ANSWERS: Row = row(
    "A1",
    "the network answers twice the same",
    "five passes have equally many images right, and their logits, scaled to length 1, lie within 10⁻⁴: else take autoattack-rand",
    |seen| {
        signs(seen, |signs, n| {
            let passes: Vec<String> = signs.passes.iter().map(u64::to_string).collect();
            let same = signs.passes.windows(2).all(|pair| pair[0] == pair[1]) && signs.apart <= 1e-4;
            let apart = significant(signs.apart);
            (same, format!("{} of {n} right, logits at most {apart} apart", passes.join(", ")))
        })
    },
);

pub(super) const LOGITS: Row = row(
    "A2",
    "outputs are logits",
    "no image's outputs lie in [0, 1] and sum to 1: losses of probabilities have gradients that vanish",
    |seen| {
        signs(seen, |signs, n| {
            (signs.probabilities < n, format!("{} of {n} look like probabilities", signs.probabilities))
        })
    },
);

pub(super) const SLOPE: Row = row(
    "A3",
    "APGD begins on a slope",
    "no image's gradient of the difference of logits ratio is nothing but zeros at the start",
    |seen| signs(seen, |signs, n| (signs.flat == 0, format!("{} of {n} have none", signs.flat))),
);

pub(super) const CLASSES: Row =
    row("A4", "there are classes enough", "apgd-t and fab-t aim at 9 wrong classes", |seen| {
        signs(seen, |signs, _| (signs.classes >= 10, format!("{} classes", signs.classes)))
    });

/// What the trials saw of these warnings, judged.
fn signs(seen: &Seen, judge: impl Fn(&Signs, u64) -> (bool, String)) -> Vec<Finding> {
    if autoattack::stages(seen.run.config.attack.method).is_empty() {
        return not_run("these are AutoAttack's own: needs --method autoattack");
    }
    seen.tried(
        "signs",
        |trial| trial.signs.as_ref(),
        |signs| {
            let (fine, numbers) = judge(signs, signs.n);
            (if fine { Verdict::Pass } else { Verdict::Warn }, numbers, vec![])
        },
    )
}
