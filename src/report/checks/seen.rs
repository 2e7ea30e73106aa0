//! What checks look at, and what they have in common.

use super::finding::{Finding, Verdict};
use crate::attack::Outcome;
use crate::number::eps_label;
use crate::report::words::p_value;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{Channel, Under};
use crate::run::trials::{Left, Trial, Trials};
use crate::stats::{holm, sign_test};

/// The channel of the experiment's own attack on the classifier.
pub(super) const OWN: Channel = Channel::Undefended;

/// Experiments that are made by the run's attack, or by what stands in for one that costs more.
const BY_ATTACK: [&str; 9] =
    ["longer", "rounded", "planted", "active", "other_loss", "grey", "transferred", "restarts", "square"];

/// A run, and what small attacks of its own found.
pub(super) struct Seen<'a> {
    pub run: &'a Ledger,
    pub trials: Option<&'a Trials>,
}

/// Two cells of a model compared: images that came to be right against expectation, and the other way.
pub(super) struct Moved {
    pub model: usize,
    pub what: String,
    pub more: Vec<u64>,
    pub fewer: u64,
}

pub(super) fn not_run(why: impl Into<String>) -> Vec<Finding> {
    vec![Finding::new(Verdict::NotRun, "", why)]
}

/// What was found, or that there was nothing to look at.
pub(super) fn or_not_run(found: Vec<Finding>, why: impl Into<String>) -> Vec<Finding> {
    if found.is_empty() { not_run(why) } else { found }
}

