//! S16: what the scoring of a stochastic defence makes of clean images.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, not_run, or_not_run};
use crate::report::words::percent;
use crate::run::results::{Channel, Under};

pub(super) const ROW: Row = Row {
    id: "S16",
    name: "clean images stand beside the stochastic successes",
    rule: "the same scoring of clean images is known; an attacker who may try every draw gains no more than half of its successes by that alone",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let (run, mut found) = (seen.run, Vec::new());
    if run.config.defense.sigma.is_empty() {
        return not_run("needs a defence (--sigma)");
    }
    for (model, named) in run.config.models.iter().enumerate() {
        for &sigma in &run.config.defense.sigma {
            let channel = Channel::Denoised { sigma, under: Under::Transferred };
            let Some(cell) = run.cell(model, channel, 0.0).map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0)
            else {
                continue;
            };
            let numbers = format!(
                "sigma {sigma}, clean: the vote {}, a single draw {}, every draw {}",
                percent(cell.last, cell.n),
                percent(cell.correct_draws, cell.draws),
                percent(cell.any, cell.n)
            );
            // Broken by the choice among draws alone, of those that the vote has right.
            let verdict = if 2 * cell.any < cell.last { Verdict::Warn } else { Verdict::Pass };
            found.push(Finding::new(verdict, &named.name, numbers));
        }
    }
    or_not_run(found, "needs eps 0 in the sweep")
}
