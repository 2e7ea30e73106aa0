//! Max, average and global average pooling: `kernels/pool.cu`.

use super::pointwise::Activation;
use crate::device::{
    AVG_POOL_BF16, AVG_POOL_F32, AVG_POOL_GRAD_BF16, AVG_POOL_GRAD_F32, DType, GLOBAL_POOL_BF16, GLOBAL_POOL_F32,
    GLOBAL_POOL_GRAD_BF16, GLOBAL_POOL_GRAD_F32, GlobalPoolArgs, GlobalPoolGradArgs, Kernel, MAX_POOL_BF16,
    MAX_POOL_F32, MAX_POOL_GRAD_BF16, MAX_POOL_GRAD_F32, PoolArgs,
};
use crate::tape::{Graph, Slot};
use crate::tensor::{Outline, Tensor};
use crate::{Error, Result};

/// The longest side and stride of a window.
const SIDE: usize = 4096;

/// A pooling window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// on both sides, at most half the kernel
    pub padding: [usize; 2],
    /// Whether a last window that begins inside the image or its left padding may reach beyond.
    pub ceil_mode: bool,
}

impl Pool {
    /// Output length along one axis (0 vertical, 1 horizontal), or `None` when the window does not fit. As PyTorch has it.
    pub fn out(&self, axis: usize, length: usize) -> Option<usize> {
        let (window, stride, pad) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        let space = length.checked_add(pad.checked_mul(2)?)?.checked_sub(window)?;
        if !self.ceil_mode {
            return space.checked_div(stride)?.checked_add(1);
        }
        let count = if stride == 0 { None } else { space.div_ceil(stride).checked_add(1) }?;
        Some(if (count - 1).checked_mul(stride)? >= length + pad { count - 1 } else { count })
    }

    fn words(&self) -> String {
        let Pool { kernel: [r, s], stride: [down, right], padding: [top, left], .. } = self;
        format!("kernel {r}x{s}, stride {down}x{right}, padding {top}x{left}")
    }

    fn check(&self, op: &'static str, h: usize, w: usize) -> Result<[usize; 2]> {
        if self.kernel.iter().chain(&self.stride).any(|side| !(1..=SIDE).contains(side)) {
            return Err(Error::shape(op, "window", format!("kernel and stride of 1 to {SIDE}"), self.words()));
        }
        if (0..2).any(|i| self.padding[i] > self.kernel[i] / 2) {
            return Err(Error::shape(op, "padding", "at most half the kernel", self.words()));
        }
        let fits = || Error::shape(op, "input", format!("at least the window: {}", self.words()), format!("{h}x{w}"));
        Ok([self.out(0, h).ok_or_else(fits)?, self.out(1, w).ok_or_else(fits)?])
    }

    fn args(&self, [_, h, w, c]: [usize; 4], [p, q]: [usize; 2]) -> PoolArgs {
        PoolArgs {
            x: 0,
            y: 0,
            taps: 0,
            residual: 0,
            keep: 0,
            h: h as i32,
            w: w as i32,
            c: c as i32,
            p: p as i32,
            q: q as i32,
            r: self.kernel[0] as i32,
            s: self.kernel[1] as i32,
            stride_h: self.stride[0] as i32,
            stride_w: self.stride[1] as i32,
            pad_h: self.padding[0] as i32,
            pad_w: self.padding[1] as i32,
            count_padding: 0,
        }
    }
}

