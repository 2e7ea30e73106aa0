//! The run's own classifier under another head, with a weakness that is known: what an attack is tried on.

use std::collections::HashMap;

use super::classifier::{Classifier, Posed};
use crate::Result;
use crate::attack::{self, Evaluation, Oracle, Query};
use crate::device::{DType, Device};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// Logits made of a network's, linear in them and in the images, for each image by its id.
pub trait Head: Sync {
    /// How many there are, of a network with `classes`.
    fn classes(&self, classes: usize) -> usize;

    /// `(N, classes)` from logits `(N, K)` and the values of N images.
    fn forward(&self, ids: &[u64], images: &[f32], logits: &[f32]) -> Vec<f32>;

    /// The gradient with respect to the network's logits, and to the images where they are read, from that with respect to the head's.
    fn backward(&self, ids: &[u64], d: &[f32], classes: usize) -> (Vec<f32>, Option<Vec<f32>>);
}

/// A linear path around the network: the logit of one class rises along one direction.
#[derive(Debug, Default)]
pub struct Bypass {
    paths: HashMap<u64, Path>,
}

#[derive(Debug)]
struct Path {
    to: usize,
    from: Vec<f32>,
    along: Vec<f32>,
    gain: f64,
}

impl Bypass {
    /// From the image `from` on, the logit of class `to` rises by `gain` over the length of `along`.
    pub fn add(&mut self, id: u64, to: usize, from: &[f32], along: &[f32], gain: f64) {
        self.paths.insert(id, Path { to, from: from.to_vec(), along: along.to_vec(), gain });
    }
}

impl Path {
    /// The rise per unit along the direction.
    fn slope(&self) -> f64 {
        let square: f64 = self.along.iter().map(|&v| f64::from(v).powi(2)).sum();
        if square > 0.0 { self.gain / square } else { 0.0 }
    }
}

impl Head for Bypass {
    fn classes(&self, classes: usize) -> usize {
        classes
    }

    fn forward(&self, ids: &[u64], images: &[f32], logits: &[f32]) -> Vec<f32> {
        let (mut out, n) = (logits.to_vec(), ids.len().max(1));
        let (len, classes) = (images.len() / n, logits.len() / n);
        for (i, path) in ids.iter().enumerate().filter_map(|(i, id)| Some((i, self.paths.get(id)?))) {
            let moved = images[i * len..(i + 1) * len].iter().zip(&path.from).zip(&path.along);
            let way: f64 = moved.map(|((x, from), along)| (f64::from(*x) - f64::from(*from)) * f64::from(*along)).sum();
            out[i * classes + path.to] += (path.slope() * way) as f32;
        }
        out
    }

    fn backward(&self, ids: &[u64], d: &[f32], classes: usize) -> (Vec<f32>, Option<Vec<f32>>) {
        let len = self.paths.values().next().map_or(0, |path| path.along.len());
        let mut images = vec![0.0; ids.len() * len];
        for (i, path) in ids.iter().enumerate().filter_map(|(i, id)| Some((i, self.paths.get(id)?))) {
            let slope = path.slope() * f64::from(d[i * classes + path.to]);
            let own = images[i * len..(i + 1) * len].iter_mut().zip(&path.along);
            own.for_each(|(g, along)| *g = (slope * f64::from(*along)) as f32);
        }
        (d.to_vec(), Some(images))
    }
}

/// A readout of two classes: the second one of a point that is known, the first of others.
#[derive(Debug, Default)]
pub struct Binary {
    /// Weights and offset.
    readouts: HashMap<u64, (Vec<f64>, f64)>,
}

/// Logits apart at the points that a readout is made of: far from saturation.
const APART: f64 = 4.0;

