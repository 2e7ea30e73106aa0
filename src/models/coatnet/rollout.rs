//! What the transformer blocks of a CoAtNet attend to: their weights of attention, and these rolled out over a stage.
//!
//! A diagnostic path: the fused kernel never writes the weights, so whoever asks for them has them computed again on the host,
//! from the projection that the kernel read. Source: Abnar & Zuidema 2020 (attention rollout).

use rayon::prelude::*;

use super::config::Config;
use crate::device::{DType, Device};
use crate::models::probe::Probe;
use crate::ops::attention::Positions;
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The last block of every stage.
pub fn ends(config: &Config) -> Vec<String> {
    config.depths.iter().enumerate().map(|(stage, depth)| format!("stages.{stage}.blocks.{}", depth - 1)).collect()
}

/// `stages.2.attention_rollout`, .. of the transformer stages.
pub fn maps(config: &Config) -> Vec<String> {
    let transformers = config.types.chars().enumerate().filter(|(_, kind)| *kind == 'T');
    transformers.map(|(stage, _)| format!("stages.{stage}.attention_rollout")).collect()
}

/// Collects the attention of one stage's blocks after the other.
pub(super) struct Rollout {
    ends: Vec<String>,
    /// of the current stage, `(N, T, T)` each
    layers: Vec<Vec<f32>>,
}

impl Rollout {
    pub fn new(config: &Config) -> Self {
        Rollout { ends: ends(config), layers: Vec::new() }
    }

    /// To be told the projection of every block, see [`weights`]. Shows `BLOCK.attn.weights` `(N, T, T)`, and with the last block of
    /// a stage `STAGE.attention_rollout` `(N, H, W, 1)`: the mean over queries, so that the map of an image sums to 1.
    ///
    /// All blocks of a stage have the same tokens, since its first block makes its map smaller before it attends.
    pub fn see(
        &mut self,
        g: &Graph,
        probe: &mut Probe,
        block: &str,
        qkv: &Tensor,
        heads: usize,
        positions: &Positions,
    ) -> Result<()> {
        if !probe.active() {
            return Ok(());
        }
        let [n, h, w, _] = qkv.dims4("attention rollout")?;
        let tokens = h * w;
        let own = format!("{block}.attn.weights");
        let stage = block.split(".blocks.").next().unwrap_or(block);
        let (rolled, last) = (format!("{stage}.attention_rollout"), self.ends.iter().any(|end| end == block));
        let keeps = probe.wants(&rolled);
        if keeps || probe.wants(&own) {
            self.layers.push(weights(g.device(), qkv, heads, positions)?);
        }
        probe.offer(&own, || {
            let weights = self.layers.last().map_or(&[][..], Vec::as_slice);
            Tensor::from_f32(g.device(), &[n, tokens, tokens], DType::F32, weights)
        })?;
        if last {
            probe.offer(&rolled, || {
                let image = |i: usize| rollout(self.layers.iter().map(|layer| &layer[i * tokens * tokens..]), tokens);
                let maps: Vec<f32> = (0..n).flat_map(image).collect();
                Tensor::from_f32(g.device(), &[n, h, w, 1], DType::F32, &maps)
            })?;
        }
        if last || !keeps {
            self.layers.clear();
        }
        Ok(())
    }
}

/// `softmax(q k^T / sqrt(D) + bias)`, mean over the heads: `(N, T, T)`, a row per query.
///
/// | arg | shape | |
/// |---|---|---|
/// | `qkv` | `(N, H, W, 3 * heads * D)` | as [`crate::ops::attention::self_attention`] takes it, T = H * W |
/// | `positions` | for these heads on H x W | |
///
/// # Errors
/// [`Error::Shape`] when shapes disagree; what the device reports.
pub fn weights(device: &Device, qkv: &Tensor, heads: usize, positions: &Positions) -> Result<Vec<f32>> {
    let [n, h, w, c] = qkv.dims4("attention weights")?;
    let tokens = h * w;
    if heads == 0 || !c.is_multiple_of(3 * heads) {
        return Err(Error::shape("attention weights", "channels", format!("a multiple of 3 x {heads} heads"), c));
    }
    if positions.heads() != heads || positions.map() != [h, w] {
        let found = format!("{} heads on {:?}", positions.heads(), positions.map());
        return Err(Error::shape("attention weights", "positions", format!("{heads} heads on {:?}", [h, w]), found));
    }
    let (d, qkv, bias) = (c / (3 * heads), qkv.to_f32(device)?, positions.expanded(device)?);
    let scale = 1.0 / (d as f32).sqrt();
    let mut all = vec![0f32; n * tokens * tokens];
    if all.is_empty() {
        return Ok(all);
    }
    for (x, plane) in qkv.chunks_exact(tokens * c).zip(all.chunks_exact_mut(tokens * tokens)) {
        // Keys across, so that a query's scores are sums of rows.
        let mut keys = vec![0f32; heads * d * tokens];
        for (at, row) in keys.chunks_exact_mut(tokens).enumerate() {
            let from = at / d * 3 * d + d + at % d;
            row.iter_mut().enumerate().for_each(|(k, value)| *value = x[k * c + from]);
        }
        plane.par_chunks_exact_mut(tokens).enumerate().for_each(|(q, row)| {
            let (mut scores, mut mean) = (vec![0f32; tokens], vec![0f64; tokens]);
            for head in 0..heads {
                scores.fill(0.0);
                let query = &x[q * c + head * 3 * d..][..d];
                for (value, keys) in query.iter().zip(keys[head * d * tokens..].chunks_exact(tokens)) {
                    scores.iter_mut().zip(keys).for_each(|(score, key)| *score += value * key);
                }
                let bias = &bias[(head * tokens + q) * tokens..][..tokens];
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score = *score * scale + bias);
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|score| *score = (*score - most).exp());
                let total: f64 = scores.iter().map(|&p| f64::from(p)).sum();
                let share = 1.0 / (total * heads as f64);
                mean.iter_mut().zip(&scores).for_each(|(mean, &p)| *mean += f64::from(p) * share);
            }
            row.iter_mut().zip(&mean).for_each(|(value, &mean)| *value = mean as f32);
        });
    }
    Ok(all)
}

