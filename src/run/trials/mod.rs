//! Small extra attacks after a sweep that show whether its attack works: what the records cannot tell, within a budget. A new
//! one is a function and a row of `EXPERIMENTS`, whose order is that of their importance.

mod attacks;
mod budget;
mod defended;
mod found;
mod gradients;
mod lab;
mod planted;
mod precision;
mod search;
mod signs;

use std::time::Instant;

use self::budget::{Budget, Passes};

pub use self::found::{
    Ablation, Against, Clamped, Differences, Eot, Gradients, Grey, Left, Longer, Planted, Restarts, Signs, Trial,
    Trials,
};
use self::lab::Lab;
use super::engine::AttackEngine;
use super::ledger::Ledger;
use crate::Result;
use crate::attack::{Loss, Target, autoattack};
use crate::tape::Precision;

/// Images of a trial.
const COUNT: usize = 16;

/// An experiment as the table has it.
struct Experiment {
    /// As `trials.json` names what it leaves.
    name: &'static str,
    /// Whether it is made whatever the budget: it costs a few passes, and nothing can be believed without it.
    always: bool,
    /// Why there is nothing to try, and what would change that.
    lacks: fn(&Lab) -> Option<&'static str>,
    passes: fn(&Lab) -> Passes,
    /// Of all models, for that in this place.
    make: fn(&mut [Lab], usize, &mut Trial) -> Result<()>,
}

const fn plain(gradients: u64, forwards: u64) -> Passes {
    Passes { gradients, forwards, defended_gradients: 0, defended_forwards: 0 }
}

const fn behind(defended_gradients: u64, defended_forwards: u64) -> Passes {
    Passes { gradients: 0, forwards: 0, defended_gradients, defended_forwards }
}

fn few(lab: &Lab) -> u64 {
    lab.len().min(attacks::FEW) as u64
}

fn no_first_attack(lab: &Lab) -> Option<&'static str> {
    lab.attacked.is_none().then_some("the attack of twice the steps, which it is compared with, was left out")
}

fn untargeted(lab: &Lab) -> Option<&'static str> {
    (lab.own.targeted != Target::None).then_some("needs an untargeted attack")
}

fn not_through(lab: &Lab) -> Option<&'static str> {
    let defense = &lab.config.defense;
    (!defense.attack && !defense.suite)
        .then_some("no attack goes through a defence: needs --attack-through defense or suite")
}

