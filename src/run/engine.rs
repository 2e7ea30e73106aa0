//! The engine of an experiment: real models on a device, attacked by an [`Attack`].

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use super::intake::{check_classes, other_count};
use super::made::{hand_over, made};
use super::probabilities;
use super::progress::{Watch, unwatched};
use super::runner::{Attacked, Engine};
use super::through::{Suite, Through};
use crate::attack::{
    self, Adversarial, Attack, Normalised, Oracle as _, Outcome, Purpose, Query, STAGES, Spec, Stream, autoattack,
};
use crate::config::{Checkpoint, Config, open};
use crate::data::Dataset;
use crate::data::resize::Filter as Pixels8;
use crate::defense::denoise::Level;
use crate::defense::remembered::Remembered;
use crate::defense::smoothing::{self, Scoring};
use crate::defense::{Denoiser, Smoothed};
use crate::device::nvtx::{self, Kind};
use crate::device::{DType, Device};
use crate::models::classifier::Classifier;
use crate::models::graph;
use crate::number::eps_label;
use crate::ops::pgd::budget;
use crate::ops::resize::Filter;
use crate::stats::in_top;
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Loaded models and the images they are attacked on.
pub struct AttackEngine<'a> {
    config: &'a Config,
    dataset: &'a Dataset,
    device: Device,
    models: Vec<Classifier>,
    /// with its level for every sigma
    denoiser: Option<(Denoiser, Vec<Level>)>,
    /// Of clean images.
    remembered: Remembered,
    attack: Box<dyn Attack>,
    /// Those beside it.
    beside: Vec<Box<dyn Attack>>,
    shown: Shown,
    /// Seconds so far.
    spent: Spent,
    watch: Watch,
}

/// Seconds that the phases of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    pub attack: f64,
    pub denoise: f64,
    pub adaptive: f64,
    pub beside: f64,
    /// Of the attack, where that is a combined one: its stages.
    pub stages: [f64; STAGES],
}

/// Images whose attacked pixels are kept, from the first on, so that pictures of them need no second attack; and the bytes that they may
/// take over all models and epsilons.
pub const KEPT: usize = 64;
const KEPT_BYTES: usize = 128 << 20;

/// Attacked pixels by model, epsilon and image.
type Shown = HashMap<(usize, u64, usize), Vec<f32>>;

impl<'a> AttackEngine<'a> {
    /// Opens the device and loads every model.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is missing, [`Error::File`] and [`Error::Tensor`] when a checkpoint does not fit
    /// its metadata or the dataset, [`Error::Usage`] when the attack cannot be run on a model.
    pub fn new(config: &'a Config, dataset: &'a Dataset) -> Result<Self> {
        Self::on(config, dataset, Device::open(config.device)?)
    }

