//! `report.html`: a run, or several side by side, from what they left in their directories.

mod compared;
mod figure;
mod pictures;
mod what;

use serde::Serialize;

use self::compared::{Compared, compared};
use self::figure::{Figure, figure};
pub use self::pictures::{Maps, Says, Shown};
use self::pictures::{Sample, sample};
pub use self::what::{Fact, what};
use super::checks::{self, Check};
use super::paired;
use super::samples::Samples;
use super::summary;
use crate::draw::html::{self, render};
use crate::error::Result;
use crate::run::ledger::Ledger;
use crate::run::rundir::{self, stored};
use crate::run::trials::Trials;

/// The page of one run.
#[derive(Serialize)]
struct RunPage {
    title: String,
    /// Checks after which no accuracy may stand alone.
    failed: Vec<&'static str>,
    unfinished: Option<String>,
    what: Vec<Fact>,
    times: Vec<Phase>,
    figure: Figure,
    adaptive: Vec<String>,
    pairs: Vec<Compared>,
    checks: Vec<Check>,
    samples: Option<Sample>,
    models: Vec<String>,
}

/// Several runs on one page.
#[derive(Serialize)]
struct ComparePage {
    title: String,
    runs: Vec<OfRun>,
    pairs: Vec<Compared>,
}

#[derive(Serialize)]
struct OfRun {
    name: String,
    failed: Vec<&'static str>,
    unfinished: Option<String>,
    what: Vec<Marked>,
    figure: Figure,
}

/// A fact, and whether some other run has another value there.
#[derive(Serialize)]
struct Marked {
    name: String,
    value: String,
    differs: bool,
}

#[derive(Serialize)]
struct Phase {
    name: String,
    seconds: f64,
}

/// The page of `rampart maps`.
#[derive(Serialize)]
pub struct MapsPage {
    pub title: String,
    pub what: Vec<Fact>,
    pub images: Vec<MapsOfImage>,
}

/// One image of the user's in every state, and its maps.
#[derive(Serialize)]
pub struct MapsOfImage {
    pub name: String,
    pub pictures: Vec<Shown>,
    pub maps: Maps,
}

impl html::Page for RunPage {
    const TEMPLATE: &'static str = "run.html";
}

impl html::Page for ComparePage {
    const TEMPLATE: &'static str = "compare.html";
}

impl html::Page for MapsPage {
    const TEMPLATE: &'static str = "maps.html";
}

/// The page of one run.
///
/// # Errors
/// [`crate::Error::File`] for damaged files of the run, [`crate::Error::Failed`] when the page cannot be made.
pub fn of_run(run: &Ledger) -> Result<String> {
    render(&gather(run)?)
}

/// Several runs on one page.
///
/// # Errors
/// As [`of_run`].
pub fn of_runs(runs: &[Ledger]) -> Result<String> {
    render(&gather_all(runs)?)
}

fn gather(run: &Ledger) -> Result<RunPage> {
    let samples: Option<Samples> = stored(&run.dir, Samples::FILE)?;
    let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
    let times: Vec<(String, f64)> = stored(&run.dir, rundir::TIMES)?.unwrap_or_default();
    let checks = checks::all(run, trials.as_ref());
    Ok(RunPage {
        title: format!("{}: accuracy under attack", run.config.name),
        failed: checks::failed(&checks),
        unfinished: unfinished(run),
        what: what(run),
        times: times.into_iter().map(|(name, seconds)| Phase { name, seconds }).collect(),
        figure: figure(run)?,
        adaptive: summary::adaptive(run).map_or(vec![], |text| text.lines().map(str::to_owned).collect()),
        pairs: compared(paired::models(run)),
        checks,
        samples: samples.map(|samples| sample(run, samples)),
        models: run.config.models.iter().map(|m| m.name.clone()).collect(),
    })
}

fn gather_all(runs: &[Ledger]) -> Result<ComparePage> {
    let whats: Vec<Vec<Fact>> = runs.iter().map(what).collect();
    let differs = |fact: &Fact| !whats.iter().all(|what| what.contains(fact));
    let mut views = Vec::new();
    for (run, what) in runs.iter().zip(&whats) {
        let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
        let marked =
            |fact: &Fact| Marked { name: fact.name.clone(), value: fact.value.clone(), differs: differs(fact) };
        views.push(OfRun {
            name: run.name(),
            failed: checks::failed(&checks::all(run, trials.as_ref())),
            unfinished: unfinished(run),
            what: what.iter().map(marked).collect(),
            figure: figure(run)?,
        });
    }
    let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    Ok(ComparePage { title: names.join(", "), pairs: compared(paired::runs(runs)), runs: views })
}

/// What is missing of a run, if it did not come to its end.
fn unfinished(run: &Ledger) -> Option<String> {
    let (done, all) = run.progress();
    let ended = run.dir.join(rundir::TIMES).exists();
    (done < all || all == 0 || !ended).then(|| {
        let least = if ended { "" } else { "at least " };
        format!("{done} of {least}{all} records so far (sweep --resume goes on)")
    })
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
