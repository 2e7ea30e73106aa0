//! Certified accuracy over radius: curves, tables, and what attacks say of it.

pub mod cross;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::config::certify::Certify;
use crate::config::settings::Procedure;
use crate::draw::plot::{self, Figure};
use crate::draw::{Point, Series};
use crate::error::Result;
use crate::number::eps_label;
use crate::run::certify::{Cell, Certification, Certified, missing, tsv};
use crate::run::ledger::Ledger;
use crate::run::results::{Channel, Under};
use crate::run::rundir::RunDir;
use crate::stats::certificate::sure_accuracy;
use crate::stats::wilson;

use self::cross::{Crossed, cross};
use super::words::{count, list, percent};

/// The chance that the sure accuracy of a table is wrong, over all its images (Cohen et al. 2019).
pub const RHO: f64 = 0.001;

/// Certificates of one pipeline, ours or a published table, as curves need them.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: String,
    /// None of a table of others, which does not say its alpha either.
    pub sigma: Option<f64>,
    /// Radii of the images that are certified for their label, ascending.
    radii: Vec<f64>,
    /// All images; those that are certified for another class or abstained on are errors at every radius.
    pub n: u64,
    colour: usize,
    mark: usize,
}

impl Curve {
    fn new(name: String, sigma: Option<f64>, n: usize, radii: impl Iterator<Item = f64>, look: [usize; 2]) -> Curve {
        let mut radii: Vec<f64> = radii.collect();
        radii.sort_by(f64::total_cmp);
        let [colour, mark] = look;
        Curve { name, sigma, radii, n: n as u64, colour, mark }
    }

    /// Images that are certified for their label at a radius of at least this.
    pub fn certified(&self, radius: f64) -> u64 {
        (self.radii.len() - self.radii.partition_point(|&own| own < radius)) as u64
    }

    pub fn accuracy(&self, radius: f64) -> f64 {
        self.certified(radius) as f64 / self.n.max(1) as f64
    }

    /// In steps from one radius to the next, up to `last`; beside them what is sure but for a chance of [`RHO`].
    fn series(&self, alpha: f64, last: f64) -> Series {
        // The same at every accuracy.
        let unsure = self.sigma.map_or(0.0, |_| 1.0 - sure_accuracy(1.0, self.n.max(1), alpha, RHO));
        let point = |eps: f64, correct: usize| Point { eps, correct: correct as u64, n: self.n };
        let mut points = vec![point(0.0, self.radii.len())];
        let mut left = self.radii.len();
        for same in self.radii.chunk_by(|a, b| a == b) {
            left -= same.len();
            points.push(point(same[0], left));
        }
        if points.last().is_some_and(|point| point.eps < last) {
            points.push(point(last, left));
        }
        Series { name: self.name.clone(), points, colour: self.colour, mark: self.mark, steps: true, unsure }
    }
}

/// What a report says of a certification.
pub struct Certificates {
    /// Whether the procedure is Cohen's `predict`: its accuracies hold at no radius.
    pub predicts: bool,
    /// Ours, then those of others.
    pub curves: Vec<Curve>,
    /// Accuracy of the same voted classifiers under L2 attacks.
    attacked: Vec<Series>,
    /// Radii of a table.
    radii: Vec<f64>,
    alpha: f64,
    /// Values of an image: an L2 radius holds an L-infinity one that is smaller by the root of it.
    values: Option<usize>,
    /// Every vote under an L2 attack within a certified radius.
    pub crossed: Crossed,
    /// What each cell comes to.
    words: Vec<String>,
    /// What is not drawn yet.
    missing: Vec<String>,
}

impl Certificates {
    /// Of a run that has nothing else: no image was attacked.
    ///
    /// # Errors
    /// As [`Certificates::of_run`].
    pub fn alone(run: &Ledger) -> Result<Option<Certificates>> {
        if run.progress().0 == 0 { Self::of_run(run) } else { Ok(None) }
    }