/// Every experiment there is.
static EXPERIMENTS: [Experiment; 19] = [
    Experiment {
        name: "gradients",
        always: true,
        lacks: |_| None,
        passes: |lab| plain(2 * lab.len() as u64, 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.gradients = Some(gradients::gradients(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "differences",
        always: true,
        lacks: |lab| match lab.config.precision {
            Precision::F32 => None,
            _ => Some("differences of the loss drown in the rounding of this precision: needs --precision f32"),
        },
        passes: |lab| {
            let n = lab.len().min(gradients::COMPARED[0]) as u64;
            plain(n, gradients::EVALUATED * n)
        },
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.differences = Some(gradients::differences(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "longer",
        always: false,
        lacks: |_| None,
        passes: |lab| plain(2 * u64::from(lab.own.steps) * lab.len() as u64, 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.longer = Some(attacks::longer(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "single",
        always: true,
        lacks: |_| None,
        passes: |lab| plain(lab.len() as u64, lab.len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.single = attacks::single(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "rounded",
        always: false,
        lacks: no_first_attack,
        passes: |lab| plain(0, 2 * lab.len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.rounded = attacks::rounded(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "planted",
        always: false,
        lacks: follows_gradients,
        passes: |lab| plain(u64::from(lab.own.steps) * planted::PLANTED as u64, 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.planted = Some(planted::weakness(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "active",
        always: false,
        lacks: follows_gradients,
        passes: |lab| {
            plain(
                u64::from(lab.own.steps) * planted::PLANTED as u64,
                u64::from(planted::AROUND) * planted::PLANTED as u64,
            )
        },
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.active = Some(planted::active(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "other_loss",
        always: false,
        lacks: |lab| match lab.own.loss {
            _ if untargeted(lab).is_some() => untargeted(lab),
            Loss::CrossEntropy => no_first_attack(lab),
            _ => Some("the attack raises another loss than the cross-entropy already"),
        },
        passes: |lab| plain(u64::from(lab.own.steps) * few(lab), 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.other_loss = attacks::other_loss(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "grey",
        always: false,
        lacks: |_| None,
        passes: |lab| plain(u64::from(attacks::GREY_STEPS) * few(lab), 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.grey = Some(attacks::grey(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "differences_defended",
        always: false,
        lacks: |lab| {
            not_through(lab).or(match lab.config.precision {
                Precision::F32 => None,
                _ => Some("differences of the loss drown in the rounding of this precision: needs --precision f32"),
            })
        },
        passes: |lab| {
            let n = lab.len().min(gradients::COMPARED[1]) as u64;
            behind(n, gradients::EVALUATED * n)
        },
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.differences_defended = gradients::differences_defended(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "clamped",
        always: false,
        lacks: |_| None,
        passes: |lab| Passes {
            defended_forwards: lab.denoiser.map_or(0, |_| lab.len() as u64),
            ..plain(0, 2 * lab.len() as u64)
        },
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.clamped = Some(defended::clamped(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "ablation",
        always: false,
        lacks: |lab| lab.denoiser.is_none().then_some("needs a defence (--sigma)"),
        passes: |lab| behind(0, 3 * lab.len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.ablation = defended::ablation(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "signs",
        always: false,
        lacks: |lab| {
            let none = autoattack::stages(lab.config.attack.method).is_empty();
            none.then_some("these are AutoAttack's own: needs --method autoattack")
        },
        passes: |lab| plain(lab.len() as u64, (signs::PASSES as u64 + 1) * lab.len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.signs = Some(signs::signs(lab)?);
            Ok(())
        },
    },
    Experiment {
        name: "precision",
        always: false,
        lacks: |lab| (lab.config.precision == Precision::F32).then_some("float32 is what ran"),
        passes: |lab| plain(0, 2 * lab.dataset.len().min(precision::COMPARED) as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.precision = precision::precision(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "transferred",
        always: false,
        lacks: |lab| {
            let alone = lab.others.is_empty().then_some("needs a second model in the config");
            untargeted(lab).or(alone).or(no_first_attack(lab))
        },
        passes: |lab| plain(0, (lab.others.len() * lab.len()) as u64),
        make: |labs, at, trial| {
            trial.transferred = transferred(labs, at)?;
            Ok(())
        },
    },
    Experiment {
        name: "eot",
        always: false,
        lacks: not_through,
        passes: |_| behind(2 * 40 * defended::COMPARED as u64, 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.eot = defended::eot(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "restarts",
        always: false,
        lacks: |lab| untargeted(lab).or(no_first_attack(lab)),
        passes: |lab| plain((u64::from(lab.own.steps) * few(lab) * 5) / 2, 0),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.restarts = attacks::restarts(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "square",
        always: false,
        lacks: |lab| untargeted(lab).or(no_first_attack(lab)),
        passes: |lab| plain(0, u64::from(search::QUERIES) * search::standing(lab).len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.square = search::square(lab)?;
            Ok(())
        },
    },
    Experiment {
        name: "random",
        always: false,
        lacks: |lab| untargeted(lab).or(no_first_attack(lab)),
        passes: |lab| plain(0, u64::from(search::POINTS) * search::standing(lab).len() as u64),
        make: |labs, at, trial| {
            let lab = &mut labs[at];
            trial.random = search::random(lab)?;
            Ok(())
        },
    },
];

fn follows_gradients(lab: &Lab) -> Option<&'static str> {
    (lab.own.method == "random").then_some("an attack that draws at random follows nothing: needs one with a gradient")
}

impl AttackEngine<'_> {
    /// Attacks the first images of the dataset in other ways, as far as its budget goes; `None` without an epsilon above 0, and where
    /// budgets are not those of pixels.
    ///
    /// # Errors
    /// What attacking returns.
    pub fn trials(&self, run: &Ledger) -> Result<Option<Trials>> {
        let attack = &self.config().attack;
        let Some(eps) = attack.middle_eps().filter(|_| !attack.normalised()) else { return Ok(None) };
        let mut budget = Budget::new(run);
        let models = 0..self.config().models.len();
        let mut labs = models.map(|model| Lab::new(self, run, model, eps, COUNT)).collect::<Result<Vec<_>>>()?;
        let name = |lab: &Lab| lab.config.models[lab.model].name.clone();
        let mut found: Vec<Trial> = labs.iter().map(|lab| Trial { model: name(lab), ..Trial::default() }).collect();
        let mut left = Vec::new();
        for experiment in &EXPERIMENTS {
            for model in 0..labs.len() {
                let mut leave = |lab: &Lab, why: String| {
                    left.push(Left { model: name(lab), experiment: experiment.name.into(), why });
                };
                if let Some(why) = (experiment.lacks)(&labs[model]) {
                    leave(&labs[model], why.into());
                    continue;
                }
                let passes = (experiment.passes)(&labs[model]);
                if let Some(why) = budget.lacks(passes).filter(|_| !experiment.always) {
                    leave(&labs[model], why);
                    continue;
                }
                let begin = Instant::now();
                (experiment.make)(&mut labs, model, &mut found[model])?;
                budget.took(passes, begin.elapsed().as_secs_f64());
            }
        }
        Ok(Some(Trials { eps, budget: run.config.checks_budget, spent: budget.spent(), models: found, left }))
    }
}

/// What broke the other models, on this one.
fn transferred(labs: &[Lab], model: usize) -> Result<Option<Against>> {
    let lab = &labs[model];
    let Some(own) = &lab.attacked else { return Ok(None) };
    let mut right = own.right_later.clone();
    for other in
        labs.iter().enumerate().filter(|(place, _)| *place != model).filter_map(|(_, lab)| lab.attacked.as_ref())
    {
        let predicted = lab.predicted(lab.net, &other.best)?;
        right.iter_mut().enumerate().for_each(|(i, right)| *right &= predicted[i] == lab.batch.labels[i]);
    }
    Ok(Some(lab::against(&lab.batch.ids, &own.right_later, &right)))
}
