//! One module per kernel family: every op against float64 arithmetic, PyTorch-free. Debug builds run the same over poisoned memory.

mod apgd;
mod attention;
mod cbam;
mod common;
mod conv;
mod convolution;
mod depthwise;
mod diffusion;
mod elementwise;
mod fab;
mod gate;
mod gemm;
mod group_norm;
mod layer_norm;
mod leaky_relu;
#[path = "../common/listed.rs"]
mod listed;
mod loss;
mod min_norm;
mod permute;
mod pgd;
mod philox;
mod pointwise;
mod pool;
mod resize;
mod shapes;
mod square;
mod steps;
mod tape;
mod vote;
mod winograd;
