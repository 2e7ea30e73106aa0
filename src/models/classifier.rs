//! An image classifier as an attack sees it: pixels in [0, 1] in, logits, losses and pixel gradients out.

use std::ops::Range;
use std::sync::Arc;

use crate::attack::{self, Answer, Evaluation, Loss, Query};
use crate::device::Device;
use crate::device::nvtx::{self, Kind};
use crate::models::batch::{chunk, in_chunks};
use crate::models::card::Card;
use crate::models::metadata::for_channels;
use crate::models::network::{Network, Shape};
use crate::models::probe::Probe;
use crate::models::weights::Weights;
use crate::ops::loss::{Classes, LossKind, LossOutput, loss_of};
use crate::ops::pointwise::{Affine, affine, normalize_images};
use crate::ops::recording;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A network with the normalisation of its training data as first layer.
pub struct Classifier {
    device: Device,
    precision: Precision,
    net: Box<dyn Network>,
    /// Per channel.
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Turns the sign.
    minus: Arc<Affine>,
    /// H, W, C
    shape: [usize; 3],
    /// Images at once on the host, so that activations stay in cache; results do not depend on it.
    chunk: usize,
}

impl Classifier {
    /// Builds the network that a checkpoint's metadata describes, for images of `size` (H, W).
    ///
    /// # Errors
    /// [`Error::File`] for metadata that is missing or of another architecture, [`Error::Tensor`] for wrong tensors.
    pub fn load(device: &Device, precision: Precision, weights: &Weights, size: [usize; 2]) -> Result<Self> {
        Self::described(device, precision, weights, &Card::read(weights)?, size)
    }

    /// Builds the network that a card describes, for images of `size` (H, W).
    ///
    /// # Errors
    /// As [`Classifier::load`].
    pub fn described(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        card: &Card,
        size: [usize; 2],
    ) -> Result<Self> {
        let bad = |problem: String| Error::file(weights.origin(), format!("metadata: {problem}"));
        let shape = card.shape().map_err(bad)?;
        let single = |values: &Option<Vec<f64>>, key: &str| {
            let values = values.as_ref().ok_or_else(|| bad(format!("expected `{key}`, found none")))?;
            let values =
                for_channels(values, shape.channels()).map_err(|problem| bad(format!("`{key}`: {problem}")))?;
            Ok::<_, Error>(values.iter().map(|&v| v as f32).collect::<Vec<_>>())
        };
        let (mean, std) = (single(&card.mean, "mean")?, single(&card.std, "std")?);
        Self::new(device, precision, weights, shape.as_ref(), &mean, &std, size).map_err(|e| match e {
            Error::Usage { field, problem } => Error::file(weights.origin(), format!("metadata: {field}: {problem}")),
            other => other,
        })
    }

    /// The network that a checkpoint's metadata describes.
    ///
    /// # Errors
    /// [`Error::File`] for metadata that is missing or of another architecture.
    pub fn shape(weights: &Weights) -> Result<Box<dyn Shape>> {
        Card::read(weights)?.shape().map_err(|problem| Error::file(weights.origin(), format!("metadata: {problem}")))
    }

    /// Any network with a given normalisation per channel, for images of `size` (H, W).
    ///
    /// # Errors
    /// As [`Shape::build`]; [`Error::Shape`] for a mean or deviation of another number of channels.
    pub fn new(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        shape: &dyn Shape,
        mean: &[f32],
        std: &[f32],
        size: [usize; 2],
    ) -> Result<Self> {
        let channels = shape.channels();
        for (what, values) in [("mean", mean), ("std", std)] {
            if values.len() != channels {
                return Err(Error::shape("classifier", what, channels.to_string(), values.len().to_string()));
            }
        }
        let before = weights.taken();
        let net = shape.build(device, precision, weights, size)?;
        let shape = [size[0], size[1], channels];
        let chunk = chunk(device, net.widest(size[0], size[1]), weights.taken() - before);
        let minus = Arc::new(Affine::new(device, &[-1.0], &[0.0])?);
        let (mean, std) = (mean.to_vec(), std.to_vec());
        Ok(Classifier { device: device.clone(), precision, net, mean, std, minus, shape, chunk })
    }

    pub fn net(&self) -> &dyn Network {
        self.net.as_ref()
    }

