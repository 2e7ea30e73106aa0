//! 2-D convolution with bias, residual and activation: `kernels/conv.cu`; with one channel per group `depthwise.rs`, and what
//! `winograd.rs` does faster there.

use std::sync::{Arc, OnceLock};

use super::depthwise::Depthwise;
use super::epilogue::Epilogue;
use super::pointwise::Activation;
use super::weights::{Packed, Sequence};
pub use super::window::Window;
use super::winograd;
use crate::device::{
    CONV_BF16, CONV_BF16_SMALL, CONV_F32, CONV_F32_SMALL, CONV_TF32, CONV_TF32_SMALL, ConvArgs, DType, Device, Divisor,
    Kernel,
};
use crate::tape::{Graph, Precision, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A convolution's constants, packed for one device and precision; the input gradient's are packed when first asked for.
pub struct Conv2d {
    /// `(O)` float32
    bias: Option<Tensor>,
    forward: Form,
    backward: OnceLock<Vec<Phase>>,
    window: Window,
    /// O/G, C/G, R, S
    o: usize,
    c: usize,
    r: usize,
    s: usize,
    precision: Precision,
}

enum Form {
    Product(Packed),
    /// One channel per group.
    Depthwise(Depthwise),
}

/// The part of an input gradient that falls on every stride-th input point from `off` on: a convolution of dy with stride 1.
struct Phase {
    packed: Packed,
    off: [usize; 2],
    taps: [usize; 2],
    pad: [i64; 2],
    dilation: [usize; 2],
}

/// One launch of the kernel, forward or gradient.
pub(super) struct Launch<'a> {
    pub packed: &'a Packed,
    pub c: usize,
    pub taps: [usize; 2],
    pub stride: [usize; 2],
    pub pad: [i64; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    /// points computed, and where they go in y
    pub points: [usize; 2],
    pub step: [usize; 2],
    pub off: [usize; 2],
}

impl Conv2d {
    /// Packs weights `(O, C/G, R, S)` as PyTorch stores them, and a bias `(O)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `O` is not a multiple of the groups, a window is larger than 32, or lengths disagree.
    pub fn new(
        device: &Device,
        precision: Precision,
        weight: &[f32],
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: Window,
    ) -> Result<Self> {
        let ([out, c, r, s], groups) = (shape, window.groups);
        if groups == 0 || out % groups != 0 {
            return Err(Error::shape("conv2d", "output channels", format!("a multiple of {groups} groups"), out));
        }
        let taps = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
        if taps != Some(weight.len()) || weight.is_empty() {
            return Err(Error::shape("conv2d", "weights", format!("{shape:?}"), weight.len()));
        }
        if r > 32 || s > 32 {
            return Err(Error::shape("conv2d", "window", "1 to 32 taps a side", format!("{r}x{s}")));
        }
        window.check()?;
        if let Some(b) = bias.filter(|b| b.len() != out) {
            return Err(Error::shape("conv2d", "bias", out, b.len()));
        }
        let forward = if groups > 1 && c == 1 && out == groups {
            Form::Depthwise(Depthwise::new(device, weight, [out, r, s])?)
        } else {
            let mut channels_last = vec![0f32; weight.len()];
            for (oc, taps) in weight.chunks_exact(r * s).enumerate() {
                for (tap, &v) in taps.iter().enumerate() {
                    channels_last[(oc / c * r * s + tap) * c + oc % c] = v;
                }
            }
            let src = Tensor::from_f32(device, &[weight.len()], DType::F32, &channels_last)?;
            Form::Product(Packed::pack(device, precision, &src, [groups, out / groups, r * s, c])?)
        };
        let bias = bias.map(|b| Tensor::from_f32(device, &[out], DType::F32, b)).transpose()?;
        Ok(Conv2d { bias, forward, backward: OnceLock::new(), window, o: out / groups, c, r, s, precision })
    }

    /// The convolutions of dy that make up the input gradient, one per residue modulo the stride.
    ///
    /// dx[h] = sum over taps r with (h + pad - r*dil) divisible by the stride of dy[(h + pad - r*dil) / stride] * w[r].
    fn phases(&self, device: &Device, forward: &Packed) -> Result<&[Phase]> {
        if let Some(phases) = self.backward.get() {
            return Ok(phases);
        }
        let Window { stride, padding, dilation, .. } = self.window;
        // Along one axis: taps in ascending order of the dy they read, the dy index of the first at h = off, and the step.
        let axis = |axis: usize, taps: usize, off: usize| -> (Sequence, i64, usize) {
            let (st, di, pad) = (stride[axis] as i64, dilation[axis] as i64, padding[2 * axis] as i64);
            let at = |r: usize| off as i64 + pad - r as i64 * di;
            let mut hit: Vec<usize> = (0..taps).filter(|&r| at(r).rem_euclid(st) == 0).collect();
            hit.reverse();
            let first = hit.first().map_or(0, |&r| at(r).div_euclid(st));
            let step = hit.get(1).map_or(1, |&r| at(r).div_euclid(st) - first);
            let apart = hit.get(1).map_or(0, |&r| r as isize - hit[0] as isize);
            (Sequence { first: hit.first().copied().unwrap_or(0), step: apart, count: hit.len() }, first, step as usize)
        };
        let mut phases = Vec::new();
        for off_h in 0..stride[0] {
            for off_w in 0..stride[1] {
                let (rows, first_h, dil_h) = axis(0, self.r, off_h);
                let (cols, first_w, dil_w) = axis(1, self.s, off_w);
                let packed = device.aside(|| forward.turned(device, self.precision, self.s, [rows, cols]))?;
                let (taps, pad) = match rows.count * cols.count {
                    0 => ([0, 0], [0, 0]),
                    _ => ([rows.count, cols.count], [-first_h, -first_w]),
                };
                phases.push(Phase { packed, off: [off_h, off_w], taps, pad, dilation: [dil_h, dil_w] });
            }
        }
        Ok(self.backward.get_or_init(|| phases))
    }
}

/// `y = act(conv(x) + bias + residual)`.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | |
/// | `residual` | `(N, P, Q, O)` | optional, added before the activation |
/// | ret | `(N, P, Q, O)` | `P = (H + pads - dil*(R-1) - 1) / stride + 1`, `Q` alike |
///
/// With gradients on, a ReLU keeps one bit per output and the convolution nothing; other activations are applied apart.
///
/// # Errors
/// [`Error::Shape`] when channels disagree, the window does not fit, or the residual has another shape.
pub fn conv2d(g: &Graph, x: &Tensor, conv: &Arc<Conv2d>, residual: Option<&Tensor>, act: Activation) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("conv2d", x)?;
    let groups = conv.window.groups;
    if c != conv.c * groups {
        return Err(Error::shape("conv2d", "input channels", conv.c * groups, c));
    }
    let fits = || {
        Error::shape(
            "conv2d",
            "input",
            format!("at least the {}x{} window", conv.r, conv.s),
            format!("{h}x{w} before padding"),
        )
    };
    let p = conv.window.out(0, h, conv.r).ok_or_else(fits)?;
    let q = conv.window.out(1, w, conv.s).ok_or_else(fits)?;
    let out = conv.o * groups;
    let shape = [n, p, q, out];
    if let Some(r) = residual.filter(|r| r.shape() != shape) {
        return Err(Error::shape("conv2d", "residual", format!("{shape:?}"), format!("{:?}", r.shape())));
    }
    residual.map_or(Ok(()), |r| g.takes("conv2d", "residual", r))?;

    // Bits of several groups would share a byte when a group is not whole runs of 16.
    let masks = conv.whole_runs(conv.o);
    let fused = if g.records() && !(act == Activation::Relu && masks) { Activation::None } else { act };
    let positive = (g.records() && fused == Activation::Relu).then(|| g.uninit_mask(n * p * q, out)).transpose()?;
    let y = g.uninit(&shape)?;
    let epilogue = Epilogue {
        bias: conv.bias.as_ref().map_or(0, Tensor::address),
        residual: residual.map_or(0, Tensor::address),
        keep: 0,
        positive: positive.as_ref().map_or(0, Tensor::address),
        act: fused,
    };
    let Window { stride, padding, dilation, .. } = conv.window;
    match &conv.forward {
        Form::Depthwise(taps) => taps.launch(g, x, &y, &conv.window, false, &epilogue)?,
        Form::Product(packed) => {
            let pad = [padding[0] as i64, padding[2] as i64];
            let l = Launch {
                packed,
                c: conv.c,
                taps: [conv.r, conv.s],
                stride,
                pad,
                dilation,
                groups,
                points: [p, q],
                step: [1, 1],
                off: [0, 0],
            };
            l.run(g, x, &y, &epilogue)?;
        }
    }
    if let Some(bits) = positive {
        g.mask(&y, bits);
    }

    let (inputs, conv, x, residual) =
        (residual.map_or(vec![x], |r| vec![x, r]), conv.clone(), x.outline(), residual.map(Tensor::outline));
    g.record("conv2d gradient", &inputs, &y, move |g, dy, grads| {
        if let Some(r) = &residual {
            grads.add(g, r, dy.clone())?;
        }
        let dx = if conv.whole_runs(conv.c) {
            let slot = grads.slot(&x);
            conv.input_gradient(g, dy, x.shape(), &slot)?
        } else {
            let dx = conv.input_gradient(g, dy, x.shape(), &Slot { residual: None, keep: None })?;
            return grads.add(g, &x, dx);
        };
        grads.put(&x, dx);
        Ok(())
    });
    if fused == act { Ok(y) } else { super::pointwise::activation(g, &y, act) }
}

