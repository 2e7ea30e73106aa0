//! Networks built from ops, and the checkpoints they come from. A new classifier is a file and a row of [`NETWORKS`].

pub(crate) mod batch;
pub mod card;
pub mod classifier;
pub mod coatnet;
pub mod graph;
pub mod headed;
pub mod metadata;
pub mod network;
mod normalisation;
pub mod probe;
pub mod resnet;
pub mod resnet_study;
pub mod unet;
pub mod weights;

use serde_json::Value;

use network::{Row, Shape};

/// Every classifying network there is.
pub static NETWORKS: [Row; 3] = [resnet::ROW, resnet_study::ROW, coatnet::ROW];

/// The row of an architecture, or the names of those there are, for a message.
///
/// # Errors
/// The names.
pub fn network_row(arch: &str) -> Result<&'static Row, String> {
    let names = || NETWORKS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    NETWORKS.iter().find(|row| row.name == arch).ok_or_else(names)
}

/// The shape that an architecture's config describes.
///
/// # Errors
/// What is wrong, in words: the architectures there are, or the field of the config.
pub fn network_shape(arch: &str, config: Value) -> Result<Box<dyn Shape>, String> {
    if arch == graph::NAME {
        let config: graph::Config = serde_json::from_value(config).map_err(|e| format!("`config` of {arch}: {e}"))?;
        return Ok(Box::new(config));
    }
    let row = network_row(arch).map_err(|names| format!("expected the architecture {names}, found `{arch}`"))?;
    (row.parse)(config).map_err(|e| format!("`config` of {arch}: {e}"))
}
