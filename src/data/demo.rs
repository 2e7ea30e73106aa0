//! The embedded demo: the first 512 Fashion-MNIST test images (MIT licence, `assets/demo/COPYRIGHT`), two ResNet-50 of width 16
//! trained on the training set, one of them with CBAM, and a small diffusion U-Net.

use std::path::Path;

use flate2::read::GzDecoder;

use super::classes::Classes;
use super::dataset::Dataset;
use super::idx;
use super::source::{Row, Source};
use super::subset::Select;
use crate::error::Result;

/// The names that [`weights`] knows.
pub const MODELS: [&str; 2] = ["resnet50-w16", "resnet50-cbam-w16"];
/// The denoiser that [`weights`] knows.
pub const DENOISER: &str = "unet-small";

pub const ROW: Row = Row {
    name: "demo",
    help: "the first 512 test images of Fashion-MNIST, embedded in this program",
    takes: &[],
    sees: |_, _| None,
    open: |_| Ok(Box::new(Demo)),
    by_class: false,
    top5: false,
    limit: 256,
    breaks_at: 16,
    models: &MODELS,
    denoiser: Some(DENOISER),
};

struct Demo;

impl Source for Demo {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        dataset(limit, select)
    }
}

// Expanded in functions alone: what a `static` or `const` holds is written into the library's metadata too, 10 MB of it.
macro_rules! asset {
    ($name:literal) => {
        (
            concat!("assets/demo/", $name),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/", $name)).as_slice(),
        )
    };
}

/// The embedded images, 32x32.
///
/// # Errors
/// None with the files as committed; else as [`idx::load`].
pub fn dataset(limit: Option<usize>, select: Select) -> Result<Dataset> {
    let (images, image_bytes) = asset!("t10k-first512-images-idx3-ubyte.gz");
    let (labels, label_bytes) = asset!("t10k-first512-labels-idx1-ubyte.gz");
    let images = (Path::new(images), Box::new(GzDecoder::new(image_bytes)) as _);
    let labels = (Path::new(labels), Box::new(GzDecoder::new(label_bytes)) as _);
    idx::decode(images, labels, Classes::or(None, &idx::FASHION)?, (limit, select), true)
}

/// The safetensors file of an embedded model, or `None` for a name that is neither in [`MODELS`] nor [`DENOISER`].
pub fn weights(name: &str) -> Option<&'static [u8]> {
    match name {
        "resnet50-w16" => Some(asset!("resnet50-w16.safetensors").1),
        "resnet50-cbam-w16" => Some(asset!("resnet50-cbam-w16.safetensors").1),
        "unet-small" => Some(asset!("unet-small.safetensors").1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_there() {
        let data = dataset(None, Select::First).unwrap();
        assert_eq!((data.len(), data.height, data.width, data.classes.len()), (512, 32, 32, 10));
        assert_eq!(data.labels[..8], [9, 2, 1, 1, 6, 1, 4, 6]);
        assert!(data.batch(&(0..512).collect::<Vec<_>>()).unwrap().iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!(dataset(Some(3), Select::First).unwrap(), data.take(3).unwrap());
    }

    #[test]
    fn weights_are_there() {
        for name in MODELS {
            let tensors = safetensors::SafeTensors::deserialize(weights(name).unwrap()).unwrap();
            assert!(tensors.names().iter().any(|n| n.contains("conv1")), "{:?}", tensors.names());
        }
        assert_eq!(weights("resnet18"), None);
    }
}
