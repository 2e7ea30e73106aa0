//! S4: whether accuracy falls with the budget.

use super::check::Row;
use super::finding::Finding;
use super::seen::{Moved, Seen, or_not_run};
use crate::number::eps_label;
use crate::report::words;
use crate::run::results;

pub(super) const ROW: Row = Row {
    id: "S4",
    name: "accuracy falls with eps",
    rule: "no larger eps leaves significantly more images right (paired, adjusted for all pairs; warn p < .05, fail p < .01)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let (run, mut pairs) = (seen.run, Vec::new());
    for model in 0..run.config.models.len() {
        for channel in results::shown(&run.config) {
            for eps in run.config.attack.eps.windows(2) {
                let cells = run.cell(model, channel, eps[0]).zip(run.cell(model, channel, eps[1]));
                if let Some((more, fewer)) = cells.and_then(|(small, large)| seen.moved(small, large)) {
                    let channel = words::channel(&run.config, channel);
                    let what = format!("{channel}, eps {} after {}", eps_label(eps[1]), eps_label(eps[0]));
                    pairs.push(Moved { model, what, more, fewer });
                }
            }
        }
    }
    or_not_run(
        seen.surprises(pairs, "no larger eps leaves significantly more images right"),
        "needs records at two epsilons",
    )
}
