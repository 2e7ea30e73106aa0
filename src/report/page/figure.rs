//! The curves of a run, drawn and as numbers.

use serde::Serialize;

use super::super::curves;
use super::super::mark::Mark;
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
    curves: Vec<Legend>,
    caption: String,
    table: Table,
    /// The label among the five likeliest classes, where that is scored.
    top5: Option<Table>,
}

#[derive(Serialize)]
struct Table {
    caption: String,
    /// Behind each number.
    sign: &'static str,
    eps: Vec<String>,
    rows: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    /// At every epsilon; `None` where nothing was scored.
    points: Vec<Option<Scored>>,
}

/// A curve as the legend names it.
#[derive(Serialize)]
pub(super) struct Legend {
    name: String,
    colour: String,
    mark: &'static str,
    /// Of the line, as SVG says it.
    dash: &'static str,
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

pub(super) fn figure(run: &Ledger, mark: &Mark) -> Result<Figure> {
    let (config, series) = (&run.config, curves::all_series(run));
    let axis = format!("ε, {} budget in {}", symbol(config.attack.norm), units(config));
    let drawn = curves::curves(run);
    let [wide, narrow] = plot::inline(&axis, &drawn)?;
    let n = run.ids.len();
    let denoised = match config.defense.sigma.is_empty() {
        true => String::new(),
        false => format!("; σ: {} before the classifier", config.defense.way()),
    };
    let caption = format!("The same as numbers: accuracy in %, [Wilson 95 % interval], images right of n = {n}.");
    let top5 = config.dataset.top5().then(|| {
        let caption = format!(
            "Top-5 accuracy in %: the label is among the five likeliest classes of the last iterate, or of the vote where denoised; n = {n}."
        );
        table(caption + &mark.title(), &curves::top5_series(run), mark)
    });
    Ok(Figure {
        wide,
        narrow,
        curves: drawn.iter().map(Legend::of).collect(),
        caption: format!(
            "Accuracy in % over ε, n = {n} images of {}. Bands: Wilson 95 % intervals. {}{denoised}.{}",
            run.dataset,
            capital(what_counts(config.score)),
            mark.title()
        ),
        table: table(caption + &mark.title(), &series, mark),
        top5,
    })
}

impl Legend {
    pub(super) fn of(series: &Series) -> Legend {
        Legend {
            name: series.name.clone(),
            colour: plot::css_colour(series.colour),
            mark: if series.steps { "none" } else { ["circle", "square", "triangle"][series.mark % 3] },
            dash: plot::dash(series.mark),
        }
    }
}

fn table(caption: String, series: &[Series], mark: &Mark) -> Table {
    let eps = curves::epsilons(series);
    let point = |s: &Series, at: f64| {
        let p = s.points.iter().find(|p| p.eps == at)?;
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
    let row = |s: &Series| Line { name: s.name.clone(), points: eps.iter().map(|&at| point(s, at)).collect() };
    Table {
        caption,
        sign: mark.sign(),
        rows: series.iter().map(row).collect(),
        eps: eps.iter().map(|&eps| eps_label(eps)).collect(),
    }
}
