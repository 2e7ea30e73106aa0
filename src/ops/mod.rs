//! One file per `kernels/*.cu`, of the same name: checks shapes, picks tiles, launches, and says what the gradient is.
//!
//! `conv_upsampled` is a second operation of `conv.cu`; `weights` packs what both multiply with, and what `gemm` does.

pub mod apgd;
pub mod attention;
pub mod cbam;
pub mod conv;
pub mod conv_upsampled;
mod depthwise;
pub mod diffusion;
pub mod elementwise;
mod epilogue;
pub mod fab;
pub mod gate;
pub mod gemm;
pub mod group_norm;
pub mod layer_norm;
pub mod leaky_relu;
pub mod loss;
pub mod min_norm;
pub mod permute;
pub mod pgd;
pub mod philox;
pub mod pointwise;
pub mod pool;
pub mod resize;
pub mod square;
pub mod steps;
pub mod vote;
mod walk;
mod weights;
mod window;
mod winograd;

use crate::device::Device;
use crate::tape::{Graph, Precision};

pub use pointwise::Activation;

/// A graph that records what gradients need.
pub fn recording(device: &Device, precision: Precision) -> Graph {
    Graph::recording(device, precision, pointwise::accumulate)
}
