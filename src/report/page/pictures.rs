//! A sample of the images in every state, and the feature maps of one of them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::maps::{CAPTION, Grid};
use super::super::samples::{Fate, Picture, Samples, Strip, fates};
use super::super::words::{count, significant};
use crate::number::eps_label;
use crate::run::ledger::Ledger;

/// Bytes of pictures in a page at most; what is left over is left out, strip by strip.
const MOST: usize = 10 << 20;

#[derive(Serialize)]
pub(super) struct Sample {
    /// What there is to unfold.
    summary: String,
    caption: String,
    maps_caption: String,
    fates: Vec<Named>,
    models: Vec<OfModel>,
}

/// A choice of the list that filters strips.
#[derive(Serialize)]
struct Named {
    key: &'static str,
    words: &'static str,
}

#[derive(Serialize)]
struct OfModel {
    model: String,
    image: Option<u64>,
    fates: String,
    strips: Vec<Card>,
    maps: Maps,
    /// As [`Maps`] has them, of the pictures of a strip.
    wide: usize,
    narrow: usize,
}

/// One image in all its states.
#[derive(Serialize)]
struct Card {
    image: u64,
    label: String,
    fate: &'static str,
    fate_words: &'static str,
    /// What strips are sorted by.
    rank: usize,
    clean: f32,
    last: f32,
    pictures: Vec<Shown>,
}

/// A picture and what the classifier says of it.
#[derive(Serialize)]
pub struct Shown {
    pub name: String,
    pub uri: String,
    pub says: Option<Says>,
}

#[derive(Serialize)]
pub struct Says {
    pub label: String,
    /// In %.
    pub confidence: f64,
    pub wrong: bool,
}

/// The maps of one image: a row per module, a column per state.
#[derive(Serialize)]
pub struct Maps {
    /// Pictures side by side on a wide and on a narrow screen, so that no row ends in a lonely one.
    wide: usize,
    narrow: usize,
    rows: Vec<MapRow>,
}

#[derive(Serialize)]
struct MapRow {
    module: String,
    what: String,
    shape: String,
    /// What the colour bar means, and its ends.
    scale: String,
    lo: String,
    hi: String,
    strip: bool,
    cells: Vec<Map>,
}

#[derive(Serialize)]
struct Map {
    state: String,
    picture: String,
    /// Nothing for the first state, which the others are compared with.
    shift: Option<f64>,
}

impl Maps {
    pub fn new(grid: Grid) -> Maps {
        let rows = grid.rows.into_iter().map(|row| MapRow {
            lo: significant(f64::from(row.lo)),
            hi: significant(f64::from(row.hi)),
            cells: row
                .cells
                .into_iter()
                .zip(&grid.columns)
                .enumerate()
                .map(|(i, (cell, state))| Map {
                    state: state.clone(),
                    picture: cell.picture,
                    shift: (i > 0).then_some(cell.shift),
                })
                .collect(),
            module: row.module,
            what: row.what,
            shape: row.shape,
            scale: row.scale,
            strip: row.strip,
        });
        Maps { wide: columns(grid.columns.len(), 9), narrow: columns(grid.columns.len(), 4), rows: rows.collect() }
    }
}

/// Columns for `n` pictures, at most `most`, the rows as even as they can be.
fn columns(n: usize, most: usize) -> usize {
    n.div_ceil(n.div_ceil(most).max(1)).max(1)
}

const FATES: [(Fate, &str, &str); 5] = [
    (Fate::Recovered, "recovered", "broken by the attack, recovered at one sigma or more"),
    (Fate::Broken, "broken", "broken by the attack, for good"),
    (Fate::Robust, "robust", "right in spite of the attack"),
    (Fate::Spoiled, "spoiled", "right when attacked, wrong when denoised"),
    (Fate::WrongWhenClean, "wrong-when-clean", "wrong when clean"),
];

