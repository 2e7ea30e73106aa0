//! S3: whether an attack without a budget leaves every prediction as it is.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, or_not_run};

pub(super) const ROW: Row = Row {
    id: "S3",
    name: "without a budget nothing changes",
    rule: "at eps 0 every prediction is that of the clean image",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let found = seen.undefended(|cells| {
        let &cell = cells.iter().find(|&&cell| seen.run.cells[cell].eps == 0.0)?;
        let other = seen.outcomes(cell).filter(|(_, o)| o.prediction != o.clean_prediction).map(|(id, _)| id);
        let other: Vec<u64> = other.collect();
        let verdict = if other.is_empty() { Verdict::Pass } else { Verdict::Fail };
        Some((verdict, format!("{} of {} predictions differ", other.len(), seen.run.cells[cell].n), other))
    });
    or_not_run(found, "needs eps 0 in the sweep")
}
