//! What experiments may cost: by default a tenth of the run's own passes through its networks, counted and not timed, so that the same run
//! makes the same experiments on any machine; or seconds, where somebody says how many.

use std::time::Instant;

use crate::attack::{Outcome, Spec};
use crate::defense::suite::SUITE;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{Channel, Under};

/// Passes over single images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Passes {
    pub gradients: u64,
    pub forwards: u64,
    /// The same through the defence.
    pub defended_gradients: u64,
    pub defended_forwards: u64,
}

/// Forward passes of a classifier that a gradient costs, and a pass through the defence.
const GRADIENT: f64 = 2.0;
const DEFENDED: f64 = 6.0;
/// The share of the run's own work that experiments may take where nothing is said.
const SHARE: f64 = 0.1;

impl Passes {
    /// As forward passes of the classifier.
    pub fn weight(self) -> f64 {
        let [plain, defended] = self.parts();
        plain + DEFENDED * defended
    }

    fn parts(self) -> [f64; 2] {
        [(self.gradients, self.forwards), (self.defended_gradients, self.defended_forwards)]
            .map(|(gradients, forwards)| GRADIENT * gradients as f64 + forwards as f64)
    }
}

/// The passes of a run, from its records and its config.
pub(super) fn own(run: &Ledger) -> f64 {
    let config = &run.config;
    let scored = f64::from(config.defense.draws() * config.defense.seeds());
    let steps_of = |spec: &Spec| f64::from(spec.steps) * f64::from(spec.restarts);
    let eot = f64::from(config.defense.eot());
    let mut sum = 0.0;
    for (cell, found) in run.cells.iter().zip(&run.found) {
        let made = |spec: &Spec| if cell.eps > 0.0 { GRADIENT * eot * steps_of(spec) } else { 0.0 };
        let attacked = match cell.channel {
            Channel::Denoised { under: Under::Through, .. } => made(&config.attack),
            Channel::Denoised { under: Under::Member(row), .. } => {
                let spec = SUITE[row].spec(config.attack.norm, &[cell.eps], config.defense.steps());
                spec.map_or(0.0, |spec| made(&spec))
            }
            _ => 0.0,
        };
        for found in found.iter().flatten() {
            sum += match found {
                Found::Attacked(outcome) => by(outcome),
                Found::Denoised(_) => DEFENDED * (attacked + scored),
            };
        }
    }
    sum
}

/// Of an attack on one image.
fn by(outcome: &Outcome) -> f64 {
    match outcome.asked {
        Some(asked) => asked.stages().map(|work| GRADIENT * work.gradients as f64 + work.forwards as f64).sum(),
        None => GRADIENT * f64::from(outcome.steps - outcome.steps_saved.min(outcome.steps)) + 2.0,
    }
}

/// What is left, and what it is counted in.
pub(super) struct Budget {
    begin: Instant,
    /// Forward passes, or seconds.
    total: f64,
    timed: bool,
    /// Forward passes so far.
    passed: f64,
    /// Seconds of a forward pass of one image, on the classifier alone and through the defence, once one was timed.
    forward: Option<[f64; 2]>,
}

impl Budget {
    /// Of a run, in seconds where they are said.
    pub fn new(run: &Ledger) -> Budget {
        let seconds = run.config.checks_budget;
        Budget {
            begin: Instant::now(),
            total: seconds.unwrap_or_else(|| SHARE * own(run)),
            timed: seconds.is_some(),
            passed: 0.0,
            forward: None,
        }
    }

    /// Seconds so far.
    pub fn spent(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Whether passes go beyond it, in words.
    pub fn lacks(&self, passes: Passes) -> Option<String> {
        let (needs, used, unit) = match (self.timed, self.forward) {
            (false, _) => (passes.weight(), self.passed, "forward passes"),
            (true, known) => {
                let [own, defended] = passes.parts();
                let [plain, behind] = known.unwrap_or_default();
                (plain * own + behind * defended, self.spent(), "s")
            }
        };
        let digits = usize::from(self.timed);
        let rest = (self.total - used).max(0.0);
        (needs > rest).then(|| {
            format!(
                "no time: about {needs:.digits$} {unit} with {rest:.digits$} of {:.digits$} left; --checks-budget SECONDS gives it more",
                self.total
            )
        })
    }

    /// Passes took so many seconds.
    pub fn took(&mut self, passes: Passes, seconds: f64) {
        self.passed += passes.weight();
        let [own, behind] = passes.parts();
        self.forward = match self.forward {
            None if own > 0.0 => Some([seconds / own, DEFENDED * seconds / own]),
            Some([plain, _]) if behind > 0.0 => Some([plain, ((seconds - plain * own) / behind).max(plain)]),
            known => known,
        };
    }
}