    /// Loads every model on a device that is open.
    ///
    /// # Errors
    /// As [`AttackEngine::new`].
    pub fn on(config: &'a Config, dataset: &'a Dataset, device: Device) -> Result<Self> {
        let attack = config.attack.build()?;
        let beside = config.attack.beside.iter().map(Spec::build).collect::<Result<_>>()?;
        let mut engine = AttackEngine {
            config,
            dataset,
            device,
            models: Vec::new(),
            denoiser: None,
            remembered: Remembered::default(),
            attack,
            beside,
            shown: Shown::new(),
            spent: Spent::default(),
            watch: unwatched(),
        };
        for model in &config.models {
            let Checkpoint { weights, card, .. } = model.open()?;
            let size = [dataset.height, dataset.width];
            let net = Classifier::described(&engine.device, config.precision, &weights, &card, size)?;
            if net.classes() != dataset.classes.len() {
                let from = format!(" of {}", dataset.name);
                return Err(other_count(weights.origin(), net.classes(), dataset.classes.len(), &from));
            }
            check_classes(config, net.classes())?;
            // A network that was trained here, or is built from tensors, ends in its logits.
            if card.arch == graph::NAME {
                probabilities::tell(&model.name, &net, dataset)?;
            }
            engine.models.push(net);
        }
        if config.defense.noise_alone() {
            let at_once = engine.models.iter().map(Classifier::chunk).min().unwrap_or(1);
            let denoiser = Denoiser::noise(&engine.device, config.precision, at_once);
            let levels = config.defense.sigma.iter().map(|&sigma| denoiser.level(sigma)).collect::<Result<_>>()?;
            engine.denoiser = Some((denoiser, levels));
        }
        if let Some(name) = config.defense.denoiser() {
            let weights = open(name)?;
            let denoiser = Denoiser::load(&engine.device, config.precision, &weights)?;
            let [height, width, channels] = dataset.shape();
            let images = [height, width];
            let size = config.defense.size.unwrap_or(images);
            denoiser.takes_channels(channels).map_err(|problem| Error::file(weights.origin(), problem))?;
            denoiser
                .takes(size)
                .map_err(|problem| Error::file(weights.origin(), format!("{problem}; [defense] size resizes them")))?;
            let filter = match config.defense.filter {
                Some(Pixels8::Bilinear) => Filter::Bilinear,
                _ => Filter::Bicubic,
            };
            let (input, output) = config.defense.rescaling();
            let denoiser = denoiser.at(size, images, filter)?.rescaling(input, output);
            let levels = config.defense.sigma.iter().map(|&sigma| denoiser.level(sigma)).collect::<Result<_>>()?;
            engine.denoiser = Some((denoiser, levels));
        }
        Ok(engine)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Who is told how far an attack is.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    pub fn config(&self) -> &Config {
        self.config
    }

    pub fn dataset(&self) -> &Dataset {
        self.dataset
    }

    pub fn denoiser(&self) -> Option<&(Denoiser, Vec<Level>)> {
        self.denoiser.as_ref()
    }
}

/// Images of the dataset and what belongs to them.
pub struct Batch {
    pub pixels: Vec<f32>,
    /// The same on the device, `(N, H, W, 3)`: uploaded once, and read by every channel.
    pub images: Tensor,
    pub labels: Vec<u32>,
    pub ids: Vec<u64>,
}

impl Batch {
    pub(super) fn attacked(&self) -> attack::Batch<'_> {
        attack::Batch { images: &self.images, labels: &self.labels, ids: &self.ids }
    }
}

