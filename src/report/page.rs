//! `report.html`: a run, or several side by side, from what they left in their directories.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checks;
use super::maps::CAPTION;
use super::paired;
use super::samples::{Fate, Picture, Samples, Strip, fates};
use super::summary;
use super::words::{count, symbol, units, what_counts};
use crate::attack::StepSize;
use crate::config::Config;
use crate::draw::html::{Page, render};
use crate::draw::{Series, plot};
use crate::error::Result;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::rundir::{self, stored};
use crate::run::trials::Trials;
use crate::stats::wilson;

/// Bytes of pictures in a page at most; what is left over is left out, strip by strip.
const PICTURES: usize = 10 << 20;

/// What is missing of a run, if it did not come to its end.
fn unfinished(run: &Ledger) -> Option<String> {
    let (done, all) = run.progress();
    let ended = run.dir.join(rundir::TIMES).exists();
    (done < all || all == 0 || !ended).then(|| {
        let least = if ended { "" } else { "at least " };
        format!("{done} of {least}{all} records so far (sweep --resume goes on)")
    })
}

/// The page of one run.
///
/// # Errors
/// [`Error::File`] for damaged files of the run, [`Error::Failed`] when the page cannot be made.
pub fn of_run(run: &Ledger) -> Result<String> {
    let samples: Option<Samples> = stored(&run.dir, Samples::FILE)?;
    let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
    let times: Vec<(String, f64)> = stored(&run.dir, rundir::TIMES)?.unwrap_or_default();
    let checks = checks::all(run, trials.as_ref());
    let unfinished = unfinished(run);
    let adaptive = summary::adaptive(run);
    render(
        Page::Run,
        json!({
            "title": format!("{}: accuracy under attack", run.config.name),
            "failed": checks::failed(&checks),
            "unfinished": unfinished,
            "what": what(run),
            "times": times,
            "figure": figure(run)?,
            "adaptive": adaptive.map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()),
            "pairs": paired::models(run),
            "checks": checks,
            "samples": samples.map(|samples| pictures(run, samples)),
            "models": run.config.models.iter().map(|m| &m.name).collect::<Vec<_>>(),
        }),
    )
}

/// Several runs on one page.
///
/// # Errors
/// As [`of_run`].
pub fn of_runs(runs: &[Ledger]) -> Result<String> {
    let whats: Vec<Vec<(String, String)>> = runs.iter().map(what).collect();
    let differs = |name: &str, value: &str| {
        !whats.iter().all(|what| what.iter().any(|(other, text)| other == name && text == value))
    };
    let mut views = Vec::new();
    for (run, what) in runs.iter().zip(&whats) {
        let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
        let rows: Vec<(&str, &str, bool)> =
            what.iter().map(|(name, text)| (name.as_str(), text.as_str(), differs(name, text))).collect();
        let failed = checks::failed(&checks::all(run, trials.as_ref()));
        views.push(json!({ "name": run.name(), "what": rows, "failed": failed, "figure": figure(run)?, "unfinished": unfinished(run) }));
    }
    let names: Vec<String> = runs.iter().map(Ledger::name).collect();
    let values = json!({ "title": names.join(", "), "runs": views, "pairs": paired::runs(runs) });
    render(Page::Compare, values)
}

