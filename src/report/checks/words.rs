//! Verdicts as tables, exports and the terminal say them.

use serde::Serialize;

use super::check::Check;
use super::finding::{Verdict, line};
use crate::run::results::NOT_JUDGED;

/// `verdicts.json`: what a program asks of a run before it quotes a number.
#[derive(Debug, Serialize)]
pub struct Verdicts<'a> {
    /// As the column of `results.csv`.
    verdict: String,
    /// The failed checks after which no accuracy may stand alone.
    forbidden_by: Vec<String>,
    checks: &'a [Check],
}

impl<'a> Verdicts<'a> {
    /// Where a run keeps them.
    pub const FILE: &'static str = "verdicts.json";

    pub fn of(checks: &'a [Check]) -> Self {
        Verdicts { verdict: summed(checks), forbidden_by: failed(checks), checks }
    }
}

/// All checks in one line for tables and exports: how many passed, or the worst verdict and the checks it comes from.
pub fn summed(checks: &[Check]) -> String {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::NotRun);
    let names = || {
        let own = checks.iter().filter(|check| check.verdict == worst).map(Check::title);
        own.collect::<Vec<_>>().join("; ")
    };
    match worst {
        Verdict::NotRun => NOT_JUDGED.into(),
        Verdict::Pass => format!("pass: {}", passed(checks)),
        Verdict::Warn => format!("warn: {}", names()),
        Verdict::Fail => format!("fail: {}", names()),
    }
}

/// The same as numbers: `fail: S5, S11`, `pass`.
pub fn brief(checks: &[Check]) -> String {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::NotRun);
    let ids =
        || checks.iter().filter(|check| check.verdict == worst).map(|check| check.id).collect::<Vec<_>>().join(", ");
    match worst {
        Verdict::NotRun => NOT_JUDGED.into(),
        Verdict::Pass => "pass".into(),
        Verdict::Warn => format!("warn: {}", ids()),
        Verdict::Fail => format!("fail: {}", ids()),
    }
}

/// `7 of 12 checks`: the others could not be run.
fn passed(checks: &[Check]) -> String {
    let passed = checks.iter().filter(|check| check.verdict == Verdict::Pass).count();
    format!("{passed} of {} checks", checks.len())
}

/// The same in sentences, with the numbers behind what did not pass.
pub fn in_words(checks: &[Check]) -> String {
    let of = |verdict: Verdict, word: &str| {
        let own = checks.iter().filter(move |check| check.verdict == verdict);
        own.map(|check| format!("  {word} {}: {}", check.title(), told(check))).collect::<Vec<_>>()
    };
    let (failed, warned) = (of(Verdict::Fail, "fail"), of(Verdict::Warn, "warn"));
    let head = match (failed.len(), warned.len()) {
        (0, 0) if checks.iter().all(|check| check.verdict == Verdict::NotRun) => {
            "verdict: the attack was not judged".to_owned()
        }
        (0, 0) => format!("verdict: pass, {} of the attack", passed(checks)),
        (0, _) => "verdict: read these accuracies with care".to_owned(),
        _ => "verdict: DO NOT QUOTE these accuracies alone".to_owned(),
    };
    [vec![head], failed, warned].concat().join("\n")
}

/// What did not pass of a check.
fn told(check: &Check) -> String {
    let own = check.found.iter().filter(|found| found.verdict == check.verdict);
    own.map(line).collect::<Vec<_>>().join(" · ")
}

/// The failed checks after which no accuracy may stand alone.
pub fn failed(checks: &[Check]) -> Vec<String> {
    checks.iter().filter(|check| check.verdict == Verdict::Fail).map(Check::title).collect()
}

/// How many have which verdict, the worst first: `1 fail · 10 pass`.
pub fn verdicts(checks: &[Check]) -> String {
    let count = |(verdict, word)| match checks.iter().filter(|check| check.verdict == verdict).count() {
        0 => None,
        n => Some(format!("{n} {word}")),
    };
    let all = [(Verdict::Fail, "fail"), (Verdict::Warn, "warn"), (Verdict::Pass, "pass"), (Verdict::NotRun, "not run")];
    all.into_iter().filter_map(count).collect::<Vec<_>>().join(" · ")
}
