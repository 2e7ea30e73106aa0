//! A finished run as people read it in a terminal: the tables, and the paired comparison of models.

use super::curves::{broken_at, series, top5_series};
use super::mark::Mark;
use super::words::{self, count, deciding, p_value, percent, what_counts};
use super::{four, paired, question, stages, suite};
use crate::attack::Target;
use crate::config::settings::Score;
use crate::draw::{Point, Series, table};
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Cell, Channel, Under};

/// How often a targeted attack reached its target, as a table; nothing for one without.
pub fn reached(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let rule = config.attack.targeted;
    let reached =
        |cell: &Cell| Cell { n: cell.aimed, last: cell.reached, any: cell.reached_any, clean: 0, ..cell.clone() };
    let cells: Vec<Cell> = run.cells.iter().map(reached).collect();
    let title =
        format!("target reached in % of images of other classes (rule: {rule}); accuracy above is of the label");
    (rule != Target::None).then(|| table::accuracy(&title, &series(config, &cells, config.score, |_| true), ""))
}

/// The last iterate and any iterate, each in a table of its own; then the denoised channels, the comparison of models image by image,
/// and the two attacks side by side. Early stop has no last iterate to speak of.
pub fn tables(run: &Ledger, mark: &Mark) -> String {
    let sign = mark.sign();
    let Ledger { config, cells, .. } = run;
    let attack = &config.attack;
    let what = format!("{} {}, {}", attack.label(), attack.norm, words::images(run));
    let undefended = |score| series(config, cells, score, |channel| !channel.is_defended());
    let titled =
        |counts: &str, rows: &[Series]| table::accuracy(&format!("accuracy in % after {what}: {counts}"), rows, sign);
    let (last, any) = (undefended(Score::Last), undefended(Score::Any));
    let mut parts = match last == any {
        true if !attack.early_stop => {
            vec![titled("the last iterate counts; any successful iterate counts the same", &last)]
        }
        _ if attack.early_stop => vec![titled(what_counts(Score::Any), &any)],
        _ => vec![titled(what_counts(Score::Last), &last), titled(what_counts(Score::Any), &any)],
    };
    parts.extend(smallest(run).map(|text| mark.block(text)));
    parts.extend(nested(run, sign));
    for wanted in [Under::Transferred, Under::Through] {
        let rows = series(
            config,
            cells,
            config.score,
            |channel| matches!(channel, Channel::Denoised { under, .. } if under == wanted),
        );
        if rows.is_empty() {
            continue;
        }
        let defense = &config.defense;
        let how = match wanted {
            Under::Transferred => format!("{}; the attack does not know of it (non-adaptive)", defense.way()),
            _ if defense.is_blind() => {
                format!("{}; attacked by an estimator that is blind to it (non-adaptive)", defense.way())
            }
            _ => {
                format!("{}; attacked through ({}, {} draws a step)", defense.way(), defense.estimator(), defense.eot())
            }
        };
        let vote = format!("{} of {}", defense.vote(), count(defense.draws() as usize, "draw"));
        parts.push(table::accuracy(&format!("accuracy in %, {how}: {vote}"), &rows, sign));
    }
    parts.extend(reached(run));
    if config.dataset.top5() {
        let title = "top-5 accuracy in %: last iterates, and votes of the denoised";
        parts.push(table::accuracy(title, &top5_series(run), sign));
    }
    parts.extend(four::text(run, sign));
    parts.extend(beside(run).map(|text| mark.block(text)));
    parts.extend(stages::stages(run).map(|text| mark.block(text)));
    parts.extend(compared(run));
    parts.extend(question::text(run).map(|text| mark.block(text)));
    parts.extend(suite::adaptive(run).map(|text| mark.block(text)));
    if let Some((table, decided)) = suite::suite(run) {
        parts.push(mark.block(table + &decided.join("\n") + "\n"));
    }
    parts.extend(mark.note().map(|note| note + "\n"));
    parts.join("\n")
}