/// What was run, as names and values.
pub fn what(run: &Ledger) -> Vec<(String, String)> {
    let Config { attack, defense, models, seed, precision, score, .. } = &run.config;
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let list = |values: &[f64]| values.iter().map(|&v| eps_label(v)).collect::<Vec<_>>().join(", ");
    let crc = |crc: &Option<String>| crc.as_ref().map_or(String::new(), |crc| format!(" (crc32 {crc})"));
    for model in models {
        row(&format!("model {}", model.name), format!("{}{}", model.weights, crc(&model.crc32)));
    }
    row("data", format!("{} images of {}{}", run.ids.len(), run.dataset, crc(&run.config.dataset.crc32)));
    let (data, select) = (&run.config.dataset.said, run.config.dataset.select);
    let sides = |[h, w]: [usize; 2]| format!("{h}x{w}");
    let prepared = [
        data.size.map(sides),
        data.fit.map(|fit| json!(fit)).and_then(|v| v.as_str().map(|fit| format!("fit: {fit}"))),
        data.filter.map(|filter| json!(filter)).and_then(|v| v.as_str().map(str::to_owned)),
        Some(format!("selection: {select}")),
    ];
    row("images", prepared.into_iter().flatten().collect::<Vec<_>>().join(", "));
    let step = match attack.step {
        StepSize::Absolute(size) => eps_label(size),
        StepSize::OfEps(share) => format!("{share} ε"),
    };
    let start = match (&attack.starts, attack.random_start) {
        (Some(_), _) => "starts from a file",
        (None, true) => "random start",
        (None, false) => "from the clean image",
    };
    let profile = format!("{} arithmetic, loss {}", attack.profile, attack.loss);
    row(
        "attack",
        format!(
            "{} {}, {} steps of {step}, {} × {start}, {profile}{}",
            attack.label(),
            symbol(attack.norm),
            attack.steps,
            attack.restarts,
            if attack.early_stop { ", stopping at the first success" } else { "" }
        ),
    );
    row(&format!("ε, {}", units(&run.config)), list(&attack.eps));
    row("counts", what_counts(*score).to_owned());
    match defense.sigma.is_empty() {
        true => row("defence", "none".into()),
        false => {
            let weights = defense.weights.clone().unwrap_or_default();
            row(
                "defence",
                format!(
                    "one-shot denoising by {weights}{}, {}, {}",
                    crc(&defense.crc32),
                    count(defense.draws() as usize, "draw"),
                    defense.vote()
                ),
            );
            row("σ, pixel units", list(&defense.sigma));
            if let Some(size) = defense.size {
                let filter = defense.filter.map(|filter| json!(filter)).and_then(|v| v.as_str().map(str::to_owned));
                row("denoiser at", format!("{}, {}", sides(size), filter.unwrap_or_default()));
            }
            if defense.rescale_input == Some(false) || defense.rescale_output == Some(false) {
                let left = [(defense.rescale_input, "input"), (defense.rescale_output, "output")];
                let left = left.iter().filter(|(is, _)| *is == Some(false)).map(|(_, name)| *name);
                row("rescaling left out", format!("of the denoiser's {}", left.collect::<Vec<_>>().join(" and ")));
            }
            let through = match defense.attack {
                true => format!("yes: {}, {} draws a step", defense.estimator(), defense.eot()),
                false => "no: the defended accuracies are under a non-adaptive attack".into(),
            };
            row("attacked through the defence", through);
        }
    }
    row("seed", seed.to_string());
    row("device", format!("{}, {precision}", run.device));
    row("rampart", run.version.clone());
    rows
}

/// The curves, drawn and as numbers.
fn figure(run: &Ledger) -> Result<Value> {
    let (config, series) = (&run.config, summary::all_series(run));
    let axis = format!("ε, {} budget in {}", symbol(config.attack.norm), units(config));
    let [wide, narrow] = plot::inline(&axis, &series)?;
    let mut eps: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.eps)).collect();
    eps.sort_by(f64::total_cmp);
    eps.dedup();
    let line = |s: &Series| {
        let point = |&at: &f64| {
            let p = s.points.iter().find(|p| p.eps == at)?;
            let interval = wilson(p.correct, p.n);
            Some(
                json!({ "eps": eps_label(at), "accuracy": 100.0 * p.accuracy(), "lo": 100.0 * interval.lo, "hi": 100.0 * interval.hi, "correct": p.correct, "n": p.n }),
            )
        };
        let dash = [None, Some("9 6"), Some("3 6")][s.mark.min(2)];
        json!({ "name": s.name, "colour": plot::css_colour(s.colour), "mark": s.mark % 3, "dash": dash, "points": eps.iter().map(point).collect::<Vec<_>>() })
    };
    let n = run.ids.len();
    let denoised = if config.defense.sigma.is_empty() { "" } else { "; σ: denoised before the classifier" };
    Ok(json!({
        "wide": wide,
        "narrow": narrow,
        "series": series.iter().map(line).collect::<Vec<_>>(),
        "eps": eps.iter().map(|&eps| eps_label(eps)).collect::<Vec<_>>(),
        "caption": format!("Accuracy in % over ε, n = {n} images of {}. Bands: Wilson 95 % intervals. {}{denoised}.", run.dataset, capital(what_counts(config.score))),
        "table_caption": format!("The same as numbers: accuracy in %, [Wilson 95 % interval], images right of n = {n}."),
    }))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

