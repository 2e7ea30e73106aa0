//! Random search: points drawn uniformly from the ball, of which the best is kept. It asks for no gradient, so that what it breaks and a
//! gradient attack does not shows a masked gradient.
//!
//! Source: Carlini et al. 2019, section 4.3.

use super::model::{Classifier, Oracle};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize};
use super::start;
use super::track::Track;
use crate::Result;

pub const RANDOM: Row = Row {
    name: "random",
    help: "draws `steps` points uniformly from the ball and asks for no gradient",
    ignores: &["step_size", "rel_step", "restarts", "random_start", "decay", "starts", "stop_cycles"],
    loss: None,
    leaves: false,
    windows: false,
    tried_as: "random",
    preset: |_, _, steps| Preset { steps: steps.or(Some(100)), step: Some(StepSize::OfEps(1.0)), random_start: true },
    check: |_| Ok(()),
    build: |spec| Ok(Box::new(Random { spec: spec.clone() })),
};

struct Random {
    spec: Spec,
}

impl Random {
    fn search(&self, model: &dyn Oracle, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        let entering = track.entering();
        if entering.is_empty() {
            return track.finish();
        }
        let mut points = track.points(entering)?;
        for point in 0..self.spec.steps {
            let draw = (track.seed, point);
            points.x = start::random(model.device(), &points.x0, &points.ids, &self.spec, eps, draw)?;
            track.stepped(&points);
            let answer = model.evaluate(&points.x, &track.query(&points, 0, point))?;
            track.record(&points, &answer, false)?;
            let stay = track.unbroken(&points);
            if self.spec.early_stop && stay.len() < points.at.len() {
                track.leave(&points)?;
                if stay.is_empty() {
                    return track.finish();
                }
                points = track.keep(&points, &stay)?;
            }
        }
        track.leave(&points)?;
        track.finish()
    }
}

impl Attack for Random {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        self.search(model, batch, eps, seed)
    }

    fn most_queries(&self) -> Option<u64> {
        Some(1 + u64::from(self.spec.steps))
    }
}