impl Binary {
    /// The smallest weights that tell the logits `beyond` from all of `within`: of class 1 the first, of class 0 the others. Where no
    /// weights do, everything is of class 0.
    pub fn add(&mut self, id: u64, beyond: &[f64], within: &[Vec<f64>]) {
        let rows: Vec<Vec<f64>> =
            within.iter().map(|z| beyond.iter().zip(z).map(|(a, b)| a - b).collect::<Vec<f64>>()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let gram: Vec<Vec<f64>> = rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
        let mut weights = vec![0.0; beyond.len()];
        for (c, row) in solve(gram).into_iter().flatten().zip(&rows) {
            weights.iter_mut().zip(row).for_each(|(w, v)| *w += APART * c * v);
        }
        let offset = dot(&weights, beyond) - APART / 2.0;
        let offset = if weights.iter().all(|w| *w == 0.0) { APART } else { offset };
        self.readouts.insert(id, (weights, offset));
    }
}

/// The solution of a symmetric positive system whose right side is all ones, slightly damped; `None` where it has none in numbers.
fn solve(mut matrix: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = matrix.len();
    let trace: f64 = (0..n).map(|i| matrix[i][i]).sum();
    if !(trace > 0.0 && trace.is_finite()) {
        return None;
    }
    let mut right = vec![1.0; n];
    (0..n).for_each(|i| matrix[i][i] += 1e-9 * trace / n as f64);
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| matrix[a][i].abs().total_cmp(&matrix[b][i].abs()))?;
        matrix.swap(i, pivot);
        right.swap(i, pivot);
        for row in i + 1..n {
            let factor = matrix[row][i] / matrix[i][i];
            let above = matrix[i].clone();
            matrix[row].iter_mut().zip(&above).skip(i).for_each(|(value, above)| *value -= factor * above);
            right[row] -= factor * right[i];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| matrix[i][j] * right[j]).sum();
        right[i] = (right[i] - known) / matrix[i][i];
    }
    right.iter().all(|v| v.is_finite()).then_some(right)
}

impl Head for Binary {
    fn classes(&self, _: usize) -> usize {
        2
    }

    fn forward(&self, ids: &[u64], _: &[f32], logits: &[f32]) -> Vec<f32> {
        let classes = logits.len() / ids.len().max(1);
        let of = |(i, id): (usize, &u64)| {
            let Some((weights, offset)) = self.readouts.get(id) else { return [0.0, 0.0] };
            let z = &logits[i * classes..(i + 1) * classes];
            let value = weights.iter().zip(z).map(|(w, &z)| w * f64::from(z)).sum::<f64>() - offset;
            [(-value / 2.0) as f32, (value / 2.0) as f32]
        };
        ids.iter().enumerate().flat_map(of).collect()
    }

    fn backward(&self, ids: &[u64], d: &[f32], classes: usize) -> (Vec<f32>, Option<Vec<f32>>) {
        let of = |(i, id): (usize, &u64)| -> Vec<f32> {
            let Some((weights, _)) = self.readouts.get(id) else { return vec![0.0; classes] };
            let slope = (f64::from(d[2 * i + 1]) - f64::from(d[2 * i])) / 2.0;
            weights.iter().map(|w| (slope * w) as f32).collect()
        };
        (ids.iter().enumerate().flat_map(of).collect(), None)
    }
}

/// A classifier under a head.
pub struct Headed<'a> {
    net: &'a Classifier,
    head: &'a dyn Head,
}

impl<'a> Headed<'a> {
    pub fn new(net: &'a Classifier, head: &'a dyn Head) -> Self {
        Headed { net, head }
    }

    fn headed(&self, ids: &[u64], images: &Tensor, logits: &Tensor) -> Result<Tensor> {
        let device = self.net.device();
        let values = self.head.forward(ids, &images.to_f32(device)?, &logits.to_f32(device)?);
        Tensor::from_f32(device, &[ids.len(), self.classes()], DType::F32, &values)
    }