const FATES: [(Fate, &str, &str); 5] = [
    (Fate::Recovered, "recovered", "broken by the attack, recovered at one sigma or more"),
    (Fate::Broken, "broken", "broken by the attack, for good"),
    (Fate::Robust, "robust", "right in spite of the attack"),
    (Fate::Spoiled, "spoiled", "right when attacked, wrong when denoised"),
    (Fate::WrongWhenClean, "wrong-when-clean", "wrong when clean"),
];

fn pictures(run: &Ledger, samples: Samples) -> Value {
    let mut room = PICTURES;
    let eps = samples.eps;
    let mut left_out = 0;
    let mut models = Vec::new();
    for of_model in samples.models {
        let index = run.config.models.iter().position(|m| m.name == of_model.model);
        let mut counts: BTreeMap<Fate, usize> = BTreeMap::new();
        index
            .map_or(vec![], |model| fates(run, model, eps))
            .into_iter()
            .flatten()
            .for_each(|fate| *counts.entry(fate).or_default() += 1);
        let words =
            FATES.iter().filter_map(|(fate, _, words)| counts.get(fate).map(|count| format!("{count} {words}")));
        let words: Vec<String> = words.collect();
        let mut strips = Vec::new();
        for strip in of_model.strips {
            let bytes: usize = strip.pictures.iter().map(|p| p.uri.len()).sum();
            match room.checked_sub(bytes) {
                Some(rest) => {
                    room = rest;
                    strips.push(view(strip));
                }
                None => left_out += 1,
            }
        }
        models.push(json!({
            "model": of_model.model, "image": of_model.image, "maps": of_model.maps, "strips": strips,
            "fates": match words.is_empty() {
                true => String::new(),
                false => format!(
                    "All {} images at ε {}, under the attack that does not know of the defence: {}.",
                    counts.values().sum::<usize>(), eps_label(eps), words.join(" · ")
                ),
            },
        }));
    }
    let rest = if left_out > 0 { format!(" {left_out} strips are only in {}.", Samples::FILE) } else { String::new() };
    json!({
        "caption": format!(
            "A sample at ε {}: images taken in turn from what attack and defence (at one sigma or more) did on the first model, the same for every model; all \
             others are in records.jsonl. Under each picture the predicted class with its softmax; ✗ and a frame mark wrong ones. The difference is attacked less clean, \
             times 10, plus grey 0.5.{rest}",
            eps_label(eps)
        ),
        "maps_caption": format!(
            "One image, n = 1: clean, attacked at every ε, and denoised where ε is {}. Shift: |f(x′) − f(x)| / |f(x)| in L2 over all values of the module, against the clean image. Colours: {}.",
            eps_label(eps),
            CAPTION
        ),
        "fate_names": FATES.iter().map(|(_, key, words)| (key, words)).collect::<Vec<_>>(),
        "models": models,
    })
}

fn view(strip: Strip) -> Value {
    let confidence = |p: Option<&Picture>| p.and_then(|p| p.says.as_ref()).map_or(0.0, |says| says.1);
    let (clean, last) = (confidence(strip.pictures.first()), confidence(strip.pictures.last()));
    let rank = FATES.iter().position(|(fate, ..)| *fate == strip.fate).unwrap_or(FATES.len());
    let words = FATES.get(rank).map_or("", |(_, _, words)| words);
    json!({
        "image": strip.image, "label": strip.label, "fate": strip.fate, "rank": rank, "fate_name": words, "clean": clean, "last": last,
        "pictures": strip.pictures,
    })
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