pub(super) fn sample(run: &Ledger, samples: Samples) -> Sample {
    let (mut room, mut left_out, eps) = (MOST, 0, samples.eps);
    let mut models = Vec::new();
    for of_model in samples.models {
        let mut strips = Vec::new();
        let states = of_model.strips.first().map_or(0, |strip| strip.pictures.len());
        for strip in of_model.strips {
            let bytes: usize = strip.pictures.iter().map(|p| p.uri.len()).sum();
            match room.checked_sub(bytes) {
                Some(rest) => {
                    room = rest;
                    strips.push(card(strip));
                }
                None => left_out += 1,
            }
        }
        models.push(OfModel {
            fates: tally(run, &of_model.model, eps),
            model: of_model.model,
            image: of_model.image,
            maps: Maps::new(of_model.maps),
            wide: columns(states, 9),
            narrow: columns(states, 4),
            strips,
        });
    }
    let rest = match left_out {
        0 => String::new(),
        n => format!(" {} only in {}.", count(n, "strip") + if n == 1 { " is" } else { " are" }, Samples::FILE),
    };
    let cards = models.iter().map(|m| m.strips.len()).sum();
    Sample {
        summary: format!("{} at ε {}", count(cards, "image card"), eps_label(eps)),
        caption: format!(
            "A sample at ε {}: images taken in turn from what attack and defence (at one sigma or more) did on the first model, the same for every model; all \
             others are in records.jsonl. Under each picture the predicted class with its softmax; ✗ and a frame mark wrong ones. The difference is attacked less clean, \
             times 10, plus grey 0.5.{rest}",
            eps_label(eps)
        ),
        maps_caption: format!(
            "One image, n = 1: clean, attacked at every ε, and denoised where ε is {}. Shift: |f(x′) − f(x)| / |f(x)| in L2 over all values of the module, against the clean image. Colours: {}.",
            eps_label(eps),
            CAPTION
        ),
        fates: FATES.iter().map(|&(_, key, words)| Named { key, words }).collect(),
        models,
    }
}

/// How many of all images of the run share each fate, in words.
fn tally(run: &Ledger, model: &str, eps: f64) -> String {
    let Some(model) = run.config.models.iter().position(|m| m.name == model) else { return String::new() };
    let mut counts: BTreeMap<Fate, usize> = BTreeMap::new();
    fates(run, model, eps).into_iter().flatten().for_each(|fate| *counts.entry(fate).or_default() += 1);
    let words = FATES.iter().filter_map(|(fate, _, words)| counts.get(fate).map(|count| format!("{count} {words}")));
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return String::new();
    }
    format!(
        "All {} images at ε {}, under the attack that does not know of the defence: {}.",
        counts.values().sum::<usize>(),
        eps_label(eps),
        words.join(" · ")
    )
}

fn card(strip: Strip) -> Card {
    let confidence = |p: Option<&Picture>| p.and_then(|p| p.says.as_ref()).map_or(0.0, |says| says.1);
    let (clean, last) = (confidence(strip.pictures.first()), confidence(strip.pictures.last()));
    let rank = FATES.iter().position(|(fate, ..)| *fate == strip.fate).unwrap_or(0);
    let (_, fate, fate_words) = FATES[rank];
    let shown = |p: Picture| Shown {
        name: p.name,
        uri: p.uri,
        says: p.says.map(|(label, share, right)| Says { label, confidence: 100.0 * f64::from(share), wrong: !right }),
    };
    let pictures = strip.pictures.into_iter().map(shown).collect();
    Card { image: strip.image, label: strip.label, fate, fate_words, rank, clean, last, pictures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_pictures_are_even() {
        assert_eq!([0, 1, 8, 9, 10, 19].map(|n| columns(n, 9)), [1, 1, 8, 9, 5, 7]);
        assert_eq!([5, 6, 7, 8].map(|n| columns(n, 4)), [3, 3, 4, 4]);
    }
}
