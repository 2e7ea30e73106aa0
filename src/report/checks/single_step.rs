//! S6: whether many steps beat one.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Moved, Seen};
use crate::attack::Target;
use crate::number::eps_label;
use crate::run::results::Channel;

pub(super) const ROW: Row = Row {
    id: "S6",
    name: "many steps beat one",
    rule: "the attack leaves no more right (targeted: short of their target) than a single step of size eps (fail), and that breaks no image \
           alone (warn)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let targeted = seen.run.config.attack.targeted != Target::None;
    let mut found = seen.tried(
        "single",
        |trial| trial.single.as_ref(),
        |one| {
            let verdict = match () {
                () if one.other < one.own => Verdict::Fail,
                () if !one.only_own.is_empty() => Verdict::Warn,
                () => Verdict::Pass,
            };
            let left = if targeted { "short of their target" } else { "right" };
            let numbers = format!("{} of {} {left} after one step, {} after the attack", one.other, one.n, one.own);
            (verdict, numbers + &seen.at(), one.only_own.clone())
        },
    );
    let (run, attack) = (seen.run, &seen.run.config.attack);
    let single = attack.beside.iter().position(|spec| spec.method == "fgsm").filter(|_| attack.steps > 1 && !targeted);
    let mut pairs = Vec::new();
    for model in (0..run.config.models.len()).filter(|_| single.is_some()) {
        for &eps in attack.eps.iter().filter(|&&eps| eps > 0.0) {
            let cell = |channel| run.cell(model, channel, eps);
            let cells = cell(Channel::Beside(single.unwrap_or_default())).zip(cell(Channel::Undefended));
            if let Some((more, fewer)) = cells.and_then(|(one, many)| seen.moved(one, many)) {
                pairs.push(Moved { model, what: format!("fgsm beside, eps {}", eps_label(eps)), more, fewer });
            }
        }
    }
    found.extend(seen.surprises(pairs, "beside fgsm, nowhere significantly more images right"));
    found
}
