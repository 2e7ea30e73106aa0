//! The `[certify]` table: randomised smoothing of the same networks, at the sigmas of `[defense]`.

use std::path::PathBuf;

use serde::Serialize;

use super::defense::DefenseConfig;
use super::file;
use super::settings::{Procedure, Rounding};
use super::wrong::Wrong;
use crate::error::Result;
use crate::stats::certificate;

/// Draws that choose the class (Cohen et al. 2019).
const N0: u32 = 100;
/// Draws that bound its share (Cohen et al. 2019), and of the demo.
const N: [u32; 2] = [100_000, 1000];
const ALPHA: f64 = 0.001;
/// What counts draws has so many bits.
const MOST: u32 = 1 << 20;
/// A certification with nothing left to choose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certify {
    pub procedure: Procedure,
    /// Draws that choose the class; 0 of `predict`.
    pub n0: u32,
    /// Draws that bound its share; with radii at most.
    pub n: u32,
    /// The chance of a wrong certificate, per image.
    pub alpha: f64,
    /// Ascending: sampling ends once all of them are certified or out of reach. Empty: `n` draws in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub radius: Vec<f64>,
    /// Images whose number is a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<u64>,
    /// Images of smaller numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    pub tsv_rounding: Rounding,
    /// Of an image, all channels; see [`super::Config::pin`]. An L2 radius holds an L-infinity one that is smaller by the root of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<usize>,
    /// Published tables of others, whose curves are drawn beside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<PathBuf>,
}

impl Certify {
    /// The radii that a summary names at a sigma: those that were asked for, else one of its own size; none of predictions.
    pub fn told(&self, sigma: f64) -> Vec<f64> {
        match (self.procedure, self.radius.is_empty()) {
            (Procedure::Predict, _) => vec![],
            (_, true) => vec![sigma],
            (_, false) => self.radius.clone(),
        }
    }

    /// Whether the image of this number is among those that are certified.
    pub fn takes(&self, id: u64) -> bool {
        self.max.is_none_or(|max| id < max) && self.skip.is_none_or(|skip| id.is_multiple_of(skip))
    }
}

/// Refuses what only says how to certify where nothing says that it is to be done: the command line asks for it by the procedure or by
/// radii.
pub(super) fn asked_for(by_config: bool, wrong: &Wrong) -> Result<()> {
    const ASKING: [&str; 2] = ["certify.procedure", "certify.radius"];
    let sets = &wrong.overrides.set;
    if by_config || wrong.overrides.certify || sets.iter().any(|set| ASKING.contains(&set.key)) {
        return Ok(());
    }
    match sets.iter().find(|set| set.key.starts_with("certify.")) {
        Some(set) => Err(wrong.at(
            set.key,
            "belongs to certificates, and nothing asks for them: expected --procedure certify or --radius beside it, or a table [certify] \
             in the config; `rampart certify` makes certificates alone",
        )),
        None => Ok(()),
    }
}

/// Fills in and checks; `None` where nothing is to be certified.
pub(super) fn resolve(
    file: Option<file::Certify>,
    demo: bool,
    defense: &DefenseConfig,
    wrong: &Wrong,
) -> Result<Option<Certify>> {
    let Some(file) = file.or_else(|| wrong.overrides.certify.then(Default::default)) else { return Ok(None) };
    if defense.sigma.is_empty() {
        let problem = "noise is what certifies: expected sigma (--sigma 0.25, as in defense.sigma), found none";
        return Err(wrong.at("certify", problem));
    }
    if defense.sigma[0] == 0.0 {
        return Err(wrong.at("defense.sigma", "noise of 0 certifies nothing: expected sigmas above 0 beside [certify]"));
    }
    for (field, given) in [
        ("defense.size", defense.size.is_some()),
        ("defense.rescale_input", defense.rescale_input.is_some()),
        ("defense.rescale_output", defense.rescale_output.is_some()),
    ] {
        if given {
            let problem = "a certificate needs noise of sigma on the pixels themselves: leave it out beside [certify]";
            return Err(wrong.at(field, problem));
        }
    }
    let procedure = file.procedure.unwrap_or(Procedure::Certify);
    let predict = procedure == Procedure::Predict;
    for (field, given) in [
        ("certify.n0", file.n0.is_some_and(|n0| n0 > 0)),
        ("certify.radius", file.radius.is_some()),
        ("certify.tsv_rounding", file.tsv_rounding.is_some_and(|rounding| rounding != Rounding::Down)),
    ] {
        if given && predict {
            return Err(
                wrong.at(field, "procedure = \"predict\" has no radius and chooses no class before: leave it out")
            );
        }
    }
    let n0 = if predict { 0 } else { file.n0.unwrap_or(N0) };
    let n = file.n.unwrap_or(N[usize::from(demo)]);
    for (field, value) in [("certify.n0", n0), ("certify.n", n)] {
        if (value == 0 && !(predict && field == "certify.n0")) || value > MOST {
            return Err(wrong.at(field, format!("expected 1 to {MOST} draws, found {value}")));
        }
    }
    let alpha = file.alpha.map_or(ALPHA, |alpha| alpha.value);
    if !(alpha > 0.0 && alpha < 0.5) {
        return Err(wrong.at("certify.alpha", format!("expected a chance above 0 and below 0.5, found {alpha}")));
    }
    // If all draws are for one class, its share is at least alpha^(1 / n): at one half there is no radius.
    let least = (alpha.ln() / 0.5_f64.ln()).floor() as u32 + 1;
    if n < least && !predict {
        let problem =
            format!("{n} draws certify nothing at alpha {alpha}, whatever the network: expected at least {least}");
        return Err(wrong.at("certify.n", problem));
    }
    let mut radius: Vec<f64> = file.radius.iter().flatten().map(|radius| radius.value).collect();
    if let Some(bad) = radius.iter().find(|radius| !(radius.is_finite() && **radius > 0.0)) {
        return Err(wrong.at("certify.radius", format!("expected L2 radii above 0 in pixel units, found {bad}")));
    }
    radius.sort_by(f64::total_cmp);
    if let Some(pair) = radius.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(wrong.at("certify.radius", format!("{} is listed twice", pair[0])));
    }
    // All draws for one class prove no more than this.
    let sigma = defense.sigma.iter().copied().fold(0.0, f64::max);
    let most = certificate::radius(certificate::anytime_lower(u64::from(n), u64::from(n), alpha), sigma);
    if let Some(bad) = radius.iter().find(|&&radius| radius > most && !wrong.is_past()) {
        let problem = format!(
            "{n} draws at sigma {sigma} certify {most:.3} at most (alpha {alpha}), whatever the network, found {bad}: more draws \
             (certify.n) or a larger sigma"
        );
        return Err(wrong.at("certify.radius", problem));
    }
    for (field, value) in [("certify.skip", file.skip), ("certify.max", file.max)] {
        if value == Some(0) {
            return Err(wrong.at(field, "expected at least 1, found 0"));
        }
    }
    let compare: Vec<PathBuf> =
        file.compare.iter().map(|path| wrong.existing("certify.compare", path)).collect::<Result<_>>()?;
    if let Some(at) = (1..compare.len()).find(|&at| compare[..at].contains(&compare[at])) {
        return Err(wrong.at("certify.compare", format!("{} is listed twice", compare[at].display())));
    }
    Ok(Some(Certify {
        procedure,
        n0,
        n,
        alpha,
        radius,
        skip: file.skip,
        max: file.max,
        tsv_rounding: file.tsv_rounding.unwrap_or(Rounding::Down),
        values: file.values,
        compare,
    }))
}