impl AttackEngine<'_> {
    pub fn batch(&self, images: &[usize]) -> Result<Batch> {
        let pixels = self.dataset.batch(images)?;
        Ok(Batch {
            images: self.tensor(&pixels, images.len())?,
            pixels,
            labels: images.iter().map(|&i| self.dataset.labels[i]).collect(),
            ids: images.iter().map(|&i| self.dataset.ids[i]).collect(),
        })
    }

    /// Keeps the first images, `(H, W, C)` each, of a batch that is in their order.
    fn keep(&mut self, model: usize, eps: f64, images: &[usize], attacked: &Tensor) -> Result<()> {
        let len = self.dataset.image_len();
        let cells = self.config.models.len() * self.config.attack.eps.len();
        let most = (KEPT_BYTES / (4 * len * cells).max(1)).min(KEPT);
        let count = images.partition_point(|&image| image < most);
        if eps > 0.0 && count > 0 {
            let pixels = attacked.rows(0, count)?.to_f32(&self.device)?;
            let each = images.iter().zip(pixels.chunks_exact(len));
            self.shown.extend(each.map(|(&image, pixels)| ((model, eps.to_bits(), image), pixels.to_vec())));
        }
        Ok(())
    }

    /// Attacked pixels of some images: those that this process has kept; others are attacked again.
    ///
    /// # Errors
    /// What attacking returns.
    pub fn attacked(&self, model: usize, images: &[usize], eps: f64) -> Result<Vec<f32>> {
        let kept = |image: usize| self.shown.get(&(model, eps.to_bits(), image));
        let others: Vec<usize> = images.iter().copied().filter(|&image| kept(image).is_none()).collect();
        let net = self.model(model)?;
        let again = match others.is_empty() {
            true => vec![],
            false => self.attack(net, &self.batch(&others)?, eps)?.images.to_f32(net.device())?,
        };
        let mut again = again.chunks_exact(self.dataset.image_len());
        Ok(images
            .iter()
            .filter_map(|&i| kept(i).map(Vec::as_slice).or_else(|| again.next()))
            .flatten()
            .copied()
            .collect())
    }

    pub fn model(&self, index: usize) -> Result<&Classifier> {
        self.models.get(index).ok_or_else(|| Error::file(Path::new("config"), format!("no model number {index}")))
    }

    /// The noise with which a denoised channel is scored: of its own purpose, the same for every model and epsilon.
    pub fn noise(&self) -> Stream {
        Stream::new(self.config.seed, Purpose::Noise)
    }

    pub fn tensor(&self, pixels: &[f32], n: usize) -> Result<Tensor> {
        let [height, width, channels] = self.dataset.shape();
        Tensor::from_f32(&self.device, &[n, height, width, channels], DType::F32, pixels)
    }

    fn smoothed(
        &self,
        net: &Classifier,
        denoiser: &Denoiser,
        images: &Tensor,
        batch: &Batch,
        level: &Level,
        outcomes: &[Outcome],
    ) -> Result<Vec<Smoothed>> {
        let defense = &self.config.defense;
        let known = (batch.labels.as_slice(), batch.ids.as_slice());
        let told = |done, of| (self.watch)(&format!("denoise at {}", level.sigma), done, Some(of));
        // Without a budget every model and every attack has the clean images denoised under the same noise.
        let again = self.models.len() > 1 || defense.attack || defense.suite;
        let clean =
            again && outcomes.iter().all(|outcome| outcome.linf == 0.0) && images.to_f32(&self.device)? == batch.pixels;
        let remembered = Some(&self.remembered).filter(|_| clean);
        let under = |seed: u32| {
            // The seeds are restarts of one stream, so that the first of them is what it is alone.
            let stream = Stream { restart: seed, ..self.noise() };
            let scoring = Scoring { vote: defense.vote(), draws: defense.draws(), stream, remembered, told: &told };
            smoothing::classify(net, denoiser, images, known, level, &scoring)
        };
        let mut found = under(0)?;
        for seed in 1..defense.seeds() {
            for (first, more) in found.iter_mut().zip(under(seed)?) {
                first.again.get_or_insert_default().push(&more);
            }
        }
        if !self.config.dataset.top5() {
            found.iter_mut().for_each(|s| s.top5 = None);
        }
        for (smoothed, outcome) in found.iter_mut().zip(outcomes) {
            let aimed = outcome.target.filter(|_| outcome.target_reached.is_some());
            smoothed.target_reached = aimed.map(|target| smoothed.prediction == target);
        }
        Ok(found)
    }
}

/// Attacked images as they are handed on.
pub struct Handed {
    pub outcomes: Vec<Outcome>,
    /// `(N, H, W, 3)` in [0, 1]
    pub images: Tensor,
    /// Seconds of each stage of a combined attack.
    pub seconds: Vec<f64>,
}

