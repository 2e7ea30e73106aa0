//! Two classifiers on the same images, cell by cell.

use std::collections::HashMap;

use serde::Serialize;

use super::words;
use crate::config::{DatasetConfig, ModelConfig};
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Channel, Under};
use crate::stats::{holm, mcnemar, newcombe};

/// One comparison at one epsilon in one channel.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    pub first: String,
    pub second: String,
    pub channel: String,
    pub eps: f64,
    pub eps_label: String,
    /// Images that both, only the first, only the second and neither has right.
    pub both: u64,
    pub only_first: u64,
    pub only_second: u64,
    pub neither: u64,
    pub n: u64,
    /// Accuracy of the first less that of the second in points, with its 95 % interval (Newcombe).
    pub difference: f64,
    pub lo: f64,
    pub hi: f64,
    /// McNemar, mid-p, and the same adjusted for all comparisons of the list (Holm).
    pub p: f64,
    pub p_adjusted: f64,
}

impl Pair {
    fn new([first, second]: [&String; 2], channel: String, eps: f64, counts: [u64; 4]) -> Pair {
        let [both, only_first, only_second, neither] = counts;
        let (difference, interval) = newcombe(both, only_first, only_second, neither);
        Pair {
            first: first.clone(),
            second: second.clone(),
            channel,
            eps,
            eps_label: eps_label(eps),
            both,
            only_first,
            only_second,
            neither,
            n: counts.iter().sum(),
            difference: 100.0 * difference,
            lo: 100.0 * interval.lo,
            hi: 100.0 * interval.hi,
            p: mcnemar(only_first, only_second).mid_p,
            p_adjusted: 1.0,
        }
    }
}

/// Every pair of models of a run at its middle epsilon, on the images that both have right when clean: undefended where the attacked images
/// are, and in front of a denoiser behind it. Those of two models follow each other.
pub fn conditioned(run: &Ledger) -> Vec<Pair> {
    let (config, mut pairs) = (&run.config, Vec::new());
    let Some(eps) = config.attack.middle_eps() else { return pairs };
    for second in 1..config.models.len() {
        for first in 0..second {
            for channel in results::shown(config) {
                let Some(cells) = run.cell(first, channel, eps).zip(run.cell(second, channel, eps)) else { continue };
                let mut counts = [0; 4];
                for image in 0..run.ids.len() {
                    let clean = [first, second].iter().all(|&model| right_when_clean(run, model, channel, image));
                    let right = right_of(run, cells.0, image).zip(right_of(run, cells.1, image));
                    if let Some((x, y)) = right.filter(|_| clean) {
                        counts[2 * usize::from(!x) + usize::from(!y)] += 1;
                    }
                }
                let names = [first, second].map(|model| &config.models[model].name);
                pairs.push(Pair::new(names, words::channel(config, channel), eps, counts));
            }
        }
    }
    adjusted(pairs)
}

/// Without an attack, through the same channel.
fn right_when_clean(run: &Ledger, model: usize, channel: Channel, image: usize) -> bool {
    if let Channel::Denoised { sigma, .. } = channel {
        let clean = run.cell(model, Channel::Denoised { sigma, under: Under::Transferred }, 0.0);
        return clean.and_then(|cell| right_of(run, cell, image)) == Some(true);
    }
    let mut cells = run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, channel, eps));
    cells.any(|cell| matches!(run.found[cell][image], Some(Found::Attacked(outcome)) if outcome.correct_clean))
}

/// Every pair of models of a run.
pub fn models(run: &Ledger) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for second in 1..run.config.models.len() {
        for first in 0..second {
            let name = |model: usize| run.config.models[model].name.clone();
            compare((run, first, name(first)), (run, second, name(second)), &mut pairs);
        }
    }
    adjusted(pairs)
}

/// Models of one name and checksum in two runs over the same dataset, on the images that both runs scored.
pub fn runs(runs: &[Ledger]) -> Vec<Pair> {
    let names = words::names(runs);
    let mut pairs = Vec::new();
    for (i, a) in runs.iter().enumerate() {
        // Equal numbers mean equal budgets in one norm and one space only.
        let alike = |b: &Ledger| {
            let (x, y) = (&a.config.attack, &b.config.attack);
            b.dataset == a.dataset && x.norm == y.norm && x.normalised() == y.normalised() && same_images(a, b).is_ok()
        };
        for (j, b) in runs.iter().enumerate().skip(i + 1).filter(|(_, b)| alike(b)) {
            for (first, model) in a.config.models.iter().enumerate() {
                let alike = |m: &ModelConfig| {
                    let given = (&m.mean, &m.std, m.channels, m.layout);
                    let own = (&model.mean, &model.std, model.channels, model.layout);
                    m.name == model.name && m.crc32 == model.crc32 && given == own
                };
                let Some(second) = b.config.models.iter().position(alike) else {
                    continue;
                };
                let name = |run: usize| format!("{}: {}", names[run], model.name);
                compare((a, first, name(i)), (b, second, name(j)), &mut pairs);
            }
        }
    }
    adjusted(pairs)
}

