//! What a check found: a verdict, its numbers and its images.

use serde::Serialize;

/// Worst last, but for what was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    #[serde(rename = "not run")]
    NotRun,
    #[serde(rename = "pass")]
    Pass,
    #[serde(rename = "warn")]
    Warn,
    #[serde(rename = "fail")]
    Fail,
}

/// What a check found of one model, or of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// The model, and where it matters the budget; empty where it is about all of them.
    pub about: String,
    pub numbers: String,
    /// The images behind it, by their ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<u64>,
}

impl Finding {
    pub(super) fn new(verdict: Verdict, about: impl Into<String>, numbers: impl Into<String>) -> Finding {
        Finding { verdict, about: about.into(), numbers: numbers.into(), images: vec![] }
    }

    pub(super) fn of(self, images: Vec<u64>) -> Finding {
        Finding { images, ..self }
    }
}

/// Images that are named before the rest is counted.
const NAMED: usize = 8;

/// `resnet50: 3 of 16 zero (images 1, 5 and 7)`.
pub(super) fn line(found: &Finding) -> String {
    let about = if found.about.is_empty() { String::new() } else { format!("{}: ", found.about) };
    format!("{about}{}{}", found.numbers, images(&found.images))
}

fn images(ids: &[u64]) -> String {
    let shown: Vec<String> = ids.iter().take(NAMED).map(u64::to_string).collect();
    match ids.len() {
        0 => String::new(),
        1 => format!(" (image {})", shown[0]),
        n if n <= NAMED => format!(" (images {})", shown.join(", ")),
        n => format!(" (images {} and {} more)", shown.join(", "), n - NAMED),
    }
}
