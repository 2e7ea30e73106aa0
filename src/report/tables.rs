//! Accuracies of a run as tables for papers: Markdown and LaTeX, each with the verdict of the checks beside every row and a footnote.

use super::checks::{Check, brief, in_words};
use super::four::{self, Four};
use super::mark::Mark;
use super::page::unfinished;
use super::{curves, words};
use crate::attack::Target;
use crate::draw::{Point, Series};
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::shown::plain;
use crate::stats::wilson;

/// Where the mark of a number stands until LaTeX's own is put there: of no alphabet, and nothing that is spelt out.
const MARK: &str = "\u{e000}";

/// The heads of the table of four numbers.
const FOUR: [&str; 7] =
    ["model", "sigma", "clean", "clean, defended", "attacked", "attacked, defended: blind (non-adaptive)", "adaptive"];

fn four_row(four: &Four) -> [&str; 7] {
    let Four { model, sigma, clean, clean_defended, attacked, blind, adaptive, .. } = four;
    [model, sigma, clean, clean_defended, attacked, blind, adaptive]
}

fn at(series: &Series, eps: f64) -> Option<&Point> {
    series.points.iter().find(|point| point.eps == eps)
}

fn scored(point: Option<&Point>, sign: &str) -> String {
    let Some(point) = point else { return "–".into() };
    let interval = wilson(point.correct, point.n);
    format!("{:.1}{sign} [{:.1}, {:.1}]", 100.0 * point.accuracy(), 100.0 * interval.lo, 100.0 * interval.hi)
}

/// The attack in a few words: two tables may be alike in all else.
fn under(run: &Ledger) -> String {
    let attack = &run.config.attack;
    let target = match attack.targeted {
        Target::None => String::new(),
        rule => format!(" (target: {rule})"),
    };
    format!("{} {}, {}{target}", attack.label(), attack.norm, words::count(attack.steps as usize, "step"))
}

/// A row per curve, a column per epsilon, and the verdict.
pub fn markdown(run: &Ledger, name: &str, checks: &[Check]) -> String {
    let (series, mark) = (curves::all_series(run), Mark::of(checks));
    let eps = curves::epsilons(&series);
    let cells = |first: &str, rest: Vec<String>| format!("| {first} | {} |", rest.join(" | "));
    let mut lines = vec![
        format!(
            "**{}**: accuracy in % [Wilson 95 % interval] under {}, n = {}\n",
            one_line(name),
            under(run),
            words::images(run)
        ),
        cells("ε", eps.iter().map(|&eps| eps_label(eps)).chain(["verdict".into()]).collect()),
        cells("---", vec!["---".into(); eps.len() + 1]),
    ];
    for s in &series {
        let row = eps.iter().map(|&eps| scored(at(s, eps), mark.sign()));
        lines.push(cells(&one_line(&s.name), row.chain([brief(checks)]).collect()));
    }
    let four = four::numbers(run, mark.sign());
    if let Some(first) = four.first() {
        lines.push(format!("\nThe four numbers at ε {}:\n", first.eps));
        lines.push(cells(FOUR[0], FOUR[1..].iter().map(|head| (*head).to_owned()).collect()));
        lines.push(cells("---", vec!["---".into(); FOUR.len() - 1]));
        lines.extend(four.iter().map(|four| {
            let row = four_row(four);
            cells(&one_line(row[0]), row[1..].iter().map(|&text| text.to_owned()).collect())
        }));
    }
    lines.extend(mark.note().map(|note| format!("\n{note}")));
    lines.extend(unfinished(run).map(|missing| format!("\nUnfinished: {missing}")));
    lines.push(format!("\n{}\n", in_words(checks)));
    lines.join("\n")
}

/// The same for a document with `booktabs` and UTF-8.
pub fn latex(run: &Ledger, name: &str, checks: &[Check]) -> String {
    let (series, mark) = (curves::all_series(run), Mark::of(checks));
    let sign = if mark.forbids() { "$^\\dagger$" } else { "" };
    let eps = curves::epsilons(&series);
    let row = |cells: Vec<String>| format!("{} \\\\", cells.join(" & "));
    let table = |columns: usize, head: String, body: Vec<String>| {
        [
            vec![
                format!("\\begin{{tabular}}{{l{}}}", "l".repeat(columns)),
                "\\toprule".into(),
                head,
                "\\midrule".into(),
            ],
            body,
            vec!["\\bottomrule".into(), "\\end{tabular}".into()],
        ]
        .concat()
    };
    let heads = eps.iter().map(|&eps| format!("$\\varepsilon = {}$", eps_label(eps)));
    let head = row(["".to_owned()].into_iter().chain(heads).chain(["verdict".into()]).collect());
    let body = series.iter().map(|s| {
        let points = eps.iter().map(|&eps| escaped(&scored(at(s, eps), MARK)).replace(MARK, sign));
        row([escaped(&s.name)].into_iter().chain(points).chain([escaped(&brief(checks))]).collect())
    });
    let mut lines =
        vec![format!("% {}: {}", one_line(name), under(run)), "\\begin{table}".into(), "\\centering".into()];
    lines.extend(table(eps.len() + 1, head, body.collect()));
    let four = four::numbers(run, MARK);
    if !four.is_empty() {
        lines.push("\\par\\medskip".into());
        let head = row(FOUR.iter().map(|head| escaped(head)).collect());
        let body =
            four.iter().map(|four| row(four_row(four).iter().map(|text| escaped(text).replace(MARK, sign)).collect()));
        lines.extend(table(FOUR.len() - 1, head, body.collect()));
    }
    let four_at = four
        .first()
        .map_or(String::new(), |four| format!(" Below, the four numbers at $\\varepsilon = {}$.", four.eps));
    lines.push(format!(
        "\\caption{{{}: accuracy in \\% [Wilson 95\\,\\% interval], $n$ = {}.{four_at}}}",
        escaped(name),
        escaped(&words::images(run))
    ));
    let missing = unfinished(run).map_or(String::new(), |missing| format!(" Unfinished: {missing}."));
    let note = mark.note().unwrap_or_else(|| in_words(checks).lines().next().unwrap_or_default().to_owned());
    lines.push(format!("\\footnotesize {}", escaped(&(note + &missing)).replace('†', "$^\\dagger$")));
    lines.push("\\end{table}".into());
    lines.join("\n") + "\n"
}

/// A name without what would end its line or hide in it.
pub fn one_line(text: &str) -> String {
    plain(&text.replace(['\n', '\r'], " ")).into_owned()
}

/// Text as LaTeX has it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in one_line(text).chars() {
        match letter {
            '\\' => out.push_str("\\textbackslash{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', letter]),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            'σ' => out.push_str("$\\sigma$"),
            'ε' => out.push_str("$\\varepsilon$"),
            '∞' => out.push_str("$\\infty$"),
            '⁻' => out.push_str("$^-$"),
            '–' => out.push_str("--"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_a_table() {
        assert_eq!(
            escaped("a_b & 5 %\n\\end{table}, σ 0.25"),
            "a\\_b \\& 5 \\% \\textbackslash{}end\\{table\\}, $\\sigma$ 0.25"
        );
    }
}
