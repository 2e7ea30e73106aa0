//! Attacks that go through the defence, and which of their points are scored: those that a vote under noise of its own is least sure of.

use super::made::{hand_over, made};
use super::progress::Watch;
use crate::Result;
use crate::attack::{Adversarial, Attack, Batch, Purpose, Stream};
use crate::config::Config;
use crate::defense::denoise::Level;
use crate::defense::smoothing::{Scoring, vote_margins};
use crate::defense::suite::SUITE;
use crate::defense::{Defended, Denoiser, Estimator};
use crate::models::classifier::Classifier;
use crate::ops::pgd::gather;
use crate::tensor::Tensor;

/// A batch in front of a defended classifier.
#[derive(Clone, Copy)]
pub(super) struct Through<'a> {
    pub config: &'a Config,
    /// Of the experiment.
    pub attack: &'a dyn Attack,
    pub net: &'a Classifier,
    pub denoiser: &'a Denoiser,
    pub batch: Batch<'a>,
    pub eps: f64,
    /// What attacks on the classifiers alone made of it, this one's first: they know of no defence, and may still be the worst case.
    pub blind: &'a [Tensor],
    /// The noise of the scoring.
    pub scored: Stream,
    pub watch: &'a Watch,
}

/// What the suite makes of a batch.
pub(super) struct Suite {
    /// Of each image the worst case over all attacks but those of known noise, the blind ones among them.
    pub worst: Tensor,
    /// In the order of the table.
    pub each: Vec<Tensor>,
}

/// Points, and how far each is from being voted for another class.
struct Chosen {
    images: Tensor,
    margins: Vec<[f64; 2]>,
}

impl Through<'_> {
    /// By the attack of the experiment.
    ///
    /// # Errors
    /// What the networks' ops return.
    pub fn attacked(&self, level: &Level) -> Result<Tensor> {
        // Without a budget there is nothing to attack.
        if self.eps == 0.0 {
            return Ok(self.batch.images.clone());
        }
        let defense = &self.config.defense;
        let target = Defended {
            straight: defense.straight,
            last_draw: defense.aa_compat,
            ..self.target(level, defense.estimator())
        };
        let found = self.made(self.attack, "attack", &target)?;
        Ok(self.chosen(level, found)?.images)
    }

    /// By every attack of the suite.
    ///
    /// # Errors
    /// What the networks' ops return.
    pub fn suite(&self, level: &Level) -> Result<Suite> {
        if self.eps == 0.0 {
            let clean = self.batch.images;
            return Ok(Suite { worst: clean.clone(), each: vec![clean.clone(); SUITE.len()] });
        }
        let config = self.config;
        let mut worst: Option<Chosen> = None;
        for images in self.blind {
            let chosen = self.judged(level, images.clone())?;
            worst = Some(match worst {
                None => chosen,
                Some(before) => self.worse(before, chosen)?,
            });
        }
        let mut each = Vec::new();
        for row in &SUITE {
            let attack = row.spec(config.attack.norm, &[self.eps], config.defense.steps())?.build()?;
            let mut target = self.target(level, row.estimator);
            target.last_draw = config.defense.aa_compat && row.apgd();
            if row.fixed {
                target =
                    Defended { fixed: Some(self.scored), draws: config.defense.draws(), antithetic: false, ..target };
            }
            let name = format!("{} at {}", row.name, level.sigma);
            let found = self.made(&*attack, &name, &target)?;
            if row.fixed {
                each.push(self.handed(found.best_margin)?);
                continue;
            }
            let chosen = self.chosen(level, found)?;
            each.push(chosen.images.clone());
            worst = Some(match worst {
                None => chosen,
                Some(before) => self.worse(before, chosen)?,
            });
        }
        let worst = worst.map_or_else(|| self.batch.images.clone(), |worst| worst.images);
        Ok(Suite { worst, each })
    }

    fn made(&self, attack: &dyn Attack, name: &str, target: &Defended) -> Result<Adversarial> {
        made((attack, name), target, self.batch, self.eps, (self.config, self.watch))
    }

    fn handed(&self, images: Tensor) -> Result<Tensor> {
        hand_over(self.config, self.denoiser.device(), images)
    }

    fn target(&self, level: &Level, estimator: Estimator) -> Defended<'_> {
        let config = self.config;
        Defended {
            classifier: self.net,
            denoiser: self.denoiser,
            level: level.clone(),
            estimator,
            draws: config.defense.eot(),
            seed: config.seed,
            straight: false,
            antithetic: config.defense.antithetic,
            last_draw: false,
            fixed: None,
        }
    }

    /// Of the last point of each image, that of the best margin and that of the highest loss the worst one.
    fn chosen(&self, level: &Level, found: Adversarial) -> Result<Chosen> {
        let last = self.judged(level, found.last)?;
        let margin = self.judged(level, found.best_margin)?;
        let loss = self.judged(level, found.best)?;
        self.worse(self.worse(last, margin)?, loss)
    }

    fn judged(&self, level: &Level, images: Tensor) -> Result<Chosen> {
        let config = self.config;
        let images = self.handed(images)?;
        let what = format!("choose at {}", level.sigma);
        let scoring = Scoring {
            remembered: None,
            vote: config.defense.vote(),
            draws: config.defense.selection(),
            stream: Stream::new(config.seed, Purpose::Selection),
            told: &|done, of| (self.watch)(&what, done, Some(of)),
        };
        let known = (self.batch.labels, self.batch.ids);
        let margins = vote_margins(self.net, self.denoiser, &images, known, level, &scoring)?;
        Ok(Chosen { images, margins })
    }

    /// Of each image the point that the vote is less sure of, the first of equals.
    fn worse(&self, first: Chosen, second: Chosen) -> Result<Chosen> {
        let pairs = first.margins.iter().zip(&second.margins);
        let index: Vec<Option<usize>> = pairs.enumerate().map(|(i, (a, b))| (b < a).then_some(i)).collect();
        if index.iter().all(Option::is_none) {
            return Ok(first);
        }
        let images = gather(self.denoiser.device(), &second.images, &index, Some(&first.images))?;
        let margins = index
            .iter()
            .enumerate()
            .map(|(i, taken)| if taken.is_some() { second.margins[i] } else { first.margins[i] });
        Ok(Chosen { images, margins: margins.collect() })
    }
}