impl Seen<'_> {
    /// The attacked images of a cell, with their ids.
    pub fn outcomes(&self, cell: usize) -> impl Iterator<Item = (u64, &Outcome)> {
        self.run.ids.iter().zip(&self.run.found[cell]).filter_map(|(&id, found)| match found {
            Some(Found::Attacked(outcome)) => Some((id, outcome)),
            _ => None,
        })
    }

    /// A finding per model over its cells of the experiment's own attack on the classifier, and of each attack beside it.
    pub fn undefended(&self, judge: impl Fn(&[usize]) -> Option<(Verdict, String, Vec<u64>)>) -> Vec<Finding> {
        let config = &self.run.config;
        let channels = std::iter::once(Channel::Undefended).chain((0..config.attack.beside.len()).map(Channel::Beside));
        let mut found = Vec::new();
        for (model, named) in config.models.iter().enumerate() {
            for channel in channels.clone() {
                let cells = config.attack.eps.iter().filter_map(|&eps| self.run.cell(model, channel, eps));
                let cells: Vec<usize> = cells.filter(|&cell| self.run.cells[cell].n > 0).collect();
                let Some((verdict, numbers, images)) = (!cells.is_empty()).then(|| judge(&cells)).flatten() else {
                    continue;
                };
                let about = match channel {
                    Channel::Beside(_) => format!("{}, {}", named.name, channel.attack(config)),
                    _ => named.name.clone(),
                };
                found.push(Finding::new(verdict, about, numbers).of(images));
            }
        }
        found
    }

    /// A finding per model of what an experiment of the trials found, or why it was not made.
    pub fn tried<T>(
        &self,
        experiment: &str,
        found: impl Fn(&Trial) -> Option<&T>,
        judge: impl Fn(&T) -> (Verdict, String, Vec<u64>),
    ) -> Vec<Finding> {
        let Some(trials) = self.trials else { return not_run(self.untried()) };
        let of = |trial: &Trial| match found(trial) {
            Some(found) => {
                let (verdict, mut numbers, images) = judge(found);
                let by = self.run.config.attack.tried().ok().map(|spec| spec.method);
                let own = self.run.config.attack.method;
                if let Some(by) = by.filter(|&by| by != own && BY_ATTACK.contains(&experiment)) {
                    numbers = format!("{numbers}; by {by}, which stands in for {own}");
                }
                Finding::new(verdict, &trial.model, numbers).of(images)
            }
            None => {
                let own = |left: &&Left| left.model == trial.model && left.experiment == experiment;
                let why =
                    trials.left.iter().find(own).map_or("trials.json has nothing of it", |left| left.why.as_str());
                Finding::new(Verdict::NotRun, &trial.model, why)
            }
        };
        trials.models.iter().map(of).collect()
    }

    /// Where the trials were made.
    pub fn at(&self) -> String {
        self.trials.map_or(String::new(), |trials| format!(" at eps {}", eps_label(trials.eps)))
    }

    /// Why there are no trials, and what would bring them.
    pub fn untried(&self) -> &'static str {
        let attack = &self.run.config.attack;
        if attack.normalised() {
            "small attacks of their own are made in pixel units only: needs attack.space = \"pixel\""
        } else if attack.middle_eps().is_none() {
            "needs an eps above 0"
        } else {
            "needs trials.json, which the end of a sweep leaves behind, but not with --no-checks or on the emulated GPU"
        }
    }

    /// Images right in the second cell but not in the first, and the other way round; `None` unless both have records.
    pub fn moved(&self, first: usize, second: usize) -> Option<(Vec<u64>, u64)> {
        let run = self.run;
        if run.cells[first].n == 0 || run.cells[second].n == 0 {
            return None;
        }
        let (mut gained, mut lost) = (vec![], 0);
        for (image, &id) in run.ids.iter().enumerate() {
            match (run.correct(first, image), run.correct(second, image)) {
                (Some(false), Some(true)) => gained.push(id),
                (Some(true), Some(false)) => lost += 1,
                _ => {}
            }
        }
        Some((gained, lost))
    }

    /// Pairs of cells where more images came to be right than ought to, judged for all of them together (Holm 1979): of each model the
    /// most surprising one.
    pub fn surprises(&self, pairs: Vec<Moved>, none: &str) -> Vec<Finding> {
        let more = |pair: &Moved| pair.more.len() as u64;
        let raw: Vec<f64> = pairs
            .iter()
            .map(|pair| if more(pair) > pair.fewer { sign_test(more(pair), pair.fewer) } else { 1.0 })
            .collect();
        let adjusted = holm(&raw);
        let mut found = Vec::new();
        for (model, named) in self.run.config.models.iter().enumerate() {
            let own = pairs.iter().zip(&adjusted).filter(|(pair, _)| pair.model == model);
            let Some((pair, &p)) = own.min_by(|a, b| a.1.total_cmp(b.1)) else { continue };
            let verdict = match p {
                p if p < 0.01 => Verdict::Fail,
                p if p < 0.05 => Verdict::Warn,
                _ => Verdict::Pass,
            };
            let told = more(pair) > pair.fewer && p < 1.0;
            let numbers = format!(
                "{}: {} images right against expectation, {} the other way, adjusted p {}",
                pair.what,
                more(pair),
                pair.fewer,
                p_value(p)
            );
            let numbers = if told { numbers } else { none.to_owned() };
            let images = if verdict == Verdict::Pass { vec![] } else { pair.more.clone() };
            found.push(Finding::new(verdict, &named.name, numbers).of(images));
        }
        found
    }

    /// Of every cell, the images that the second attack leaves right and the first broke, and the other way.
    pub fn weaker(&self, first: Under, second: Under) -> Vec<Moved> {
        let (run, mut pairs) = (self.run, Vec::new());
        for model in 0..run.config.models.len() {
            for &sigma in &run.config.defense.sigma {
                for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
                    let cell = |under| run.cell(model, Channel::Denoised { sigma, under }, eps);
                    let cells = cell(first).zip(cell(second));
                    if let Some((more, fewer)) = cells.and_then(|(first, second)| self.moved(first, second)) {
                        let what = format!("sigma {sigma}, eps {}", eps_label(eps));
                        pairs.push(Moved { model, what, more, fewer });
                    }
                }
            }
        }
        pairs
    }
}
