//! The words of tables, figures and pages: units, norms, channels and what counts as right.

use std::path::{Path, PathBuf};

use crate::attack::{Norm, Target};
use crate::config::Config;
use crate::config::settings::Score;
use crate::run::ledger::Ledger;
use crate::run::results::{Cell, Channel};

/// Of budgets.
pub fn units(config: &Config) -> &'static str {
    if config.attack.normalised() { "units of normalised images" } else { "pixel units" }
}

/// Of a norm, as formulas write it.
pub fn symbol(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

pub fn what_counts(score: Score) -> &'static str {
    match score {
        Score::Last => "the last iterate counts",
        Score::Any => "any successful iterate counts",
    }
}

/// A model in a channel, as legends and tables name it: `resnet50, undefended`, `resnet50, σ 0.25`.
pub fn curve(config: &Config, model: &str, of: Channel) -> String {
    format!("{model}, {}", channel(config, of))
}

/// A channel by its name; where several attacks are made on the classifiers, with theirs.
pub fn channel(config: &Config, channel: Channel) -> String {
    match channel {
        Channel::Denoised { .. } => format!("{channel:#}"),
        _ if config.attack.beside.is_empty() => format!("{channel:#}"),
        _ => format!("undefended, {}", channel.attack(config)),
    }
}

/// What the class is that an attack aims at; `None` where any wrong one will do.
pub fn target(target: Target) -> Option<String> {
    Some(match target {
        Target::None => return None,
        Target::Random => "a wrong class drawn for each image".into(),
        Target::LeastLikely => "the class that the clean image is least likely of".into(),
        Target::SecondLikely => "the class that comes second for the clean image".into(),
        Target::Next => "the class after the label".into(),
        Target::Class(class) => format!("class {class}, for all images; those of that class are not attacked"),
    })
}

/// `12.5 %`.
pub fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The strongest attacks, and the verbs that go with one or several.
pub fn deciding(names: &[String]) -> (String, &'static str, &'static str) {
    match names {
        [one] => (one.clone(), "decides", "it leaves"),
        equal => (list(equal), "decide alike", "they leave"),
    }
}

/// The range over further seeds of the noise, where there are some: ` (35.0 to 38.1 % over 3 seeds)`.
pub fn seeds(cell: &Cell) -> String {
    let Some([low, high]) = cell.over_seeds() else { return String::new() };
    let share = |right: u64| 100.0 * right as f64 / cell.n.max(1) as f64;
    let mean = 100.0 * cell.mean_over_seeds();
    format!(" (over {} seeds {mean:.1} %, {:.1} to {:.1})", cell.seeds(), share(low), share(high))
}

/// What runs are called: their folders, with as much of the path before them as tells two of one name apart; a folder that comes
/// twice is numbered.
pub fn names(runs: &[Ledger]) -> Vec<String> {
    let whole = |run: &Ledger| std::fs::canonicalize(&run.dir).unwrap_or_else(|_| run.dir.clone());
    let paths: Vec<PathBuf> = runs.iter().map(whole).collect();
    let end = |path: &Path, depth: usize| {
        let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts[parts.len().saturating_sub(depth)..].join("/")
    };
    let name = |(i, path): (usize, &PathBuf)| {
        let others = || paths.iter().filter(|other| *other != path);
        let most = path.iter().count().max(1);
        let depth = (1..most).find(|&depth| others().all(|other| end(other, depth) != end(path, depth)));
        let name = end(path, depth.unwrap_or(most));
        let twin = |others: &[PathBuf]| others.iter().filter(|other| *other == path).count();
        if twin(&paths) > 1 { format!("{name} ({})", 1 + twin(&paths[..i])) } else { name }
    };
    paths.iter().enumerate().map(name).collect()
}

/// `40 images of pets`, `40 images of pets, 3 files left out`.
pub fn images(run: &Ledger) -> String {
    let left_out = match run.config.dataset.left_out {
        None | Some(0) => String::new(),
        Some(files) => format!(", {} left out", count(files, "file")),
    };
    format!("{} of {}{left_out}", count(run.ids.len(), "image"), run.dataset)
}

/// `1 draw`, `5 draws`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `< 0.001`, `0.042`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// Three significant digits: `0`, `0.00174`, `0.302`, `15.0`.
pub fn significant(value: f64) -> String {
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    if value == 0.0 { "0".into() } else { format!("{value:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([p_value(0.0004), p_value(0.0421)], ["< 0.001", "0.042"]);
        assert_eq!([0.0, 0.001736, -0.3015, 15.0, 1234.5].map(significant), ["0", "0.00174", "-0.301", "15.0", "1234"]);
    }
}
