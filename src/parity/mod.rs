//! Replays PyTorch dumps and compares: the contract between PyTorch and the engine.

mod diffusion;
pub mod dump;
mod networks;
mod ops;

use std::path::{Path, PathBuf};

use self::dump::{Array, Dump, channels_first};
use crate::device::{DType, Device};
use crate::ops::recording;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How far one output lies from the reference.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    pub tensor: String,
    /// Euclidean norm of the difference over that of the reference
    pub rel_err: f64,
    pub max_abs: f64,
    pub limit: f64,
    pub passed: bool,
}

/// What became of one file.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Verdict {
    /// Every output was compared; the worst, relative to its limit, decides.
    Compared { worst: Comparison, all: Vec<Comparison> },
    /// The op, an attribute or a tensor is unknown, or the replay failed.
    Unsupported { reason: String },
}

/// One line of the report.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    pub file: PathBuf,
    pub op: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Every output tensor and a hash of its bits: whether two runs agree to the last bit.
    #[serde(skip)]
    pub bits: Vec<(String, u64)>,
}

impl Report {
    pub fn passed(&self) -> bool {
        matches!(&self.verdict, Verdict::Compared { worst, .. } if worst.passed)
    }
}

/// An output as the engine computed it, in PyTorch's layout.
pub(crate) struct Output {
    name: String,
    /// bfloat16 is widened, which keeps its bits apart.
    values: Vec<f32>,
}

impl Output {
    pub(crate) fn new(name: &str, values: Vec<f32>) -> Self {
        Output { name: format!("out.{name}"), values }
    }
}

/// A replay in progress: the dump and where its ops run.
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

    pub fn fail(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.dump.path, problem)
    }
}

fn gradients(g: Graph, y: &Tensor, dout: Tensor, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let tensors: Vec<&Tensor> = inputs.iter().map(|(_, t)| *t).collect();
    let all = g.backward_all(y, dout, &tensors)?;
    Ok(inputs.iter().zip(all).map(|((name, _), dx)| (format!("d{name}"), dx)).collect())
}

/// Replays one file. Never fails: what goes wrong becomes the verdict.
pub fn replay(path: &Path, device: &Device, precision: Precision) -> Report {
    let (op, verdict) = match Dump::open(path) {
        Ok(dump) => (dump.op.clone(), verdict(&dump, device, precision)),
        Err(e) => ("?".into(), Err(e)),
    };
    let (verdict, bits) = verdict.unwrap_or_else(|e| (Verdict::Unsupported { reason: e.to_string() }, Vec::new()));
    Report { file: path.into(), op, verdict, bits }
}

/// FNV-1a over the bytes of the values, lowest first.
fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What became of the dump, and the bits of its outputs.
fn verdict(dump: &Dump, device: &Device, precision: Precision) -> Result<(Verdict, Vec<(String, u64)>)> {
    let replay = Replay { dump, device, precision };
    let network = matches!(dump.op.as_str(), "model" | "pgd" | "feature_map" | "dds");
    let (outputs, special) = match dump.op.as_str() {
        "dds" => (diffusion::one_shot(&replay)?, None),
        _ if network => networks::run(&replay)?,
        _ => (ops::run(&replay)?, None),
    };
    if let Some(first) = dump.unread(network)?.first() {
        return Err(replay.fail(format!("{first} is unknown to `{}`", dump.op)));
    }
    let mut all: Vec<Comparison> = Vec::new();
    if let Some(comparison) = special {
        all.push(comparison);
    } else {
        for name in dump.outputs()? {
            let got = outputs
                .iter()
                .find(|o| o.name == name)
                .ok_or_else(|| replay.fail(format!("tensor `{name}` is unknown to `{}`", dump.op)))?;
            let (want, exact) = dump.reference(&name)?;
            let limit = if exact { 0.0 } else { limit(dump, &name, precision) };
            all.push(compare(&name, &got.values, &want, limit));
        }
    }
    let ratio = |c: &Comparison| if c.rel_err.is_nan() { f64::INFINITY } else { c.rel_err / c.limit };
    let worst = all.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b))).cloned();
    let worst = worst.ok_or_else(|| replay.fail("nothing to compare"))?;
    // A failure of any tensor is the file's.
    let worst = all.iter().find(|c| !c.passed).cloned().unwrap_or(worst);
    let bits = outputs.iter().map(|o| (o.name.clone(), hash(&o.values))).collect();
    Ok((Verdict::Compared { worst, all }, bits))
}

/// The project's tolerances: relative to the norm of the reference, per tensor.
fn limit(dump: &Dump, output: &str, precision: Precision) -> f64 {
    if let (Some(rtol), true) = (dump.rtol, precision == Precision::F32) {
        return rtol;
    }
    let gradient = output.starts_with("out.d");
    let model = matches!(dump.op.as_str(), "model" | "feature_map" | "pgd" | "dds");
    match (precision == Precision::Bf16, model, gradient) {
        (false, false, false) => 2e-6,
        (false, false, true) => 3e-6,
        (false, true, false) => 5e-6,
        (false, true, true) => 2e-5,
        (true, false, _) => 1e-2,
        (true, true, false) => 3e-2,
        (true, true, true) => 8e-2,
    }
}

/// `||got - want|| / ||want||`; where the reference is all zero, anything but zero fails. NaN fails.
pub(crate) fn compare(tensor: &str, got: &[f32], want: &Array, limit: f64) -> Comparison {
    let (mut difference, mut norm, mut max_abs) = (0f64, 0f64, 0f64);
    let mut sound = got.len() == want.values.len();
    for (&g, &w) in got.iter().zip(&want.values) {
        if g.is_nan() && w.is_nan() || g.is_infinite() && g == w {
            continue;
        }
        let d = (f64::from(g) - f64::from(w)).abs();
        sound &= d.is_finite();
        difference += d * d;
        norm += f64::from(w).powi(2);
        max_abs = max_abs.max(d);
    }
    let rel_err = match (sound, norm > 0.0) {
        (false, _) => f64::INFINITY,
        (true, true) => (difference / norm).sqrt(),
        (true, false) if difference == 0.0 => 0.0,
        (true, false) => f64::INFINITY,
    };
    Comparison { tensor: tensor.into(), rel_err, max_abs, limit, passed: rel_err <= limit }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn every_bit_counts() {
        // The published value of FNV-1a for no bytes, and one worked by hand for four zero bytes.
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        let zeros = (0..4).fold(0xcbf2_9ce4_8422_2325u64, |h, _| h.wrapping_mul(0x100_0000_01b3));
        assert_eq!(hash(&[0.0]), zeros);
        assert_ne!(hash(&[0.0]), hash(&[-0.0]));
        assert_ne!(hash(&[1.0, 2.0]), hash(&[2.0, 1.0]));
        assert_ne!(hash(&[f32::NAN]), hash(&[f32::from_bits(f32::NAN.to_bits() | 1)]));
    }
}