    /// Mean and standard deviation per channel that pixels are normalised by.
    pub fn normalisation(&self) -> (&[f32], &[f32]) {
        (&self.mean, &self.std)
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Logits `(N, K)` of images `(N, H, W, C)`, float32 in `[0, 1]`, on a graph.
    ///
    /// # Errors
    /// What the network's ops return.
    pub fn forward(&self, g: &Graph, images: &Tensor) -> Result<Tensor> {
        let _range = nvtx::range(Kind::Step, "forward");
        self.net.forward(g, &self.normalised(g, images)?)
    }

    fn normalised(&self, g: &Graph, images: &Tensor) -> Result<Tensor> {
        normalize_images(g, images, &self.mean, &self.std)
    }

    /// The outputs of modules for images `(N, H, W, C)`, float32 in `[0, 1]`, by the names of [`Network::probe`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a module that the network does not have; what its ops return.
    pub fn probe(&self, images: &Tensor, modules: &[String]) -> Result<Vec<Tensor>> {
        self.check(images)?;
        let g = Graph::inference(&self.device, self.precision);
        let mut probe = Probe::several(modules);
        self.net.probe(&g, &self.normalised(&g, images)?, &mut probe)?;
        probe.all().map_err(|(missing, known)| {
            Error::usage("layers", format!("expected some of {}, found `{missing}`", known.join(", ")))
        })
    }

    /// How many images a thread of the host should take at once.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    fn check(&self, images: &Tensor) -> Result<usize> {
        let [n, h, w, c] = images.dims4("classifier")?;
        if [h, w, c] != self.shape {
            return Err(Error::shape("classifier", "image", format!("{:?}", self.shape), format!("{:?}", [h, w, c])));
        }
        Ok(n)
    }

    fn step(&self, images: &Tensor, query: &Query, gradient: bool) -> Result<Evaluation> {
        self.pass(images, gradient, |range, _, logits| {
            let part = Query {
                labels: &query.labels[range.clone()],
                targets: query.targets.map(|targets| &targets[range]),
                ..*query
            };
            let out = self.losses(&Graph::inference(&self.device, self.precision), logits, &self.posed(&part)?)?;
            let dlogits = out.dlogits.clone();
            Ok((out, dlogits))
        })
    }

    /// Images forward, and their gradient where it is wanted: `of` says what is made of the logits of some images, and the gradient with
    /// respect to them.
    pub(crate) fn pass(
        &self,
        images: &Tensor,
        gradient: bool,
        of: impl Fn(Range<usize>, &Tensor, &Tensor) -> Result<(LossOutput, Tensor)> + Sync,
    ) -> Result<Evaluation> {
        let n = self.check(images)?;
        let parts = in_chunks(&self.device, self.chunk, n, |range| {
            let x = images.rows(range.start, range.len())?;
            let (out, gradient) = self.there_and_back(&x, gradient, |logits| of(range, &x, logits))?;
            let prediction = out.prediction.to_i32(&self.device)?.into_iter().map(|p| p as u32).collect();
            let (loss, margin) = (out.loss.to_f32(&self.device)?, out.margin.to_f32(&self.device)?);
            Ok(Evaluation { gradient, loss, margin, prediction })
        })?;
        Evaluation::joined(&self.device, parts)
    }

    /// Images forward and, where it is wanted, the gradient back.
    fn there_and_back(
        &self,
        x: &Tensor,
        gradient: bool,
        of: impl FnOnce(&Tensor) -> Result<(LossOutput, Tensor)>,
    ) -> Result<(LossOutput, Option<Tensor>)> {
        let graph = if gradient { recording } else { Graph::inference };
        let g = graph(&self.device, self.precision);
        let logits = self.forward(&g, x)?;
        let (out, dlogits) = of(&logits)?;
        let _range = nvtx::range(Kind::Step, "gradient");
        let gradient = gradient.then(|| g.backward(&logits, dlogits, x)).transpose()?;
        Ok((out, gradient))
    }
}

/// What is asked about a batch, on the device.
pub(crate) struct Posed {
    labels: Classes,
    targets: Option<Classes>,
    steered: bool,
    loss: Loss,
}

