//! The `[defense]` table: channel 2, and the attack that goes through it.

use serde::Serialize;

use super::file;
use super::wrong::Wrong;
use crate::attack::{Loss, Spec, Target};
use crate::data::demo;
use crate::data::resize::Filter;
use crate::defense::smoothing::{MOST_SEEDS, SEEDS};
use crate::defense::{Estimator, Vote, suite};
use crate::error::Result;

/// Sigmas of the demo, in units of pixels in [0, 1].
const DEMO_SIGMA: [f64; 2] = [0.25, 0.5];
/// Draws of a vote under attack that a certificate is to be compared with.
const CERTIFIED: u32 = 100;
/// Draws per step of an attack that goes through the defence (Lee & Kim 2023).
const EOT: u32 = 20;
/// Square takes five for each of PGD's, and 16 bits count them.
const MOST_STEPS: u32 = ((1 << 16) - 1) / 5;

/// Channel 2 with nothing left to choose. Without a denoiser there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DefenseConfig {
    /// Ascending, each at least 0, none twice.
    pub sigma: Vec<f64>,
    /// Draws of noise per image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draws: Option<u32>,
    /// Seeds of the noise that images are scored under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote: Option<Vote>,
    /// Whether the defended pipeline is attacked as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub attack: bool,
    /// Whether it is attacked by every attack of [`crate::defense::suite::SUITE`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suite: bool,
    /// Steps of the suite's PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Draws that choose among the points of an attack through the defence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<u32>,
    /// Whether the clip of the estimate passes gradients on as if it were not there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub straight: bool,
    /// Whether every second draw of an attack is the one before with its sign turned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub antithetic: bool,
    /// Whether APGD keeps books of its points by the last draw alone, as AutoAttack as published does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aa_compat: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eot: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimator: Option<Estimator>,
    /// Height and width that the denoiser works at, where not at those of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Of the resizes to that size and back, both with antialias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// `false`: the denoiser gets [0, 1] where it expects [-1, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_input: Option<bool>,
    /// `false`: the classifier gets the denoiser's [-1, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_output: Option<bool>,
    /// A safetensors file, or `demo:` and the name of an embedded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Of the file, eight hexadecimal digits; see [`super::Config::pin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
}

/// In place of the weights: noise alone, nothing takes it away.
pub const NO_DENOISER: &str = "none";

impl DefenseConfig {
    /// The weights, unless the channel is of noise alone.
    pub fn denoiser(&self) -> Option<&str> {
        self.weights.as_deref().filter(|weights| *weights != NO_DENOISER)
    }

    /// Whether noise is added and stays.
    pub fn noise_alone(&self) -> bool {
        self.weights.as_deref() == Some(NO_DENOISER)
    }

    /// What is done to an image before it is classified: a denoiser's work is named only where there is one.
    pub fn way(&self) -> &'static str {
        if self.noise_alone() { "noised, not denoised" } else { "denoised" }
    }

    pub fn draws(&self) -> u32 {
        self.draws.unwrap_or(1)
    }

    /// 1 in the records of older versions.
    pub fn seeds(&self) -> u32 {
        self.seeds.unwrap_or(1)
    }

    pub fn vote(&self) -> Vote {
        self.vote.unwrap_or(Vote::Majority)
    }

    pub fn eot(&self) -> u32 {
        self.eot.unwrap_or(EOT)
    }

    pub fn steps(&self) -> u32 {
        self.steps.unwrap_or(suite::STEPS)
    }

    pub fn selection(&self) -> u32 {
        self.selection.unwrap_or(suite::SELECTION)
    }

    pub fn rescaling(&self) -> (bool, bool) {
        (self.rescale_input.unwrap_or(true), self.rescale_output.unwrap_or(true))
    }

    pub fn estimator(&self) -> Estimator {
        self.estimator.unwrap_or(Estimator::EotGrad)
    }

    /// Whether the attack through the defence takes no notice of it: its numbers are non-adaptive.
    pub fn is_blind(&self) -> bool {
        self.estimator() == Estimator::Blind
    }
}

