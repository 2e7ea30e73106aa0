//! Certificates against attacks (S19): inside its radius no attack may change what an image is voted.
//!
//! At a point within the certified radius of an image, the certified class has more than half of all draws but for the chance alpha of a
//! wrong certificate. So a vote there in which it has few has a p value: the chance of no more votes of fair coins.

use crate::attack::Norm;
use crate::number::eps_label;
use crate::run::certify::Certification;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Channel};
use crate::stats::beta::at_least_half;
use crate::stats::holm;

/// A certified image whose vote under an attack within its radius went to another class.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub model: String,
    pub sigma: f64,
    pub image: u64,
    pub radius: f64,
    pub eps: f64,
    pub attack: String,
    /// Draws, and those of them for the certified class.
    pub draws: u32,
    pub votes: u32,
    /// Of no more votes than these if the class had half of all draws; adjusted for all comparisons (Holm).
    pub p: f64,
}

/// All comparisons of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crossed {
    /// Attacked images inside the radius of their certificate.
    pub compared: usize,
    /// Votes that went to another class, the surest first.
    pub broken: Vec<Broken>,
    /// The draws that were voted with.
    pub draws: u32,
}

/// P values below which a broken certificate is no accident.
pub const SURE: f64 = 0.001;

/// Every vote under an L2 attack within the certified radius of its image. Images that are certified for another class than their label are
/// left out: records count votes for the label.
pub fn cross(run: &Ledger, certificates: &Certification) -> Crossed {
    let config = &run.config;
    let mut crossed = Crossed { draws: config.defense.draws(), ..Crossed::default() };
    if config.attack.norm != Norm::L2 || config.attack.normalised() {
        return crossed;
    }
    let mut p = Vec::new();
    for channel in results::channels(config) {
        let Channel::Denoised { sigma, .. } = channel else { continue };
        for (model, named) in config.models.iter().enumerate() {
            let Some(certified) = certificates.cell(&named.name, sigma) else { continue };
            for &eps in config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
                let Some(cell) = run.cell(model, channel, eps) else { continue };
                for (at, id) in run.ids.iter().enumerate() {
                    let Some(Found::Denoised(vote)) = &run.found[cell][at] else { continue };
                    let own = certified.images.binary_search_by_key(id, |image| image.image);
                    let Some(own) = own.ok().map(|own| &certified.images[own]) else { continue };
                    // As an attack is checked: rounding may carry it a little beyond its budget.
                    if !own.correct || own.radius < eps * (1.0 + 1e-5) + 1e-6 {
                        continue;
                    }
                    crossed.compared += 1;
                    let misses = u64::from(vote.draws - vote.correct_draws.min(vote.draws));
                    p.push(at_least_half(misses, vote.draws.into()));
                    if !vote.correct {
                        crossed.broken.push(Broken {
                            model: named.name.clone(),
                            sigma,
                            image: *id,
                            radius: own.radius,
                            eps,
                            attack: channel.attack(config),
                            draws: vote.draws,
                            votes: vote.correct_draws,
                            p: (p.len() - 1) as f64,
                        });
                    }
                }
            }
        }
    }
    let adjusted = holm(&p);
    crossed.broken.iter_mut().for_each(|broken| broken.p = adjusted[broken.p as usize]);
    crossed.broken.sort_by(|a, b| a.p.total_cmp(&b.p));
    crossed
}

impl Crossed {
    /// Broken certificates that chance does not explain.
    pub fn violations(&self) -> usize {
        self.broken.iter().filter(|broken| broken.p <= SURE).count()
    }

