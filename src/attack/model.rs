//! The network as an attack sees it: what can be asked, and what is answered.

use crate::Result;
use crate::choice::choice;
use crate::device::Device;
use crate::tensor::Tensor;

/// What a black-box attack may ask of a network: its answers, never a gradient.
pub trait Oracle {
    fn device(&self) -> &Device;

    fn classes(&self) -> usize;

    /// Height, width, channels.
    fn image_shape(&self) -> [usize; 3];

    /// Whether images are pixels in `[0, 1]`; an attack then refuses others.
    fn takes_pixels(&self) -> bool {
        true
    }

    /// Whether the same images are answered the same at every restart and step; not where noise is drawn.
    fn repeats_itself(&self) -> bool {
        true
    }

    /// Logits `(N, K)` of images `(N, H, W, C)`, float32 in `[0, 1]`.
    ///
    /// # Errors
    /// What the network's ops return.
    fn logits(&self, images: &Tensor) -> Result<Tensor>;

    /// Loss, margin and prediction per image.
    ///
    /// # Errors
    /// What the network's ops return.
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation>;
}

/// What a gradient attack needs beside that.
pub trait Classifier: Oracle {
    /// Loss, margin and prediction per image, and the gradient of the summed loss with respect to the images, float32.
    ///
    /// # Errors
    /// What the network's ops return.
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation>;

    /// The same as work that the device does by itself, where there is such a form and a device to gain from it: an attack then asks
    /// for several steps before it looks at any. Of a network that repeats itself; the answers are those of [`Classifier::gradient`]
    /// and [`Oracle::evaluate`], bit by bit.
    ///
    /// # Errors
    /// What moving the query to the device returns.
    fn resident<'a>(&'a self, _: &Query) -> Result<Option<Box<dyn Resident + 'a>>> {
        Ok(None)
    }

    /// So many answers were given by way of [`Classifier::resident`].
    fn answered(&self, _: u64) {}
}

/// A classifier with a query at hand whose answers stay on the device: no copy to or from the host, no wait.
pub trait Resident {
    /// Answers about images `(N, H, W, C)`, with or without the gradient.
    ///
    /// # Errors
    /// What the network's ops return.
    fn answer(&self, images: &Tensor, gradient: bool) -> Result<Answer>;
}

/// An [`Evaluation`] on the device.
#[derive(Debug)]
pub struct Answer {
    /// As the images, where it was asked for.
    pub gradient: Option<Tensor>,
    /// `(N)` float32
    pub loss: Tensor,
    /// `(N)` float32
    pub margin: Tensor,
    /// `(N)` int32
    pub prediction: Tensor,
}

/// What is asked about a batch of N images.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub labels: &'a [u32],
    pub targets: Option<&'a [u32]>,
    /// The targets only steer the loss: success is any wrong class, and the margin is the label's.
    pub steered: bool,
    pub loss: Loss,
    /// What the random numbers of a stochastic pipeline are keyed by: image ids, restart and step. Others ignore them.
    pub ids: &'a [u64],
    pub restart: u32,
    pub step: u32,
}

/// [`Query::step`] of the clean images, before any restart.
pub const CLEAN: u32 = (1 << 16) - 1;

impl<'a> Query<'a> {
    /// Of a network without randomness, untargeted.
    pub fn new(labels: &'a [u32], loss: Loss) -> Self {
        Query { labels, targets: None, steered: false, loss, ids: &[], restart: 0, step: 0 }
    }
}

/// What a classifier says about a batch of N images.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// As the images.
    pub gradient: Option<Tensor>,
    pub loss: Vec<f32>,
    /// The smaller, the better for the attacker, and below 0 only after success: the logit of the label less the largest
    /// other one; in targeted mode the largest logit but the target's less the target's.
    pub margin: Vec<f32>,
    /// Largest logit, ties to the lowest index.
    pub prediction: Vec<u32>,
}

impl Evaluation {
    /// Those of parts of a batch as one.
    ///
    /// # Errors
    /// What joining the gradients returns.
    pub fn joined(device: &Device, parts: Vec<Evaluation>) -> Result<Evaluation> {
        let mut all = Evaluation::default();
        let mut gradients = Vec::new();
        for part in parts {
            all.loss.extend(part.loss);
            all.margin.extend(part.margin);
            all.prediction.extend(part.prediction);
            gradients.extend(part.gradient);
        }
        if !gradients.is_empty() {
            all.gradient = Some(Tensor::concat(device, &gradients)?);
        }
        Ok(all)
    }
}

choice! {
    /// What an attack maximises; each has a targeted variant.
    Loss {
        CrossEntropy = "ce",
        /// Difference of logits ratio (Croce & Hein 2020): needs 3 classes, targeted 4.
        Dlr = "dlr",
        /// Carlini & Wagner's difference of logits: the best wrong one less the true one.
        Margin = "margin",
    }
}
