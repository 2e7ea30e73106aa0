//! Where an attack begins: at the clean image, at a random point near it, or where a file says.

use std::collections::HashMap;
use std::f64::consts::TAU;
use std::path::Path;
use std::sync::Arc;

use statrs::function::gamma::gamma_lr;

use super::spec::Spec;
use crate::data::tensors::TensorFile;
use crate::device::{DType, Device};
use crate::ops::pgd::{self, Norm, Profile};
use crate::ops::philox::{self, Purpose, Stream};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What a file of starts holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartKind {
    /// The first iterates themselves, in `[0, 1]` and within the budget.
    Clipped,
    /// The random numbers from which this profile makes them: uniforms in `[0, 1)`, for L2 standard normals (cleverhans:
    /// uniforms there, too), with extra numbers per image ([`Starts::extras`]).
    Draw(Profile),
}

/// Starts by image id and restart, to repeat another library's run.
///
/// A file is safetensors with `start`, float32, `(N, C, H, W)` or `(restarts, N, C, H, W)`; optional integer `ids` (N), else
/// 0, 1, ..; for raw draws that need it `extra`, `(N, k)` or `(restarts, N, k)`. Metadata: `kind` is `clipped` (the default) or
/// `draw`, then `profile` says whose; `layout` may be `NHWC`.
#[derive(Clone, Debug)]
pub struct Starts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: StartKind,
    restarts: usize,
    rows: HashMap<u64, usize>,
    /// H, W, C
    shape: [usize; 3],
    /// (restarts, N, H, W, C)
    values: Vec<f32>,
    /// (restarts, N, extras)
    extra: Vec<f32>,
    extras: usize,
}

impl Starts {
    /// How many numbers per image a raw draw has beside those of the pixels: the uniform that becomes the radius (native,
    /// torchattacks), two more normals (foolbox).
    pub fn extras(norm: Norm, profile: Profile) -> usize {
        match (norm, profile) {
            (Norm::L2, Profile::Native | Profile::Torchattacks) => 1,
            (Norm::L2, Profile::Foolbox) => 2,
            _ => 0,
        }
    }

    /// Starts `(restarts, N, H, W, C)` for the images `ids`, with `extra` `(restarts, N, k)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths disagree, an id comes twice, or a number is not finite.
    pub fn new(
        kind: StartKind,
        restarts: usize,
        ids: &[u64],
        shape: [usize; 3],
        values: Vec<f32>,
        extra: Vec<f32>,
    ) -> Result<Self> {
        let rows: HashMap<u64, usize> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        if rows.len() != ids.len() {
            return Err(Error::shape(
                "starts",
                "image ids",
                "each once",
                format!("{} of {} different", rows.len(), ids.len()),
            ));
        }
        let expected = restarts * ids.len() * shape.iter().product::<usize>();
        if values.len() != expected || expected == 0 {
            return Err(Error::shape(
                "starts",
                "values",
                format!("{restarts} x {} x {shape:?}", ids.len()),
                values.len(),
            ));
        }
        let extras = extra.len() / (restarts * ids.len());
        if !extra.len().is_multiple_of(restarts * ids.len()) {
            return Err(Error::shape(
                "starts",
                "extra numbers",
                format!("a multiple of {restarts} x {}", ids.len()),
                extra.len(),
            ));
        }
        if let Some(bad) = values.iter().chain(&extra).find(|v| !v.is_finite()) {
            return Err(Error::shape("starts", "values", "finite numbers", bad));
        }
        Ok(Starts(Arc::new(Inner { kind, restarts, rows, shape, values, extra, extras })))
    }

    /// Reads a file of starts.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::File`] and [`Error::Tensor`] when it is not what the type's docs say.
    pub fn load(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path).map_err(|e| match e {
            Error::File { problem, .. } => {
                let found = problem.split_once("found ").map_or(&*problem, |(_, found)| found);
                let found = found.split("; ").next().unwrap_or(found);
                Error::file(
                    path,
                    format!("attack.starts: expected a safetensors file with a tensor `start`, found {found}"),
                )
            }
            other => other,
        })?;
        let metadata = file.metadata().cloned().unwrap_or_default();
        let word = |key: &str| metadata.get(key).map(String::as_str);

        let kind = match (word("kind").unwrap_or("clipped"), word("profile")) {
            ("clipped", _) => StartKind::Clipped,
            ("draw", Some(profile)) => {
                let known = serde_json::from_value(profile.into());
                StartKind::Draw(known.map_err(|e| Error::file(path, format!("metadata `profile`: {e}")))?)
            }
            ("draw", None) => return Err(Error::file(path, "metadata `profile` is missing; a raw draw needs it")),
            (other, _) => {
                return Err(Error::file(path, format!("metadata `kind`: expected clipped or draw, found `{other}`")));
            }
        };
        let channels_last = match word("layout").unwrap_or("NCHW") {
            "NCHW" => false,
            "NHWC" => true,
            other => {
                return Err(Error::file(path, format!("metadata `layout`: expected NCHW or NHWC, found `{other}`")));
            }
        };

