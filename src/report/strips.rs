//! Pictures of a few images: clean, attacked, denoised, with what the classifier says of each.

use super::mark::Mark;
use crate::Result;
use crate::attack::Oracle as _;
use crate::data::grey::coloured;
use crate::draw::strip::{Row, Tile, png};
use crate::models::classifier::Classifier;
use crate::number::eps_label;
use crate::run::engine::AttackEngine;
use crate::run::rundir::RunDir;
use crate::stats::{softmax, top_class};

/// Images of a strip.
const SHOWN: usize = 8;

impl AttackEngine<'_> {
    /// Writes `images/MODEL-eps-E.png` for every model and every epsilon above 0: the first images of the dataset, with the classes
    /// that are predicted; that of the middle epsilon is `images/MODEL.png` as well. Images that an earlier process attacked are
    /// attacked again. Returns how many models there are.
    ///
    /// # Errors
    /// What attacking and writing return.
    pub fn strips(&self, dir: &RunDir, mark: &Mark) -> Result<usize> {
        let config = self.config();
        let attacked: Vec<f64> = config.attack.eps.iter().copied().filter(|&eps| eps > 0.0).collect();
        let Some(&eps) = attacked.get(attacked.len() / 2) else { return Ok(0) };
        let size = [self.dataset().height, self.dataset().width];
        for (model, named) in config.models.iter().enumerate() {
            for &each in &attacked {
                let label = eps_label(each);
                let title = format!(
                    "{}, {} {} eps {label}{}",
                    named.name,
                    config.attack.label(),
                    config.attack.norm,
                    mark.title()
                );
                let picture = png(&title, &self.rows(model, each)?, size)?;
                dir.write(&format!("images/{}-eps-{}.png", named.name, label.replace('/', "_")), &picture)?;
                if each == eps {
                    dir.write(&format!("images/{}.png", named.name), &picture)?;
                }
            }
        }
        Ok(config.models.len())
    }

    fn rows(&self, model: usize, eps: f64) -> Result<Vec<Row>> {
        let images: Vec<usize> = (0..self.dataset().len().min(SHOWN)).collect();
        let (batch, net) = (self.batch(&images)?, self.model(model)?);
        let adversarial = self.attacked(model, &images, eps)?;
        let mut rows = vec![
            self.row("clean", net, &batch.pixels, &batch.labels)?,
            self.row(&format!("attacked, eps {}", eps_label(eps)), net, &adversarial, &batch.labels)?,
        ];
        if let Some((denoiser, levels)) = self.denoiser() {
            let x = self.tensor(&adversarial, images.len())?;
            for level in levels {
                let denoised = denoiser.images(&x, &batch.ids, level, &self.noise())?.to_f32(denoiser.device())?;
                rows.push(self.row(&format!("denoised, sigma {}", level.sigma), net, &denoised, &batch.labels)?);
            }
        }
        Ok(rows)
    }

    fn row(&self, name: &str, net: &Classifier, pixels: &[f32], labels: &[u32]) -> Result<Row> {
        let (n, classes) = (labels.len(), net.classes());
        let logits = net.logits(&self.tensor(pixels, n)?)?.to_f32(net.device())?;
        let tiles = logits.chunks_exact(classes).zip(labels).zip(pixels.chunks_exact(pixels.len() / n.max(1)));
        let tile = |((z, &label), pixels): ((&[f32], &u32), &[f32])| {
            let top = top_class(z);
            Tile {
                pixels: coloured(pixels, self.dataset().channels()).into_owned(),
                label: self.dataset().classes[top].clone(),
                confidence: softmax(z)[top] as f32,
                correct: top == label as usize,
            }
        };
        Ok(Row { name: name.into(), tiles: tiles.map(tile).collect() })
    }
}
