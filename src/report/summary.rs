//! A finished run as people read it: the figure, the tables, the paired comparison of models, and what an adaptive attack adds.

use super::paired;
use super::words::{self, count, p_value, symbol, units, what_counts};
use crate::attack::{Outcome, Target, Work, autoattack};
use crate::config::Config;
use crate::config::settings::Score;
use crate::draw::plot::{self, Figure};
use crate::draw::{Point, Series, table};
use crate::error::Result;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Cell, Channel};

/// Accuracy over epsilon: undefended and at every sigma, for every model.
///
/// # Errors
/// [`crate::Error::Failed`] when it cannot be drawn.
pub fn figure(run: &Ledger) -> Result<Figure> {
    let Ledger { config, dataset, .. } = run;
    let (attack, defense) = (&config.attack, &config.defense);
    let mut how = vec![format!("{} {}", attack.label(), symbol(attack.norm)), count(attack.steps as usize, "step")];
    if attack.restarts > 1 {
        how.push(count(attack.restarts as usize, "restart"));
    }
    how.push(format!("{} images", run.ids.len()));
    how.push(what_counts(config.score).to_owned());
    if !defense.sigma.is_empty() {
        how.push(format!("denoised once under {}", count(defense.draws() as usize, "draw")));
    }
    let title = match defense.sigma.is_empty() {
        true => format!("Accuracy under attack: {}", dataset),
        false => format!("Accuracy under attack, undefended and denoised: {}", dataset),
    };
    let x_axis = format!("ε, {} budget in {}", symbol(attack.norm), units(config));
    plot::accuracy(&title, &how.join(" · "), &x_axis, &all_series(run))
}

