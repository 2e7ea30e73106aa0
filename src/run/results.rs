//! Counts per cell, and `results.csv` made of them.

use std::fmt;

use serde::Serialize;

use super::records::Found;
use crate::attack::Target;
use crate::config::Config;
use crate::config::settings::Score;
use crate::defense::suite::{self, SUITE};
use crate::error::{Error, Result};
use crate::stats::wilson;

/// What stands between an attacked image and the classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Channel {
    /// Nothing: channel 1.
    Undefended,
    /// Nothing, under a further attack, by its place among those beside the experiment's.
    Beside(usize),
    /// The denoiser at a sigma: channel 2.
    Denoised { sigma: f64, under: Under },
}

/// What an image in front of a denoiser was made to fool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Under {
    /// The classifier alone.
    Transferred,
    /// The denoiser as well, by the attack of the experiment.
    Through,
    /// The denoiser as well, by an attack of the suite.
    Member(usize),
    /// By all of them: of each image the worst case.
    Worst,
}

impl Channel {
    pub fn sigma(self) -> Option<f64> {
        match self {
            Channel::Undefended | Channel::Beside(_) => None,
            Channel::Denoised { sigma, .. } => Some(sigma),
        }
    }

    pub fn is_defended(self) -> bool {
        matches!(self, Channel::Denoised { .. })
    }

    /// The number that results and records give.
    pub fn number(self) -> u8 {
        if self.is_defended() { 2 } else { 1 }
    }

    /// The attack in one word, as in `results.csv`.
    pub fn attack(self, config: &Config) -> String {
        let label = config.attack.label();
        match self {
            Channel::Undefended | Channel::Denoised { under: Under::Transferred, .. } => label,
            Channel::Beside(place) => config.attack.beside[place].label(),
            Channel::Denoised { under: Under::Through, .. } => {
                let defense = &config.defense;
                let straight = if defense.straight { "-straight" } else { "" };
                let last = if defense.aa_compat { format!("-{}", suite::AA_COMPAT) } else { String::new() };
                format!("{label}-{}{straight}{last}", defense.estimator())
            }
            Channel::Denoised { under: Under::Member(row), .. } => SUITE[row].name(config.defense.aa_compat),
            Channel::Denoised { under: Under::Worst, .. } => suite::WORST.into(),
        }
    }

    /// Steps and their size; of the suite's worst case those of its first attack.
    fn steps(self, config: &Config, eps: f64) -> (u32, f64) {
        let row = match self {
            Channel::Beside(place) => {
                let spec = &config.attack.beside[place];
                return (spec.steps, spec.step_size(eps));
            }
            Channel::Denoised { under: Under::Member(row), .. } => Some(row),
            Channel::Denoised { under: Under::Worst, .. } => Some(0),
            _ => None,
        };
        let own = row.and_then(|row| SUITE[row].spec(config.attack.norm, &[eps], config.defense.steps()).ok());
        let spec = own.as_ref().unwrap_or(&config.attack);
        (spec.steps, spec.step_size(eps))
    }
}

/// `undefended`, `sigma 0.25`, `sigma 0.25, attacked`, `sigma 0.25, suite`; with `{:#}` the letter σ instead of the word.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (sigma, under) = match *self {
            Channel::Undefended => return f.write_str("undefended"),
            Channel::Beside(place) => return write!(f, "undefended, attack {}", place + 2),
            Channel::Denoised { sigma, under } => (sigma, under),
        };
        let letter = if f.alternate() { "σ" } else { "sigma" };
        write!(f, "{letter} {sigma}")?;
        match under {
            Under::Transferred => Ok(()),
            Under::Through => f.write_str(", attacked"),
            Under::Member(row) => write!(f, ", {}", SUITE[row].name),
            Under::Worst => write!(f, ", {}", suite::WORST),
        }
    }
}

/// The channels of an experiment that people compare: undefended under every attack, then every sigma, then every sigma attacked through, then every sigma
/// under the suite's worst case.
pub fn shown(config: &Config) -> Vec<Channel> {
    let denoised = |under, is: bool| {
        let sigmas = config.defense.sigma.iter().filter(move |_| is);
        sigmas.map(move |&sigma| Channel::Denoised { sigma, under })
    };
    std::iter::once(Channel::Undefended)
        .chain((0..config.attack.beside.len()).map(Channel::Beside))
        .chain(denoised(Under::Transferred, true))
        .chain(denoised(Under::Through, config.defense.attack))
        .chain(denoised(Under::Worst, config.defense.suite))
        .collect()
}

