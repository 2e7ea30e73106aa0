//! S19: whether an attack breaks what is certified.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::{Seen, not_run};
use crate::attack::Norm;
use crate::report::certificate::cross::{Crossed, SURE, cross};
use crate::run::certify::Certification;

pub(super) const ROW: Row = Row {
    id: "S19",
    name: "no attack breaks a certificate",
    rule: "no image that is certified at a radius is voted another class under an L2 attack within it, beyond what the vote's own draws allow",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    let run = seen.run;
    let found = match Certification::read(&run.dir, &run.config) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return not_run("no certificates beside this run: needs a [certify] table and an L2 sweep (--norm l2)");
        }
        Err(e) => return not_run(format!("the certificates of this run cannot be read: {e}")),
    };
    if run.config.attack.norm != Norm::L2 {
        return not_run("certificates are of L2: needs --norm l2");
    }
    judged(&cross(run, &found))
}

fn judged(crossed: &Crossed) -> Vec<Finding> {
    if crossed.compared == 0 {
        return not_run(
            "no attacked image lies within its certified radius: needs a smaller eps or more certified images",
        );
    }
    let verdict = match (crossed.violations(), crossed.broken.len()) {
        (1.., _) => Verdict::Fail,
        (0, 1..) => Verdict::Warn,
        _ => Verdict::Pass,
    };
    let mut images: Vec<u64> = crossed.broken.iter().map(|broken| broken.image).collect();
    images.sort_unstable();
    images.dedup();
    let numbers = format!(
        "{} of {} votes within their certified radius went to another class, {} beyond chance (p at most {SURE})",
        crossed.broken.len(),
        crossed.compared,
        crossed.violations()
    );
    vec![Finding::new(verdict, "", numbers).of(images)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::certificate::cross::Broken;

    #[test]
    fn a_broken_certificate_is_noted_and_fails_beyond_chance() {
        let broken = |p: f64| Broken {
            model: "m".into(),
            sigma: 0.25,
            image: 7,
            radius: 0.5,
            eps: 0.25,
            attack: "pgd".into(),
            draws: 100,
            votes: 3,
            p,
        };
        let of = |broken: Vec<Broken>| judged(&Crossed { compared: 9, broken, draws: 100 }).remove(0);
        assert_eq!(of(vec![]).verdict, Verdict::Pass);
        assert_eq!(of(vec![broken(0.4)]).verdict, Verdict::Warn);
        let failed = of(vec![broken(1e-9)]);
        assert_eq!((failed.verdict, failed.images), (Verdict::Fail, vec![7]));
        assert_eq!(judged(&Crossed::default()).remove(0).verdict, Verdict::NotRun);
    }
}
