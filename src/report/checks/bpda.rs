//! S17: the exact gradient against one that takes the denoiser for the identity: where that is the stronger one, the exact one is wrong or
//! masked.

use super::check::Row;
use super::finding::Finding;
use super::seen::{Seen, not_run, or_not_run};
use crate::defense::suite::SUITE;
use crate::run::results::Under;

pub(super) const ROW: Row = Row {
    id: "S17",
    name: "the exact gradient is no weaker than BPDA",
    rule: "a1-exact leaves no more right than a3-bpda (paired, adjusted for all cells; warn p < .05, fail p < .01)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    stronger(seen, "a1-exact", "a3-bpda")
}

/// Whether one attack of the suite leaves no more right than another.
pub(super) fn stronger(seen: &Seen, one: &str, other: &str) -> Vec<Finding> {
    let place = |name: &str| SUITE.iter().position(|row| row.name == name);
    match (place(other), place(one), seen.run.config.defense.suite) {
        (Some(other), Some(one), true) => {
            let pairs = seen.weaker(Under::Member(other), Under::Member(one));
            let found = seen.surprises(pairs, "nowhere does it leave significantly more images right");
            or_not_run(found, "needs records of both attacks")
        }
        _ => not_run("needs a defence and --attack-through suite"),
    }
}