fn gradient(
    g: &Graph,
    kernels: [&'static Kernel<PoolArgs>; 2],
    args: PoolArgs,
    x: &Outline,
    dy: &Tensor,
    slot: &Slot,
) -> Result<Tensor> {
    let dx = g.uninit(x.shape())?;
    let [n, h, ..] = dx.dims4("pool gradient")?;
    let args = PoolArgs {
        x: dy.address(),
        y: dx.address(),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        ..args
    };
    if !dx.is_empty() {
        g.launch(kernels[usize::from(g.dtype() == DType::BF16)], [n * h, 1, 1], &args)?;
    }
    Ok(dx)
}

/// The largest value of each window; padding counts as minus infinity.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | |
/// | ret | `(N, P, Q, C)` | `P = (H + 2 pad - kernel) / stride + 1`, rounded down, or up with `ceil_mode`; `Q` alike |
///
/// The gradient goes to the first of equal values in scan order. Keeps one byte per output for it.
///
/// # Errors
/// [`Error::Shape`] when the window does not fit, has more than 256 taps, or is padded by more than half.
pub fn max_pool2d(g: &Graph, x: &Tensor, pool: Pool) -> Result<Tensor> {
    let [_, h, w, _] = g.dims4("max_pool2d", x)?;
    max_pool2d_windows(g, x, pool, pool.check("max_pool2d", h, w)?)
}

/// The same for `windows` (P, Q), however far the last of them reach beyond the image: padding that differs from side to side.
///
/// # Errors
/// [`Error::Shape`] when a window lies outside of the image or has more than 256 taps.
pub fn max_pool2d_windows(g: &Graph, x: &Tensor, pool: Pool, [p, q]: [usize; 2]) -> Result<Tensor> {
    let dims @ [n, h, w, c] = g.dims4("max_pool2d", x)?;
    let inside = |axis: usize, windows: usize, length: usize| {
        let (kernel, stride, pad) = (pool.kernel[axis], pool.stride[axis], pool.padding[axis]);
        kernel > pad && stride > 0 && windows > 0 && (windows - 1) * stride < length + pad
    };
    if !inside(0, p, h) || !inside(1, q, w) {
        return Err(Error::shape(
            "max_pool2d",
            "windows",
            format!("inside {h}x{w}"),
            format!("{p}x{q}: {}", pool.words()),
        ));
    }
    if pool.kernel[0] * pool.kernel[1] > 256 {
        return Err(Error::shape("max_pool2d", "taps", "at most 256", pool.kernel[0] * pool.kernel[1]));
    }
    let y = g.uninit(&[n, p, q, c])?;
    let taps = g.records().then(|| Tensor::uninit(g.device(), &[n, p, q, c], DType::U8)).transpose()?;
    let args = pool.args(dims, [p, q]);
    if !y.is_empty() {
        let args = PoolArgs { x: x.address(), y: y.address(), taps: taps.as_ref().map_or(0, Tensor::address), ..args };
        g.launch(if g.dtype() == DType::BF16 { &MAX_POOL_BF16 } else { &MAX_POOL_F32 }, [n * p, 1, 1], &args)?;
    }

    let x_in = x.outline();
    g.record("max_pool2d gradient", &[x], &y, move |g, dy, grads| {
        let args = PoolArgs { taps: taps.as_ref().map_or(0, Tensor::address), ..args };
        let slot = grads.slot(&x_in);
        let dx = gradient(g, [&MAX_POOL_GRAD_F32, &MAX_POOL_GRAD_BF16], args, &x_in, dy, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

/// The mean of each window, over the taps inside the image or, with `count_include_pad`, inside the padded image.
///
/// Shapes as in [`max_pool2d`]. Keeps nothing.
///
/// # Errors
/// [`Error::Shape`] when the window does not fit or is padded by more than half.
pub fn avg_pool2d(g: &Graph, x: &Tensor, pool: Pool, count_include_pad: bool) -> Result<Tensor> {
    let dims @ [n, h, w, c] = g.dims4("avg_pool2d", x)?;
    let [p, q] = pool.check("avg_pool2d", h, w)?;
    let y = g.uninit(&[n, p, q, c])?;
    let args = PoolArgs { count_padding: i32::from(count_include_pad), ..pool.args(dims, [p, q]) };
    if !y.is_empty() {
        let args = PoolArgs { x: x.address(), y: y.address(), ..args };
        g.launch(if g.dtype() == DType::BF16 { &AVG_POOL_BF16 } else { &AVG_POOL_F32 }, [n * p, 1, 1], &args)?;
    }

    let x_in = x.outline();
    g.record("avg_pool2d gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = gradient(g, [&AVG_POOL_GRAD_F32, &AVG_POOL_GRAD_BF16], args, &x_in, dy, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

/// The mean over all pixels.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, H, W, C)` |
/// | ret | `(N, C)` |
///
/// # Errors
/// [`Error::Shape`] when there are no pixels.
pub fn global_avg_pool(g: &Graph, x: &Tensor) -> Result<Tensor> {
    global_avg_pool_activated(g, x, Activation::None)
}

/// The mean of `act(x)` over all pixels, which is not stored. Shapes as in [`global_avg_pool`].
///
/// With gradients on, keeps `x` by reference unless the activation is none.
///
/// # Errors
/// As [`global_avg_pool`].
pub fn global_avg_pool_activated(g: &Graph, x: &Tensor, act: Activation) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("global_avg_pool", x)?;
    let pixels = h * w;
    if pixels == 0 {
        return Err(Error::shape("global_avg_pool", "input", "at least one pixel", format!("{h}x{w}")));
    }
    let y = g.uninit(&[n, c])?;
    // On CUDA 128 channels are 16 runs, so that 16 threads share the pixels of each.
    let per_block = g.device().plan().channels(c, 128);
    let args = GlobalPoolArgs {
        x: x.address(),
        y: y.address(),
        pixels: pixels as i32,
        c: c as i32,
        per_block: per_block as i32,
        act: act as i32,
    };
    g.launch(
        if g.dtype() == DType::BF16 { &GLOBAL_POOL_BF16 } else { &GLOBAL_POOL_F32 },
        [c.div_ceil(per_block), n, 1],
        &args,
    )?;

    let (x_in, curved) = (x.outline(), (act != Activation::None).then(|| x.clone()));
    g.record("global_avg_pool gradient", &[x], &y, move |g, dy, grads| {
        let dx = g.uninit(x_in.shape())?;
        let slot = grads.slot(&x_in);
        let per_block = super::pointwise::rows_per_block(c);
        let args = GlobalPoolGradArgs {
            x: curved.as_ref().map_or(0, Tensor::address),
            dy: dy.address(),
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            dx: dx.address(),
            pixels: pixels as i32,
            c: c as i32,
            per_block: per_block as i32,
            act: act as i32,
        };
        let kernel = if g.dtype() == DType::BF16 { &GLOBAL_POOL_GRAD_BF16 } else { &GLOBAL_POOL_GRAD_F32 };
        g.launch(kernel, [pixels.div_ceil(per_block), n, 1], &args)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}