impl AttackEngine<'_> {
    /// The attack of the experiment.
    fn made(&self, net: &dyn attack::Classifier, batch: attack::Batch, eps: f64) -> Result<Adversarial> {
        made((&*self.attack, "attack"), net, batch, eps, (self.config, &self.watch))
    }

    /// Attacks a batch on the undefended classifier.
    pub fn attack(&self, net: &Classifier, batch: &Batch, eps: f64) -> Result<Handed> {
        let spec = &self.config.attack;
        // Without a budget the images stay what they are.
        let found = if spec.normalised() && eps > 0.0 {
            let (mean, std) = net.normalisation();
            let target = Normalised::new(net, mean, std);
            let images = self.tensor(&target.from_pixels(&batch.pixels), batch.labels.len())?;
            self.made(&target, attack::Batch { images: &images, ..batch.attacked() }, eps)?
        } else {
            self.made(net, batch.attacked(), eps)?
        };
        self.handed(net, batch, eps, found)
    }

    /// Attacks a batch on the undefended classifier by an attack beside the experiment's.
    fn attack_beside(&self, number: usize, net: &Classifier, batch: &Batch, eps: f64) -> Result<Handed> {
        let by = (&*self.beside[number], self.config.attack.beside[number].method);
        let found = made(by, net, batch.attacked(), eps, (self.config, &self.watch))?;
        self.handed(net, batch, eps, found)
    }

    fn handed(&self, net: &Classifier, batch: &Batch, eps: f64, found: Adversarial) -> Result<Handed> {
        let (mut outcomes, seconds, images) =
            (found.outcomes, found.seconds, hand_over(self.config, &self.device, found.last)?);
        if self.config.attack.hands_over() {
            self.rescore(net, batch, &images, &mut outcomes)?;
            self.measure_again(batch, eps, &images, &mut outcomes)?;
        }
        if self.config.dataset.top5() {
            let five = |images: &Tensor| -> Result<Vec<bool>> {
                let logits = net.logits(images)?.to_f32(&self.device)?;
                let known = logits.chunks_exact(net.classes()).zip(&batch.labels);
                Ok(known.map(|(z, &label)| in_top(5, z, label)).collect())
            };
            let found = five(&images)?.into_iter().zip(five(&batch.images)?);
            for (outcome, (last, clean)) in outcomes.iter_mut().zip(found) {
                (outcome.top5, outcome.clean_top5) = (Some(last), Some(clean));
            }
        }
        Ok(Handed { outcomes, images, seconds })
    }

    /// Rounding to 8 bits moves a value by up to half a level, and with it out of a budget that is no multiple of one. In normalised space
    /// the budget is of another tensor than what is handed on.
    fn measure_again(&self, batch: &Batch, eps: f64, images: &Tensor, outcomes: &mut [Outcome]) -> Result<()> {
        let spec = &self.config.attack;
        if spec.normalised() {
            return Ok(());
        }
        for (outcome, found) in outcomes.iter_mut().zip(budget(&self.device, images, &batch.images)?) {
            (outcome.linf, outcome.l2) = (found.linf, found.l2);
            outcome.violation |= found.violates(spec.norm, eps);
        }
        Ok(())
    }

    /// The last point is now the image that was handed on.
    fn rescore(&self, net: &Classifier, batch: &Batch, images: &Tensor, outcomes: &mut [Outcome]) -> Result<()> {
        let query = Query::new(&batch.labels, self.config.attack.loss);
        let found = net.evaluate(images, &Query { ids: &batch.ids, ..query })?;
        for ((outcome, prediction), &label) in outcomes.iter_mut().zip(found.prediction).zip(&batch.labels) {
            outcome.prediction = prediction;
            outcome.correct_last = outcome.correct_clean && prediction == label;
            outcome.correct_any &= outcome.correct_last;
        }
        Ok(())
    }
}

impl AttackEngine<'_> {
    /// What to say of the settings before the work begins.
    pub fn advice(&self) -> Option<&'static str> {
        let slow = self.config.precision == Precision::Bf16 && self.device.widens_bf16();
        slow.then_some(
            "--precision bf16: this processor has no matrix units for it (AMX), f32 is at least as fast here, and more exact",
        )
    }
}

