//! S2: whether perturbations stay within their budget.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, or_not_run};
use crate::attack::HandOver;

pub(super) const ROW: Row = Row {
    id: "S2",
    name: "perturbations stay within their budget",
    rule: "none exceeds eps by more than rounding, and all pixels lie in [0, 1]",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let attack = &seen.run.config.attack;
    let found = seen.undefended(|cells| {
        let n: u64 = cells.iter().map(|&cell| seen.run.cells[cell].n).sum();
        let of = |&cell: &usize| seen.outcomes(cell).filter(|(_, outcome)| outcome.violation).map(|(id, _)| id);
        let mut images: Vec<u64> = cells.iter().flat_map(of).collect();
        let over: u64 = cells.iter().map(|&cell| seen.run.cells[cell].violations).sum();
        images.sort_unstable();
        images.dedup();
        let verdict = if over == 0 { Verdict::Pass } else { Verdict::Fail };
        // Of a budget that is no multiple of 1/255 half a level may be beyond it.
        let rounded = over > 0 && attack.hand_over == HandOver::EightBit && !attack.normalised();
        let why = if rounded { ", as they are handed over in 8 bits" } else { "" };
        Some((verdict, format!("{over} of {n} perturbations over budget{why}"), images))
    });
    or_not_run(found, "needs records of an attack")
}
