//! The blocks of a CoAtNet from a checkpoint's tensors: batch norms and layer scales folded, positions expanded to a table.

use std::sync::Arc;

use super::blocks::{Block, MbConv, Squeeze, Transformer};
use super::config::{Config, EXPANSION, MLP, SQUEEZE};
use crate::device::Device;
use crate::models::weights::Weights;
use crate::ops::attention::Positions;
use crate::ops::conv::{Conv2d, Window, fold_batch_norm};
use crate::ops::gemm::Linear;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::pointwise::Affine;
use crate::tape::Precision;
use crate::{Error, Result};

const BATCH_NORM_EPS: f32 = 1e-5;
const LAYER_NORM_EPS: f32 = 1e-6;

/// What a builder needs at every step.
pub(super) struct Builder<'a> {
    pub device: &'a Device,
    pub precision: Precision,
    pub weights: &'a Weights,
}

impl Builder<'_> {
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.get(name, shape)
    }

    /// Batch norm as scale and bias.
    fn batch_norm(&self, name: &str, c: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let get = |part: &str| self.get(&format!("{name}.{part}"), &[c]);
        let (weight, bias, mean, var) = (get("weight")?, get("bias")?, get("running_mean")?, get("running_var")?);
        fold_batch_norm(&weight, &bias, &mean, &var, BATCH_NORM_EPS)
            .map_err(|problem| Error::tensor(self.weights.origin(), format!("{name}.running_var"), problem))
    }

    /// A convolution without bias, and the batch norm behind it folded in, if any.
    pub fn conv_bn(&self, conv: &str, bn: Option<&str>, shape: [usize; 4], window: Window) -> Result<Arc<Conv2d>> {
        let mut weight = self.get(&format!("{conv}.weight"), &shape)?;
        let bias = bn.map(|bn| self.batch_norm(bn, shape[0])).transpose()?.map(|(scale, bias)| {
            let taps = weight.len() / shape[0];
            for (row, s) in weight.chunks_exact_mut(taps).zip(&scale) {
                row.iter_mut().for_each(|w| *w = (f64::from(*w) * s) as f32);
            }
            bias.into_iter().map(|b| b as f32).collect::<Vec<f32>>()
        });
        Ok(Arc::new(Conv2d::new(self.device, self.precision, &weight, shape, bias.as_deref(), window)?))
    }

    /// A 1x1 convolution with bias, and a layer scale behind it folded in, if any.
    fn projection(&self, name: &str, [o, c]: [usize; 2], scale: Option<&str>) -> Result<Arc<Conv2d>> {
        let mut weight = self.get(&format!("{name}.weight"), &[o, c, 1, 1])?;
        let mut bias = self.get(&format!("{name}.bias"), &[o])?;
        if let Some(scale) = scale {
            let gamma = self.get(&format!("{scale}.gamma"), &[o])?;
            for ((row, b), g) in weight.chunks_exact_mut(c).zip(&mut bias).zip(&gamma) {
                row.iter_mut().for_each(|w| *w *= g);
                *b *= g;
            }
        }
        let shape = [o, c, 1, 1];
        Ok(Arc::new(Conv2d::new(self.device, self.precision, &weight, shape, Some(&bias), Window::default())?))
    }

    pub fn layer_norm(&self, name: &str, c: usize) -> Result<Arc<LayerNorm>> {
        let (w, b) = (self.get(&format!("{name}.weight"), &[c])?, self.get(&format!("{name}.bias"), &[c])?);
        Ok(Arc::new(LayerNorm::new(self.device, LAYER_NORM_EPS, &w, &b)?))
    }

    pub fn mbconv(&self, name: &str, c: usize, o: usize, stride: usize) -> Result<Block> {
        let at = |part: &str| format!("{name}.{part}");
        let mid = EXPANSION * c;
        let shortcut = (stride != 1 && c != o)
            .then(|| self.conv_bn(&at("shortcut.expand"), None, [o, c, 1, 1], Window::default()))
            .transpose()?;
        let (scale, bias) = self.batch_norm(&at("pre_norm"), c)?;
        let single = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let pre_norm = Arc::new(Affine::new(self.device, &single(scale), &single(bias))?);
        let expand = self.conv_bn(&at("conv1_1x1"), Some(&at("norm1")), [mid, c, 1, 1], Window::default())?;
        let window = Window { groups: mid, ..Window::square(stride, 1) };
        let depthwise = self.conv_bn(&at("conv2_kxk"), Some(&at("norm2")), [mid, 1, 3, 3], window)?;
        let fc = |part: &str, o: usize, c: usize| -> Result<Arc<Linear>> {
            let weight = self.get(&at(&format!("se.{part}.weight")), &[o, c, 1, 1])?;
            let bias = self.get(&at(&format!("se.{part}.bias")), &[o])?;
            Ok(Arc::new(Linear::new(self.device, self.precision, &weight, [o, c], Some(&bias))?))
        };
        let squeeze = Squeeze { reduce: fc("fc1", mid / SQUEEZE, mid)?, expand: fc("fc2", mid, mid / SQUEEZE)? };
        let project = self.conv_bn(&at("conv3_1x1"), None, [o, mid, 1, 1], Window::default())?;
        Ok(Block::Conv(Box::new(MbConv { stride, shortcut, pre_norm, expand, depthwise, squeeze, project })))
    }

    pub fn transformer(
        &self,
        name: &str,
        [c, o, stride]: [usize; 3],
        map: [usize; 2],
        config: &Config,
    ) -> Result<Block> {
        let at = |part: &str| format!("{name}.{part}");
        if !c.is_multiple_of(config.head_dim) {
            let problem = format!("{c} channels do not fall into heads of {}", config.head_dim);
            return Err(Error::usage("config `head_dim`", problem));
        }
        let heads = c / config.head_dim;
        let widens = stride != 1 && c != o;
        let shortcut = widens.then(|| self.projection(&at("shortcut.expand"), [o, c], None)).transpose()?;
        let hidden = config.rel_pos_hidden;
        let fc1 = (
            self.get(&at("attn.rel_pos.mlp.fc1.weight"), &[hidden, 2])?,
            self.get(&at("attn.rel_pos.mlp.fc1.bias"), &[hidden])?,
        );
        let fc2 = (
            self.get(&at("attn.rel_pos.mlp.fc2.weight"), &[heads, hidden])?,
            self.get(&at("attn.rel_pos.mlp.fc2.bias"), &[heads])?,
        );
        let table = position_table(map, heads, (&fc1.0, &fc1.1), (&fc2.0, &fc2.1));
        let norm1 = if stride != 1 { "norm1.norm" } else { "norm1" };
        Ok(Block::Transformer(Box::new(Transformer {
            stride,
            shortcut,
            norm1: self.layer_norm(&at(norm1), c)?,
            qkv: self.projection(&at("attn.qkv"), [3 * c, c], None)?,
            heads,
            positions: Arc::new(Positions::new(self.device, heads, map, &table)?),
            projection: self.projection(&at("attn.proj"), [o, c], Some(&at("ls1")))?,
            norm2: self.layer_norm(&at("norm2"), o)?,
            fc1: self.projection(&at("mlp.fc1"), [MLP * o, o], None)?,
            fc2: self.projection(&at("mlp.fc2"), [o, MLP * o], Some(&at("ls2")))?,
        })))
    }
}

