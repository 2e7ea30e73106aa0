//! DDN and FMN: the smallest perturbation that changes the class, by steps whose length grows while the point is right and shrinks while it
//! is wrong. One run gives the accuracy over every budget.
//!
//! Sources: Rony et al. 2019 ("Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses"), Pintor et al.
//! 2021 ("Fast minimum-norm adversarial attacks through adaptive norm constraints").

use super::min_norm;
use super::model::{CLEAN, Classifier, Loss};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::track::Track;
use crate::Result;
use crate::ops::min_norm::{Onto, step};
use crate::ops::pgd::{Norm, Profile, budget, gather};
use crate::ops::philox::{self, Purpose, Stream};
use crate::tensor::Tensor;

/// By which a radius grows and shrinks at first.
const GAMMA: f64 = 0.05;
/// And at last, of FMN.
const LAST_GAMMA: f64 = 0.001;
/// The share of the first step that the last one has.
const LAST_STEP: f64 = 0.01;
/// The radius that DDN begins with.
const FIRST_RADIUS: f32 = 1.0;

/// What both have in common.
const COMMON: Row = Row {
    name: "",
    help: "",
    ignores: &["rel_step", "restarts", "random_start", "decay", "starts", "early_stop", "stop_cycles"],
    loss: Some(Loss::Margin),
    leaves: false,
    windows: false,
    tried_as: "pgd",
    preset: |_, _, steps| Preset {
        steps: steps.or(Some(100)),
        step: Some(StepSize::Absolute(1.0)),
        random_start: false,
    },
    check: |_| Ok(()),
    build: |spec| Ok(Box::new(Descent { spec: spec.clone(), ddn: false })),
};

pub const DDN: Row = Row {
    name: "ddn",
    help: "seeks the smallest perturbation on a sphere that shrinks where the point on it is wrong, else grows; l2 only",
    ignores: &["step_size", "rel_step", "restarts", "random_start", "decay", "starts", "early_stop", "stop_cycles"],
    loss: Some(Loss::CrossEntropy),
    check: |spec| {
        check(spec)?;
        super::apgd::check(spec)?;
        match spec.norm {
            Norm::L2 => Ok(()),
            norm => wrong("norm", format!("ddn works in l2, found {norm}: fmn works in both")),
        }
    },
    build: |spec| Ok(Box::new(Descent { spec: spec.clone(), ddn: true })),
    ..COMMON
};

pub const FMN: Row = Row {
    name: "fmn",
    help: "seeks the smallest perturbation in a ball that shrinks where the point in it is wrong, else grows",
    check: |spec| {
        check(spec)?;
        let profile = if spec.profile == Profile::Foolbox { Profile::Native } else { spec.profile };
        super::apgd::check(&Spec { profile, ..spec.clone() })
    },
    ..COMMON
};

fn check(spec: &Spec) -> Result<()> {
    min_norm::check(spec)?;
    // A step of a query has 16 bits, the last of which is that of the clean images.
    if spec.steps >= CLEAN {
        return wrong("steps", format!("expected at most {}, found {}", CLEAN - 1, spec.steps));
    }
    Ok(())
}

/// A value that falls from `first` to `last` along half a cosine.
fn annealed(first: f64, last: f64, step: u32, steps: u32) -> f64 {
    let turn = std::f64::consts::PI * f64::from(step) / f64::from(steps);
    last + (first - last) * (1.0 + turn.cos()) / 2.0
}

/// What is known of an image when a step is taken from it.
struct Image {
    /// The length of its perturbation, and the loss.
    length: f32,
    loss: f32,
    wrong: bool,
    /// The smallest length that was wrong so far; infinite where none was, and the class there.
    nearest: f32,
    class: u32,
    /// The radius of the step before.
    radius: f32,
}

/// DDN or FMN.
struct Descent {
    spec: Spec,
    ddn: bool,
}

impl Descent {
    /// The radius of an image for a step, and what the loss lacks to the boundary where that is to be added, as [`step`] takes them.
    fn radius(&self, number: u32, image: &Image) -> [f32; 2] {
        let &Image { length, loss, wrong, nearest, radius, .. } = image;
        let gamma = if self.ddn { GAMMA } else { annealed(GAMMA, LAST_GAMMA, number, self.spec.steps) };
        let (shrunk, grown) = ((f64::from(radius) * (1.0 - gamma)) as f32, (f64::from(radius) * (1.0 + gamma)) as f32);
        let foolbox = self.spec.profile == Profile::Foolbox;
        match (self.ddn, wrong) {
            // foolbox 3.3 divides the length by itself where it is to project in L2: it never does.
            _ if foolbox && self.spec.norm == Norm::L2 => [f32::INFINITY, 0.0],
            (true, true) => [shrunk, 0.0],
            (false, true) => [shrunk.min(nearest), 0.0],
            (true, false) => [grown, 0.0],
            (false, false) if nearest.is_finite() => [grown, 0.0],
            // A perturbation that the box cuts is shorter than its radius: from its length, as the authors and foolbox have it, the estimate can
            // stand still in front of the boundary for good.
            (false, false) if radius.is_finite() && !foolbox => [grown, loss.abs()],
            (false, false) => [length, loss.abs()],
        }
    }

