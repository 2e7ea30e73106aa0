//! What was run, as names and values.

use serde::Serialize;

use super::super::words::{self, count, symbol, target, units, what_counts};
use crate::attack::StepSize;
use crate::config::settings::Procedure;
use crate::config::{Config, DefenseConfig};
use crate::defense::suite::SUITE;
use crate::number::eps_label;
use crate::run::ledger::Ledger;

/// One name and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Fact { name: name.into(), value: value.into() }
    }
}

/// What of it certificates without attacks depend on.
pub fn of_certificates(run: &Ledger) -> Vec<Fact> {
    const ATTACKS: [&str; 6] =
        ["data", "attack", "targeted", "counts", "attacked through the defence", "adaptive suite"];
    let about = |fact: &Fact| !ATTACKS.contains(&fact.name.as_str()) && !fact.name.starts_with('ε');
    what(run).into_iter().filter(about).collect()
}

/// How images are certified, in words.
fn certificates(config: &Config) -> Option<String> {
    let certify = config.certify.as_ref()?;
    let predicts = certify.procedure == Procedure::Predict;
    let mut words = Vec::new();
    if !predicts {
        words.push(format!("{} draws choose the class", certify.n0));
    }
    words.push(match certify.radius.is_empty() {
        true if predicts => format!("{} draws predict a class, or abstain (binomial test)", certify.n),
        true => format!("{} bound its share (Clopper-Pearson)", certify.n),
        false => {
            let radii: Vec<String> = certify.radius.iter().map(|&radius| eps_label(radius)).collect();
            format!(
                "an anytime bound (an extension of the published procedure) until radius {} is decided, {} at most",
                radii.join(", "),
                certify.n
            )
        }
    });
    words.push(format!("α {} per image", certify.alpha));
    words.extend(certify.skip.map(|skip| format!("images whose number is a multiple of {skip}")));
    words.extend(certify.max.map(|max| format!("numbers below {max}")));
    Some(words.join(", "))
}

/// What was run, as names and values.
pub fn what(run: &Ledger) -> Vec<Fact> {
    let Config { attack, defense, models, seed, precision, score, .. } = &run.config;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(Fact::new(name, value));
    let list = |values: &[f64]| values.iter().map(|&v| eps_label(v)).collect::<Vec<_>>().join(", ");
    let crc = |crc: &Option<String>| crc.as_ref().map_or(String::new(), |crc| format!(" (crc32 {crc})"));
    for model in models {
        // Two runs of one file are runs of two classifiers where they give it other values.
        let channels = model.channels.map_or(String::new(), |channels| format!(", {channels}"));
        let values = match (&model.mean, &model.std) {
            (Some(mean), Some(std)) => format!(", mean {mean:?}, std {std:?}"),
            _ => String::new(),
        };
        row(&format!("model {}", model.name), format!("{}{}{values}{channels}", model.weights, crc(&model.crc32)));
    }
    row("data", format!("{}{}", words::images(run), crc(&run.config.dataset.crc32)));
    let (data, select) = (&run.config.dataset.said, run.config.dataset.select);
    let sides = |[h, w]: [usize; 2]| format!("{h}x{w}");
    let prepared = [
        data.size.map(sides),
        data.fit.map(|fit| format!("fit: {fit}")),
        data.filter.map(|filter| filter.to_string()),
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
    if let Some(aim) = target(attack.targeted) {
        row(
            "targeted",
            format!(
                "{aim} (rule: {}); accuracy is of the label, the target is reached when that class is predicted",
                attack.targeted
            ),
        );
    }
    row(&format!("ε, {}", units(&run.config)), list(&attack.eps));
    row("counts", what_counts(*score).to_owned());
    match defense.sigma.is_empty() {
        true => row("defence", "none".into()),
        false => {
            let way = match defense.denoiser() {
                Some(weights) => format!("one-shot denoising by {weights}{}", crc(&defense.crc32)),
                None => "noise alone, which the classifier gets as it is".into(),
            };
            row("defence", format!("{way}, {}, {}", count(defense.draws() as usize, "draw"), defense.vote()));
            row("σ, pixel units", list(&defense.sigma));
            if let Some(size) = defense.size {
                let filter = defense.filter.map_or(String::new(), |filter| format!(", {filter}"));
                row("denoiser at", format!("{}{filter}", sides(size)));
            }
            if defense.rescale_input == Some(false) || defense.rescale_output == Some(false) {
                let left = [(defense.rescale_input, "input"), (defense.rescale_output, "output")];
                let left = left.iter().filter(|(is, _)| *is == Some(false)).map(|(_, name)| *name);
                row("rescaling left out", format!("of the denoiser's {}", left.collect::<Vec<_>>().join(" and ")));
            }
            let through = match defense.attack {
                true if defense.is_blind() => {
                    "no: the estimator is blind to it, the defended accuracies are under non-adaptive attacks".into()
                }
                true => format!("yes: {}, {} draws a step{}", defense.estimator(), defense.eot(), books(defense)),
                false if defense.suite => "by the suite".into(),
                false => "no: the defended accuracies are under a non-adaptive attack".into(),
            };
            row("attacked through the defence", through);
            if defense.suite {
                let how = format!(
                    "{} attacks, {} steps of PGD, {} draws a step{}, {} draws to choose a point",
                    SUITE.len(),
                    defense.steps(),
                    defense.eot(),
                    books(defense),
                    defense.selection()
                );
                row("adaptive suite", how);
            }
        }
    }
    if let Some(certificates) = certificates(&run.config) {
        row("certificates", certificates);
    }
    row("seed", seed.to_string());
    row("device", format!("{}, {precision}", run.device));
    row("rampart", run.version.clone());
    if let Some(date) = &run.date {
        row("begun (UTC)", date.replace('T', " ").replace('Z', ""));
    }
    if let Some(command) = &run.command {
        row("command", command.clone());
    }
    rows
}

/// What APGD's books are kept by, where it is not what all draws say together.
fn books(defense: &DefenseConfig) -> &'static str {
    if defense.aa_compat { ", of which APGD keeps books by the last, as AutoAttack" } else { "" }
}
