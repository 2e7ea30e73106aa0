//! One file per `kernels/*.cu`: checks shapes, picks tiles, launches, and says what the gradient is.

pub mod conv;
pub mod gemm;
pub mod pointwise;
mod weights;

pub use pointwise::Activation;