    /// Of a run; `None` where nothing is certified.
    ///
    /// # Errors
    /// [`crate::Error::File`] for damaged draws, and for tables to compare with that are none.
    pub fn of_run(run: &Ledger) -> Result<Option<Certificates>> {
        let config = &run.config;
        let Some((certify, found)) = config.certify.as_ref().zip(Certification::read(&run.dir, config)?) else {
            return Ok(None);
        };
        let cells: Vec<&Cell> = found.cells.iter().filter(|cell| !cell.images.is_empty()).collect();
        let several = config.models.len() > 1;
        let mut curves = Vec::new();
        for cell in &cells {
            let model = config.models.iter().position(|model| model.name == cell.model).unwrap_or(0);
            let level = config.defense.sigma.iter().position(|&sigma| sigma == cell.sigma).unwrap_or(0);
            let name =
                if several { format!("{}, σ {}", cell.model, cell.sigma) } else { format!("σ {}", cell.sigma) };
            let right = cell.images.iter().filter(|image| image.correct).map(|image| image.radius);
            curves.push(Curve::new(name, Some(cell.sigma), cell.images.len(), right, [level, model]));
        }
        for (at, path) in certify.compare.iter().enumerate() {
            let rows = tsv::read(&copied(&run.dir, at, path))?;
            let right = rows.iter().filter(|row| row.correct()).map(|row| row.radius);
            // Two of one name are told apart by their folders.
            let alone = certify.compare.iter().filter(|other| other.file_stem() == path.file_stem()).count() == 1;
            let name = path.file_stem().filter(|_| alone).unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let look = [config.defense.sigma.len() + at, config.models.len() + at];
            curves.push(Curve::new(name, None, rows.len(), right, look));
        }
        let crossed = cross(run, &found);
        let most = curves.iter().filter_map(|curve| curve.radii.last()).copied().fold(0.0, f64::max);
        Ok(Some(Certificates {
            predicts: certify.procedure == Procedure::Predict,
            attacked: attacked(run, &found),
            radii: grid(most, &certify.radius),
            alpha: certify.alpha,
            crossed,
            values: certify.values,
            words: cells.iter().map(|cell| drawn(cell, certify)).collect(),
            missing: missing(&run.dir, config, &run.ids, run.planned)?,
            curves,
        }))
    }

    /// What its accuracies are, in a table.
    fn what(&self) -> &'static str {
        if self.predicts { "accuracy of the smoothed classifier" } else { "certified accuracy" }
    }

    /// A radius as the head of a column; predictions have none, though tables of others beside them may.
    pub fn column(&self, radius: f64, name: impl Fn(&str) -> String) -> String {
        if self.predicts && radius == 0.0 { "predicted".into() } else { name(&label(radius)) }
    }

    pub fn radii(&self) -> &[f64] {
        &self.radii
    }

    /// That images are missing, which ones they are nobody knows.
    pub fn unfinished(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| format!("Unfinished: {}.", self.missing.join("; ")))
    }

    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Certified accuracy in steps; attacks as points at their budgets.
    pub fn series(&self) -> Vec<Series> {
        let last = self.radii.last().copied().unwrap_or(0.0);
        self.curves.iter().map(|curve| curve.series(self.alpha, last)).chain(self.attacked.iter().cloned()).collect()
    }

    /// What stands beside every one of its numbers where an attack breaks certificates beyond chance.
    pub fn flaw(&self) -> &'static str {
        if self.crossed.violations() > 0 { " († S19 failed: not to be quoted)" } else { "" }
    }

    /// What the accuracies are.
    pub fn heading(run: &Ledger) -> &'static str {
        match run.config.certify.as_ref().map(|certify| certify.procedure) {
            Some(Procedure::Predict) => "Accuracy of the smoothed classifier",
            _ => "Certified accuracy",
        }
    }

    /// # Errors
    /// [`crate::Error::Failed`] when it cannot be drawn.
    pub fn figure(&self, run: &Ledger) -> Result<Figure> {
        let title = format!("{}: {}{}", Self::heading(run), run.dataset, self.flaw());
        plot::accuracy(&title, &self.caption(run), AXIS, &self.series())
    }

    /// What the figure is of.
    pub fn caption(&self, run: &Ledger) -> String {
        let Some(certify) = &run.config.certify else { return String::new() };
        let draws = match certify.radius.as_slice() {
            [] if certify.procedure == Procedure::Predict => format!("{} draws", certify.n),
            [] => format!("{} + {} draws", certify.n0, certify.n),
            _ => format!("anytime bounds (an extension), at most {} + {} draws", certify.n0, certify.n),
        };
        let n = self.curves.first().map_or(0, |curve| curve.n);
        let pipeline = if run.config.defense.noise_alone() { "noise alone" } else { "denoised" };
        let points = if self.attacked.is_empty() { "" } else { " · marks: under L2 attacks" };
        format!("{} · {pipeline} · {draws} · α {}{points}", count(n as usize, "image"), certify.alpha)
    }

    /// The accuracy at a radius as numbers: in %, Wilson 95 %, and what it is sure to be at least.
    pub fn at(&self, curve: &Curve, radius: f64) -> At {
        let k = curve.certified(radius);
        let interval = wilson(k, curve.n);
        At {
            k,
            n: curve.n,
            accuracy: 100.0 * curve.accuracy(radius),
            lo: 100.0 * interval.lo,
            hi: 100.0 * interval.hi,
            sure: curve.sigma.map(|_| 100.0 * sure_accuracy(curve.accuracy(radius), curve.n.max(1), self.alpha, RHO)),
        }
    }

    /// The L-infinity radius that an L2 radius holds.
    pub fn linf(&self, radius: f64) -> Option<f64> {
        self.values.map(|values| radius / (values as f64).sqrt())
    }

    /// Figure and tables into the run directory; copies of the tables of others, so that the run can be sent on.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Failed`] when the figure cannot be drawn.
    pub fn write(&self, run: &Ledger, dir: &RunDir) -> Result<()> {
        let figure = self.figure(run)?;
        dir.write("plots/certified.svg", figure.svg.as_bytes())?;
        dir.write("plots/certified.png", &figure.png)?;
        dir.write("plots/certified.pdf", &figure.pdf)?;
        dir.write("certify/table.md", self.markdown().as_bytes())?;
        dir.write("certify/table.tex", self.latex().as_bytes())?;
        dir.write("certify/curves.csv", self.csv()?.as_bytes())
    }
}