impl Classifier {
    /// A query with its classes on the device.
    ///
    /// # Errors
    /// [`Error::Shape`] for a label or target that is no class.
    pub(crate) fn posed(&self, query: &Query) -> Result<Posed> {
        Posed::new(&self.device, query, self.net.classes())
    }

    /// The loss to be raised and the margin to be lowered, both about the target where there is one that is aimed at.
    pub(crate) fn losses(&self, g: &Graph, logits: &Tensor, query: &Posed) -> Result<LossOutput> {
        let labels = &query.labels;
        let Some(targets) = &query.targets else {
            let kind = match query.loss {
                Loss::CrossEntropy => LossKind::CROSS_ENTROPY,
                Loss::Dlr => LossKind::Dlr,
                Loss::Margin => LossKind::Margin,
            };
            return loss_of(g, logits, labels, None, kind);
        };
        if query.steered {
            let kind = match query.loss {
                Loss::CrossEntropy => LossKind::CrossEntropyTargeted,
                Loss::Dlr => LossKind::DlrTargeted,
                Loss::Margin => LossKind::Difference,
            };
            return loss_of(g, logits, labels, Some(targets), kind);
        }
        // As if the target were the label, the margin has the opposite sign: the target's lead, which the attack raises.
        let lead = loss_of(g, logits, targets, None, LossKind::Margin)?;
        let negative = |t: &Tensor| {
            affine(&Graph::inference(&self.device, g.precision()), &t.reshaped(&[t.len(), 1])?, &self.minus)
        };
        let mut out = match query.loss {
            Loss::CrossEntropy => loss_of(g, logits, labels, Some(targets), LossKind::CrossEntropyTargeted)?,
            Loss::Dlr => loss_of(g, logits, labels, Some(targets), LossKind::DlrTargeted)?,
            Loss::Margin => LossOutput {
                loss: lead.margin.clone(),
                dlogits: negative(&lead.dlogits)?.reshaped(logits.shape())?,
                margin: lead.margin.clone(),
                prediction: lead.prediction.clone(),
            },
        };
        out.margin = lead.loss;
        Ok(out)
    }
}

impl Posed {
    /// Of a network with `k` classes.
    ///
    /// # Errors
    /// [`Error::Shape`] for a label or target that is no class.
    pub(crate) fn new(device: &Device, query: &Query, k: usize) -> Result<Self> {
        Ok(Posed {
            labels: Classes::new(device, "labels", query.labels, k)?,
            targets: query.targets.map(|targets| Classes::new(device, "targets", targets, k)).transpose()?,
            steered: query.steered,
            loss: query.loss,
        })
    }
}

/// A classifier that is asked one query again and again.
struct Asked<'a> {
    net: &'a Classifier,
    query: Posed,
}

impl attack::Resident for Asked<'_> {
    fn answer(&self, images: &Tensor, gradient: bool) -> Result<Answer> {
        self.net.check(images)?;
        let (out, gradient) = self.net.there_and_back(images, gradient, |logits| {
            let g = Graph::inference(&self.net.device, self.net.precision);
            let out = self.net.losses(&g, logits, &self.query)?;
            let dlogits = out.dlogits.clone();
            Ok((out, dlogits))
        })?;
        Ok(Answer { gradient, loss: out.loss, margin: out.margin, prediction: out.prediction })
    }
}

impl attack::Oracle for Classifier {
    fn device(&self) -> &Device {
        &self.device
    }

    fn classes(&self) -> usize {
        self.net.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let n = self.check(images)?;
        let parts = in_chunks(&self.device, self.chunk, n, |range| {
            let g = Graph::inference(&self.device, self.precision);
            self.forward(&g, &images.rows(range.start, range.len())?)
        })?;
        Tensor::concat(&self.device, &parts)
    }

    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.step(images, query, false)
    }
}

impl attack::Classifier for Classifier {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.step(images, query, true)
    }

    /// Not on the host, which waits for nothing, takes a batch in chunks that stay in its cache, and gains most where an image that is
    /// done leaves at once.
    fn resident<'a>(&'a self, query: &Query) -> Result<Option<Box<dyn attack::Resident + 'a>>> {
        if self.device.plan().serial {
            return Ok(None);
        }
        Ok(Some(Box::new(Asked { net: self, query: self.posed(query)? })))
    }
}
