//! One module per kernel family: every op against float64 arithmetic, PyTorch-free. Debug builds run the same over poisoned memory.

mod attention;
mod cbam;
mod common;
mod conv;
mod diffusion;
mod gate;
mod gemm;
#[path = "../common/listed.rs"]
mod listed;
mod loss;
mod norm;
mod pgd;
mod philox;
mod pointwise;
mod pool;
mod resize;
mod tape;