/// What the horizontal axis says.
pub const AXIS: &str = "L2 radius in pixel units";

/// An accuracy in %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct At {
    pub k: u64,
    pub n: u64,
    pub accuracy: f64,
    pub lo: f64,
    pub hi: f64,
    /// With high probability at least this; unknown of a table that does not say its alpha.
    pub sure: Option<f64>,
}

/// Where a table of others lies: the run's own copy, or before there is one the file itself.
fn copied(dir: &Path, at: usize, path: &Path) -> std::path::PathBuf {
    let own = dir.join(copy_name(at));
    if own.is_file() { own } else { path.to_owned() }
}

/// The name of the copy of a table of others.
pub fn copy_name(at: usize) -> String {
    format!("certify/compared-{}.tsv", at + 1)
}

/// Copies what is to be compared with into the run.
///
/// # Errors
/// [`crate::Error::File`] for a file that is no such table; [`crate::Error::Io`].
pub fn keep_compared(paths: &[std::path::PathBuf], dir: &RunDir) -> Result<()> {
    for (at, path) in paths.iter().enumerate() {
        let name = copy_name(at);
        if !dir.path().join(&name).is_file() {
            tsv::read(path)?;
            dir.write(&name, crate::files::text(path, "read the table of a certification")?.as_bytes())?;
        }
    }
    Ok(())
}

/// The radii of a table: every quarter, or half where they reach far, and those that were asked for.
fn grid(most: f64, asked: &[f64]) -> Vec<f64> {
    const COLUMNS: usize = 9;
    let step = [0.05, 0.1, 0.25, 0.5, 1.0].into_iter().find(|step| most / step < (COLUMNS - 1) as f64).unwrap_or(5.0);
    let last = ((most / step).ceil() as usize).min(50);
    let mut radii: Vec<f64> =
        (0..=last).map(|i| (i as f64 * step * 100.0).round() / 100.0).chain(asked.iter().copied()).collect();
    radii.sort_by(f64::total_cmp);
    radii.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    radii
}

