//! What became of each class: an accuracy over all of them may hide one that is lost entirely.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::words::percent;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Channel, Under};

/// Rows of a table at most: those that fell furthest.
const MOST: usize = 20;

/// One table per model.
#[derive(Serialize)]
pub(super) struct ByClass {
    eps: String,
    /// Of the columns after `clean`.
    channels: Vec<String>,
    models: Vec<OfModel>,
}

#[derive(Serialize)]
struct OfModel {
    model: String,
    /// Which of the classes are shown.
    caption: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    class: String,
    n: u64,
    clean: String,
    /// Accuracy in each channel.
    after: Vec<String>,
    /// What the attacked images that are wrong are taken for most often.
    taken_for: String,
}

#[derive(Default)]
struct Tally {
    n: u64,
    clean: u64,
    after: Vec<u64>,
    wrong: BTreeMap<u32, u64>,
}

/// Of the middle epsilon, over the images that every channel has scored; nothing without such an epsilon.
pub(super) fn by_class(run: &Ledger) -> Option<ByClass> {
    let eps = run.config.attack.middle_eps()?;
    let channels = results::shown(&run.config);
    let order = run.config.dataset.said.class_order.as_deref().unwrap_or_default();
    let name = |class: u32| order.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
    let mut models = Vec::new();
    for (model, config) in run.config.models.iter().enumerate() {
        let cells = channels.iter().map(|&channel| run.cell(model, channel, eps)).collect::<Option<Vec<_>>>()?;
        let mut tallies: BTreeMap<u32, Tally> = BTreeMap::new();
        for (image, &label) in run.labels.iter().enumerate() {
            let right = cells.iter().map(|&cell| run.correct(cell, image)).collect::<Option<Vec<bool>>>();
            let (Some(right), Some(Found::Attacked(outcome))) = (right, run.found[cells[0]][image]) else { continue };
            let tally = tallies.entry(label).or_default();
            tally.n += 1;
            tally.clean += u64::from(outcome.correct_clean);
            tally.after.resize(cells.len(), 0);
            tally.after.iter_mut().zip(&right).for_each(|(count, &right)| *count += u64::from(right));
            if !right[0] && outcome.prediction != label {
                *tally.wrong.entry(outcome.prediction).or_default() += 1;
            }
        }
        let all = tallies.len();
        if all == 0 {
            continue;
        }
        let mut tallies: Vec<(u32, Tally)> = tallies.into_iter().collect();
        // By what the attack took, in shares; then by number.
        let fall = |t: &Tally| (t.clean as f64 - t.after[0] as f64) / t.n as f64;
        tallies.sort_by(|(a, x), (b, y)| fall(y).total_cmp(&fall(x)).then(a.cmp(b)));
        tallies.truncate(MOST);
        let rows = tallies.into_iter().map(|(class, t)| {
            let share = |count| percent(count, t.n);
            // The first of equals.
            let most = t.wrong.iter().max_by_key(|&(class, count)| (*count, std::cmp::Reverse(*class)));
            Row {
                class: name(class),
                n: t.n,
                clean: share(t.clean),
                after: t.after.iter().map(|&count| share(count)).collect(),
                taken_for: most.map_or(String::new(), |(&other, count)| format!("{} ({count})", name(other))),
            }
        });
        let caption = match all > MOST {
            true => format!("The {MOST} of {all} classes that fell furthest"),
            false => "Classes that fell furthest come first".to_owned(),
        };
        models.push(OfModel { model: config.name.clone(), caption, rows: rows.collect() });
    }
    let words = |channel: &Channel| match channel {
        Channel::Undefended => "attacked".to_owned(),
        Channel::Beside(_) => channel.attack(&run.config),
        Channel::Denoised { sigma, under } => match under {
            Under::Transferred => format!("{}, σ\u{a0}{sigma}", run.config.defense.way()),
            Under::Through => format!("attacked through, σ\u{a0}{sigma}"),
            Under::Worst => format!("suite, σ\u{a0}{sigma}"),
            Under::Member(_) => format!("{}, σ\u{a0}{sigma}", channel.attack(&run.config)),
        },
    };
    let any = !models.is_empty();
    any.then(|| ByClass { eps: eps_label(eps), channels: channels.iter().map(words).collect(), models })
}
