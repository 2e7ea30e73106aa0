//! What a check is, as the table has it and as a run's report has it.

use serde::Serialize;

use super::finding::{Finding, Verdict, line};
use super::seen::Seen;

/// A check as the table has it.
pub(super) struct Row {
    pub id: &'static str,
    pub name: &'static str,
    /// What passes.
    pub rule: &'static str,
    pub judge: fn(&Seen) -> Vec<Finding>,
}

/// One check over all models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// As the literature on evaluations numbers them here: S1 to S28, A1 to A4 for the flags of AutoAttack.
    pub id: &'static str,
    pub name: &'static str,
    /// What passes.
    pub rule: &'static str,
    pub verdict: Verdict,
    pub found: Vec<Finding>,
}

impl Check {
    /// `S2 perturbations stay within their budget`.
    pub fn title(&self) -> String {
        format!("{} {}", self.id, self.name)
    }

    /// A line for each finding.
    pub fn numbers(&self) -> Vec<String> {
        self.found.iter().map(line).collect()
    }
}