/// The transposed convolution: what [`conv2d`] does to the gradient of its input, so that its gradient is [`conv2d`].
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, P, Q, O)` | what `conv` would make |
/// | ret | `(N, H, W, C)` | `size` = (H, W), of which `conv` makes P x Q |
///
/// # Errors
/// [`Error::Shape`] when channels disagree or `conv` makes something else of images of that size. The bias of `conv` is left out.
pub fn conv2d_transposed(g: &Graph, x: &Tensor, conv: &Arc<Conv2d>, size: [usize; 2]) -> Result<Tensor> {
    let [n, p, q, c] = x.dims4("conv2d_transposed")?;
    let groups = conv.window.groups;
    let made = [conv.window.out(0, size[0], conv.r), conv.window.out(1, size[1], conv.s)];
    if made != [Some(p), Some(q)] || c != conv.o * groups {
        let want = format!("{made:?} with {} channels", conv.o * groups);
        return Err(Error::shape("conv2d_transposed", "input", want, format!("{:?}", x.shape())));
    }
    let none = Slot { residual: None, keep: None };
    let y = conv.input_gradient(g, x, &[n, size[0], size[1], conv.c * groups], &none)?;
    let (x_in, conv) = (x.outline(), conv.clone());
    g.record("conv2d_transposed gradient", &[x], &y, move |g, dy, grads| {
        let dx = conv2d(g, dy, &conv, None, Activation::None)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

impl Conv2d {
    /// Whether bit masks over `c` channels per group can be fused: groups must not share a byte.
    fn whole_runs(&self, c: usize) -> bool {
        self.window.groups == 1 || c.is_multiple_of(16) || matches!(self.forward, Form::Depthwise(_))
    }

    /// The gradient of an input of shape `x`, given that of the output, with the slot's sum and mask fused.
    fn input_gradient(&self, g: &Graph, dy: &Tensor, x: &[usize], slot: &Slot) -> Result<Tensor> {
        let dx = g.uninit(x)?;
        let epilogue = Epilogue {
            bias: 0,
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            positive: 0,
            act: Activation::None,
        };
        let forward = match &self.forward {
            Form::Product(packed) => packed,
            Form::Depthwise(taps) => {
                taps.launch(g, dy, &dx, &self.window, true, &epilogue)?;
                return Ok(dx);
            }
        };
        for phase in self.phases(g.device(), forward)? {
            let count = |axis: usize| x[1 + axis].saturating_sub(phase.off[axis]).div_ceil(self.window.stride[axis]);
            let l = Launch {
                packed: &phase.packed,
                c: self.o,
                taps: phase.taps,
                stride: [1, 1],
                pad: phase.pad,
                dilation: phase.dilation,
                groups: self.window.groups,
                points: [count(0), count(1)],
                step: self.window.stride,
                off: phase.off,
            };
            l.run(g, dy, &dx, &epilogue)?;
        }
        Ok(dx)
    }
}

impl Launch<'_> {
    pub fn run(&self, g: &Graph, x: &Tensor, y: &Tensor, e: &Epilogue) -> Result<()> {
        let ([n, x_h, x_w, _], [_, y_h, y_w, _]) = (x.dims4("conv2d")?, y.dims4("conv2d")?);
        let m = n * self.points[0] * self.points[1];
        if m == 0 || self.packed.o == 0 {
            return Ok(());
        }
        self.packed.fits(g, m)?;
        let tiles = self.packed.tiles(g.device(), g.dtype(), m, self.groups);
        let args = ConvArgs {
            x: x.address(),
            w: self.packed.data.address(),
            bias: e.bias,
            residual: e.residual,
            keep: e.keep,
            y: y.address(),
            positive: e.positive,
            w_group: self.packed.group as i64,
            q: Divisor::new(self.points[1]),
            pq: Divisor::new(self.points[0] * self.points[1]),
            m: m as i32,
            x_h: x_h as i32,
            x_w: x_w as i32,
            c: self.c as i32,
            o: self.packed.o as i32,
            groups: self.groups as i32,
            r: self.taps[0] as i32,
            s: self.taps[1] as i32,
            stride_h: self.stride[0] as i32,
            stride_w: self.stride[1] as i32,
            pad_h: self.pad[0] as i32,
            pad_w: self.pad[1] as i32,
            dil_h: self.dilation[0] as i32,
            dil_w: self.dilation[1] as i32,
            y_h: y_h as i32,
            y_w: y_w as i32,
            step_h: self.step[0] as i32,
            step_w: self.step[1] as i32,
            off_h: self.off[0] as i32,
            off_w: self.off[1] as i32,
            act: e.act as i32,
            m_tile: tiles.m_tile as i32,
            n_tile: tiles.n_tile as i32,
            reserved: 0,
        };
        g.device().count_product(m, self.packed.o * self.groups, self.taps[0] * self.taps[1] * self.c);
        if winograd::serves(g, &args, self.packed) {
            return winograd::run(g, args, self.packed);
        }
        let large = self.packed.large(g.device(), m, self.groups);
        let kernel: &'static Kernel<ConvArgs> = match (g.precision(), large) {
            (Precision::Bf16, true) => &CONV_BF16,
            (Precision::Bf16, false) => &CONV_BF16_SMALL,
            (Precision::Tf32, true) => &CONV_TF32,
            (Precision::Tf32, false) => &CONV_TF32_SMALL,
            (Precision::F32, true) => &CONV_F32,
            (Precision::F32, false) => &CONV_F32_SMALL,
        };
        g.launch(kernel, [tiles.count, 1, self.groups], &args)
    }
}

/// Batch norm with fixed statistics as `x * scale + bias`, in float64.
///
/// # Errors
/// What is wrong: lengths that differ, a variance that is not positive.
pub fn fold_batch_norm(
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    var: &[f32],
    eps: f32,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    if let Some(other) = [bias.len(), mean.len(), var.len()].into_iter().find(|&len| len != weight.len()) {
        return Err(format!("expected as many values as weights, {}, found {other}", weight.len()));
    }
    let mut folded = (Vec::with_capacity(weight.len()), Vec::with_capacity(weight.len()));
    for (i, (((&w, &b), &m), &v)) in weight.iter().zip(bias).zip(mean).zip(var).enumerate() {
        let spread = f64::from(v) + f64::from(eps);
        if spread <= 0.0 {
            return Err(format!("expected a variance above {}, found {v} at index {i}", -eps));
        }
        let scale = f64::from(w) / spread.sqrt();
        folded.0.push(scale);
        folded.1.push(f64::from(b) - f64::from(m) * scale);
    }
    Ok(folded)
}
