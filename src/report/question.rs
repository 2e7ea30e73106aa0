//! Which of two networks is the more robust, asked of the images that both have right when clean, and what the data allow to say.
//!
//! Source: Newcombe 1998 (interval), McNemar 1947 with mid-p (test), Holm 1979 (several attacks and defences), Connor 1987 (images needed).

use serde::Serialize;

use super::paired::{self, Pair};
use super::words::{list, p_value};
use crate::run::ledger::Ledger;

/// Two networks under every attack and defence of a run, at its middle epsilon.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    pub pairs: Vec<Pair>,
    /// What the data allow to say.
    pub answer: String,
}

/// A difference worth telling, for which the images are counted that it would take.
const WORTH: f64 = 0.05;

/// Images that show a difference of accuracies with 80 % power at the 5 % level, where this share of them is right for one network alone.
fn needed(discordant: f64, difference: f64) -> u64 {
    let rest = (discordant - difference * difference).max(0.0);
    let root = 1.96 * discordant.sqrt() + 0.8416 * rest.sqrt();
    (root * root / (difference * difference)).ceil() as u64
}

/// One answer for every two networks; none of a single one.
pub fn questions(run: &Ledger) -> Vec<Question> {
    let mut groups: Vec<Vec<Pair>> = Vec::new();
    for pair in paired::conditioned(run) {
        match groups.last_mut() {
            Some(group) if (&group[0].first, &group[0].second) == (&pair.first, &pair.second) => group.push(pair),
            _ => groups.push(vec![pair]),
        }
    }
    groups.into_iter().map(|pairs| Question { answer: answer(&pairs), pairs }).collect()
}

fn answer(pairs: &[Pair]) -> String {
    let (first, second) = (&pairs[0].first, &pairs[0].second);
    let told = |pair: &Pair| {
        let points = pair.difference.abs();
        let [lo, hi] = if pair.difference > 0.0 { [pair.lo, pair.hi] } else { [-pair.hi, -pair.lo] };
        format!(
            "{} (by {points:.1} points [{lo:.1}, {hi:.1}] of {} images, adjusted p {})",
            pair.channel,
            pair.n,
            p_value(pair.p_adjusted)
        )
    };
    let ahead = |sign: f64| -> Vec<String> {
        pairs.iter().filter(|pair| pair.p_adjusted < 0.05 && pair.difference * sign > 0.0).map(told).collect()
    };
    let (of_first, of_second) = (ahead(1.0), ahead(-1.0));
    let mut said = Vec::new();
    for (name, ahead) in [(first, &of_first), (second, &of_second)] {
        if !ahead.is_empty() {
            said.push(format!("{name} is right more often: {}", list(ahead)));
        }
    }
    let open = pairs.len() - of_first.len() - of_second.len();
    let all = pairs.len();
    if open > 0 {
        let widest = pairs.iter().map(|pair| pair.lo.abs().max(pair.hi.abs())).fold(0.0, f64::max);
        let discordant = |pair: &Pair| (pair.only_first + pair.only_second) as f64 / pair.n.max(1) as f64;
        let most = pairs.iter().map(discordant).fold(0.0, f64::max).max(WORTH);
        let of = if open == all { format!("in none of {all} comparisons") } else { format!("not in {open} of {all}") };
        said.push(format!(
            "{of} do they differ at the 5 % level, which allows for differences of up to {widest:.1} points; one of {:.0} would take about {} \
             such images to show",
            100.0 * WORTH,
            needed(most, WORTH)
        ));
    }
    format!(
        "{first} against {second} at eps {}, among images that both have right when clean: {}. Two checkpoints are compared, not two \
         architectures: they differ in parameters and training as well as in what they are made of, and three training seeds of each would be \
         needed to tell these apart.",
        pairs[0].eps_label,
        said.join("; ")
    )
}

/// The answers, and below them the numbers they come from.
pub fn text(run: &Ledger) -> Option<String> {
    let all = questions(run);
    let lines = all.iter().flat_map(|question| {
        let row = |pair: &Pair| {
            format!(
                "  {}: {} and {} of {} right, difference {:.1} [{:.1}, {:.1}], adjusted p {}",
                pair.channel,
                pair.both + pair.only_first,
                pair.both + pair.only_second,
                pair.n,
                pair.difference,
                pair.lo,
                pair.hi,
                p_value(pair.p_adjusted)
            )
        };
        std::iter::once(question.answer.clone()).chain(question.pairs.iter().map(row))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(channel: &str, [both, only_first, only_second, neither]: [u64; 4], p: f64) -> Pair {
        let (difference, interval) = crate::stats::newcombe(both, only_first, only_second, neither);
        Pair {
            first: "plain".into(),
            second: "cbam".into(),
            channel: channel.into(),
            eps: 0.02,
            eps_label: "0.02".into(),
            both,
            only_first,
            only_second,
            neither,
            n: both + only_first + only_second + neither,
            difference: 100.0 * difference,
            lo: 100.0 * interval.lo,
            hi: 100.0 * interval.hi,
            p,
            p_adjusted: p,
        }
    }

    #[test]
    fn images_needed_are_those_of_the_formula() {
        assert_eq!([needed(0.15, 0.03), needed(0.10, 0.02), needed(0.20, 0.05)], [1306, 1960, 626]);
    }

    #[test]
    fn an_answer_says_no_more_than_the_data_allow() {
        let none = answer(&[pair("pgd", [50, 3, 5, 42], 0.7), pair("autoattack", [40, 3, 4, 53], 1.0)]);
        assert!(none.contains("in none of 2 comparisons") && none.contains("Two checkpoints are compared"), "{none}");
        let some = answer(&[pair("pgd", [50, 2, 30, 18], 0.0004), pair("autoattack", [40, 3, 4, 53], 1.0)]);
        assert!(
            some.contains("cbam is right more often: pgd (by 28.0 points [") && some.contains("not in 1 of 2"),
            "{some}"
        );
    }
}