/// How much of every token of its input a stage's output holds, in the mean over the output's tokens, when each block passes on
/// half of what it attends to and half of what it got: the mean row of `A'_L .. A'_1`, `A' = (A + I) / 2` with rows that sum to 1.
///
/// `layers` are `(T, T)` at least, the first block first.
pub fn rollout<'a>(layers: impl DoubleEndedIterator<Item = &'a [f32]>, tokens: usize) -> Vec<f32> {
    let mut mean = vec![1.0 / tokens as f64; tokens];
    // From the output to the input, a row times a matrix at a time.
    for layer in layers.rev() {
        let mut next = vec![0f64; tokens];
        for (query, (row, share)) in layer.chunks_exact(tokens).zip(&mean).enumerate() {
            let total = 1.0 + row.iter().map(|&a| f64::from(a)).sum::<f64>();
            let share = share / total;
            next.iter_mut().zip(row).for_each(|(next, &a)| *next += share * f64::from(a));
            next[query] += share;
        }
        mean = next;
    }
    mean.into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::models::weights::uniform;
    use crate::ops::attention::self_attention;
    use crate::tape::Precision;

    const SHAPE: [usize; 4] = [2, 3, 4, 24];

    /// qkv of `SHAPE`, and positions for `heads`.
    fn operands(device: &Device, heads: usize) -> (Tensor, Arc<Positions>) {
        let random = |name: &str, n: usize| uniform(name, n).map(|v| 3.0 * v).collect::<Vec<f32>>();
        let qkv = Tensor::from_f32(device, &SHAPE, DType::F32, &random("qkv", SHAPE.iter().product())).unwrap();
        let positions = Positions::new(device, heads, [3, 4], &random("table", heads * 5 * 7)).unwrap();
        (qkv, Arc::new(positions))
    }

    #[test]
    fn rows_are_means_of_softmaxes() {
        let device = Device::host().unwrap();
        let (qkv, positions) = operands(&device, 2);
        let all = weights(&device, &qkv, 2, &positions).unwrap();
        assert_eq!(all.len(), 2 * 12 * 12);
        for row in all.chunks_exact(12) {
            let total: f64 = row.iter().map(|&p| f64::from(p)).sum();
            assert!((total - 1.0).abs() < 1e-6 && row.iter().all(|&p| p > 0.0), "{row:?}");
        }
        assert!(all.iter().any(|&p| p > 0.3), "the attention of a test should not be uniform");
        let error = weights(&device, &qkv, 3, &positions).unwrap_err().to_string();
        assert!(error.contains("multiple of 3 x 3 heads"), "{error}");
        let error = weights(&device, &qkv, 1, &positions).unwrap_err().to_string();
        assert!(error.contains("1 heads on [3, 4]"), "{error}");
    }

    /// With one head the mean is that head, and its weights times the values are what the kernel computes.
    #[test]
    fn weights_are_those_of_the_fused_kernel() {
        let device = Device::host().unwrap();
        let (qkv, positions) = operands(&device, 1);
        let y = self_attention(&Graph::inference(&device, Precision::F32), &qkv, 1, Some(&positions)).unwrap();
        let (y, x) = (y.to_f32(&device).unwrap(), qkv.to_f32(&device).unwrap());
        let all = weights(&device, &qkv, 1, &positions).unwrap();
        for (at, got) in y.iter().enumerate() {
            let (image, query, c) = (at / (12 * 8), at / 8 % 12, at % 8);
            let row = &all[(image * 12 + query) * 12..][..12];
            let want: f32 = row.iter().enumerate().map(|(k, p)| p * x[(image * 12 + k) * 24 + 16 + c]).sum();
            assert!((got - want).abs() < 1e-5, "value {at}: got {got}, want {want}");
        }
    }

    #[test]
    fn attention_to_oneself_spreads_nothing() {
        let identity: Vec<f32> = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(rollout([identity.as_slice(); 3].into_iter(), 5), [0.2; 5]);
        // All on token 1: after one block it holds half of everything beside its own share.
        let second: Vec<f32> = (0..25).map(|i| if i % 5 == 1 { 1.0 } else { 0.0 }).collect();
        let map = rollout([second.as_slice()].into_iter(), 5);
        let want = [0.1, 0.6, 0.1, 0.1, 0.1];
        assert!(map.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-7), "{map:?}");
    }

    /// `A'_2 A'_1` by hand; the other order gives [0.375, 0.625].
    #[test]
    fn blocks_are_multiplied_from_the_last_to_the_first() {
        let (first, second) = ([1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(rollout([&first[..], &second[..]].into_iter(), 2), [0.625, 0.375]);
    }
}
