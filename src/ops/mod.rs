//! One file per `kernels/*.cu`: checks shapes, picks tiles, launches, and says what the gradient is.

pub mod attention;
pub mod cbam;
pub mod conv;
pub mod conv_upsampled;
mod depthwise;
pub mod diffusion;
pub mod gate;
pub mod gemm;
pub mod layer_norm;
pub mod loss;
pub mod norm;
pub mod pgd;
pub mod philox;
pub mod pointwise;
pub mod pool;
pub mod resize;
mod weights;

pub use pointwise::Activation;