    fn step(&self, images: &Tensor, query: &Query, gradient: bool) -> Result<Evaluation> {
        let (device, classes) = (self.net.device(), self.net.classes());
        let paths = std::sync::Mutex::new(vec![None; images.shape().first().copied().unwrap_or(0)]);
        let mut all = self.net.pass(images, gradient, |range, x, logits| {
            let part = Query {
                labels: &query.labels[range.clone()],
                targets: query.targets.map(|targets| &targets[range.clone()]),
                ids: &query.ids[range.clone()],
                ..*query
            };
            let own = self.headed(part.ids, x, logits)?;
            let posed = Posed::new(device, &part, self.classes())?;
            let out = self.net.losses(&Graph::inference(device, Precision::F32), &own, &posed)?;
            let (d, around) = self.head.backward(part.ids, &out.dlogits.to_f32(device)?, classes);
            if let Some(around) = around {
                let len = around.len() / part.ids.len().max(1);
                let mut paths = paths.lock().expect("no panic while locked");
                around.chunks_exact(len.max(1)).zip(range).for_each(|(g, i)| paths[i] = Some(g.to_vec()));
            }
            let d = Tensor::from_f32(device, logits.shape(), logits.dtype(), &d)?;
            Ok((out, d))
        })?;
        let paths = paths.into_inner().expect("no panic while locked");
        if let Some(through) = all.gradient.as_ref().filter(|_| paths.iter().all(Option::is_some)) {
            let mut values = through.to_f32(device)?;
            values.iter_mut().zip(paths.iter().flatten().flatten()).for_each(|(g, around)| *g += around);
            all.gradient = Some(Tensor::from_f32(device, through.shape(), DType::F32, &values)?);
        }
        Ok(all)
    }
}

impl Oracle for Headed<'_> {
    fn device(&self) -> &Device {
        self.net.device()
    }

    fn classes(&self) -> usize {
        self.head.classes(self.net.classes())
    }

    fn image_shape(&self) -> [usize; 3] {
        self.net.image_shape()
    }

    /// Without the ids of the images: as if none had a weakness.
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let n = images.shape().first().copied().unwrap_or(0);
        self.headed(&vec![u64::MAX; n], images, &self.net.logits(images)?)
    }

    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.step(images, query, false)
    }
}

impl attack::Classifier for Headed<'_> {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.step(images, query, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_where_it_was_laid() {
        let mut bypass = Bypass::default();
        bypass.add(7, 1, &[0.5, 0.5], &[0.1, -0.1], 6.0);
        let logits = [2.0, 1.0, 0.0];
        assert_eq!(bypass.forward(&[7], &[0.5, 0.5], &logits), logits);
        assert!((bypass.forward(&[7], &[0.6, 0.4], &logits)[1] - 7.0).abs() < 1e-5);
        assert_eq!(bypass.forward(&[8], &[0.6, 0.4], &logits), logits);
        let (dz, dx) = bypass.backward(&[7], &[0.0, 2.0, 0.0], 3);
        assert_eq!(dz, [0.0, 2.0, 0.0]);
        // Twice 6 over a way of length 0.1414, in its direction.
        let dx = dx.unwrap();
        assert!((dx[0] - 60.0).abs() < 1e-3 && (dx[1] + 60.0).abs() < 1e-3, "{dx:?}");
    }

    #[test]
    fn a_readout_tells_one_point_from_the_others() {
        let mut head = Binary::default();
        let within = vec![vec![1.0, 0.0, 0.0], vec![1.0, 0.1, 0.0], vec![0.9, 0.0, 0.1]];
        let beyond = [1.1, 0.1, 0.1];
        head.add(3, &beyond, &within);
        let of = |z: &[f64]| {
            let z: Vec<f32> = z.iter().map(|&v| v as f32).collect();
            let out = head.forward(&[3], &[], &z);
            out[1] - out[0]
        };
        assert!((of(&beyond) - 2.0).abs() < 1e-3);
        within.iter().for_each(|z| assert!((of(z) + 2.0).abs() < 1e-3, "{}", of(z)));
        let (dz, dx) = head.backward(&[3], &[-0.5, 0.5], 3);
        let step = 1e-3;
        for (k, &d) in dz.iter().enumerate() {
            let mut moved = beyond;
            moved[k] += step;
            assert!((f64::from(d) - f64::from(of(&moved) - of(&beyond)) / step / 2.0).abs() < 0.05, "{k}");
        }
        assert!(dx.is_none());
        // Points that do not differ cannot be told apart.
        head.add(4, &beyond, &[beyond.to_vec()]);
        let same: Vec<f32> = beyond.iter().map(|&v| v as f32).collect();
        let out = head.forward(&[4], &[], &same);
        assert!(out[0] > out[1], "{out:?}");
    }
}
