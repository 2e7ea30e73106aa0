//! ONNX graphs as networks of the library.

use std::fs;
use std::path::Path;

use rampart::data::tensors::TensorFile;
use rampart::device::{DType, Device};
use rampart::models::card::{Card, Takes};
use rampart::models::classifier::Classifier;
use rampart::models::weights::Weights;
use rampart::tape::Precision;
use rampart::tensor::Tensor;

/// What a run draws maps of must be there when it asks: a node that is no work, such as a transpose of axes, has no result.
#[test]
fn every_stage_can_be_looked_at() {
    let device = Device::host().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx");
    let (mut graphs, mut stages) = (0, 0);
    for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        let dump = path.with_extension("safetensors");
        let Ok(dump) = TensorFile::open(&dump) else { continue };
        let &[_, c, h, w] = dump.get("in.x").unwrap().shape else { continue };
        let weights = Weights::open(&path).unwrap();
        let (card, _) = Card::of_graph(&weights, &Takes::default()).unwrap();
        let net = Classifier::described(&device, Precision::F32, &weights, &card, [h, w]).unwrap();
        let images = Tensor::from_f32(&device, &[2, h, w, c], DType::F32, &vec![0.5; 2 * h * w * c]).unwrap();
        let wanted = net.net().stages();
        let seen = net.probe(&images, &wanted).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(seen.iter().all(|map| map.shape()[0] == 2 && map.shape().len() == 4), "{}", path.display());
        (graphs, stages) = (graphs + 1, stages + wanted.len());
    }
    assert!(graphs >= 9 && stages > graphs, "{stages} stages of {graphs} graphs");
}