/// Fills in and checks.
pub(super) fn resolve(
    file: file::Defense,
    own: Option<&str>,
    certified: bool,
    attack: &Spec,
    wrong: &Wrong,
) -> Result<DefenseConfig> {
    let o = wrong.overrides;
    if o.no_defense {
        if let Some(set) = o.set.iter().find(|set| set.key.starts_with("defense.")) {
            return Err(wrong.at(set.key, "belongs to a defence, and --no-defense leaves it out"));
        }
        return match [
            ("defense.draws", o.draws.is_some()),
            ("defense.attack", o.attack_through),
            ("defense.suite", o.suite),
            ("defense.eot", o.eot.is_some()),
            ("defense.estimator", o.estimator.is_some()),
        ]
        .into_iter()
        .find(|(_, given)| *given)
        {
            Some((field, _)) => Err(wrong.at(field, "belongs to a defence, and --no-defense leaves it out")),
            None => Ok(DefenseConfig::default()),
        };
    }
    let listed = o.sigma.clone().or(file.sigma.as_ref().map(|list| list.iter().map(|n| n.value).collect()));
    let default = if own.is_some() { DEMO_SIGMA.to_vec() } else { vec![] };
    let sigma = sigmas(listed.unwrap_or(default), wrong)?;
    if sigma.is_empty() {
        let given = file.given(o);
        return match given.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(wrong
                .at(field, "there is no denoised channel without noise: expected defense.sigma (--sigma) beside it")),
            None => Ok(DefenseConfig::default()),
        };
    }
    // A certificate is of any classifier under noise.
    let bare = certified.then(|| NO_DENOISER.to_owned());
    let weights = file.weights.or(own.map(|name| format!("demo:{name}"))).or(bare);
    let Some(weights) = weights else {
        let problem = "channel 2 needs a denoiser: expected defense.weights (--denoiser), a safetensors file, or \"none\" for noise alone; it is not given";
        return Err(wrong.at("defense.sigma", problem));
    };
    let weights = match weights.as_str() {
        NO_DENOISER => weights,
        _ => wrong.locate(&weights, "defense.weights", &[demo::DENOISER])?.1,
    };
    for (field, given) in [
        ("defense.size", file.size.is_some()),
        ("defense.straight", file.straight),
        ("defense.rescale_input", file.rescale_input.is_some()),
        ("defense.rescale_output", file.rescale_output.is_some()),
    ] {
        if given && weights == NO_DENOISER {
            return Err(wrong.at(field, "belongs to a denoiser, and weights = \"none\" is noise alone: leave it out"));
        }
    }
    let draws = o.draws.or(file.draws).unwrap_or(if certified { CERTIFIED } else { 1 });
    if draws == 0 || draws > 1 << 16 {
        return Err(wrong.at("defense.draws", format!("expected 1 to 65536, found {draws}")));
    }
    let seeds = file.seeds.unwrap_or(if wrong.is_past() { 1 } else { SEEDS });
    if seeds == 0 || seeds as usize > MOST_SEEDS {
        return Err(wrong.at("defense.seeds", format!("expected 1 to {MOST_SEEDS}, found {seeds}")));
    }
    if file.vote.is_some() && draws == 1 {
        return Err(wrong.at("defense.vote", "a single draw has nothing to vote on: expected draws above 1 beside it"));
    }
    let (through, whole) = (o.attack_through || file.attack, o.suite || file.suite);
    let (eot, estimator) = (o.eot.or(file.eot), o.estimator.or(file.estimator));
    const ONE: &str = "belongs to an attack through the defence: set attack = true (--attack-through defense)";
    const ANY: &str = "belongs to an attack through the defence: set attack = true or suite = true (--attack-through defense or suite)";
    const SUITE: &str =
        "belongs to the suite of attacks through the defence: set suite = true (--attack-through suite)";
    for (field, given, has, problem) in [
        ("defense.eot", eot.is_some(), through || whole, ANY),
        ("defense.antithetic", file.antithetic, through || whole, ANY),
        ("defense.aa_compat", file.aa_compat, through || whole, ANY),
        ("defense.selection", file.selection.is_some(), through || whole, ANY),
        ("defense.estimator", estimator.is_some(), through, ONE),
        ("defense.straight", file.straight, through, ONE),
        ("defense.steps", file.steps.is_some(), whole, SUITE),
    ] {
        if given && !has {
            return Err(wrong.at(field, problem));
        }
    }
    let eot = eot.unwrap_or(EOT);
    if eot == 0 || eot > 1024 {
        return Err(wrong.at("defense.eot", format!("expected 1 to 1024 draws, found {eot}")));
    }
    let estimator = estimator.unwrap_or(Estimator::EotGrad);
    if through
        && estimator == Estimator::EotProb
        && (attack.loss != Loss::CrossEntropy || attack.targeted != Target::None)
    {
        return Err(wrong.at("defense.estimator", "eot_prob is defined for the untargeted cross-entropy only"));
    }
    let usual = (attack.loss, attack.targeted) == (attack.usual_loss, Target::None);
    if through && estimator == Estimator::VoteMargin && !usual {
        let problem =
            "vote_margin raises the margin of the mean softmax, untargeted: leave out attack.loss and attack.targeted";
        return Err(wrong.at("defense.estimator", problem));
    }
    if file.straight && !estimator.clips() {
        return Err(wrong.at("defense.straight", format!("{estimator} has no gradient through the clip: leave it out")));
    }
    if file.antithetic && !eot.is_multiple_of(2) {
        return Err(wrong.at("defense.antithetic", format!("draws come in pairs: expected an even eot, found {eot}")));
    }
    if file.aa_compat {
        bookkeeping(through, eot, estimator, attack).map_err(|problem| wrong.at("defense.aa_compat", problem))?;
    }
    let selection = file.selection.unwrap_or(suite::SELECTION);
    if selection == 0 || selection > 1 << 16 {
        return Err(wrong.at("defense.selection", format!("expected 1 to 65536 draws, found {selection}")));
    }
    let steps = file.steps.unwrap_or(suite::STEPS);
    if steps == 0 || steps > MOST_STEPS {
        return Err(wrong.at("defense.steps", format!("expected 1 to {MOST_STEPS}, found {steps}")));
    }
    if whole && attack.targeted != Target::None {
        return Err(wrong.at("defense.suite", "its attacks count any wrong class: leave out attack.targeted"));
    }
    if through && attack.early_stop {
        let problem = format!(
            "a stochastic defence must not be attacked with early stop, found {}: one lucky draw would end the attack; pgd, apgd-ce and \
             autoattack-rand have none unless it is asked for",
            attack.label()
        );
        return Err(wrong.at("defense.attack", problem));
    }
    for (field, given) in [("defense.attack", through), ("defense.suite", whole)] {
        if given && attack.normalised() {
            return Err(wrong.at(field, "an attack through the defence moves pixels: leave out attack.space"));
        }
    }
    if let Some(size) = file.size.filter(|size| size.iter().any(|side| !(1..=8192).contains(side))) {
        return Err(wrong.at("defense.size", format!("expected sides of 1 to 8192 pixels, found {size:?}")));
    }
    match (file.filter, file.size) {
        (Some(_), None) => return Err(wrong.at("defense.filter", "nothing is resized: expected a size beside it")),
        (Some(Filter::Opencv), _) => {
            return Err(wrong.at("defense.filter", "gradients run through bilinear and bicubic only, found opencv"));
        }
        _ => {}
    }
    Ok(DefenseConfig {
        sigma,
        draws: Some(draws),
        seeds: Some(seeds),
        vote: (draws > 1).then_some(file.vote.unwrap_or(Vote::Majority)),
        attack: through,
        suite: whole,
        steps: whole.then_some(steps),
        selection: (through || whole).then_some(selection),
        straight: file.straight,
        antithetic: file.antithetic,
        aa_compat: file.aa_compat,
        eot: (through || whole).then_some(eot),
        estimator: through.then_some(estimator),
        size: file.size,
        filter: file.size.map(|_| file.filter.unwrap_or(Filter::Bicubic)),
        rescale_input: file.rescale_input.filter(|rescale| !rescale),
        rescale_output: file.rescale_output.filter(|rescale| !rescale),
        weights: Some(weights),
        crc32: file.crc32,
    })
}

