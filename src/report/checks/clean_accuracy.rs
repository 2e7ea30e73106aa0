//! S1: whether the models are right without an attack as often as their checkpoints say, or where these say nothing at least as often as
//! a guess: what is fed in wrongly shows here first, and labels of other classes or in another order.

use std::collections::HashSet;

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, or_not_run};
use crate::run::results::Channel;
use crate::stats::wilson;

pub(super) const ROW: Row = Row {
    id: "S1",
    name: "the clean accuracy is that of the checkpoint",
    rule: "its 95 % interval does not end more than 1 point (warn) or 5 points (fail) below what the checkpoint says of itself; \
           of one that says nothing, not below a guess among the labels that occur (fail)",
    judge,
};

/// Points of accuracy by which the whole interval may lie below what the checkpoint says, before that is noted and before it fails:
/// other decoders and precisions cost less than the one, other classes, sizes and normalisations more than the other.
const BELOW: [f64; 2] = [0.01, 0.05];

fn judge(seen: &Seen) -> Vec<Finding> {
    let (run, mut found) = (seen.run, Vec::new());
    for (model, named) in run.config.models.iter().enumerate() {
        let cells = run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, Channel::Undefended, eps));
        let cell = cells.map(|c| &run.cells[c]).max_by_key(|cell| cell.n).filter(|cell| cell.n > 0);
        let Some(cell) = cell else { continue };
        let interval = wilson(cell.clean, cell.n);
        let [share, lo, hi] = [cell.clean as f64 / cell.n as f64, interval.lo, interval.hi].map(|v| 100.0 * v);
        let numbers = format!("{share:.1} % of {} [{lo:.1}, {hi:.1}]", cell.n);
        let Some(said) = named.clean_test_accuracy else {
            let guess = 100.0 / run.labels.iter().collect::<HashSet<_>>().len().max(1) as f64;
            // Of one class a guess is no measure.
            if hi < guess && guess < 100.0 {
                let numbers = format!(
                    "{numbers}, where a guess among the labels has {guess:.1} %: other classes, or another order?"
                );
                found.push(Finding::new(Verdict::Fail, &named.name, numbers));
            }
            continue;
        };
        let verdict = match said - interval.hi {
            below if below > BELOW[1] => Verdict::Fail,
            below if below > BELOW[0] => Verdict::Warn,
            _ => Verdict::Pass,
        };
        let numbers = format!("{numbers}, the checkpoint says {:.2} %", 100.0 * said);
        found.push(Finding::new(verdict, &named.name, numbers));
    }
    or_not_run(found, "needs a checkpoint that says its clean_test_accuracy (--clean-test-accuracy)")
}
