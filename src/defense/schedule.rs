//! Noise schedules, and the step whose noise matches a sigma.
//!
//! Sources: Ho et al. 2020 (linear), Nichol & Dhariwal 2021 (cosine), Carlini et al. 2022 (sigma to step).

use std::f64::consts::FRAC_PI_2;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The form of a schedule, as checkpoints spell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Linear,
    Cosine,
}

/// How much of the image is left after each step: `ab[t]`, the product of `1 - beta` up to and with step t.
#[derive(Clone, PartialEq, Debug)]
pub struct Schedule {
    pub kind: Kind,
    ab: Vec<f64>,
}

/// One step of a schedule as the defence uses it: `x_t = k * u + s * noise`, `x0 = x_t * p - noise * q`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    pub t: usize,
    /// `sqrt(ab)`
    pub image: f32,
    /// `sqrt(1 - ab)`
    pub noise: f32,
    /// `sqrt(1 / ab)`
    pub inverse: f32,
    /// `sqrt(1 / ab - 1)`
    pub ratio: f32,
}

impl Step {
    /// Of noise that is added to an image in `[0, 1]` and stays there: no step of a schedule.
    pub fn added(sigma: f64) -> Step {
        Step { t: 0, image: 1.0, noise: sigma as f32, inverse: 1.0, ratio: sigma as f32 }
    }
}

impl Schedule {
    /// `steps` steps: linear in beta from `0.1 / steps` to `20 / steps`, or the squared cosine with betas of at most 0.999.
    ///
    /// # Errors
    /// [`Error::Usage`] for fewer than 2 steps, and for a linear schedule of so few that a beta reaches 1.
    pub fn new(kind: Kind, steps: usize) -> Result<Self> {
        let least = if kind == Kind::Linear { 21 } else { 2 };
        if !(least..=1 << 20).contains(&steps) {
            return Err(Error::usage("steps", format!("expected {least} to {} noise steps, found {steps}", 1 << 20)));
        }
        let n = steps as f64;
        let (first, last) = (1e-4 * (1000.0 / n), 0.02 * (1000.0 / n));
        let level = |u: f64| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
        let beta = |i: usize| match kind {
            Kind::Linear if i + 1 == steps => last,
            Kind::Linear => first + i as f64 * ((last - first) / (n - 1.0)),
            Kind::Cosine => (1.0 - level((i + 1) as f64 / n) / level(i as f64 / n)).min(0.999),
        };
        let ab = (0..steps)
            .scan(1.0, |product, i| {
                *product *= 1.0 - beta(i);
                Some(*product)
            })
            .collect();
        Ok(Schedule { kind, ab })
    }

    pub fn steps(&self) -> usize {
        self.ab.len()
    }

    /// The constants of step `t`, worked out in float64 and rounded once.
    ///
    /// # Errors
    /// [`Error::Usage`] for a step beyond the last.
    pub fn step(&self, t: usize) -> Result<Step> {
        let Some(&ab) = self.ab.get(t) else {
            return Err(Error::usage("step", format!("expected a noise step below {}, found {t}", self.ab.len())));
        };
        Ok(Step {
            t,
            image: ab.sqrt() as f32,
            noise: (1.0 - ab).sqrt() as f32,
            inverse: (1.0 / ab).sqrt() as f32,
            ratio: (1.0 / ab - 1.0).sqrt() as f32,
        })
    }

    /// The first step from 1 on whose noise, relative to the image in `[-1, 1]`, is at least `2 * sigma`; step 0 for 0.
    /// `sigma` is in units of pixels in `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sigma that is negative or beyond the last step.
    pub fn match_sigma(&self, sigma: f64) -> Result<Step> {
        let ratio = |t: usize| (1.0 - self.ab[t]).sqrt() / self.ab[t].sqrt();
        if !(sigma >= 0.0 && sigma.is_finite()) {
            return Err(Error::usage("defense.sigma", format!("expected a number of at least 0, found {sigma}")));
        }
        if sigma == 0.0 {
            return self.step(0);
        }
        match (1..self.ab.len()).find(|&t| ratio(t) >= 2.0 * sigma) {
            Some(t) => self.step(t),
            None => {
                let most = ratio(self.ab.len() - 1) / 2.0;
                Err(Error::usage(
                    "defense.sigma",
                    format!("expected at most {most:.4}, the schedule's last, found {sigma}"),
                ))
            }
        }
    }

