//! A few images in every state, for the page: `images/samples.json`, so that a page can be built again without the models.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::maps::{self, Grid};
use crate::Result;
use crate::attack::Oracle as _;
use crate::data::to_bytes;
use crate::draw::heat;
use crate::draw::html::is_picture;
use crate::models::classifier::Classifier;
use crate::number::eps_label;
use crate::run::engine::AttackEngine;
use crate::run::ledger::Ledger;
use crate::run::progress::note;
use crate::run::records::Found;
use crate::run::results::{Channel, Under, channels};
use crate::run::rundir::stored;
use crate::stats::{softmax, top_class};

/// The longest side of a picture.
const SIDE: usize = 112;
/// Images at most and at least, and the bytes that all pictures together may take.
const MOST: usize = 24;
const LEAST: usize = 3;
const BYTES: usize = 6 << 20;

/// The pictures of a run at one epsilon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    pub eps: f64,
    pub models: Vec<OfModel>,
}

impl Samples {
    /// Where a run keeps them, so that its page can be built again without the models.
    pub const FILE: &str = "images/samples.json";

    /// What a run keeps of them; `None` when it keeps nothing, or something that no run wrote: its files may come from anybody.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn stored(dir: &Path) -> Result<Option<Samples>> {
        let found: Option<Samples> = stored(dir, Samples::FILE)?;
        Ok(found.filter(|samples| {
            let strange = samples.pictures().find(|uri| !is_picture(uri));
            if let Some(uri) = strange {
                let start: String = uri.chars().take(40).collect();
                let file = dir.join(Samples::FILE);
                let problem = format!("expected pictures as data URIs of PNG bytes, found `{start}`");
                note(format!("warning: {}: {problem}: the page is made without images", file.display()));
            }
            strange.is_none()
        }))
    }

    fn pictures(&self) -> impl Iterator<Item = &str> {
        self.models.iter().flat_map(|model| {
            let of_strips = model.strips.iter().flat_map(|strip| &strip.pictures).map(|picture| picture.uri.as_str());
            let of_maps = model.maps.rows.iter().flat_map(|row| &row.cells).map(|cell| cell.picture.as_str());
            of_strips.chain(of_maps)
        })
    }
}

/// The pictures of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfModel {
    pub model: String,
    pub strips: Vec<Strip>,
    /// The image of the maps.
    pub image: Option<u64>,
    pub maps: Grid,
}

/// One image in all its states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strip {
    pub image: u64,
    pub label: String,
    pub fate: Fate,
    pub pictures: Vec<Picture>,
}

/// What attack and defence did to an image, by the record of the run; the best defence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    Recovered,
    Broken,
    Robust,
    /// Right when attacked, wrong when denoised.
    Spoiled,
    WrongWhenClean,
}

/// One state of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    pub name: String,
    pub uri: String,
    /// What the classifier says of it, with the softmax of that; nothing of a difference.
    pub says: Option<(String, f32, bool)>,
}

/// The fate of every image at the epsilon; `None` where a record is missing.
pub fn fates(run: &Ledger, model: usize, eps: f64) -> Vec<Option<Fate>> {
    let Some(attacked) = run.cell(model, Channel::Undefended, eps) else { return vec![None; run.ids.len()] };
    let denoised: Vec<usize> = channels(&run.config)
        .into_iter()
        .filter(|channel| matches!(channel, Channel::Denoised { under: Under::Transferred, .. }))
        .filter_map(|channel| run.cell(model, channel, eps))
        .collect();
    let fate = |image: usize| {
        let Some(Found::Attacked(outcome)) = &run.found[attacked][image] else { return None };
        let saved = denoised.iter().any(|&cell| run.correct(cell, image) == Some(true));
        let right = run.correct(attacked, image) == Some(true);
        Some(match (outcome.correct_clean, right, saved) {
            (false, ..) => Fate::WrongWhenClean,
            (true, true, false) if !denoised.is_empty() => Fate::Spoiled,
            (true, true, _) => Fate::Robust,
            (true, false, true) => Fate::Recovered,
            (true, false, false) => Fate::Broken,
        })
    };
    (0..run.ids.len()).map(fate).collect()
}

/// Images of each fate in turn, at most `count`, as the first model's records have it; ascending.
fn choose(fates: &[Option<Fate>], count: usize) -> Vec<usize> {
    let mut seen = std::collections::HashMap::new();
    let mut order: Vec<(usize, Fate, usize)> = Vec::new();
    for (image, fate) in fates.iter().enumerate() {
        let Some(fate) = *fate else { continue };
        let rank = seen.entry(fate).or_insert(0);
        order.push((*rank, fate, image));
        *rank += 1;
    }
    order.sort_unstable();
    order.truncate(count);
    let mut images: Vec<usize> = order.into_iter().map(|(.., image)| image).collect();
    images.sort_unstable();
    images
}

