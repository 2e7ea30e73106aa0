//! Replays PyTorch dumps and compares: the contract between PyTorch and the engine.

mod attacks;
mod attributes;
mod compare;
mod diffusion;
pub mod dump;
mod networks;
mod ops;
mod replay;

use std::path::{Path, PathBuf};

pub use compare::Comparison;
use compare::{compare, limit};
use dump::Dump;
use replay::Replay;

use crate::Result;
use crate::device::Device;
use crate::tape::Precision;

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
    let network = matches!(dump.op.as_str(), "model" | "onnx" | "pgd" | "feature_map" | "dds");
    let (outputs, special) = match dump.op.as_str() {
        "dds" => (diffusion::one_shot(&replay)?, None),
        _ if network => networks::run(&replay)?,
        _ => (ops::run(&replay)?, None),
    };
    if let Some(first) = dump.unread(network).first() {
        return Err(replay.fail(format!("{first} is unknown to `{}`", dump.op)));
    }
    let mut all: Vec<Comparison> = Vec::new();
    if let Some(comparison) = special {
        all.push(comparison);
    } else {
        for name in dump.outputs() {
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
