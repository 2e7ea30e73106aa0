//! What stands beside every accuracy of a run whose attack failed a check: the verdict that says not to quote it is then nowhere without
//! its sign, and no number without the verdict.

use serde::Serialize;

use super::checks::{Check, Verdict};
use super::words::list;

/// The failed checks; none where all may be quoted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mark {
    failed: Vec<String>,
    ids: Vec<&'static str>,
}

impl Mark {
    pub fn of(checks: &[Check]) -> Mark {
        let own = || checks.iter().filter(|check| check.verdict == Verdict::Fail);
        Mark { failed: own().map(Check::title).collect(), ids: own().map(|check| check.id).collect() }
    }

    pub fn forbids(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Behind each number.
    pub fn sign(&self) -> &'static str {
        if self.forbids() { "†" } else { "" }
    }

    /// A few words for a title: ` († S11 failed: not to be quoted)`.
    pub fn title(&self) -> String {
        if self.forbids() { format!(" († {} failed: not to be quoted)", self.ids.join(", ")) } else { String::new() }
    }

    /// Before a sentence.
    pub fn before(&self, text: String) -> String {
        if !self.forbids() || text.is_empty() {
            return text;
        }
        format!("Not to be quoted, as {} failed: {text}", list(&self.failed))
    }

    /// Before one line of several.
    pub fn before_line(&self, line: &str) -> String {
        if self.forbids() { format!("† {line}") } else { line.to_owned() }
    }

    /// Above lines of text.
    pub fn block(&self, text: String) -> String {
        if self.forbids() { format!("† not to be quoted:\n{text}") } else { text }
    }

    /// Below a table.
    pub fn note(&self) -> Option<String> {
        self.forbids().then(|| format!("† not to be quoted: of the attack's checks {} failed", list(&self.failed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &'static str, verdict: Verdict) -> Check {
        Check { id, name: "a check", rule: "a rule", verdict, found: vec![] }
    }

    #[test]
    fn only_a_failed_check_leaves_a_mark() {
        let none = Mark::of(&[check("S2", Verdict::Pass), check("S5", Verdict::Warn), check("S19", Verdict::NotRun)]);
        assert!(!none.forbids() && none.sign().is_empty() && none.title().is_empty() && none.note().is_none());
        assert_eq!(none.before("so".into()), "so");
        let some = Mark::of(&[check("S2", Verdict::Fail), check("S13", Verdict::Fail)]);
        assert_eq!((some.sign(), some.title().as_str()), ("†", " († S2, S13 failed: not to be quoted)"));
        assert_eq!(some.before("so".into()), "Not to be quoted, as S2 a check and S13 a check failed: so");
        assert!(some.note().unwrap().contains("S2 a check and S13 a check failed"));
    }
}
