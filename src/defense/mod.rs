//! Diffusion denoised smoothing (Carlini et al. 2022): noise an image, let a diffusion network estimate the clean one in one shot,
//! classify the estimate; several draws vote. And the same pipeline as the target of an attack.

pub mod defended;
pub mod denoise;
pub mod remembered;
pub mod sampling;
pub mod schedule;
pub mod smoothing;
pub mod suite;

pub use defended::{Defended, Estimator};
pub use denoise::Denoiser;
pub use schedule::{Schedule, Step};
pub use smoothing::{Smoothed, Vote};