        let floats = |name: &str| -> Result<Option<(Vec<usize>, Vec<f32>)>> {
            let Some(view) = file.get(name) else { return Ok(None) };
            let values = view.floats().map_err(|problem| Error::tensor(path, name, problem))?;
            Ok(Some((view.shape.to_vec(), values)))
        };
        let (dims, values) = floats("start")?.ok_or_else(|| {
            let found: Vec<String> = file.names().into_iter().take(8).collect();
            let problem = format!(
                "attack.starts: expected a tensor `start`, found {}",
                if found.is_empty() { "none".into() } else { found.join(", ") }
            );
            Error::file(path, problem)
        })?;
        let (restarts, n, rest) = match dims[..] {
            [n, a, b, c] => (1, n, [a, b, c]),
            [r, n, a, b, c] => (r, n, [a, b, c]),
            _ => {
                return Err(Error::tensor(
                    path,
                    "start",
                    format!("expected (N, C, H, W) or (restarts, N, C, H, W), found {dims:?}"),
                ));
            }
        };
        let (shape, values) =
            if channels_last { (rest, values) } else { ([rest[1], rest[2], rest[0]], channels_last_of(&values, rest)) };
        let extra = floats("extra")?.map_or(vec![], |(_, values)| values);
        let ids: Vec<u64> = match file.get("ids") {
            None => (0..n as u64).collect(),
            Some(view) => {
                let bad = |problem: String| Error::tensor(path, "ids", problem);
                if view.shape != [n] {
                    return Err(bad(format!("expected {n} ids, found shape {:?}", view.shape)));
                }
                let id = |v: i64| u64::try_from(v).map_err(|_| bad(format!("expected at least 0, found {v}")));
                view.integers().map_err(bad)?.into_iter().map(id).collect::<Result<_>>()?
            }
        };
        Self::new(kind, restarts, &ids, shape, values, extra).map_err(|e| Error::file(path, e.to_string()))
    }

    /// Starts per image.
    pub fn restarts(&self) -> usize {
        self.0.restarts
    }

    /// Starts and extra numbers of some images.
    fn pick(&self, restart: usize, ids: &[u64], shape: &[usize]) -> Result<(Vec<f32>, Vec<&[f32]>)> {
        let s = &*self.0;
        if shape != s.shape {
            return Err(Error::shape("starts", "image", format!("{shape:?}"), format!("{:?}", s.shape)));
        }
        let d: usize = shape.iter().product();
        let (mut values, mut extra) = (Vec::with_capacity(ids.len() * d), Vec::with_capacity(ids.len()));
        for id in ids {
            let row =
                s.rows.get(id).ok_or_else(|| Error::usage("attack.starts", format!("no start for image {id}")))?;
            let at = restart * s.rows.len() + row;
            values.extend_from_slice(&s.values[at * d..][..d]);
            extra.push(&s.extra[at * s.extras..][..s.extras]);
        }
        Ok((values, extra))
    }
}

/// `(.., C, H, W)` to `(.., H, W, C)`.
fn channels_last_of(values: &[f32], [c, h, w]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact((c * h * w).max(1)) {
        out.extend((0..h * w).flat_map(|p| (0..c).map(move |k| image[k * h * w + p])));
    }
    out
}

impl Starts {
    /// The first iterates of images `x0`, `(n, H, W, C)`, with these ids.
    ///
    /// # Errors
    /// [`Error::Usage`] when one is missing or outside the budget, [`Error::Shape`] when they are of other images.
    pub(super) fn points(
        &self,
        device: &Device,
        x0: &Tensor,
        ids: &[u64],
        (norm, eps): (Norm, f64),
        restart: u32,
    ) -> Result<Tensor> {
        let dims = &x0.shape()[1..];
        let d: usize = dims.iter().product();
        let (values, extra) = self.pick(restart as usize, ids, dims)?;
        let given = Tensor::from_f32(device, x0.shape(), DType::F32, &values)?;
        match self.0.kind {
            StartKind::Clipped => {
                let budgets = pgd::budget(device, &given, x0)?;
                match budgets.iter().zip(ids).find(|(b, _)| b.violates(norm, eps)) {
                    Some((b, id)) => {
                        let size = format!("linf {}, l2 {}, values {} to {}", b.linf, b.l2, b.low, b.high);
                        let problem = format!("the start of image {id} is outside the budget {eps} or [0, 1]: {size}");
                        Err(Error::usage("attack.starts", problem))
                    }
                    None => Ok(given),
                }
            }
            StartKind::Draw(profile) => {
                let expected = Starts::extras(norm, profile);
                if self.0.extras != expected {
                    return Err(Error::shape("starts", "extra numbers per image", expected, self.0.extras));
                }
                let shape = |(draw, e): (&[f32], &[f32])| {
                    let e = |k: usize| f64::from(e.get(k).copied().unwrap_or(0.0));
                    shape_of(norm, profile, eps, d, draw, [e(0), e(1)])
                };
                let extra: Vec<[f32; 2]> = values.chunks_exact(d).zip(extra).map(shape).collect();
                pgd::start(device, x0, &given, &extra, norm, profile, eps)
            }
        }
    }
}

