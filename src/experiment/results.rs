//! Counts per cell, and `results.csv` made of them.

use super::config::Config;
use super::records::Found;
use super::settings::Score;
use crate::error::{Error, Result};
use crate::report::{Point, Series};
use crate::stats::wilson;

/// What stands between an attacked image and the classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Channel {
    /// Nothing: channel 1.
    Undefended,
    /// The denoiser at a sigma: channel 2. The image was made to fool the classifier alone, or the denoiser as well.
    Denoised { sigma: f64, through: bool },
}

impl Channel {
    pub fn sigma(self) -> Option<f64> {
        match self {
            Channel::Undefended => None,
            Channel::Denoised { sigma, .. } => Some(sigma),
        }
    }

    /// The number that results and records give.
    pub fn number(self) -> u8 {
        if self == Channel::Undefended { 1 } else { 2 }
    }

    /// The attack in one word, as in `results.csv`.
    pub fn attack(self, config: &Config) -> String {
        let label = config.attack.label();
        match self {
            Channel::Denoised { through: true, .. } => format!("{label}-{}", config.defense.estimator()),
            _ => label,
        }
    }

    /// For figures and tables: nothing for channel 1.
    pub fn label(self) -> String {
        match self {
            Channel::Undefended => String::new(),
            Channel::Denoised { sigma, through: false } => format!(", σ {sigma}"),
            Channel::Denoised { sigma, through: true } => format!(", σ {sigma}, attacked"),
        }
    }
}

/// The channels of an experiment: undefended, then every sigma, then every sigma attacked through.
pub fn channels(config: &Config) -> Vec<Channel> {
    let denoised = |through| config.defense.sigma.iter().map(move |&sigma| Channel::Denoised { sigma, through });
    let adaptive = denoised(true).filter(|_| config.defense.attack);
    std::iter::once(Channel::Undefended).chain(denoised(false)).chain(adaptive).collect()
}

/// One model at one epsilon in one channel: how many images, and how many of them were still right.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Index into [`Config::models`].
    pub model: usize,
    pub channel: Channel,
    pub eps: f64,
    pub n: u64,
    /// Right before the attack; channel 1 only.
    pub clean: u64,
    /// In channel 2: the vote.
    pub last: u64,
    /// In channel 2: every draw.
    pub any: u64,
    /// Perturbations over budget.
    pub violations: u64,
    /// Draws of channel 2, and how many were right.
    pub draws: u64,
    pub correct_draws: u64,
    /// Images with the label among the five likeliest classes, attacked or denoised, and before the attack; 0 where that is
    /// not scored.
    pub top5: u64,
    pub clean_top5: u64,
}

impl Cell {
    pub fn new(model: usize, channel: Channel, eps: f64) -> Self {
        Cell {
            model,
            channel,
            eps,
            n: 0,
            clean: 0,
            last: 0,
            any: 0,
            violations: 0,
            draws: 0,
            correct_draws: 0,
            top5: 0,
            clean_top5: 0,
        }
    }

    pub fn add(&mut self, found: &Found) {
        self.n += 1;
        match found {
            Found::Attacked(outcome) => {
                self.clean += u64::from(outcome.correct_clean);
                self.last += u64::from(outcome.correct_last);
                self.any += u64::from(outcome.correct_any);
                self.violations += u64::from(outcome.violation);
                self.top5 += u64::from(outcome.top5 == Some(true));
                self.clean_top5 += u64::from(outcome.clean_top5 == Some(true));
            }
            Found::Denoised(smoothed) => {
                self.last += u64::from(smoothed.correct);
                self.any += u64::from(smoothed.correct_draws == smoothed.draws);
                self.top5 += u64::from(smoothed.top5 == Some(true));
                self.draws += u64::from(smoothed.draws);
                self.correct_draws += u64::from(smoothed.correct_draws);
            }
        }
    }

    /// The same cell with the five likeliest classes counted in place of the first.
    pub fn as_top5(&self) -> Cell {
        Cell { clean: self.clean_top5, last: self.top5, any: self.top5, ..self.clone() }
    }

    /// How many are right: in channel 1 by the score, in channel 2 by the vote.
    pub fn correct(&self, score: Score) -> u64 {
        match (self.channel, score) {
            (Channel::Undefended, Score::Any) => self.any,
            _ => self.last,
        }
    }
}

/// Whether one image counts as right.
pub fn is_correct(found: &Found, score: Score) -> bool {
    match (found, score) {
        (Found::Attacked(outcome), Score::Last) => outcome.correct_last,
        (Found::Attacked(outcome), Score::Any) => outcome.correct_any,
        (Found::Denoised(smoothed), _) => smoothed.correct,
    }
}

/// All cells of an experiment in the order of `results.csv`: models as configured, channels, epsilons ascending.
pub fn cells(config: &Config) -> Vec<Cell> {
    let channels = channels(config);
    let of = |model: usize, channel: Channel| config.attack.eps.iter().map(move |&eps| Cell::new(model, channel, eps));
    let of_model = |model| channels.iter().flat_map(move |&channel| of(model, channel));
    (0..config.models.len()).flat_map(of_model).collect()
}

const COLUMNS: &str = "model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,accuracy,ci_low,ci_high,\
                       seed,device,precision";

/// The bytes of `results.csv`. They depend on the counts only, not on how often the run was interrupted.
///
/// # Errors
/// [`Error::Failed`] when a row cannot be written.
pub fn csv(config: &Config, dataset: &str, device: &str, cells: &[Cell]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut rows = vec![COLUMNS.split(',').map(String::from).collect::<Vec<_>>()];
    rows.extend(cells.iter().map(|cell| {
        let correct = cell.correct(config.score);
        let interval = wilson(correct, cell.n);
        let accuracy = correct as f64 / cell.n.max(1) as f64;
        vec![
            config.models[cell.model].name.clone(),
            dataset.to_owned(),
            cell.channel.attack(config),
            config.attack.norm.to_string(),
            cell.eps.to_string(),
            config.attack.steps.to_string(),
            config.attack.step_size(cell.eps).to_string(),
            cell.channel.sigma().map_or(String::new(), |sigma| sigma.to_string()),
            cell.channel.number().to_string(),
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

/// The curves of a figure or the rows of a table: every model in every channel. They begin with the clean accuracy at epsilon 0,
/// unless the attack was run there; that of a denoised channel is known only where it was. Cells without a record are left out.
pub fn series(config: &Config, cells: &[Cell], score: Score, wanted: impl Fn(Channel) -> bool) -> Vec<Series> {
    let channels = channels(config);
    let mut all = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        for (colour, &channel) in channels.iter().enumerate().filter(|(_, channel)| wanted(**channel)) {
            let own = || cells.iter().filter(move |cell| cell.model == model && cell.channel == channel);
            let clean = own().next().filter(|first| first.eps > 0.0 && channel == Channel::Undefended);
            let clean = clean.map(|first| Point { eps: 0.0, correct: first.clean, n: first.n });
            let points = own().map(|cell| Point { eps: cell.eps, correct: cell.correct(score), n: cell.n });
            let name = format!("{}{}", named.name, channel.label());
            all.push(Series {
                name,
                points: clean.into_iter().chain(points).filter(|p| p.n > 0).collect(),
                colour,
                mark: model,
            });
        }
    }
    all
}
