//! The curves of a run, drawn and as numbers.

use serde::Serialize;

use super::super::summary;
use super::super::words::{capital, symbol, units, what_counts};
use crate::draw::{Series, plot};
use crate::error::Result;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::stats::wilson;

#[derive(Serialize)]
pub(super) struct Figure {
    /// SVG, for a wide and for a narrow screen.
    wide: String,
    narrow: String,
    curves: Vec<Curve>,
    eps: Vec<String>,
    caption: String,
    table_caption: String,
}

#[derive(Serialize)]
struct Curve {
    name: String,
    colour: String,
    mark: &'static str,
    /// Of the line, as SVG says it.
    dash: &'static str,
    /// At every epsilon; `None` where nothing was scored.
    points: Vec<Option<Scored>>,
}

#[derive(Serialize)]
struct Scored {
    eps: String,
    /// In %, with its interval.
    accuracy: f64,
    lo: f64,
    hi: f64,
    correct: u64,
    n: u64,
}

pub(super) fn figure(run: &Ledger) -> Result<Figure> {
    let (config, series) = (&run.config, summary::all_series(run));
    let axis = format!("ε, {} budget in {}", symbol(config.attack.norm), units(config));
    let [wide, narrow] = plot::inline(&axis, &series)?;
    let eps = summary::epsilons(&series);
    let n = run.ids.len();
    let denoised = if config.defense.sigma.is_empty() { "" } else { "; σ: denoised before the classifier" };
    Ok(Figure {
        wide,
        narrow,
        curves: series.iter().map(|s| curve(s, &eps)).collect(),
        eps: eps.iter().map(|&eps| eps_label(eps)).collect(),
        caption: format!(
            "Accuracy in % over ε, n = {n} images of {}. Bands: Wilson 95 % intervals. {}{denoised}.",
            run.dataset,
            capital(what_counts(config.score))
        ),
        table_caption: format!("The same as numbers: accuracy in %, [Wilson 95 % interval], images right of n = {n}."),
    })
}

fn curve(series: &Series, eps: &[f64]) -> Curve {
    let point = |&at: &f64| {
        let p = series.points.iter().find(|p| p.eps == at)?;
        let interval = wilson(p.correct, p.n);
        Some(Scored {
            eps: eps_label(at),
            accuracy: 100.0 * p.accuracy(),
            lo: 100.0 * interval.lo,
            hi: 100.0 * interval.hi,
            correct: p.correct,
            n: p.n,
        })
    };
    Curve {
        name: series.name.clone(),
        colour: plot::css_colour(series.colour),
        mark: ["circle", "square", "triangle"][series.mark % 3],
        dash: ["none", "9 6", "3 6"][series.mark.min(2)],
        points: eps.iter().map(point).collect(),
    }
}
