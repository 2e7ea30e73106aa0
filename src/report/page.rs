//! `report.html`: a run, or several side by side, from what they left in their directories.

mod by_class;
mod certificate;
mod compared;
mod figure;
mod lead;
mod pictures;
mod what;

use serde::Serialize;

use self::by_class::{ByClass, by_class};
use self::certificate::{Certificate, certificate};
use self::compared::{Comparisons, compared};
use self::figure::{Figure, figure};
use self::lead::{Lead, lead};
pub use self::pictures::{Maps, Says, Shown};
use self::pictures::{Sample, sample};
pub use self::what::{Fact, of_certificates, what};
use super::checks::{self, Check, Verdict};
use super::four::{self, Four};
use super::mark::Mark;
use super::paired;
use super::samples::Samples;
use super::words::names;
use super::{question, stages, suite, summary};
use crate::draw::html::{self, render};
use crate::error::Result;
use crate::run::ledger::Ledger;
use crate::run::rundir::{self, stored};
use crate::run::trials::Trials;

/// The page of one run.
#[derive(Serialize)]
struct RunPage {
    title: String,
    lead: Lead,
    unfinished: Option<String>,
    what: Vec<Fact>,
    times: Vec<Phase>,
    figure: Figure,
    four: Vec<Four>,
    /// What stands below everything that must not be quoted.
    mark: Option<String>,
    stages: Option<String>,
    reached: Option<String>,
    adaptive: Vec<String>,
    suite: Option<String>,
    /// Which of its attacks decides.
    decided: Vec<String>,
    beside: Vec<String>,
    certificate: Option<Certificate>,
    pairs: Option<Comparisons>,
    /// Which of two networks is the more robust, and what that comes from.
    answers: Vec<String>,
    by_class: Option<ByClass>,
    checks: Vec<Checked>,
    /// How many of them have which verdict.
    verdicts: String,
    samples: Option<Sample>,
    models: Vec<String>,
}

/// The page of a run that only certifies.
#[derive(Serialize)]
struct CertifyPage {
    title: String,
    what: Vec<Fact>,
    times: Vec<Phase>,
    certificate: Certificate,
}

/// Several runs on one page.
#[derive(Serialize)]
struct ComparePage {
    title: String,
    runs: Vec<OfRun>,
    /// What is not the same in all runs, and what is.
    differs: Vec<Difference>,
    same: Vec<Fact>,
    pairs: Option<Comparisons>,
    /// Runs that are not compared image by image though they look alike, and why.
    unpaired: Vec<String>,
}

#[derive(Serialize)]
struct OfRun {
    name: String,
    failed: Vec<String>,
    unfinished: Option<String>,
    figure: Option<Figure>,
    certificate: Option<Certificate>,
}

/// A check, and a line for each of its findings.
#[derive(Serialize)]
struct Checked {
    title: String,
    rule: &'static str,
    verdict: Verdict,
    numbers: Vec<String>,
}

