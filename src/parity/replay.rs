//! A replay in progress: what a dump gives to an op, and what comes out in PyTorch's layout.

use super::dump::{Dump, channels_first};
use crate::device::{DType, Device};
use crate::ops::recording;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// An output as the engine computed it, in PyTorch's layout.
pub(crate) struct Output {
    pub name: String,
    /// bfloat16 is widened, which keeps its bits apart.
    pub values: Vec<f32>,
}

impl Output {
    pub(crate) fn new(name: &str, values: Vec<f32>) -> Self {
        Output { name: format!("out.{name}"), values }
    }
}

/// The dump and where its ops run.
pub(crate) struct Replay<'a> {
    pub dump: &'a Dump,
    pub device: &'a Device,
    pub precision: Precision,
}

impl Replay<'_> {
    /// A graph that records when the dump asks for gradients.
    pub fn graph(&self) -> Graph {
        if self.dump.has("in.dout") {
            recording(self.device, self.precision)
        } else {
            Graph::inference(self.device, self.precision)
        }
    }

    pub fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// An image-like input, channels last on the device.
    pub fn image(&self, name: &str) -> Result<Tensor> {
        let a = self.dump.array(name)?;
        let (shape, values) = a.channels_last().ok_or_else(|| {
            Error::tensor(&self.dump.path, name, format!("expected (N, C, H, W), found {:?}", a.shape))
        })?;
        Tensor::from_f32(self.device, &shape, self.dtype(), &values)
    }

    /// An input in the layout of the dump.
    pub fn plain(&self, name: &str) -> Result<Tensor> {
        let a = self.dump.array(name)?;
        Tensor::from_f32(self.device, &a.shape, self.dtype(), &a.values)
    }

    /// Values in PyTorch's layout, of an image-like tensor or of a matrix.
    pub fn image_values(&self, t: &Tensor) -> Result<Vec<f32>> {
        let values = t.to_f32(self.device)?;
        Ok(if t.shape().len() == 4 { channels_first(&values, t.dims4("parity")?) } else { values })
    }

    /// Outputs of an op on images: `y` and, when asked for, the gradients of the named inputs.
    pub fn image_outputs(&self, g: Graph, y: &Tensor, inputs: &[(&str, &Tensor)]) -> Result<Vec<Output>> {
        let mut outputs = vec![Output::new("y", self.image_values(y)?)];
        if self.dump.has("in.dout") {
            let dout = if y.shape().len() == 4 { self.image("in.dout")? } else { self.plain("in.dout")? };
            for (name, dx) in gradients(g, y, dout, inputs)? {
                outputs.push(Output::new(&name, self.image_values(&dx)?));
            }
        }
        Ok(outputs)
    }

    /// The same for ops that keep the layout of the dump.
    pub fn plain_outputs(&self, g: Graph, y: &Tensor, inputs: &[(&str, &Tensor)]) -> Result<Vec<Output>> {
        let mut outputs = vec![Output::new("y", y.to_f32(self.device)?)];
        if self.dump.has("in.dout") {
            let a = self.dump.array("in.dout")?;
            let dout = Tensor::from_f32(self.device, y.shape(), self.dtype(), &a.values)?;
            for (name, dx) in gradients(g, y, dout, inputs)? {
                outputs.push(Output::new(&name, dx.to_f32(self.device)?));
            }
        }
        Ok(outputs)
    }

    /// Compares the size that numbers of the dump give to its result with that of the reference, before anything is made of that
    /// size: attributes may say any number.
    ///
    /// # Errors
    /// [`Error::File`] when the two differ.
    pub fn makes(&self, sides: &[usize]) -> Result<()> {
        let count = |sides: &[usize]| sides.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
        let (made, want) = (count(sides), self.dump.shape("out.y"));
        if made.is_some() && want.is_some_and(|want| count(want) == made) {
            return Ok(());
        }
        let made = made.map_or("more values than can be counted".into(), |n| format!("{n} values"));
        let want = want.map_or("none".into(), |want| format!("the shape {want:?}"));
        Err(self.fail(format!("tensor `out.y`: inputs and attributes make {made} ({sides:?}), found {want}")))
    }

    pub fn fail(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.dump.path, problem)
    }
}

fn gradients(g: Graph, y: &Tensor, dout: Tensor, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    let all = g.backward_all(y, dout, &tensors)?;
    Ok(inputs.iter().zip(all).map(|((name, _), dx)| (format!("d{name}"), dx)).collect())
}
