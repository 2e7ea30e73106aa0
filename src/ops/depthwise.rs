//! A convolution with one channel per group: `kernels/depthwise.cu`.

use super::epilogue::Epilogue;
use super::window::Window;
use crate::Result;
use crate::device::{DEPTHWISE_BF16, DEPTHWISE_F32, DType, DepthwiseArgs, Device, Divisor};
use crate::tape::Graph;
use crate::tensor::Tensor;

/// Neighbouring outputs of a line that are made together on the host; on CUDA a thread has one of its own, as in the kernel.
const RUN: usize = 4;

/// The taps of every channel, for forward and gradient alike.
pub(super) struct Depthwise {
    /// `(R, S, C)` float32
    taps: Tensor,
    r: usize,
    s: usize,
}

impl Depthwise {
    /// From weights `(C, 1, R, S)`.
    ///
    /// # Errors
    /// What uploading returns.
    pub fn new(device: &Device, weight: &[f32], [c, r, s]: [usize; 3]) -> Result<Self> {
        let taps: Vec<f32> = (0..r * s).flat_map(|tap| (0..c).map(move |i| weight[i * r * s + tap])).collect();
        Ok(Depthwise { taps: Tensor::from_f32(device, &[r * s, c], DType::F32, &taps)?, r, s })
    }

    /// Writes y, or with `gradient` the input gradient y of dy x.
    ///
    /// # Errors
    /// What the launch returns.
    pub fn launch(
        &self,
        g: &Graph,
        x: &Tensor,
        y: &Tensor,
        window: &Window,
        gradient: bool,
        e: &Epilogue,
    ) -> Result<()> {
        let ([n, x_h, x_w, c], [_, y_h, y_w, _]) = (x.dims4("conv2d")?, y.dims4("conv2d")?);
        let run = if g.device().plan().serial { RUN } else { 1 };
        let runs_per_line = y_w.div_ceil(run);
        let runs = n * y_h * runs_per_line;
        let runs_per_block = super::pointwise::rows_per_block(c * self.r * self.s * run);
        let args = DepthwiseArgs {
            x: x.address(),
            w: self.taps.address(),
            bias: e.bias,
            residual: e.residual,
            keep: e.keep,
            y: y.address(),
            positive: e.positive,
            runs_per_line: Divisor::new(runs_per_line),
            lines: Divisor::new(y_h),
            runs: runs as i32,
            runs_per_block: runs_per_block as i32,
            gradient: i32::from(gradient),
            x_h: x_h as i32,
            x_w: x_w as i32,
            y_w: y_w as i32,
            c: c as i32,
            r: self.r as i32,
            s: self.s as i32,
            stride_h: window.stride[0] as i32,
            stride_w: window.stride[1] as i32,
            pad_h: window.padding[0] as i32,
            pad_w: window.padding[2] as i32,
            dil_h: window.dilation[0] as i32,
            dil_w: window.dilation[1] as i32,
            act: e.act as i32,
        };
        let kernel = if g.dtype() == DType::BF16 { &DEPTHWISE_BF16 } else { &DEPTHWISE_F32 };
        g.launch(kernel, [runs.div_ceil(runs_per_block), 1, 1], &args)
    }
}