/// All channels: those, then for every sigma each attack of the suite.
pub fn channels(config: &Config) -> Vec<Channel> {
    let members =
        |&sigma: &f64| (0..SUITE.len()).map(move |row| Channel::Denoised { sigma, under: Under::Member(row) });
    let suite = config.defense.sigma.iter().filter(|_| config.defense.suite).flat_map(members);
    shown(config).into_iter().chain(suite).collect()
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
    /// Images that a targeted attack had a target for, which those of its class have not.
    pub aimed: u64,
    /// Those of them that it drove there: at the last point or in the vote, and at any point.
    pub reached: u64,
    pub reached_any: u64,
    /// Of channel 2, images that are right under each further seed of the noise; none without.
    pub again: Vec<u64>,
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
            aimed: 0,
            reached: 0,
            reached_any: 0,
            again: vec![],
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
                self.aimed += u64::from(outcome.target_reached.is_some());
                self.reached += u64::from(outcome.target_reached == Some(true));
                // A clean image may be taken for it, which takes no step.
                let any = outcome.first_success.is_some() || outcome.target_reached == Some(true);
                self.reached_any += u64::from(outcome.target_reached.is_some() && any);
            }
            Found::Denoised(smoothed) => {
                self.last += u64::from(smoothed.correct);
                self.any += u64::from(smoothed.correct_draws == smoothed.draws);
                self.top5 += u64::from(smoothed.top5 == Some(true));
                self.aimed += u64::from(smoothed.target_reached.is_some());
                self.reached += u64::from(smoothed.target_reached == Some(true));
                self.reached_any += u64::from(smoothed.target_reached == Some(true));
                self.draws += u64::from(smoothed.draws);
                self.correct_draws += u64::from(smoothed.correct_draws);
                for (seed, right) in smoothed.over_seeds().skip(1).enumerate() {
                    if self.again.len() <= seed {
                        self.again.push(0);
                    }
                    self.again[seed] += u64::from(right);
                }
            }
        }
    }

    /// Images that a targeted attack drove to its target, by the score of the run; `None` for an untargeted one.
    pub fn target_reached(&self, config: &Config) -> Option<u64> {
        let reached = if config.score == Score::Any { self.reached_any } else { self.reached };
        (config.attack.targeted != Target::None).then_some(reached)
    }

    /// Seeds of the noise that images were scored under.
    pub fn seeds(&self) -> usize {
        1 + self.again.len()
    }

    /// Images right under the worst seed and under the best; `None` of one seed.
    pub fn over_seeds(&self) -> Option<[u64; 2]> {
        let all = || std::iter::once(self.last).chain(self.again.iter().copied());
        (!self.again.is_empty()).then(|| [all().min().unwrap_or_default(), all().max().unwrap_or_default()])
    }

    /// The mean over the seeds of the share that is right.
    pub fn mean_over_seeds(&self) -> f64 {
        let all = self.last + self.again.iter().sum::<u64>();
        all as f64 / (self.n.max(1) * self.seeds() as u64) as f64
    }

    /// This cell with the five likeliest classes counted in place of the first.
    pub fn as_top5(&self) -> Cell {
        Cell { clean: self.clean_top5, last: self.top5, any: self.top5, again: vec![], ..self.clone() }
    }

    /// How many are right: in channel 1 by the score, in channel 2 by the vote.
    pub fn correct(&self, score: Score) -> u64 {
        match (self.channel, score) {
            (Channel::Undefended | Channel::Beside(_), Score::Any) => self.any,
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

/// One cell as exports say it. The fields are the columns of `results.csv`, in their order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub model: String,
    pub dataset: String,
    pub attack: String,
    pub norm: String,
    pub eps: f64,
    pub steps: u32,
    pub step_size: f64,
    pub sigma: Option<f64>,
    pub channel: u8,
    pub n: u64,
    pub correct: u64,
    /// With its Wilson 95 % interval; nothing without a record.
    pub accuracy: Option<f64>,
    pub ci_low: Option<f64>,
    pub ci_high: Option<f64>,
    pub seed: u64,
    pub device: String,
    pub precision: String,
    /// Images that reached the target; nothing for an untargeted attack.
    pub target_reached: Option<u64>,
    /// What the checks of the attack say: `pass`, `warn: ..`, `fail: ..`, `not judged`.
    pub verdict: String,
    /// Files of the set that are among none of the images.
    pub left_out: usize,
    /// Seeds of the noise, and over several of them the mean, the least and the largest accuracy.
    pub seeds: Option<usize>,
    pub mean: Option<f64>,
    pub least: Option<f64>,
    pub most: Option<f64>,
    /// Images that had a target to reach, those of other classes; nothing for an untargeted attack.
    pub target_aimed: Option<u64>,
}

/// The verdict of a run whose attack nobody looked at yet.
pub const NOT_JUDGED: &str = "not judged";

impl Row {
    pub const COLUMNS: [&str; 25] = [
        "model",
        "dataset",
        "attack",
        "norm",
        "eps",
        "steps",
        "step_size",
        "sigma",
        "channel",
        "n",
        "correct",
        "accuracy",
        "ci_low",
        "ci_high",
        "seed",
        "device",
        "precision",
        "target_reached",
        "verdict",
        "left_out",
        "seeds",
        "mean",
        "least",
        "most",
        "target_aimed",
    ];

    pub fn new(config: &Config, dataset: &str, device: &str, cell: &Cell, verdict: &str) -> Self {
        let correct = cell.correct(config.score);
        let interval = wilson(correct, cell.n);
        let known = |value: f64| (cell.n > 0).then_some(value);
        let (steps, step_size) = cell.channel.steps(config, cell.eps);
        Row {
            model: config.models[cell.model].name.clone(),
            dataset: dataset.to_owned(),
            attack: cell.channel.attack(config),
            norm: config.attack.norm.to_string(),
            eps: cell.eps,
            steps,
            step_size,
            sigma: cell.channel.sigma(),
            channel: cell.channel.number(),
            n: cell.n,
            correct,
            accuracy: known(correct as f64 / cell.n.max(1) as f64),
            ci_low: known(interval.lo),
            ci_high: known(interval.hi),
            seed: config.seed,
            device: device.to_owned(),
            precision: config.precision.to_string(),
            target_reached: cell.target_reached(config),
            verdict: verdict.to_owned(),
            left_out: config.dataset.left_out.unwrap_or(0),
            seeds: cell.over_seeds().map(|_| cell.seeds()),
            mean: cell.over_seeds().map(|_| cell.mean_over_seeds()),
            least: cell.over_seeds().map(|[least, _]| least as f64 / cell.n.max(1) as f64),
            most: cell.over_seeds().map(|[_, most]| most as f64 / cell.n.max(1) as f64),
            target_aimed: cell.target_reached(config).map(|_| cell.aimed),
        }
    }

    /// The text of each column.
    pub fn fields(&self) -> [String; 25] {
        let share = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
        [
            self.model.clone(),
            self.dataset.clone(),
            self.attack.clone(),
            self.norm.clone(),
            self.eps.to_string(),
            self.steps.to_string(),
            self.step_size.to_string(),
            self.sigma.map_or(String::new(), |sigma| sigma.to_string()),
            self.channel.to_string(),
            self.n.to_string(),
            self.correct.to_string(),
            share(self.accuracy),
            share(self.ci_low),
            share(self.ci_high),
            self.seed.to_string(),
            self.device.clone(),
            self.precision.clone(),
            self.target_reached.map_or(String::new(), |n| n.to_string()),
            self.verdict.clone(),
            self.left_out.to_string(),
            self.seeds.map_or(String::new(), |seeds| seeds.to_string()),
            share(self.mean),
            share(self.least),
            share(self.most),
            self.target_aimed.map_or(String::new(), |n| n.to_string()),
        ]
    }
}

/// The bytes of `results.csv`. They depend on the counts only, not on how often the run was interrupted.
///
/// # Errors
/// [`Error::Failed`] when a row cannot be written.
pub fn csv(config: &Config, dataset: &str, device: &str, cells: &[Cell], verdict: &str) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::error::Error| Error::Failed(format!("results.csv: {e}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(Row::COLUMNS).map_err(|e| failed(&e))?;
    for cell in cells {
        csv.write_record(Row::new(config, dataset, device, cell, verdict).fields()).map_err(|e| failed(&e))?;
    }
    csv.into_inner().map_err(|e| failed(e.error()))
}