/// The last iterate and any iterate, each in a table of its own; then the denoised channels, the comparison of models image by image,
/// and the two attacks side by side. Early stop has no last iterate to speak of.
pub fn tables(run: &Ledger) -> String {
    let Ledger { config, cells, .. } = run;
    let attack = &config.attack;
    let what = format!("{} {}, {}", attack.label(), attack.norm, words::images(run));
    let undefended = |score| series(config, cells, score, |channel| channel == Channel::Undefended);
    let titled =
        |counts: &str, rows: &[Series]| table::accuracy(&format!("accuracy in % after {what}: {counts}"), rows);
    let (last, any) = (undefended(Score::Last), undefended(Score::Any));
    let mut parts = match last == any {
        true if !attack.early_stop => {
            vec![titled("the last iterate counts; any successful iterate counts the same", &last)]
        }
        _ if attack.early_stop => vec![titled(what_counts(Score::Any), &any)],
        _ => vec![titled(what_counts(Score::Last), &last), titled(what_counts(Score::Any), &any)],
    };
    for through in [false, true] {
        let rows = series(
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
        let vote = format!("{} of {}", defense.vote(), count(defense.draws() as usize, "draw"));
        parts.push(table::accuracy(&format!("accuracy in %, {how}: {vote}"), &rows));
    }
    if config.attack.targeted != Target::None {
        let reached = |cell: &Cell| Cell { last: cell.reached, any: cell.reached_any, clean: 0, ..cell.clone() };
        let cells: Vec<Cell> = cells.iter().map(reached).collect();
        let rows = series(config, &cells, config.score, |_| true);
        let rule = config.attack.targeted;
        parts.push(table::accuracy(
            &format!("target reached in % (rule: {rule}); accuracy above is of the label"),
            &rows,
        ));
    }
    if config.dataset.top5() {
        parts.push(table::accuracy("top-5 accuracy in %: last iterates, and votes of the denoised", &top5_series(run)));
    }
    parts.extend(stages(run));
    parts.extend(compared(run));
    parts.extend(adaptive(run));
    parts.join("\n")
}

/// What each stage of a combined attack left standing, in % of the images; nothing for an attack of one stage.
pub(super) fn stages(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let stages = autoattack::stages(config.attack.method);
    if stages.is_empty() {
        return None;
    }
    let mut lines = vec![format!(
        "{}, stage by stage: images that stand after it, in %, and how many went forward / backward through the network",
        config.attack.label()
    )];
    lines.push(table::row(24, "eps", config.attack.eps.iter().map(|&eps| eps_label(eps))));
    for (model, named) in config.models.iter().enumerate() {
        lines.push(named.name.clone());
        for (number, row) in stages.iter().enumerate() {
            let standing = |&eps: &f64| {
                let cell = run.cell(model, Channel::Undefended, eps)?;
                let (mut n, mut stand) = (0u32, 0u32);
                for found in run.found[cell].iter().flatten() {
                    let Found::Attacked(outcome) = found else { continue };
                    let later = outcome.stage.is_some_and(|broken| usize::from(broken) > number);
                    n += 1;
                    stand += u32::from(outcome.correct_any || outcome.correct_clean && later);
                }
                (n > 0).then(|| format!("{:.1}", 100.0 * f64::from(stand) / f64::from(n)))
            };
            let cells = config.attack.eps.iter().map(|eps| standing(eps).unwrap_or_default());
            lines.push(table::row(24, &format!("  after {}", row.name), cells));
        }
        // Of all images together; a gradient is a pass in both directions.
        for (number, row) in stages.iter().enumerate() {
            let passes = |&eps: &f64| {
                let cell = run.cell(model, Channel::Undefended, eps)?;
                let mut work: Option<Work> = None;
                for found in run.found[cell].iter().flatten() {
                    let Found::Attacked(Outcome { asked: Some(asked), .. }) = found else { continue };
                    *work.get_or_insert_default() += asked.stages().nth(number).unwrap_or_default();
                }
                work.map(|work| format!("{} / {}", work.forwards + work.gradients, work.gradients))
            };
            let cells = config.attack.eps.iter().map(|eps| passes(eps).unwrap_or_default());
            lines.push(table::row(24, &format!("  passes of {}", row.name), cells));
        }
    }
    Some(lines.join("\n") + "\n")
}

/// Every pair of models on the same images: how many one has right and the other wrong, and the p value of McNemar's test adjusted for
/// all comparisons of the table.
fn compared(run: &Ledger) -> Option<String> {
    let pairs = paired::models(run);
    let config = &run.config;
    let mut lines = Vec::new();
    for second in 1..config.models.len() {
        for first in 0..second {
            let names = [first, second].map(|model| config.models[model].name.as_str());
            lines.push(format!("{} right : {} right, p", names[0], names[1]));
            for channel in results::channels(config) {
                let at = |&eps: &f64| {
                    let own = |p: &&paired::Pair| p.eps == eps && [p.first.as_str(), p.second.as_str()] == names;
                    let found = pairs.iter().filter(own).find(|p| p.channel == format!("{channel:#}"));
                    found.map_or(String::new(), |p| {
                        format!("{}:{} {}", p.only_first, p.only_second, p_value(p.p_adjusted))
                    })
                };
                lines.push(table::row(24, &channel.to_string(), config.attack.eps.iter().map(at)));
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    let eps = table::row(24, "eps", config.attack.eps.iter().map(|&eps| eps_label(eps)));
    let head = format!(
        "images that one model has right and the other wrong (McNemar, mid-p, adjusted for the {} comparisons by Holm)",
        pairs.len()
    );
    Some([vec![head, eps], lines].concat().join("\n") + "\n")
}

/// One sentence per model: how much an attack that does not know of the defence overstates it.
pub(super) fn adaptive(run: &Ledger) -> Option<String> {
    let Ledger { config, cells, .. } = run;
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
        let eps = eps_label(cell.eps);
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

/// Every curve of a run.
pub fn all_series(run: &Ledger) -> Vec<Series> {
    series(&run.config, &run.cells, run.config.score, |_| true)
}

/// The same with the five likeliest classes counted; 0 everywhere where they are not scored.
pub fn top5_series(run: &Ledger) -> Vec<Series> {
    let cells: Vec<Cell> = run.cells.iter().map(Cell::as_top5).collect();
    series(&run.config, &cells, Score::Last, |_| true)
}

/// Every epsilon that a curve has a point at, ascending.
pub fn epsilons(series: &[Series]) -> Vec<f64> {
    let mut eps: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.eps)).collect();
    eps.sort_by(f64::total_cmp);
    eps.dedup();
    eps
}

/// The curves of a figure or the rows of a table: every model in every channel. They begin with the clean accuracy at epsilon 0,
/// unless the attack was run there; that of a denoised channel is known only where it was. Cells without a record are left out.
fn series(config: &Config, cells: &[Cell], score: Score, wanted: impl Fn(Channel) -> bool) -> Vec<Series> {
    let channels = results::channels(config);
    let mut all = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        for (colour, &channel) in channels.iter().enumerate().filter(|(_, channel)| wanted(**channel)) {
            let own = || cells.iter().filter(move |cell| cell.model == model && cell.channel == channel);
            let clean = own().next().filter(|first| first.eps > 0.0 && channel == Channel::Undefended);
            let clean = clean.map(|first| Point { eps: 0.0, correct: first.clean, n: first.n });
            let points = own().map(|cell| Point { eps: cell.eps, correct: cell.correct(score), n: cell.n });
            let name = words::curve(&named.name, channel);
            all.push(Series {
                name,
                points: clean.into_iter().chain(points).filter(|p| p.n > 0).collect(),
                colour,
                mark: model,
            });
        }
    }
    all
}
