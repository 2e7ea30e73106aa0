//! Accuracy over epsilon, as curves: the figure of a run and the rows of its tables.

use super::mark::Mark;
use super::words::{self, count, symbol, units, what_counts};
use crate::config::Config;
use crate::config::settings::Score;
use crate::draw::plot::{self, Figure};
use crate::draw::{Point, Series};
use crate::error::Result;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Cell, Channel};

/// Accuracy over epsilon: undefended and at every sigma, for every model.
///
/// # Errors
/// [`crate::Error::Failed`] when it cannot be drawn.
pub fn figure(run: &Ledger, mark: &Mark) -> Result<Figure> {
    let Ledger { config, dataset, .. } = run;
    let (attack, defense) = (&config.attack, &config.defense);
    let mut how = vec![format!("{} {}", attack.label(), symbol(attack.norm)), count(attack.steps as usize, "step")];
    if attack.restarts > 1 {
        how.push(count(attack.restarts as usize, "restart"));
    }
    how.push(format!("{} images", run.ids.len()));
    how.push(what_counts(config.score).to_owned());
    if !defense.sigma.is_empty() {
        how.push(format!("{} once under {}", defense.way(), count(defense.draws() as usize, "draw")));
    }
    let title = match defense.sigma.is_empty() {
        true => format!("Accuracy under attack: {}", dataset),
        false => format!("Accuracy under attack, undefended and {}: {}", defense.way(), dataset),
    };
    let x_axis = format!("ε, {} budget in {}", symbol(attack.norm), units(config));
    plot::accuracy(&(title + &mark.title()), &how.join(" · "), &x_axis, &curves(run))
}

/// The curves of a figure: as [`all_series`], and where the smallest budget is known that breaks each image, in steps from one to the next.
pub fn curves(run: &Ledger) -> Vec<Series> {
    let mut all = all_series(run);
    let undefended = all.iter_mut().filter(|series| series.colour == 0);
    for (model, series) in undefended.enumerate() {
        if let Some(points) = broken_at(run, model) {
            (series.points, series.steps) = (points, true);
        }
    }
    all
}

/// Images that are right within every budget up to the largest, from the smallest one that breaks each; nothing where no attack looked for it.
pub(super) fn broken_at(run: &Ledger, model: usize) -> Option<Vec<Point>> {
    let most = run.config.attack.eps.last().copied()?;
    let cell = run.cell(model, Channel::Undefended, most)?;
    let (mut radii, mut right, mut n) = (Vec::new(), 0u64, 0u64);
    for found in run.found[cell].iter().flatten() {
        let Found::Attacked(outcome) = found else { continue };
        n += 1;
        right += u64::from(outcome.correct_clean);
        radii.extend(outcome.radius);
    }
    if radii.is_empty() {
        return None;
    }
    radii.sort_by(f64::total_cmp);
    let mut points = vec![Point { eps: 0.0, correct: right, n }];
    for same in radii.chunk_by(|a, b| a == b) {
        right -= same.len() as u64;
        points.push(Point { eps: same[0], correct: right, n });
    }
    points.push(Point { eps: most, correct: right, n });
    Some(points)
}

/// Every curve of a run, at the budgets that were asked for.
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
pub(super) fn series(config: &Config, cells: &[Cell], score: Score, wanted: impl Fn(Channel) -> bool) -> Vec<Series> {
    let channels = results::shown(config);
    let mut all = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        for (colour, &channel) in channels.iter().enumerate().filter(|(_, channel)| wanted(**channel)) {
            let own = || cells.iter().filter(move |cell| cell.model == model && cell.channel == channel);
            let clean = own().next().filter(|first| first.eps > 0.0 && !channel.is_defended());
            let clean = clean.map(|first| Point { eps: 0.0, correct: first.clean, n: first.n });
            let points = own().map(|cell| Point { eps: cell.eps, correct: cell.correct(score), n: cell.n });
            let name = words::curve(config, &named.name, channel);
            all.push(Series {
                name,
                points: clean.into_iter().chain(points).filter(|p| p.n > 0).collect(),
                colour,
                mark: model,
                steps: false,
                unsure: 0.0,
            });
        }
    }
    all
}