/// Whether books kept by the last draw are other books than the ones that are kept anyway.
fn bookkeeping(through: bool, eot: u32, estimator: Estimator, attack: &Spec) -> std::result::Result<(), String> {
    if eot == 1 {
        return Err("the last of a single draw is that draw: expected an eot above 1, or leave it out".into());
    }
    if through && !attack.method.starts_with("apgd") && attack.method != "autoattack-rand" {
        let found = attack.label();
        return Err(format!("is of apgd-ce, apgd-dlr, apgd-t and autoattack-rand, found {found}: leave it out"));
    }
    if through && (estimator.joint() || estimator == Estimator::Blind) {
        let known = [Estimator::EotGrad, Estimator::Bpda, Estimator::BpdaNoise].map(|of| of.to_string()).join(", ");
        return Err(format!(
            "AutoAttack takes the mean of gradients: expected an estimator of {known}, found {estimator}"
        ));
    }
    Ok(())
}

fn sigmas(mut sigma: Vec<f64>, wrong: &Wrong) -> Result<Vec<f64>> {
    for value in &mut sigma {
        *value = wrong.not_negative("defense.sigma", *value)? + 0.0; // -0 becomes 0
    }
    sigma.sort_by(f64::total_cmp);
    match sigma.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong.at("defense.sigma", format!("{} is listed twice", pair[0]))),
        None => Ok(sigma),
    }
}
