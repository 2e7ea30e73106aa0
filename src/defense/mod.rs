//! Diffusion denoised smoothing (Carlini et al. 2022): noise an image, let a diffusion network estimate the clean one in one shot,
//! classify the estimate; several draws vote.

pub mod denoise;
pub mod schedule;

pub use denoise::Denoiser;
pub use schedule::{Schedule, Step};