    /// The sigma that step `t` really adds, in units of pixels in `[0, 1]`.
    pub fn sigma(&self, step: &Step) -> f64 {
        ((1.0 - self.ab[step.t]) / self.ab[step.t]).sqrt() / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() <= tolerance * want.abs(), "got {got}, want {want}");
    }

    #[test]
    fn known_products() {
        let cosine = Schedule::new(Kind::Cosine, 4000).unwrap();
        for (t, want) in [
            (0, 0.9999901341811863),
            (1, 0.9999799648666317),
            (2000, 0.49345397967426397),
            (3999, 1.5179804688514517e-10),
        ] {
            close(cosine.ab[t], want, 1e-12);
        }
        let linear = Schedule::new(Kind::Linear, 1000).unwrap();
        for (t, want) in
            [(0, 0.9999), (1, 0.9997800920720721), (500, 0.07779665836502389), (999, 4.035829765375676e-05)]
        {
            close(linear.ab[t], want, 1e-12);
        }
    }

    /// sigma, step, ab, and the sigma really added, of both public schedules.
    #[test]
    fn known_steps() {
        type Row = (f64, usize, f64, f64);
        const COSINE: [Row; 10] = [
            (0.0, 0, 0.999990134181, 0.001570503),
            (0.05, 225, 0.990085128557, 0.050035389),
            (0.1, 475, 0.961490601020, 0.100064690),
            (0.12, 573, 0.945437756865, 0.120115663),
            (0.25, 1158, 0.799848187404, 0.250118598),
            (0.5, 1984, 0.499688073641, 0.500312024),
            (0.75, 2490, 0.307626833835, 0.750115277),
            (1.0, 2809, 0.199995461132, 1.000014184),
            (1.5, 3174, 0.099808572828, 1.501597435),
            (3.0, 3576, 0.026916092888, 3.006347234),
        ];
        const LINEAR: [Row; 10] = [
            (0.0, 0, 0.9999, 0.005000250),
            (0.05, 27, 0.989721193383, 0.050954778),
            (0.1, 58, 0.960789500497, 0.101008301),
            (0.12, 70, 0.944944106443, 0.120689323),
            (0.25, 145, 0.797974837363, 0.251581173),
            (0.5, 259, 0.497613812017, 0.502391909),
            (0.75, 339, 0.305838323619, 0.753276413),
            (1.0, 396, 0.199922913144, 1.000240960),
            (1.5, 475, 0.099567454391, 1.503615848),
            (3.0, 596, 0.026834849540, 3.011020388),
        ];
        for (kind, steps, rows) in [(Kind::Cosine, 4000, COSINE), (Kind::Linear, 1000, LINEAR)] {
            let schedule = Schedule::new(kind, steps).unwrap();
            for (sigma, t, ab, real) in rows {
                let step = schedule.match_sigma(sigma).unwrap();
                assert_eq!(step.t, t, "{kind:?} sigma {sigma}");
                close(schedule.ab[t], ab, 1e-10);
                close(schedule.sigma(&step), real, 1e-6);
            }
        }
    }

    #[test]
    fn the_constants_are_rounded_once() {
        let step = Schedule::new(Kind::Cosine, 4000).unwrap().match_sigma(0.25).unwrap();
        let values = [step.image, step.noise, step.inverse, step.ratio];
        assert_eq!(values, [0.894_342_3, 0.447_383_28, 1.118_140_1, 0.500_237_17]);
    }

    #[test]
    fn what_no_step_reaches_is_refused() {
        let linear = Schedule::new(Kind::Linear, 1000).unwrap();
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e6] {
            assert!(matches!(linear.match_sigma(bad), Err(Error::Usage { .. })), "{bad}");
        }
        assert!(linear.step(1000).is_err());
        assert!(Schedule::new(Kind::Linear, 20).is_err() && Schedule::new(Kind::Cosine, 1).is_err());
    }
}
