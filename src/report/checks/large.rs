//! S5: whether budgets beyond doubt break the classifier.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, not_run};
use crate::attack::Norm;
use crate::number::eps_label;

pub(super) const ROW: Row = Row {
    id: "S5",
    name: "the largest budgets break the classifier",
    rule: "undefended, at most 1 % right at 16/255 (linf; ImageNet 8/255); a network trained against attacks may keep more (warn), but \
           not over half of what is right when clean (fail); where every image can be made grey (linf 0.5, or its L2 counterpart), at most \
           the share of the largest class (fail)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let run = seen.run;
    let (levels, norm) = (run.config.dataset.row().map_or(16, |row| row.breaks_at), run.config.attack.norm);
    let limit = f64::from(levels) / 255.0;
    let pixels = !run.config.attack.normalised();
    let mut found = seen.undefended(|cells| {
        let &cell = cells.last().filter(|&&c| pixels && norm == Norm::Linf && run.cells[c].eps >= limit - 3e-3)?;
        let of = &run.cells[cell];
        let right: Vec<u64> = seen.outcomes(cell).filter(|(_, o)| o.correct_any).map(|(id, _)| id).collect();
        let share = 100.0 * of.any as f64 / of.n.max(1) as f64;
        let verdict = match share {
            ..=1.0 => Verdict::Pass,
            _ if 2 * of.any <= of.clean => Verdict::Warn,
            _ => Verdict::Fail,
        };
        let numbers = format!("{share:.1} % ({} of {}) right at eps {}", of.any, of.n, eps_label(of.eps));
        Some((verdict, numbers, if verdict == Verdict::Pass { vec![] } else { right }))
    });
    if found.is_empty() {
        found = not_run(format!("the sweep's own budgets: needs a linf sweep in pixel units up to {levels}/255"));
    }
    found.extend(seen.tried(
        "grey",
        |trial| trial.grey.as_ref(),
        |grey| {
            let fine = grey.right.len() as u64 <= grey.largest_class;
            let numbers = format!(
                "{} of {} right at eps {}; the largest class has {}",
                grey.right.len(),
                grey.n,
                eps_label(grey.eps),
                grey.largest_class
            );
            (if fine { Verdict::Pass } else { Verdict::Fail }, numbers, if fine { vec![] } else { grey.right.clone() })
        },
    ));
    found
}
