//! What the layers of a classifier make of one image in several states: clean, attacked, denoised.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::attack::Oracle as _;
use crate::draw::heat;
use crate::models::classifier::Classifier;
use crate::number::or_nan;
use crate::tensor::Tensor;

/// What the colours of a grid mean, for people.
pub const CAPTION: &str = "viridis, one scale for all pictures of a row, with its ends below; gates run from 0 (nothing passes) to 1, rolled-out attention \
                           sums to 1; the latter and spatial gates lie over the image";

/// Rows are modules, columns the states of the image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// One module; the colour scale is shared by all columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub module: String,
    pub what: String,
    /// As the network computes it, without the batch: `32x32x64`.
    pub shape: String,
    #[serde(deserialize_with = "or_nan")]
    pub lo: f32,
    #[serde(deserialize_with = "or_nan")]
    pub hi: f32,
    /// What the colours stand for.
    #[serde(default)]
    pub scale: String,
    /// Whether the pictures are rows of single values.
    pub strip: bool,
    pub cells: Vec<Cell>,
}

/// A picture as data URI, and how far the map moved: `|f(x') - f(x)| / |f(x)|` over all its values, in L2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub picture: String,
    #[serde(deserialize_with = "or_nan")]
    pub shift: f64,
}

/// The maps of `modules` for the states of one image, `(H, W, C)` in [0, 1] each, the first of which is the reference.
///
/// # Errors
/// [`crate::Error::Usage`] for a module that the network does not have; what its ops return.
pub fn grid(net: &Classifier, modules: &[String], states: &[(String, Vec<f32>)], size: [usize; 2]) -> Result<Grid> {
    let columns: Vec<String> = states.iter().map(|(name, _)| name.clone()).collect();
    let pixels: Vec<f32> = states.iter().flat_map(|(_, pixels)| pixels).copied().collect();
    let device = crate::attack::Oracle::device(net);
    let [.., channels] = net.image_shape();
    let shape = [states.len(), size[0], size[1], channels];
    let images = Tensor::from_f32(device, &shape, crate::device::DType::F32, &pixels)?;
    let mut rows = Vec::new();
    for (module, t) in modules.iter().zip(net.probe(&images, modules)?) {
        let values = t.to_f32(device)?;
        rows.push(row(module, &values, &t.shape()[1..], states, size)?);
    }
    Ok(Grid { columns, rows })
}

/// The modules to look at when none are named: the stages, and the maps of their attention.
pub fn modules(net: &Classifier) -> Vec<String> {
    net.net().stages().into_iter().chain(net.net().attention_maps()).collect()
}

fn row(module: &str, values: &[f32], shape: &[usize], states: &[(String, Vec<f32>)], size: [usize; 2]) -> Result<Row> {
    let each = values.len() / states.len().max(1);
    let reference = &values[..each];
    let length = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let norm = length(&mut reference.iter().copied()).max(f64::MIN_POSITIVE);
    let shift = |v: &[f32]| length(&mut v.iter().zip(reference).map(|(a, b)| a - b)) / norm;

    let gate = module.ends_with("_gate");
    let rollout = module.ends_with(".attention_rollout");
    let overlaid = shape.len() == 3 && (gate || rollout);
    let (what, map_size): (&str, [usize; 2]) = match *shape {
        [h, w, _] if rollout => ("attention rolled out over the stage's blocks, mean over its queries", [h, w]),
        [queries, keys] => ("attention of each query (row) to each key (column), mean over heads", [queries, keys]),
        [h, w, 1] if gate => ("gate over the image", [h, w]),
        [h, w, _] => ("mean over channels of the absolute value", [h, w]),
        _ if gate => ("gate per channel, in the order of the clean image", [1, each]),
        _ => ("values, in the order of the clean image", [1, each]),
    };
    let scale = match *shape {
        _ if gate => "gate",
        _ if rollout => "attention",
        [_, _] => "attention",
        [_, _, _] => "mean |value|",
        _ => "value",
    };
    let mut order: Vec<usize> = (0..each).collect();
    order.sort_by(|&a, &b| reference[b].total_cmp(&reference[a]));
    let maps: Vec<Vec<f32>> = values
        .chunks_exact(each.max(1))
        .map(|v| match shape {
            [_, _] => v.to_vec(),
            [_, _, c] => v.chunks_exact(*c).map(|p| p.iter().map(|x| x.abs()).sum::<f32>() / *c as f32).collect(),
            _ => order.iter().map(|&i| v[i]).collect(),
        })
        .collect();
    let all = || maps.iter().flatten().copied();
    let (lo, hi) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
    let cells = maps.iter().zip(states).zip(values.chunks_exact(each.max(1))).map(|((map, (_, image)), v)| {
        let picture = match overlaid {
            true => {
                let (small, at) = heat::thumbnail(image, size, 128);
                heat::data_uri(&heat::overlay(&small, at, map, map_size, (lo, hi)), at)?
            }
            false => heat::data_uri(&heat::colours(map, (lo, hi)), map_size)?,
        };
        Ok(Cell { picture, shift: shift(v) })
    });
    Ok(Row {
        module: module.into(),
        what: what.into(),
        shape: shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
        lo,
        hi,
        scale: scale.into(),
        strip: shape.len() < 2,
        cells: cells.collect::<Result<_>>()?,
    })
}
