//! S25 and S27: whether the attack finds what was put in on purpose.

use super::check::Row;
use super::finding::Verdict;
use crate::run::trials::Planted;

pub(super) const WEAKNESS: Row = Row {
    id: "S25",
    name: "a planted weakness is found",
    rule: "given a linear path around the network along a known direction, the run's attack, or what stands in for it, leaves no image right",
    judge: |seen| seen.tried("planted", |trial| trial.planted.as_ref(), |found| judged(found, 0)),
};

pub(super) const ACTIVE: Row = Row {
    id: "S27",
    name: "an adversarial example that exists is found",
    rule: "under a readout of the logits that calls one point within the budget another class, the run's attack, or what stands in for it, finds one (warn: any missed; \
           fail: more than a quarter)",
    judge: |seen| seen.tried("active", |trial| trial.active.as_ref(), |found| judged(found, found.n / 4)),
};

fn judged(found: &Planted, most: u64) -> (Verdict, String, Vec<u64>) {
    let missed = found.missed.len() as u64;
    let verdict = match () {
        () if found.n == 0 => Verdict::NotRun,
        () if missed > most => Verdict::Fail,
        () if missed > 0 => Verdict::Warn,
        () => Verdict::Pass,
    };
    let numbers = match found.n {
        0 => "the logits do not move within the budget, so that no readout tells its points apart".to_owned(),
        n => format!("{missed} of {n} missed"),
    };
    (verdict, numbers, found.missed.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_fails() {
        let of = |n, missed: u64, most| judged(&Planted { n, missed: (0..missed).collect() }, most).0;
        assert_eq!([of(4, 0, 0), of(4, 1, 0)], [Verdict::Pass, Verdict::Fail]);
        assert_eq!([of(4, 1, 1), of(4, 2, 1), of(0, 0, 0)], [Verdict::Warn, Verdict::Fail, Verdict::NotRun]);
    }
}
