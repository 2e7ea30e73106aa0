//! S18: whether an attack that knows of the defence is the stronger one.

use super::check::Row;
use super::finding::Finding;
use super::seen::{Seen, not_run, or_not_run};
use crate::run::results::Under;

pub(super) const ROW: Row = Row {
    id: "S18",
    name: "the attack through the defence is the stronger one",
    rule: "it leaves no more right than the transferred attack (paired, adjusted for all cells; warn p < .05, fail p < .01)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let defense = &seen.run.config.defense;
    let both = [(Under::Through, defense.attack), (Under::Worst, defense.suite)];
    if defense.sigma.is_empty() {
        return not_run("needs a defence (--sigma)");
    }
    if both.iter().all(|(_, ran)| !ran) {
        return not_run("needs --attack-through defense: defended accuracies here are under a non-adaptive attack");
    }
    if defense.attack && !defense.suite && defense.is_blind() {
        return not_run("needs an estimator that is not blind to the defence: its number is non-adaptive as well");
    }
    let ran = both.into_iter().filter(|(_, ran)| *ran);
    let pairs = ran.flat_map(|(under, _)| seen.weaker(Under::Transferred, under)).collect::<Vec<_>>();
    or_not_run(
        seen.surprises(pairs, "nowhere does it leave significantly more images right"),
        "needs records of both attacks",
    )
}