/// A fact in which runs differ, and its value in each; empty where a run has none.
#[derive(Serialize)]
struct Difference {
    name: String,
    values: Vec<String>,
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

impl Checked {
    fn new(check: &Check) -> Checked {
        Checked { title: check.title(), rule: check.rule, verdict: check.verdict, numbers: check.numbers() }
    }
}

impl html::Page for RunPage {
    const TEMPLATE: &'static str = "run.html";
}

impl html::Page for CertifyPage {
    const TEMPLATE: &'static str = "certify.html";
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
    match certificate(run)? {
        Some(certificate) if run.progress().0 == 0 => render(&CertifyPage {
            title: format!("{}: {}", run.config.name, super::certificate::Certificates::heading(run).to_lowercase()),
            what: what::of_certificates(run),
            times: times(run)?,
            certificate,
        }),
        certificate => render(&RunPage { certificate, ..gather(run)? }),
    }
}

/// How long the phases of a run took.
fn times(run: &Ledger) -> Result<Vec<Phase>> {
    let times: Vec<(String, f64)> = stored(&run.dir, rundir::TIMES)?.unwrap_or_default();
    Ok(times.into_iter().map(|(name, seconds)| Phase { name, seconds }).collect())
}

/// Several runs on one page.
///
/// # Errors
/// As [`of_run`].
pub fn of_runs(runs: &[Ledger]) -> Result<String> {
    render(&gather_all(runs)?)
}

fn gather(run: &Ledger) -> Result<RunPage> {
    let samples = Samples::stored(&run.dir)?;
    let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
    let checks = checks::all(run, trials.as_ref());
    let mark = Mark::of(&checks);
    let unfinished = unfinished(run);
    let (suite, decided) = suite::suite(run).unzip();
    let decided: Vec<String> = decided.unwrap_or_default().iter().map(|line: &String| mark.before_line(line)).collect();
    Ok(RunPage {
        title: format!("{}: accuracy under attack", run.config.name),
        lead: lead(run, &checks, &mark, unfinished.is_some()),
        unfinished,
        what: what(run),
        times: times(run)?,
        certificate: None,
        figure: figure(run, &mark)?,
        four: four::numbers(run, mark.sign()),
        mark: mark.note(),
        stages: stages::stages(run).map(|text| mark.block(text)),
        adaptive: suite::adaptive(run).map_or(vec![], |text| text.lines().map(|line| mark.before_line(line)).collect()),
        suite: suite.map(|text| mark.block(text)),
        decided,
        reached: summary::reached(run),
        beside: summary::beside(run).map_or(vec![], |text| text.lines().map(|line| mark.before_line(line)).collect()),
        pairs: compared(paired::models(run)),
        answers: question::text(run).map_or(vec![], |text| text.lines().map(|line| mark.before_line(line)).collect()),
        by_class: by_class(run),
        verdicts: checks::verdicts(&checks),
        checks: checks.iter().map(Checked::new).collect(),
        samples: samples.map(|samples| sample(run, samples)),
        models: run.config.models.iter().map(|m| m.name.clone()).collect(),
    })
}

fn gather_all(runs: &[Ledger]) -> Result<ComparePage> {
    let names = names(runs);
    let (mut views, mut whats) = (Vec::new(), Vec::new());
    for (run, name) in runs.iter().zip(&names) {
        let certificate = certificate(run)?;
        // Of a run that only certifies there is nothing under attack.
        let alone = certificate.is_some() && run.progress().0 == 0;
        let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
        let checks = if alone { vec![] } else { checks::all(run, trials.as_ref()) };
        whats.push(if alone { of_certificates(run) } else { what(run) });
        views.push(OfRun {
            name: name.clone(),
            failed: checks::failed(&checks),
            unfinished: unfinished(run).filter(|_| !alone),
            figure: if alone { None } else { Some(figure(run, &Mark::of(&checks))?) },
            certificate,
        });
    }
    let (same, differs) = sides(&whats);
    Ok(ComparePage {
        title: names.join(", "),
        runs: views,
        same,
        differs,
        pairs: compared(paired::runs(runs)),
        unpaired: paired::unpaired(runs),
    })
}

/// What all runs have in common, and what they do not, each in the order of the runs that say it.
fn sides(whats: &[Vec<Fact>]) -> (Vec<Fact>, Vec<Difference>) {
    let (mut same, mut differs): (Vec<Fact>, Vec<Difference>) = Default::default();
    for fact in whats.iter().flatten() {
        if whats.iter().all(|what| what.contains(fact)) {
            if !same.contains(fact) {
                same.push(fact.clone());
            }
        } else if !differs.iter().any(|d| d.name == fact.name) {
            let value = |what: &Vec<Fact>| what.iter().find(|f| f.name == fact.name).map(|f| f.value.clone());
            let values = whats.iter().map(|what| value(what).unwrap_or_default()).collect();
            differs.push(Difference { name: fact.name.clone(), values });
        }
    }
    (same, differs)
}

/// What is missing of a run, if it did not come to its end.
pub fn unfinished(run: &Ledger) -> Option<String> {
    let (done, all) = run.progress();
    let ended = run.dir.join(rundir::TIMES).exists();
    (done < all || all == 0 || !ended).then(|| {
        let least = if ended || run.planned.is_some() { "" } else { "at least " };
        format!("{done} of {least}{all} records so far (sweep --resume goes on)")
    })
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