    /// The numbers, and the images.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} attacked images lie inside their certified radius; {} are voted for another class, {} of them beyond chance (p at most {SURE}, \
             Holm over all)",
            self.compared,
            self.broken.len(),
            self.violations()
        )];
        const SHOWN: usize = 20;
        lines.extend(self.broken.iter().take(SHOWN).map(|b| {
            format!(
                "{}, σ {}, image {}: certified to {:.3}, {} at eps {} leaves its class {} of {} draws, p {}",
                b.model,
                b.sigma,
                b.image,
                b.radius,
                b.attack,
                eps_label(b.eps),
                b.votes,
                b.draws,
                super::super::words::p_value(b.p)
            )
        }));
        if self.broken.len() > SHOWN {
            lines.push(format!("and {} more", self.broken.len() - SHOWN));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides, Set};
    use crate::defense::Smoothed;
    use crate::run::certify::{Cell, Certified};
    use crate::stats::certificate::radius;

    fn certified(image: u64, label: u32, lower: f64, sigma: f64) -> Certified {
        Certified {
            image,
            label,
            predict: label.into(),
            correct: true,
            radius: radius(lower, sigma),
            lower,
            chosen: label,
            n: 1000,
            k: 900,
            n0: 100,
            bound: "clopper-pearson",
            reached: vec![],
            votes: vec![],
            seconds: 1.0,
        }
    }

    /// A run of five images at eps 0.3 in L2, whose votes have so many of 100 draws right.
    fn run(votes: [u32; 5]) -> Ledger {
        let overrides = Overrides {
            sigma: Some(vec![0.25]),
            eps: Some(vec![0.3]),
            limit: Some(5),
            certify: true,
            set: vec![Set::parse("attack.norm=l2").unwrap()],
            ..Default::default()
        };
        let config = Config::load(None, &overrides).unwrap();
        let dataset = config.dataset.load(5).unwrap();
        let mut run = Ledger::new(std::path::Path::new("."), &config, &dataset, "host");
        let channel = results::channels(&config).into_iter().find(|channel| channel.sigma() == Some(0.25)).unwrap();
        let cell = run.cell(0, channel, 0.3).unwrap();
        for (image, correct_draws) in votes.into_iter().enumerate() {
            let correct = correct_draws >= 50;
            let label = run.labels[image];
            let prediction = if correct { label } else { (label + 1) % 10 };
            let vote = Smoothed {
                prediction,
                correct,
                draws: 100,
                correct_draws,
                confidence: 0.5,
                top5: None,
                target_reached: None,
                again: None,
            };
            run.take(&run.record(cell, image, Found::Denoised(vote))).unwrap();
        }
        run
    }

    fn certificates(run: &Ledger, sigma: f64) -> Certification {
        let images = run.ids.iter().zip(&run.labels).map(|(&id, &label)| certified(id, label, 0.85, sigma)).collect();
        Certification { cells: vec![Cell { model: run.config.models[0].name.clone(), sigma: 0.25, images, open: 0 }] }
    }

    #[test]
    fn a_radius_of_another_sigma_is_caught() {
        // 0.85 of the draws certify 0.259 at sigma 0.25: no vote at 0.3 contradicts that.
        let run = run([90, 3, 47, 20, 99]);
        assert_eq!(cross(&run, &certificates(&run, 0.25)).compared, 0);
        // As if sigma were 0.5.
        let crossed = cross(&run, &certificates(&run, 0.5));
        assert_eq!((crossed.compared, crossed.broken.len(), crossed.violations()), (5, 3, 2));
        let images: Vec<u64> = crossed.broken.iter().map(|broken| broken.image).collect();
        assert_eq!(images, [1, 3, 2], "the surest first");
        let lines = crossed.lines().join("\n");
        assert!(
            lines.contains("image 1: certified to 0.518") && lines.contains("3 of 100 draws, p < 0.001"),
            "{lines}"
        );
    }

    #[test]
    fn an_attack_in_another_norm_says_nothing() {
        let mut run = run([3; 5]);
        run.config.attack.norm = Norm::Linf;
        assert_eq!(cross(&run, &certificates(&run, 0.5)), Crossed { draws: 100, ..Default::default() });
    }
}
