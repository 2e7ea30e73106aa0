//! What an attack did.

use serde::{Deserialize, Serialize};

use crate::tensor::Tensor;

/// What an attack did to one image.
///
/// `prediction`, `linf` and `l2` describe the last point; `margin` and `loss` are the best for the attacker over all points.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// At the last point.
    pub prediction: u32,
    pub clean_prediction: u32,
    pub correct_clean: bool,
    /// Correct when clean, and at the last point; whatever the attack aims at, what counts is the label.
    pub correct_last: bool,
    /// Correct when clean, and at every start and iterate.
    pub correct_any: bool,
    /// Gradient steps taken before the first success of the attack, over all restarts; 0 for a start. None without success, and for
    /// images that were not attacked.
    pub first_success: Option<u32>,
    /// Gradient steps taken in all.
    pub steps: u32,
    /// Those among them that were not computed, since they could only repeat earlier ones.
    #[serde(default, skip_serializing_if = "is_0")]
    pub steps_saved: u32,
    /// The smallest over starts and iterates ([`super::Evaluation::margin`]), successes first; of the clean image where there was no
    /// attack.
    pub margin: f32,
    /// The highest over starts and iterates; of the clean image where there was no attack.
    pub loss: f32,
    /// Size of the last perturbation.
    pub linf: f32,
    pub l2: f32,
    /// True when one of the points kept breaks the budget.
    pub violation: bool,
    /// The stage of a combined attack that broke the image, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<u8>,
    /// What each stage of a combined attack asked of the network about the image, as far as the image came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The smaller budget that the image was broken within: nothing was computed within this one, see [`super::Spec::nest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<f64>,
    /// The smallest budget that was found to break the image, where the attack looks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<f64>,
    /// In targeted mode the class aimed at, and whether the last point is of it; an image of that class has nothing to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_reached: Option<bool>,
    /// Whether the label is among the five largest logits at the last point, and of the clean image; `None` where nobody asked,
    /// as the attack itself does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_top5: Option<bool>,
}

/// What an attack leaves behind: an outcome per image, points `(N, H, W, C)` float32 on the device, and what they cost.
#[derive(Clone, Debug)]
pub struct Adversarial {
    pub outcomes: Vec<Outcome>,
    /// The last iterate of the last restart that an image entered.
    pub last: Tensor,
    /// The smallest margin over all starts and iterates, successes first.
    pub best_margin: Tensor,
    /// `best_margin` where that is a success, else the point of highest loss: the image to hand on.
    pub best: Tensor,
    pub work: Work,
    /// Of each image.
    pub works: Vec<Work>,
    /// Seconds that each stage of a combined attack took; none of one attack alone.
    pub seconds: Vec<f64>,
}

/// Stages of a combined attack at most.
pub const STAGES: usize = 6;

/// Work stage by stage, of one image. In records a list of pairs: gradients, forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Asked {
    stages: [Option<Work>; STAGES],
}

impl Asked {
    /// Of the stages so far.
    pub fn stages(&self) -> impl Iterator<Item = Work> {
        self.stages.into_iter().map_while(|work| work)
    }

    /// Adds the next stage; one beyond the most there are is left out.
    pub fn push(&mut self, work: Work) {
        if let Some(free) = self.stages.iter_mut().find(|work| work.is_none()) {
            *free = Some(work);
        }
    }
}

impl From<Asked> for Vec<(u64, u64)> {
    fn from(asked: Asked) -> Self {
        asked.stages().map(|work| (work.gradients, work.forwards)).collect()
    }
}

impl TryFrom<Vec<(u64, u64)>> for Asked {
    type Error = String;

    fn try_from(pairs: Vec<(u64, u64)>) -> std::result::Result<Self, String> {
        if pairs.len() > STAGES {
            return Err(format!("asked: expected at most {STAGES} stages, found {}", pairs.len()));
        }
        let mut asked = Asked::default();
        pairs.into_iter().for_each(|(gradients, forwards)| asked.push(Work { gradients, forwards }));
        Ok(asked)
    }
}

/// Images that went through the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// forward and backward
    pub gradients: u64,
    /// forward only
    pub forwards: u64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, more: Work) {
        self.gradients += more.gradients;
        self.forwards += more.forwards;
    }
}

fn is_0(n: &u32) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_reads_back_the_same() {
        for text in ["[]", "[[0,1]]", "[[101,2],[900,9],[9,9],[0,5001]]"] {
            let asked: Asked = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&asked).unwrap(), text);
        }
        let error =
            serde_json::from_str::<Asked>("[[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1]]").unwrap_err().to_string();
        assert!(error.contains("at most 6 stages, found 7"), "{error}");
    }
}
