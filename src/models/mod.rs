//! Networks built from ops, and the checkpoints they come from.

pub mod classifier;
pub mod resnet;
pub mod weights;
