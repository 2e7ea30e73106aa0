//! Two classifiers on the same images, as a table.

use serde::Serialize;

use super::super::paired::Pair;
use super::super::words::p_value;

/// All comparisons of a page.
#[derive(Serialize)]
pub(super) struct Comparisons {
    /// What they come to, in words.
    summary: String,
    count: usize,
    groups: Vec<Compared>,
}

/// All comparisons of two classifiers.
#[derive(Serialize)]
struct Compared {
    first: String,
    second: String,
    /// Images that both scored.
    n: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    channel: String,
    eps: String,
    only_first: u64,
    only_second: u64,
    /// In points, with its interval.
    difference: f64,
    lo: f64,
    hi: f64,
    p: String,
    p_adjusted: String,
}

/// Nothing without a comparison. Those of two classifiers follow each other.
pub(super) fn compared(pairs: Vec<Pair>) -> Option<Comparisons> {
    let (count, differ) = (pairs.len(), pairs.iter().filter(|pair| pair.p_adjusted < 0.05).count());
    if count == 0 {
        return None;
    }
    let found = if differ == 0 { "none".to_owned() } else { differ.to_string() };
    let summary =
        format!("In {found} of {count} comparisons the accuracies differ at the 5 % level, adjusted for all of them.");
    let mut groups: Vec<Compared> = Vec::new();
    for pair in pairs {
        let row = Row {
            channel: pair.channel,
            eps: pair.eps_label,
            only_first: pair.only_first,
            only_second: pair.only_second,
            difference: pair.difference,
            lo: pair.lo,
            hi: pair.hi,
            p: p_value(pair.p),
            p_adjusted: p_value(pair.p_adjusted),
        };
        match groups.last_mut() {
            Some(group) if (&group.first, &group.second) == (&pair.first, &pair.second) => group.rows.push(row),
            _ => groups.push(Compared { first: pair.first, second: pair.second, n: pair.n, rows: vec![row] }),
        }
    }
    Some(Comparisons { summary, count, groups })
}
