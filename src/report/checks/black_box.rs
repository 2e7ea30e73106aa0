//! S9: whether attacks with a gradient leave little to those without.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;
use crate::attack::autoattack;
use crate::number::eps_label;
use crate::run::results::Channel;

/// Images that a search without gradients breaks after all attacks with one, as a share of all, before that is noted (AutoAttack).
const BY_SEARCH: f64 = 0.002;

pub(super) const ROW: Row = Row {
    id: "S9",
    name: "attacks without a gradient find nothing new",
    rule: "of what attacks with a gradient leave, Square and images that fool another model break at most 0.2 % of all images",
    judge,
};

/// Whether the stages of AutoAttack that follow a gradient left little to the one that does not.
fn judge(seen: &Seen) -> Vec<Finding> {
    let (run, mut found) = (seen.run, Vec::new());
    let stages = autoattack::stages(run.config.attack.method);
    let last = stages.iter().position(|row| row.name == "square");
    for (model, named) in run.config.models.iter().enumerate().filter(|_| last.is_some()) {
        for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
            let Some(cell) = run.cell(model, Channel::Undefended, eps) else { continue };
            let n = seen.outcomes(cell).count();
            let by_square = seen.outcomes(cell).filter(|(_, o)| o.stage.map(usize::from) == last);
            let broken: Vec<u64> = by_square.map(|(id, _)| id).collect();
            if n > 0 {
                let numbers = format!("the stage square breaks {} of {n} at eps {}", broken.len(), eps_label(eps));
                found.push(Finding::new(verdict(broken.len(), n), &named.name, numbers).of(broken));
            }
        }
    }
    let beside = run.config.attack.beside.iter().position(|spec| spec.method == "square");
    for (model, named) in run.config.models.iter().enumerate().filter(|_| beside.is_some()) {
        for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
            let cell = |channel| run.cell(model, channel, eps);
            let cells = cell(Channel::Beside(beside.unwrap_or_default())).zip(cell(Channel::Undefended));
            let Some((new, _)) = cells.and_then(|(square, own)| seen.moved(square, own)) else { continue };
            let numbers =
                format!("square beside breaks {} of {} more at eps {}", new.len(), run.ids.len(), eps_label(eps));
            found.push(Finding::new(verdict(new.len(), run.ids.len()), &named.name, numbers).of(new));
        }
    }
    found.extend(seen.tried(
        "square",
        |trial| trial.square.as_ref(),
        |square| {
            let numbers = format!(
                "square breaks {} of {} that stood, in {} queries each{}",
                square.only_own.len(),
                square.n,
                square.asked,
                seen.at()
            );
            let bad = if square.only_own.is_empty() { Verdict::Pass } else { Verdict::Warn };
            (bad, numbers, square.only_own.clone())
        },
    ));
    found.extend(seen.tried(
        "transferred",
        |trial| trial.transferred.as_ref(),
        |other| {
            let broken = other.only_own.len();
            let numbers =
                format!("images that fool the other models break {broken} of {} that stood{}", other.own, seen.at());
            (verdict(broken, other.n as usize), numbers, other.only_own.clone())
        },
    ));
    found
}

fn verdict(broken: usize, n: usize) -> Verdict {
    if broken as f64 > BY_SEARCH * n as f64 { Verdict::Warn } else { Verdict::Pass }
}