impl Engine for AttackEngine<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        let _batch = nvtx::range_of(Kind::Batch, || {
            format!("{}, eps {}, batch of {}", self.config.models[model].name, eps_label(eps), images.len())
        });
        let batch = self.batch(images)?;
        let net = self.model(model)?;
        let mut spent = self.spent;
        let begin = Instant::now();
        let phase = nvtx::range(Kind::Phase, "attack");
        let Handed { outcomes, images: attacked, seconds } = self.attack(net, &batch, eps)?;
        drop(phase);
        spent.attack += begin.elapsed().as_secs_f64();
        spent.stages.iter_mut().zip(seconds).for_each(|(total, more)| *total += more);
        let (mut beside, mut denoised) = (Vec::new(), Vec::new());
        let kept = self.config.save.is_some() && eps > 0.0;
        let mut pixels = Vec::new();
        if kept {
            pixels.push(attacked.to_f32(&self.device)?);
        }
        let begin = Instant::now();
        let phase = (!self.beside.is_empty()).then(|| nvtx::range(Kind::Phase, "further attacks"));
        for number in 0..self.beside.len() {
            let Handed { outcomes, images, .. } = self.attack_beside(number, net, &batch, eps)?;
            if kept {
                pixels.push(images.to_f32(&self.device)?);
            }
            beside.push(outcomes);
        }
        drop(phase);
        spent.beside += begin.elapsed().as_secs_f64();
        if let Some((denoiser, levels)) = &self.denoiser {
            let defense = &self.config.defense;
            let begin = Instant::now();
            let phase = nvtx::range(Kind::Phase, "denoising and its votes");
            for level in levels {
                denoised.push(self.smoothed(net, denoiser, &attacked, &batch, level, &outcomes)?);
            }
            drop(phase);
            spent.denoise += begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            let through = defense.attack || defense.suite;
            let _phase = through.then(|| nvtx::range(Kind::Phase, "attack through the defence"));
            let mut score = |images: &Tensor, level: &Level, keep: bool| -> Result<Vec<Smoothed>> {
                if kept && keep {
                    pixels.push(images.to_f32(&self.device)?);
                }
                self.smoothed(net, denoiser, images, &batch, level, &outcomes)
            };
            // The adaptive suite also tries what was made for the other classifiers.
            let mut blind = vec![attacked.clone()];
            for other in (0..self.models.len()).filter(|&other| defense.suite && eps > 0.0 && other != model) {
                blind.push(self.tensor(&self.attacked(other, images, eps)?, images.len())?);
            }
            let through = Through {
                blind: &blind,
                config: self.config,
                attack: &*self.attack,
                net,
                denoiser,
                batch: batch.attacked(),
                eps,
                scored: self.noise(),
                watch: &self.watch,
            };
            for level in levels.iter().filter(|_| defense.attack) {
                let images = through.attacked(level)?;
                denoised.push(score(&images, level, true)?);
            }
            let mut members = Vec::new();
            for level in levels.iter().filter(|_| defense.suite) {
                let Suite { worst, each } = through.suite(level)?;
                denoised.push(score(&worst, level, true)?);
                for images in each {
                    members.push(score(&images, level, false)?);
                }
            }
            denoised.extend(members);
            spent.adaptive += begin.elapsed().as_secs_f64();
        }
        self.spent = spent;
        self.keep(model, eps, images, &attacked)?;
        Ok(Attacked { outcomes, beside, denoised, pixels })
    }

    fn watched(&mut self, watch: Watch) {
        self.watch = watch;
    }

    fn device_name(&self) -> String {
        self.device.kind().into()
    }

    fn processor(&self) -> String {
        self.device.processor()
    }

    fn times(&self) -> Vec<(&'static str, f64)> {
        let (config, spent) = (self.config, self.spent);
        let mut times = vec![("attack on the classifiers", spent.attack)];
        times.extend(autoattack::stages(config.attack.method).iter().map(|row| row.name).zip(spent.stages));
        if !config.attack.beside.is_empty() {
            times.push(("further attacks on the classifiers", spent.beside));
        }
        times.push(("denoising and its votes", spent.denoise));
        if config.defense.attack || config.defense.suite {
            times.push(("attack through the defence", spent.adaptive));
        }
        times
    }
}