    /// Steps from some images; the smallest budget of each that is broken within `eps`, by its place among all.
    fn descend(
        &self,
        model: &dyn Classifier,
        track: &mut Track,
        eps: f64,
        at: Vec<usize>,
    ) -> Result<Vec<(usize, f32)>> {
        let (device, spec) = (model.device(), &self.spec);
        let onto = if self.ddn { Onto::Sphere } else { Onto::Ball(spec.norm) };
        let first = if self.ddn { FIRST_RADIUS } else { f32::INFINITY };
        let mut points = track.points(at)?;
        let mut nearest = points.x.clone();
        let begin = || Image { length: 0.0, loss: 0.0, wrong: false, nearest: f32::INFINITY, class: 0, radius: first };
        let mut images: Vec<Image> = points.at.iter().map(|_| begin()).collect();
        for number in 0..spec.steps {
            // The last point is looked at alone.
            let last = number + 1 == spec.steps;
            let query = track.query(&points, 0, number);
            let asked = if last { model.evaluate(&points.x, &query)? } else { model.gradient(&points.x, &query)? };
            let (mut closer, mut within) = (vec![None; images.len()], vec![]);
            for ((j, image), size) in images.iter_mut().enumerate().zip(budget(device, &points.x, &points.x0)?) {
                image.length = if spec.norm == Norm::Linf { size.linf } else { size.l2 };
                image.loss = asked.loss[j];
                image.wrong = asked.prediction[j] != track.label(points.at[j]);
                if image.wrong && image.length <= image.nearest {
                    (image.nearest, image.class, closer[j]) = (image.length, asked.prediction[j], Some(j));
                }
                within.extend((f64::from(image.length) <= eps).then_some(j));
            }
            // What lies outside the budget is nobody's success.
            track.record_some(&points, &asked, !last, &within)?;
            if closer.iter().any(Option::is_some) {
                nearest = gather(device, &points.x, &closer, Some(&nearest))?;
            }
            let Some(gradient) = asked.gradient else { break };
            let radii: Vec<[f32; 2]> = images.iter().map(|image| self.radius(number, image)).collect();
            let size = annealed(spec.step_size(eps), LAST_STEP * spec.step_size(eps), number, spec.steps) as f32;
            let go = |g: &Tensor| step(device, [&points.x, &points.x0, g], &radii, size, onto);
            let (mut next, mut told) = go(&gradient)?;
            if self.ddn && told.iter().any(|told| told.gradient == 0.0) {
                // Where nothing rises, any direction will do: DDN draws one.
                let flat: Vec<_> = told.iter().enumerate().map(|(j, t)| (t.gradient == 0.0).then_some(j)).collect();
                let stream = Stream { step: number, ..Stream::new(track.seed, Purpose::Start) };
                let drawn = philox::normal(device, &stream, &points.ids, &points.x.shape()[1..])?;
                (next, told) = go(&gather(device, &drawn, &flat, Some(&gradient))?)?;
            }
            points.x = next;
            track.stepped(&points);
            images.iter_mut().zip(told).for_each(|(image, told)| image.radius = told.radius);
        }
        let broken = |image: &Image| f64::from(image.nearest) <= eps;
        let chosen: Vec<_> = images.iter().map(|image| broken(image).then_some(image.class)).collect();
        track.settle(&points, &nearest, &chosen)?;
        let found = points.at.iter().zip(&images).filter(|(_, image)| broken(image));
        Ok(found.map(|(&i, image)| (i, image.nearest)).collect())
    }
}

impl Attack for Descent {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        min_norm::repeats(model, self.spec.method)?;
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        let standing = track.standing();
        let found = if standing.is_empty() { vec![] } else { self.descend(model, &mut track, eps, standing)? };
        let mut all = track.finish()?;
        found.into_iter().for_each(|(i, radius)| all.outcomes[i].radius = Some(radius.into()));
        Ok(all)
    }

    fn most_queries(&self) -> Option<u64> {
        Some(1 + u64::from(self.spec.steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Said;

    fn said(method: &str, norm: Norm) -> Said {
        let (method, eps) = (Some(method.into()), Some(vec![0.5.into()]));
        Said { method, norm: Some(norm), eps, ..Said::default() }
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        let refused = |said: Said, parts: [&str; 2]| {
            let error = said.decided().unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        assert_eq!(said("fmn", Norm::Linf).decided().unwrap().steps, 100);
        refused(said("ddn", Norm::Linf), ["attack.norm", "fmn works in both"]);
        for method in ["ddn", "fmn"] {
            let said = || said(method, Norm::L2);
            refused(Said { restarts: Some(2), ..said() }, ["attack.restarts", "has none"]);
            refused(Said { rel_step: Some(0.5.into()), ..said() }, ["attack.rel_step", "has none"]);
            refused(Said { nest: Some(true), ..said() }, ["attack.nest", "nests its budgets anyway"]);
            refused(Said { steps: Some(65_535), ..said() }, ["attack.steps", "at most 65534"]);
            refused(Said { eps: Some(vec![0.25.into(), 0.5.into()]), ..said() }, ["attack.eps", "found 2"]);
            refused(Said { profile: Some(Profile::Art), ..said() }, ["attack.profile", "art"]);
        }
        refused(Said { step_size: Some(0.5.into()), ..said("ddn", Norm::L2) }, ["attack.step_size", "has none"]);
        let foolbox = |method, norm| Said { profile: Some(Profile::Foolbox), ..said(method, norm) };
        assert_eq!(foolbox("fmn", Norm::L2).decided().unwrap().label(), "foolbox-fmn");
        refused(foolbox("ddn", Norm::L2), ["attack.profile", "foolbox"]);
    }
}
