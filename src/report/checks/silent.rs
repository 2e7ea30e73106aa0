//! S21: whether successes are lost again by the last step.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, or_not_run};
use crate::config::settings::Score;
use crate::number::eps_label;

pub(super) const ROW: Row = Row {
    id: "S21",
    name: "no success is lost at the last step",
    rule: "at most 1 % of the images are broken by an iterate but not by the last; beyond, report any iterate (--score any)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let run = seen.run;
    let found = seen.undefended(|cells| {
        let lost = |cell: usize| -> Vec<u64> {
            seen.outcomes(cell).filter(|(_, o)| o.correct_last && !o.correct_any).map(|(id, _)| id).collect()
        };
        let attacked = cells.iter().filter(|&&cell| run.cells[cell].eps > 0.0);
        let (lost, cell) = attacked.map(|&cell| (lost(cell), &run.cells[cell])).max_by_key(|(lost, _)| lost.len())?;
        let share = 100.0 * lost.len() as f64 / cell.n.max(1) as f64;
        let verdict = if share > 1.0 && run.config.score == Score::Last { Verdict::Warn } else { Verdict::Pass };
        let numbers = format!("at most {share:.1} % ({} of {}), at eps {}", lost.len(), cell.n, eps_label(cell.eps));
        Some((verdict, numbers, lost))
    });
    or_not_run(found, "needs records at an eps above 0")
}