/// What is added to the logits of query and key on a map of `h` x `w` tokens, as [`Positions`] takes it: an MLP of the signed logs of
/// their distance down and across, query less key. `(heads, 2 h - 1, 2 w - 1)`, sums in float64.
pub fn position_table([h, w]: [usize; 2], heads: usize, fc1: (&[f32], &[f32]), fc2: (&[f32], &[f32])) -> Vec<f32> {
    let (rows, span, hidden) = (2 * h - 1, 2 * w - 1, fc1.1.len());
    // The table runs over key less query.
    let log = |at: usize, length: usize| {
        let d = length as f64 - 1.0 - at as f64;
        if d == 0.0 { 0.0 } else { d.signum() * (1.0 + d.abs()).ln() }
    };
    let mut table = vec![0f32; heads * rows * span];
    for at in 0..rows * span {
        let (dy, dx) = (log(at / span, h), log(at % span, w));
        let inner: Vec<f64> = (0..hidden)
            .map(|j| (f64::from(fc1.0[2 * j]) * dy + f64::from(fc1.0[2 * j + 1]) * dx + f64::from(fc1.1[j])).max(0.0))
            .collect();
        for head in 0..heads {
            let weights = &fc2.0[head * hidden..(head + 1) * hidden];
            let sum: f64 = weights.iter().zip(&inner).map(|(w, v)| f64::from(*w) * v).sum();
            table[head * rows * span + at] = (sum + f64::from(fc2.1[head])) as f32;
        }
    }
    table
}
