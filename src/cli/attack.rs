//! `rampart attack`: a network and images of one's own, without a config.

use std::path::Path;

use clap::Args as ClapArgs;

use super::settings::Settings;
use super::sweep::Going;
use crate::config::{Config, Overrides, Set};
use crate::data::{self, Dataset};
use crate::error::{Error, Result};

/// Attack a network of one's own on images of one's own: a run as of `sweep`, without a config.
///
/// The network is told from its file, the format of the images from what lies there. The accuracy without an attack is measured as
/// well. Without a denoiser there is no denoised channel.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "  rampart attack resnet50.pth photographs --eps 8/255 --norm linf --steps 50 --restarts 2 --targeted random\n\n\
                        Every key of a config can be set here: `rampart config --keys` lists them with their flags."
)]
pub struct Args {
    #[command(flatten)]
    pub given: Given,

    #[command(flatten)]
    pub settings: Settings,

    #[command(flatten)]
    pub going: Going,
}

/// A network and images.
#[derive(Debug, ClapArgs)]
pub struct Given {
    /// The network: safetensors, what torch.save wrote (.pt, .pth), a graph (.onnx), or demo:resnet50-w16
    pub weights: String,

    /// The images: a folder with one folder per class, arrays (.npz, .npy, .safetensors, .pt), a folder of IDX files, CIFAR-10's test_batch.bin, or `demo`
    pub data: String,
}

impl Given {
    /// What these and the flags say, and how the format of the images was told.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is said twice or not recognised.
    pub fn overrides(&self, settings: &Settings) -> Result<(Overrides, Option<String>)> {
        let mut overrides = settings.overrides()?;
        let said = |o: &Overrides, key: &str| o.set.iter().any(|set| set.key == key);
        if self.data == data::SOURCES[0].name {
            // Whoever names a network of their own wants no denoiser that is only the demo's.
            let defended = overrides.set.iter().any(|set| set.key.starts_with("defense."));
            if overrides.sigma.is_none() && !defended && !overrides.no_defense {
                overrides.sigma = Some(vec![]);
            }
            overrides.set.push(Set::flag("DATA", "dataset.kind", &self.data)?);
            overrides.set.push(Set::flag("WEIGHTS", "models.weights", &self.weights)?);
            return Ok((overrides, None));
        }
        let mut why = None;
        if !said(&overrides, "dataset.kind") {
            let labelled = said(&overrides, "dataset.labels");
            let (row, told) = data::recognised(Path::new(&self.data), labelled).map_err(|problem| {
                Error::usage("DATA", format!("{}: {problem}; --kind says it in any case", self.data))
            })?;
            why = Some(format!("{}: kind {}: {told}", self.data, row.name));
            overrides.set.push(Set::flag("DATA", "dataset.kind", row.name)?);
        }
        // Labels of arrays lie in a file of their own.
        let place = match said(&overrides, "dataset.labels") && Path::new(&self.data).is_file() {
            true => "dataset.images",
            false => "dataset.path",
        };
        overrides.set.push(Set::flag("DATA", place, &self.data)?);
        overrides.set.push(Set::flag("WEIGHTS", "models.weights", &self.weights)?);
        Ok((overrides, why))
    }
}

/// # Errors
/// As [`super::sweep::run`].
pub fn run(args: &Args) -> Result<()> {
    let (mut overrides, why) = args.given.overrides(&args.settings)?;
    // Beside what is left, what there was.
    if let Some(eps) = overrides.eps.as_mut().filter(|eps| !eps.contains(&0.0)) {
        eps.insert(0, 0.0);
    }
    if !overrides.set.iter().any(|set| set.key == "name") {
        overrides.set.push(Set::flag("WEIGHTS", "name", &name(&args.given.weights))?);
    }
    let config = Config::load(None, &overrides)?;
    why.iter().for_each(crate::run::progress::note);
    args.going.go(config, None, &overrides, &taken)
}

/// What a run of these weights is called.
pub(super) fn name(weights: &str) -> String {
    let plain = weights.rsplit(':').next().unwrap_or(weights);
    let stem = Path::new(plain).file_stem().unwrap_or_default().to_string_lossy();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "attack".into() } else { name.to_owned() }
}

/// What was found out and not said.
pub(super) fn taken(config: &Config, dataset: &Dataset) -> Vec<String> {
    let mut lines = Vec::new();
    for model in &config.models {
        let Ok(checkpoint) = model.open() else { continue };
        let card = checkpoint.card;
        let shown = |values: Option<Vec<f64>>| values.map_or("none".to_owned(), |v| format!("{v:?}"));
        lines.push(format!(
            "{}: {} {}, mean {}, std {}",
            model.name,
            card.arch,
            card.config,
            shown(card.mean),
            shown(card.std)
        ));
    }
    lines.push(format!(
        "images: {} of {}x{} from {}, {} classes",
        dataset.len(),
        dataset.height,
        dataset.width,
        dataset.name,
        dataset.classes.len()
    ));
    lines
}