impl AttackEngine<'_> {
    /// What is to be seen of a few images at the middle epsilon, which are attacked once more where their pixels were not kept; `None` without such an epsilon.
    ///
    /// # Errors
    /// What attacking and drawing return.
    pub fn samples(&self, run: &Ledger) -> Result<Option<Samples>> {
        let Some(eps) = run.config.attack.middle_eps() else { return Ok(None) };
        let (data, config) = (self.dataset(), self.config());
        let factor = data.height.max(data.width).div_ceil(SIDE).max(1);
        let small = [data.height.div_ceil(factor), data.width.div_ceil(factor)];
        let pictures = (3 + 2 * config.defense.sigma.len()) * config.models.len();
        let count = (BYTES / (pictures * 4 * small[0] * small[1]).max(1)).clamp(LEAST, MOST);
        let place = |id: u64| data.ids.iter().position(|&other| other == id);
        let chosen: Vec<(usize, usize)> = choose(&fates(run, 0, eps), count)
            .into_iter()
            .filter_map(|image| place(run.ids[image]).map(|place| (image, place)))
            .collect();
        let models =
            (0..config.models.len()).map(|model| self.of_model(run, model, eps, &chosen)).collect::<Result<_>>()?;
        Ok(Some(Samples { eps, models }))
    }

    fn of_model(&self, run: &Ledger, model: usize, eps: f64, chosen: &[(usize, usize)]) -> Result<OfModel> {
        let (data, net) = (self.dataset(), self.model(model)?);
        let images: Vec<usize> = chosen.iter().map(|&(_, place)| place).collect();
        let batch = self.batch(&images)?;
        let (size, n) = ([data.height, data.width], images.len());
        let attacked = self.attacked(model, &images, eps)?;
        let x = self.tensor(&attacked, n)?;
        let difference = batch.pixels.iter().zip(&attacked).map(|(a, b)| 10.0 * (b - a) + 0.5).collect();
        let mut states = vec![
            ("clean".to_owned(), batch.pixels.clone(), true),
            (format!("attacked, ε\u{a0}{}", eps_label(eps)), attacked.clone(), true),
            ("difference × 10 + 0.5".to_owned(), difference, false),
        ];
        if let Some((denoiser, levels)) = self.denoiser() {
            for level in levels {
                let noised = denoiser.noised(&x, &batch.ids, level, &self.noise())?.to_f32(denoiser.device())?;
                let denoised = denoiser.images(&x, &batch.ids, level, &self.noise())?.to_f32(denoiser.device())?;
                states.push((format!("noised, σ\u{a0}{}", level.sigma), noised, true));
                states.push((format!("denoised, σ\u{a0}{}", level.sigma), denoised, true));
            }
        }
        let fates = fates(run, model, eps);
        let mut strips: Vec<Strip> = chosen
            .iter()
            .map(|&(image, place)| Strip {
                image: run.ids[image],
                label: data.classes[data.labels[place] as usize].clone(),
                fate: fates[image].unwrap_or(Fate::WrongWhenClean),
                pictures: vec![],
            })
            .collect();
        for (name, pixels, classified) in &states {
            let says = if *classified { self.says(net, pixels, &batch.labels)? } else { vec![None; n] };
            for ((strip, pixels), says) in strips.iter_mut().zip(pixels.chunks_exact(data.image_len())).zip(says) {
                let (small, size) = heat::thumbnail(pixels, size, SIDE);
                let uri = heat::data_uri(&to_bytes(&small), size)?;
                strip.pictures.push(Picture { name: name.clone(), uri, says });
            }
        }
        // The maps of an image that the attack broke, if there is one.
        let first = strips
            .iter()
            .position(|s| s.fate == Fate::Recovered)
            .or(strips.iter().position(|s| s.fate == Fate::Broken));
        let Some(at) = first.or((n > 0).then_some(0)) else {
            return Ok(OfModel {
                model: self.config().models[model].name.clone(),
                strips,
                image: None,
                maps: Grid::default(),
            });
        };
        let len = data.image_len();
        let of = |name: &str, pixels: &[f32]| (name.to_owned(), pixels[at * len..][..len].to_vec());
        let mut of_image = vec![of("clean", &batch.pixels)];
        for other in self.config().attack.eps.iter().copied().filter(|&other| other > 0.0) {
            let name = format!("attacked, ε\u{a0}{}", eps_label(other));
            of_image.push(if other == eps {
                of(&name, &attacked)
            } else {
                (name, self.attacked(model, &images[at..=at], other)?)
            });
        }
        let denoised = states.iter().filter(|(name, ..)| name.starts_with("denoised"));
        of_image.extend(denoised.map(|(name, pixels, _)| of(&format!("ε\u{a0}{}, {name}", eps_label(eps)), pixels)));
        let maps = maps::grid(net, &maps::modules(net), &of_image, size)?;
        Ok(OfModel { model: self.config().models[model].name.clone(), image: Some(strips[at].image), strips, maps })
    }

    /// Label, confidence and whether that is right, per image.
    fn says(&self, net: &Classifier, pixels: &[f32], labels: &[u32]) -> Result<Vec<Option<(String, f32, bool)>>> {
        let classes = net.classes();
        let logits = net.logits(&self.tensor(pixels, labels.len())?)?.to_f32(net.device())?;
        let one = |(z, &label): (&[f32], &u32)| {
            let top = top_class(z);
            let share = softmax(z)[top] as f32;
            Some((self.dataset().classes[top].clone(), share.max(0.0), top == label as usize))
        };
        Ok(logits.chunks_exact(classes).zip(labels).map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_take_each_fate_in_turn() {
        let fates = [Fate::Robust, Fate::Robust, Fate::Robust, Fate::Broken, Fate::Recovered, Fate::Broken].map(Some);
        assert_eq!(choose(&fates, 3), [0, 3, 4]);
        assert_eq!(choose(&fates, 5), [0, 1, 3, 4, 5]);
        assert_eq!(choose(&[None, Some(Fate::Robust)], 9), [1]);
    }
}
