//! A finished run as people read it: the figure, the tables, the paired comparison of models, and what an adaptive attack adds.

use super::config::Config;
use super::results::{self, Cell, Channel};
use super::settings::Score;
use crate::attack::Norm;
use crate::data::Dataset;
use crate::error::Result;
use crate::report::plot::{self, Figure};
use crate::report::{self, table};
use crate::stats::mcnemar;

/// Accuracy over epsilon: undefended and at every sigma, for every model.
pub(super) fn figure(config: &Config, dataset: &Dataset, cells: &[Cell]) -> Result<Figure> {
    let (attack, defense) = (&config.attack, &config.defense);
    let plural = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut how = vec![format!("{} {}", attack.label(), symbol(attack.norm)), plural(attack.steps, "step")];
    if attack.restarts > 1 {
        how.push(plural(attack.restarts, "restart"));
    }
    how.push(format!("{} images", dataset.len()));
    how.push(what_counts(config.score).to_owned());
    if !defense.sigma.is_empty() {
        how.push(format!("denoised once under {}", plural(defense.draws(), "draw")));
    }
    let title = match defense.sigma.is_empty() {
        true => format!("Accuracy under attack: {}", dataset.name),
        false => format!("Accuracy under attack, undefended and denoised: {}", dataset.name),
    };
    let x_axis = format!("ε, {} budget in {}", symbol(attack.norm), super::page::units(config));
    plot::accuracy(&title, &how.join(" · "), &x_axis, &results::series(config, cells, config.score, |_| true))
}

/// The last iterate and any iterate, each in a table of its own; then the denoised channels, the comparison of models image by image,
/// and the two attacks side by side. Early stop has no last iterate to speak of.
pub(super) fn tables(config: &Config, dataset: &Dataset, cells: &[Cell], correct: &[Vec<Option<bool>>]) -> String {
    let attack = &config.attack;
    let what = format!("{} {}, {} images of {}", attack.label(), attack.norm, dataset.len(), dataset.name);
    let scores = [Score::Last, Score::Any].into_iter().filter(|&score| !(attack.early_stop && score == Score::Last));
    let undefended = |score| {
        let rows = results::series(config, cells, score, |channel| channel == Channel::Undefended);
        table::accuracy(&format!("accuracy in % after {what}: {}", what_counts(score)), &rows)
    };
    let mut parts: Vec<String> = scores.map(undefended).collect();
    for through in [false, true] {
        let rows = results::series(
            config,
            cells,
            config.score,
            |channel| matches!(channel, Channel::Denoised { through: t, .. } if t == through),
        );
        if rows.is_empty() {
            continue;
        }
        let defense = &config.defense;
        let how = match through {
            false => "denoised; the attack does not know of it".to_owned(),
            true => format!("denoised; attacked through ({}, {} draws a step)", defense.estimator(), defense.eot()),
        };
        let vote =
            format!("{} of {} draw{}", defense.vote(), defense.draws(), if defense.draws() == 1 { "" } else { "s" });
        parts.push(table::accuracy(&format!("accuracy in %, {how}: {vote}"), &rows));
    }
    if config.dataset.top5() {
        let cells: Vec<Cell> = cells.iter().map(Cell::as_top5).collect();
        let rows = results::series(config, &cells, Score::Last, |_| true);
        parts.push(table::accuracy("top-5 accuracy in %: last iterates, and votes of the denoised", &rows));
    }
    parts.extend(paired(config, cells, correct));
    if !dataset.skipped.is_empty() {
        let count = dataset.skipped.len();
        parts.push(format!("{count} unreadable file{} left out\n", if count == 1 { "" } else { "s" }));
    }
    parts.extend(adaptive(config, cells));
    parts.join("\n")
}

/// Every pair of models on the same images: how many one has right and the other wrong, and the mid-p value of McNemar's test.
fn paired(config: &Config, cells: &[Cell], correct: &[Vec<Option<bool>>]) -> Option<String> {
    let mut lines = Vec::new();
    let at = |model: usize, channel: Channel, eps: f64| {
        cells.iter().position(|c| c.model == model && c.channel == channel && c.eps == eps).map(|c| &correct[c])
    };
    for second in 1..config.models.len() {
        for first in 0..second {
            let names = [first, second].map(|model| config.models[model].name.as_str());
            lines.push(format!("{} right : {} right, p", names[0], names[1]));
            for channel in results::channels(config) {
                let label = match channel {
                    Channel::Undefended => "undefended".to_owned(),
                    Channel::Denoised { sigma, through } => {
                        format!("sigma {sigma}{}", if through { ", attacked" } else { "" })
                    }
                };
                let counts = config.attack.eps.iter().map(|&eps| {
                    let (Some(a), Some(b)) = (at(first, channel, eps), at(second, channel, eps)) else {
                        return String::new();
                    };
                    let only = |x: &[Option<bool>], y: &[Option<bool>]| {
                        x.iter().zip(y).filter(|(x, y)| **x == Some(true) && **y == Some(false)).count() as u64
                    };
                    let (b, c) = (only(a, b), only(b, a));
                    format!("{b}:{c} {:.3}", mcnemar(b, c).mid_p)
                });
                lines.push(table::row(24, &label, counts));
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    let eps = table::row(24, "eps", config.attack.eps.iter().map(|&eps| report::eps_label(eps)));
    lines.insert(0, eps);
    lines.insert(0, "images that one model has right and the other wrong (McNemar, mid-p)".into());
    Some(lines.join("\n") + "\n")
}

/// One sentence per model: how much an attack that does not know of the defence overstates it.
pub(super) fn adaptive(config: &Config, cells: &[Cell]) -> Option<String> {
    if !config.defense.attack {
        return None;
    }
    let share = |cell: &Cell| 100.0 * cell.correct(config.score) as f64 / cell.n.max(1) as f64;
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let pairs = cells.iter().filter(|c| c.model == model).filter_map(|cell| {
            let Channel::Denoised { sigma, through: true } = cell.channel else { return None };
            let channel = Channel::Denoised { sigma, through: false };
            let other = cells.iter().find(|c| c.model == model && c.eps == cell.eps && c.channel == channel)?;
            // Half of a cell is of other images than the whole of the other.
            (cell.n > 0 && cell.n == other.n).then(|| (share(other) - share(cell), sigma, cell, other))
        });
        let Some((gap, sigma, cell, other)) = pairs.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        let eps = report::eps_label(cell.eps);
        lines.push(if gap > 0.0 {
            format!(
                "{}: at eps {eps}, sigma {sigma} the attack through the defence leaves {:.1} % right where the transferred one leaves \
                 {:.1} %: an attack on the undefended model alone overstates this defence by {gap:.1} points.",
                named.name,
                share(cell),
                share(other)
            )
        } else {
            format!("{}: the attack through the defence finds nothing that the transferred one does not.", named.name)
        });
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

pub(super) fn symbol(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

pub(super) fn what_counts(score: Score) -> &'static str {
    match score {
        Score::Last => "the last iterate counts",
        Score::Any => "any successful iterate counts",
    }
}