/// Runs of one name of images whose images are others, in words.
pub fn unpaired(runs: &[Ledger]) -> Vec<String> {
    let names = words::names(runs);
    let mut lines = Vec::new();
    for (i, a) in runs.iter().enumerate() {
        for (j, b) in runs.iter().enumerate().skip(i + 1).filter(|(_, b)| b.dataset == a.dataset) {
            if let Err(why) = same_images(a, b) {
                lines.push(format!("{} and {} are not compared image by image: {why}.", names[i], names[j]));
            }
        }
    }
    lines
}

/// Numbers of images mean the same ones where the checksum is the same; where only some of them are in both runs, or they were prepared in
/// another way, as far as labels and what a network of both makes of them when clean say so.
fn same_images(a: &Ledger, b: &Ledger) -> Result<(), String> {
    let [x, y] = [a, b].map(|run| &run.config.dataset);
    if x.crc32.is_some() && x.crc32 == y.crc32 {
        return Ok(());
    }
    let prepared = |of: &DatasetConfig| {
        let said = &of.said;
        (said.size, said.fit, said.shorter, said.filter)
    };
    let chosen = |of: &DatasetConfig| (of.select, of.seed, of.said.list.clone());
    let alike = a.config.limit == b.config.limit && chosen(x) == chosen(y) && prepared(x) == prepared(y);
    if let (Some(p), Some(q), true) = (&x.crc32, &y.crc32, alike) {
        return Err(format!("their images have other checksums, {p} and {q}"));
    }
    let places: HashMap<u64, usize> = b.ids.iter().enumerate().map(|(place, &id)| (id, place)).collect();
    let both: Vec<(usize, usize)> =
        a.ids.iter().enumerate().filter_map(|(i, id)| places.get(id).map(|&j| (i, j))).collect();
    if let Some(&(i, j)) = both.iter().find(|&&(i, j)| a.labels[i] != b.labels[j]) {
        let (id, first, second) = (a.ids[i], a.labels[i], b.labels[j]);
        return Err(format!("image {id} has the label {first} in one and {second} in the other"));
    }
    // Other processors and number formats move a few predictions.
    let (mut n, mut other) = (0, 0);
    for (first, model) in a.config.models.iter().enumerate() {
        let Some(second) = b.config.models.iter().position(|m| m.crc32 == model.crc32) else { continue };
        for &(i, j) in &both {
            if let (Some(p), Some(q)) = (clean_prediction(a, first, i), clean_prediction(b, second, j)) {
                (n, other) = (n + 1, other + usize::from(p != q));
            }
        }
    }
    match 10 * other > n {
        true => Err(format!("one network sees other classes in {other} of {n} of their clean images")),
        false => Ok(()),
    }
}

fn clean_prediction(run: &Ledger, model: usize, image: usize) -> Option<u32> {
    let mut cells = run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, Channel::Undefended, eps));
    cells.find_map(|cell| match run.found[cell][image] {
        Some(Found::Attacked(outcome)) => Some(outcome.clean_prediction),
        _ => None,
    })
}

type Side<'a> = (&'a Ledger, usize, String);

fn compare((a, first, name_a): Side, (b, second, name_b): Side, pairs: &mut Vec<Pair>) {
    let places: HashMap<u64, usize> = b.ids.iter().enumerate().map(|(place, &id)| (id, place)).collect();
    let both: Vec<(usize, usize)> =
        a.ids.iter().enumerate().filter_map(|(i, id)| places.get(id).map(|&j| (i, j))).collect();
    // What stands beside the attacks of one run may be another attack than beside those of the other.
    let alike = |channel: &Channel| match *channel {
        Channel::Beside(place) => a.config.attack.beside.get(place) == b.config.attack.beside.get(place),
        _ => true,
    };
    for channel in results::shown(&a.config).into_iter().filter(alike) {
        for &eps in &a.config.attack.eps {
            let (Some(left), Some(right)) = (a.cell(first, channel, eps), b.cell(second, channel, eps)) else {
                continue;
            };
            let mut counts = [0; 4];
            for &(i, j) in &both {
                if let (Some(x), Some(y)) = (right_of(a, left, i), right_of(b, right, j)) {
                    counts[2 * usize::from(!x) + usize::from(!y)] += 1;
                }
            }
            let channel = words::channel(&a.config, channel);
            pairs.push(Pair::new([&name_a, &name_b], channel, eps, counts));
        }
    }
}

/// Whether an image counts as right; of several seeds of the noise, under most of them.
fn right_of(run: &Ledger, cell: usize, image: usize) -> Option<bool> {
    match run.found[cell][image] {
        Some(Found::Denoised(smoothed)) => Some(smoothed.correct_over_seeds()),
        _ => run.correct(cell, image),
    }
}

fn adjusted(mut pairs: Vec<Pair>) -> Vec<Pair> {
    pairs.retain(|pair| pair.n > 0);
    let p: Vec<f64> = pairs.iter().map(|pair| pair.p).collect();
    pairs.iter_mut().zip(holm(&p)).for_each(|(pair, p)| pair.p_adjusted = p);
    pairs
}