/// Accuracies where an image that was broken within a smaller budget counts as broken; nothing where that changes none, or all are counted so.
fn nested(run: &Ledger, sign: &str) -> Option<String> {
    let config = &run.config;
    if config.attack.nest {
        return None;
    }
    let mut cells = run.cells.clone();
    let mut changed = false;
    for cell in cells.iter_mut().filter(|cell| cell.channel == Channel::Undefended) {
        let fallen = (0..run.ids.len()).filter(|&image| run.fallen(cell.model, cell.eps, image).is_some());
        let own = run.cell(cell.model, cell.channel, cell.eps)?;
        let right =
            |image: &usize| matches!(run.found[own][*image], Some(Found::Attacked(outcome)) if outcome.correct_any);
        let more = fallen.filter(right).count() as u64;
        changed |= more > 0;
        cell.any -= more;
    }
    let rows = series(config, &cells, Score::Any, |channel| channel == Channel::Undefended);
    changed.then(|| {
        let title = "accuracy in % where a success within a smaller budget counts within every larger one";
        table::accuracy(title, &rows, sign)
    })
}

/// Of each model at the middle epsilon, what every attack on the undefended classifier leaves, and which one decides; nothing where there is
/// only one.
pub(super) fn beside(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let eps = config.attack.middle_eps().filter(|_| !config.attack.beside.is_empty())?;
    let channels: Vec<Channel> = results::shown(config).into_iter().filter(|channel| !channel.is_defended()).collect();
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let cells = channels.iter().map(|&channel| run.cell(model, channel, eps)).collect::<Option<Vec<_>>>()?;
        let of = |cell: usize| &run.cells[cell];
        if cells.iter().any(|&cell| of(cell).n == 0 || of(cell).n != of(cells[0]).n) {
            continue;
        }
        let name = |cell: usize| of(cell).channel.attack(config);
        let share = |cell: usize| percent(of(cell).correct(config.score), of(cell).n);
        let said: Vec<String> = cells.iter().map(|&cell| format!("{} leaves {}", name(cell), share(cell))).collect();
        let right = |cell: usize| of(cell).correct(config.score);
        let strongest = cells.iter().copied().min_by_key(|&cell| right(cell))?;
        let equal = cells.iter().filter(|&&cell| right(cell) == right(strongest));
        let (names, decides, _) = deciding(&equal.map(|&cell| name(cell)).collect::<Vec<_>>());
        let stand =
            (0..run.ids.len()).filter(|&i| cells.iter().all(|&cell| run.correct(cell, i) == Some(true))).count();
        lines.push(format!(
            "{}, undefended at eps {}: {}; {names} {decides}, and {} stand against all of them.",
            named.name,
            eps_label(eps),
            words::list(&said),
            percent(stand as u64, of(strongest).n)
        ));
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
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
            for channel in results::shown(config) {
                let at = |&eps: &f64| {
                    let own = |p: &&paired::Pair| p.eps == eps && [p.first.as_str(), p.second.as_str()] == names;
                    let found = pairs.iter().filter(own).find(|p| p.channel == words::channel(config, channel));
                    found.map_or(String::new(), |p| {
                        format!("{}:{} {}", p.only_first, p.only_second, p_value(p.p_adjusted))
                    })
                };
                let name = if channel.is_defended() { channel.to_string() } else { words::channel(config, channel) };
                lines.push(table::row(24, &name, config.attack.eps.iter().map(at)));
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

/// Half of the images that are right when clean are broken within this budget, by model; nothing where no attack looked for it.
fn smallest(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let most = config.attack.eps.last().copied()?;
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let Some(points) = broken_at(run, model) else { continue };
        let clean = points[0].correct;
        let half = points.iter().find(|point| 2 * point.correct <= clean);
        let within = |point: &Point| format!("within {:.5}", point.eps);
        lines.push(format!(
            "{}: of {clean} images that are right when clean, {} are broken within {}; half of the {clean} {}.",
            named.name,
            clean - points[points.len() - 1].correct,
            eps_label(most),
            half.map_or("by none of these budgets".into(), within)
        ));
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}
