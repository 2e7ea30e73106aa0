//! Networks built from ops, and the checkpoints they come from.

pub(crate) mod batch;
pub mod classifier;
pub mod coatnet;
pub mod network;
pub mod probe;
pub mod resnet;
pub mod resnet_study;
pub mod unet;
pub mod weights;