/// What a cell comes to, in words.
fn drawn(cell: &Cell, certify: &Certify) -> String {
    let n = cell.images.len();
    let share = |k: u64| percent(k, n as u64);
    let right = cell.certified(0.0);
    let abstained = cell.images.iter().filter(|image| image.predict < 0).count() as u64;
    let radii = certify.told(cell.sigma);
    let what = if certify.procedure == Procedure::Predict { "predicted rightly" } else { "certified for their label" };
    let mut words = vec![format!("{} {what}", share(right))];
    words.extend(radii.iter().map(|&radius| format!("{} at radius {}", share(cell.certified(radius)), label(radius))));
    words.push(format!("{} abstained on", share(abstained)));
    let mean = cell.draws() as f64 / n.max(1) as f64;
    let draws = match certify.radius.is_empty() {
        true => format!("{mean:.0} draws each"),
        false => {
            // All draws were used up, and a radius stayed between certified and out of reach.
            let out = |image: &&Certified| image.n >= certify.n && image.reached.iter().any(|reached| !reached);
            let undecided = match cell.images.iter().filter(out).count() {
                0 => String::new(),
                images => format!(" or, of {}, until there were {}", count(images, "image"), certify.n),
            };
            format!("{mean:.0} draws on average, each until it was decided{undecided}")
        }
    };
    let open = if cell.open > 0 { format!("; {} more are not done", count(cell.open, "image")) } else { String::new() };
    format!("{}, σ {}: of {}, {}; {draws}{open}.", cell.model, cell.sigma, count(n, "image"), list(&words))
}

/// Of the images that are certified: their accuracy under the attacks of the run, where these are in L2.
fn attacked(run: &Ledger, found: &Certification) -> Vec<Series> {
    let config = &run.config;
    if config.attack.norm != crate::attack::Norm::L2 || config.attack.normalised() {
        return vec![];
    }
    let mut all = Vec::new();
    for (place, channel) in crate::run::results::shown(config).into_iter().enumerate() {
        let Channel::Denoised { sigma, under } = channel else { continue };
        for (model, named) in config.models.iter().enumerate() {
            let Some(cell) = found.cell(&named.name, sigma) else { continue };
            let wanted: std::collections::HashSet<u64> = cell.images.iter().map(|image| image.image).collect();
            let mut points = Vec::new();
            for &eps in config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
                let Some(cell) = run.cell(model, channel, eps) else { continue };
                let of = |(at, id): (usize, &u64)| wanted.contains(id).then(|| run.correct(cell, at)).flatten();
                let right: Vec<bool> = run.ids.iter().enumerate().filter_map(of).collect();
                if !right.is_empty() {
                    let correct = right.iter().filter(|&&right| right).count() as u64;
                    points.push(Point { eps, correct, n: right.len() as u64 });
                }
            }
            if points.is_empty() {
                continue;
            }
            let how = match under {
                Under::Transferred => "transferred",
                Under::Through => "through the defence",
                Under::Worst => "worst of the suite",
                Under::Member(_) => continue,
            };
            all.push(Series {
                name: format!("{}, σ {sigma}, {how}: {}", named.name, channel.attack(config)),
                points,
                colour: place,
                mark: model,
                steps: false,
                unsure: 0.0,
            });
        }
    }
    all
}

/// Budgets and radii as people write them.
fn label(radius: f64) -> String {
    eps_label(radius)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_count_all_images_and_end_at_their_largest_radius() {
        let curve = Curve::new("x".into(), Some(0.25), 5, [0.5, 0.0, 0.5].into_iter(), [0, 0]);
        assert_eq!([0.0, 0.1, 0.5, 0.51].map(|r| curve.certified(r)), [3, 2, 2, 0]);
        assert_eq!(curve.accuracy(0.5), 0.4);
        let points: Vec<(f64, u64)> = curve.series(0.001, 0.6).points.iter().map(|p| (p.eps, p.correct)).collect();
        assert_eq!(points, [(0.0, 3), (0.0, 2), (0.5, 0), (0.6, 0)]);
    }

    #[test]
    fn tables_have_few_columns_and_the_radii_asked_for() {
        assert_eq!(grid(0.61, &[]), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]);
        assert_eq!(grid(1.6, &[0.3]), [0.0, 0.25, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]);
        assert_eq!(grid(0.0, &[0.25]), [0.0, 0.25]);
        assert!(grid(1e9, &[]).len() < 60);
    }
}
