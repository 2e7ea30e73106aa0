//! Counts per cell, and `results.csv` made of them.

use super::config::Config;
use super::records::Outcome;
use super::settings::Score;
use crate::error::{Error, Result};
use crate::report::{Point, Series};
use crate::stats::wilson;

/// One model at one epsilon: how many images, and how many of them were still right.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Index into [`Config::models`].
    pub model: usize,
    pub eps: f64,
    pub n: u64,
    /// Right before the attack.
    pub clean: u64,
    pub last: u64,
    pub any: u64,
    /// Perturbations over budget.
    pub violations: u64,
}

impl Cell {
    pub fn new(model: usize, eps: f64) -> Self {
        Cell { model, eps, n: 0, clean: 0, last: 0, any: 0, violations: 0 }
    }

    pub fn add(&mut self, outcome: &Outcome) {
        self.n += 1;
        self.clean += u64::from(outcome.correct_clean);
        self.last += u64::from(outcome.correct_last);
        self.any += u64::from(outcome.correct_any);
        self.violations += u64::from(outcome.violation);
    }

    pub fn correct(&self, score: Score) -> u64 {
        match score {
            Score::Last => self.last,
            Score::Any => self.any,
        }
    }
}

/// All cells of an experiment in the order of `results.csv`: models as configured, epsilons ascending.
pub fn cells(config: &Config) -> Vec<Cell> {
    let eps = |model| config.attack.eps.iter().map(move |&eps| Cell::new(model, eps));
    (0..config.models.len()).flat_map(eps).collect()
}

const COLUMNS: &str = "model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,accuracy,ci_low,ci_high,\
                       seed,device,precision";

/// The bytes of `results.csv`. They depend on the counts only, not on how often the run was interrupted.
///
/// # Errors
/// [`Error::Failed`] when a row cannot be written.
pub fn csv(config: &Config, dataset: &str, device: &str, cells: &[Cell]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let attack = config.attack.label();
    let mut rows = vec![COLUMNS.split(',').map(String::from).collect::<Vec<_>>()];
    rows.extend(cells.iter().map(|cell| {
        let correct = cell.correct(config.score);
        let interval = wilson(correct, cell.n);
        let accuracy = correct as f64 / cell.n.max(1) as f64;
        vec![
            config.models[cell.model].name.clone(),
            dataset.to_owned(),
            attack.clone(),
            config.attack.norm.to_string(),
            cell.eps.to_string(),
            config.attack.steps.to_string(),
            config.attack.step_size(cell.eps).to_string(),
            String::new(),
            "1".to_owned(),
            cell.n.to_string(),
            correct.to_string(),
            format!("{accuracy:.6}"),
            format!("{:.6}", interval.lo),
            format!("{:.6}", interval.hi),
            config.seed.to_string(),
            device.to_owned(),
            config.precision.to_string(),
        ]
    }));
    let failed = |e: &dyn std::error::Error| Error::Failed(format!("results.csv: {e}"));
    for row in rows {
        csv.write_record(row).map_err(|e| failed(&e))?;
    }
    csv.into_inner().map_err(|e| failed(e.error()))
}

/// The curves of a figure or the rows of a table, one per model. They begin with the clean accuracy at epsilon 0,
/// unless the attack was run there.
pub fn series(config: &Config, cells: &[Cell], score: Score) -> Vec<Series> {
    let of_model = |model: usize| {
        let own = || cells.iter().filter(move |cell| cell.model == model);
        let clean = own().next().filter(|first| first.eps > 0.0);
        let clean = clean.map(|first| Point { eps: 0.0, correct: first.clean, n: first.n });
        let attacked = own().map(|cell| Point { eps: cell.eps, correct: cell.correct(score), n: cell.n });
        clean.into_iter().chain(attacked).collect()
    };
    let named = config.models.iter().enumerate();
    named.map(|(i, model)| Series { name: model.name.clone(), points: of_model(i) }).collect()
}