/// Points drawn at random within `eps` of images `x0`, `(n, H, W, C)`, in the profile's own way; the draws are keyed by the seed, the ids
/// and a number.
pub(super) fn random(
    device: &Device,
    x0: &Tensor,
    ids: &[u64],
    spec: &Spec,
    eps: f64,
    (seed, restart): (u64, u32),
) -> Result<Tensor> {
    let (norm, dims) = (spec.norm, &x0.shape()[1..]);
    let d: usize = dims.iter().product();
    let profile = spec.profile;
    let stream = Stream { restart, ..Stream::new(seed, Purpose::Start) };
    let draw = match pgd::draws_normals(norm, profile) {
        true => philox::normal(device, &stream, ids, dims)?,
        false => philox::uniform(device, &stream, ids, dims)?,
    };
    // Only ART's factor depends on the draw itself.
    let host = if norm == Norm::L2 && profile == Profile::Art { draw.to_f32(device)? } else { vec![] };
    let second = Stream { draw: 1, ..stream };
    let mut extra = Vec::with_capacity(ids.len());
    for (i, &id) in ids.iter().enumerate() {
        let [a, b, ..] = second.words(id, 0)?;
        let own = match profile {
            Profile::Foolbox => {
                let radius = (-2.0 * ((f64::from(a) + 0.5) / 2f64.powi(32)).ln()).sqrt();
                let angle = TAU * f64::from(b) / 2f64.powi(32);
                [radius * angle.cos(), radius * angle.sin()]
            }
            _ => [philox::to_uniform(a).into(), 0.0],
        };
        extra.push(shape_of(norm, profile, eps, d, host.get(i * d..(i + 1) * d).unwrap_or(&[]), own));
    }
    pgd::start(device, x0, &draw, &extra, norm, profile, eps)
}

/// What the kernel takes per image beside the draw: see `kernels/pgd.cu` at `pgd_start`. In float64, once per image.
fn shape_of(norm: Norm, profile: Profile, eps: f64, d: usize, draw: &[f32], own: [f64; 2]) -> [f32; 2] {
    match (norm, profile) {
        (Norm::L2, Profile::Native) => [own[0].powf(1.0 / d as f64) as f32, 0.0],
        (Norm::L2, Profile::Art) => {
            // Uniform in the ball: the radius is the share of the ball that a chi-squared variable of d degrees falls into.
            let square: f64 = draw.iter().map(|&v| f64::from(v).powi(2)).sum();
            if square == 0.0 {
                return [0.0; 2];
            }
            let d = d as f64;
            let factor = gamma_lr(d / 2.0, square / 2.0).powf(1.0 / d) * eps / square.sqrt();
            [factor as f32, (factor - f64::from(factor as f32)) as f32]
        }
        _ => [own[0] as f32, own[1] as f32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arts_radius_holds_at_the_size_of_imagenet() {
        let (device, d) = (Device::host().unwrap(), 224 * 224 * 3);
        let ids: Vec<u64> = (0..8).collect();
        let draws =
            philox::normal(&device, &Stream::new(0, Purpose::Start), &ids, &[d]).unwrap().to_f32(&device).unwrap();
        let mut shares: Vec<f64> = Vec::new();
        for draw in draws.chunks_exact(d) {
            let [high, low] = shape_of(Norm::L2, Profile::Art, 2.0, d, draw, [0.0; 2]);
            let radius =
                (f64::from(high) + f64::from(low)) * draw.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            shares.push((radius / 2.0).powi(d as i32));
        }
        // Uniform in [0, 1]: eight draws hardly ever miss a half.
        assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)), "{shares:?}");
        assert!(shares.iter().any(|&s| s < 0.5) && shares.iter().any(|&s| s > 0.5), "{shares:?}");
    }
}
