//! S15: known noise against fresh noise: where that does not help, something but the noise hides the gradient.

use super::bpda::stronger;
use super::check::Row;
use super::finding::Finding;
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S15",
    name: "knowing the noise helps the attacker",
    rule: "a6-fixed leaves no more right than a1-exact (paired, adjusted for all cells; warn p < .05, fail p < .01)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    stronger(seen, "a6-fixed", "a1-exact")
}
