//! A sweep as its terminal shows it, and what it leaves in the run directory for people: figure, pictures, page.

use super::certificate::{self, Certificates};
use super::checks::Verdicts;
use super::mark::Mark;
use super::words::count;
use super::{checks, curves, page, summary};
use crate::config::Config;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::number::eps_label;
use crate::run::certify;
use crate::run::engine::AttackEngine;
use crate::run::ledger::Ledger;
use crate::run::progress::{Phase, note};
use crate::run::results;
use crate::run::rundir::RunDir;
use crate::run::runner::Engine as _;
use crate::run::settled::quoted;
use crate::run::shard::Shard;
use crate::run::study::Presenter;

use super::samples::Samples;

/// Plan and progress go to stderr, the tables to `print`.
pub struct Terminal<'a> {
    pub print: &'a dyn Fn(&str) -> Result<()>,
    /// Whether nothing is attacked.
    pub certifies: bool,
    /// Whether a run whose accuracies may not be quoted is an error, once all is written.
    pub strict: bool,
}

impl Presenter for Terminal<'_> {
    fn begins(&mut self, engine: &AttackEngine, dir: &RunDir) -> Result<()> {
        let (config, dataset, device) = (engine.config(), engine.dataset(), engine.device_name());
        note(if self.certifies { certify_plan(config, dataset, &device) } else { plan(config, dataset, &device) });
        note(format!("into {}", dir.path().display()));
        Ok(())
    }

    fn part_ends(&mut self, shard: Shard, dir: &RunDir) -> Result<()> {
        let path = quoted(&[dir.path().display().to_string()]);
        note(format!("part {shard} is done; when all are: rampart merge {path}"));
        Ok(())
    }

    fn ends(&mut self, run: &Ledger, engine: &AttackEngine, dir: &RunDir) -> Result<()> {
        let checks = checks::of_run(run)?;
        let mark = Mark::of(&checks);
        let figure = curves::figure(run, &mark)?;
        dir.write("plots/accuracy.svg", figure.svg.as_bytes())?;
        dir.write("plots/accuracy.png", &figure.png)?;
        dir.write("plots/accuracy.pdf", &figure.pdf)?;
        (self.print)(summary::tables(run, &mark).trim_end())?;
        (self.print)(&format!("\n{}", checks::in_words(&checks)))?;
        if run.violations() > 0 {
            let count = run.violations();
            note(format!("warning: {count} perturbations exceed their budget; see `violation` in records.jsonl"));
        }
        let _phase = Phase::new("strips, samples and maps");
        engine.strips(dir, &mark)?;
        match engine.samples(run)? {
            Some(samples) => dir.store(Samples::FILE, &samples),
            None => Ok(()),
        }
    }

    fn closes(&mut self, run: &Ledger, dir: &RunDir) -> Result<()> {
        if let Some(certify) = &run.config.certify {
            certificate::keep_compared(&certify.compare, dir)?;
        }
        let certificates = Certificates::of_run(run)?;
        if let Some(certificates) = &certificates {
            certificates.write(run, dir)?;
            (self.print)(&format!("\n{}\n{}", certificates.words().join("\n"), certificates.text().trim_end()))?;
        }
        if run.progress().0 == 0 && certificates.is_some() {
            dir.write("report.html", page::of_run(run)?.as_bytes())?;
            let path = dir.path().display();
            note(format!("report.html, certify/ and plots/certified.{{svg,png,pdf}} are in {path}"));
            return Ok(());
        }
        let checks = checks::of_run(run)?;
        dir.write(
            "results.csv",
            &results::csv(&run.config, &run.dataset, &run.device, &run.cells, &checks::summed(&checks))?,
        )?;
        dir.store(Verdicts::FILE, &Verdicts::of(&checks))?;
        dir.write("report.html", page::of_run(run)?.as_bytes())?;
        let path = dir.path().display();
        let images = if dir.path().join("images").is_dir() { " and images/" } else { "" };
        note(format!("report.html, results.csv, plots/accuracy.{{svg,png,pdf}}{images} are in {path}"));
        match Mark::of(&checks).note().filter(|_| self.strict) {
            Some(problem) => Err(Error::Failed(format!("--strict: {problem}"))),
            None => Ok(()),
        }
    }
}

/// Two lines: what will be certified.
pub fn certify_plan(config: &Config, dataset: &Dataset, device: &str) -> String {
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    format!(
        "{}: device {device}, {} · {} · seed {} · {}\n{}",
        config.name,
        config.precision,
        dataset.name,
        config.seed,
        models.join(", "),
        certify::plan(config, dataset).unwrap_or_default()
    )
}

/// Two or three lines: what will be run on what.
pub fn plan(config: &Config, dataset: &Dataset, device: &str) -> String {
    let attack = &config.attack;
    let cells =
        [count(config.models.len(), "model"), count(attack.eps.len(), "epsilon"), count(dataset.len(), "image")];
    let eps: Vec<String> = attack.eps.iter().map(|&eps| eps_label(eps)).collect();
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    let defense = &config.defense;
    let skipped = match dataset.skipped.len() {
        0 => String::new(),
        files => format!(" · {} left out", count(files, "file")),
    };
    let size = defense.size.map_or(String::new(), |[h, w]| format!(" at {h}x{w}"));
    let denoised = match defense.sigma.is_empty() {
        true => String::new(),
        false => {
            let sigma: Vec<String> = defense.sigma.iter().map(f64::to_string).collect();
            let through = match defense.attack {
                true => format!(", attacked through: {}, {} draws a step", defense.estimator(), defense.eot()),
                false if defense.suite => {
                    format!(", attacked by the suite: {} steps of PGD, {} draws a step", defense.steps(), defense.eot())
                }
                false => String::new(),
            };
            let books = if defense.aa_compat { ", books of the last draw alone (aa_compat)" } else { "" };
            let through = format!("{through}{books}");
            format!(
                "\n{}{size} at sigma {}, {}{through}",
                defense.way(),
                sigma.join(", "),
                count(defense.draws() as usize, "draw")
            )
        }
    };
    let certified = certify::plan(config, dataset).map_or(String::new(), |plan| format!("\n{plan}"));
    format!(
        "{}: device {device}, {} · {} of {}{skipped} · seed {}\n{} {}, {}, {} · eps {} · {}{denoised}{certified}",
        config.name,
        config.precision,
        cells.join(" x "),
        dataset.name,
        config.seed,
        attack.label(),
        attack.norm,
        count(attack.steps as usize, "step"),
        count(attack.restarts as usize, "restart"),
        eps.join(", "),
        models.join(", "),
    )
}
