//! Steps that are noted and read back: values as they are, slot after slot, and what is done.

use rampart::device::{DType, Device};
use rampart::ops::pgd::digest;
use rampart::ops::steps::{Done, Found, Steps};
use rampart::tensor::Tensor;

use crate::common::{host, upload_f32};

/// Beyond one block of a row.
const D: usize = 4099;
const N: usize = 3;

struct Step {
    x: Tensor,
    loss: Tensor,
    margin: Tensor,
    prediction: Tensor,
}

impl Step {
    fn new(device: &Device, k: usize, predictions: [i32; N]) -> Self {
        let pixels: Vec<f32> = (0..N * D).map(|i| (i * 31 + k * 7) as f32 * 0.25).collect();
        let three = |at: f32| upload_f32(device, &[N], &[at, -at, f32::NAN]);
        Step {
            x: upload_f32(device, &[N, D], &pixels),
            loss: three(k as f32 + 0.5),
            margin: three(k as f32 - 0.25),
            prediction: Tensor::from_i32(device, &[N], &predictions).unwrap(),
        }
    }

    fn found(&self) -> Found<'_> {
        Found { loss: &self.loss, margin: &self.margin, prediction: &self.prediction }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn what_is_noted_is_read_back() {
    let device = host();
    let predictions = [[1, 0, 2], [4, 0, 2], [1, 9, i32::MAX]];
    let taken: Vec<Step> = predictions.iter().enumerate().map(|(k, &p)| Step::new(&device, k, p)).collect();
    let steps = Steps::new(&device, 4, &taken[0].x).unwrap();
    for (targeted, flags) in [(false, [1, 1, 1]), (true, [1, 0, 0])] {
        let cleared = || Tensor::from_i32(&device, &[N], &[0; N]).unwrap();
        // Untargeted, each image succeeds at some step; targeted, only the first meets its class.
        let classes = Tensor::from_i32(&device, &[N], &if targeted { [4, 1, 0] } else { [1, 0, 2] }).unwrap();
        let done = Done { flags: cleared(), classes, targeted };
        steps.begin(&device).unwrap();
        for step in &taken {
            steps.note(&device, &step.x, step.found(), Some(&done)).unwrap();
            steps.tick(&device).unwrap();
        }
        assert_eq!(done.flags.to_i32(&device).unwrap(), flags, "targeted {targeted}");
        let noted = steps.read(&device, 3, 2).unwrap();
        for (k, step) in taken.iter().enumerate() {
            let rows = k * N..(k + 1) * N;
            assert_eq!(bits(&noted.loss[rows.clone()]), bits(&step.loss.to_f32(&device).unwrap()));
            assert_eq!(bits(&noted.margin[rows.clone()]), bits(&step.margin.to_f32(&device).unwrap()));
            assert_eq!(noted.prediction[rows], predictions[k].map(|p| p as u32));
            let iterates = steps.iterates(3).unwrap().rows(k * N, N).unwrap();
            assert_eq!(iterates.to_f32(&device).unwrap(), step.x.to_f32(&device).unwrap());
            if k < 2 {
                assert_eq!(noted.digests[k * N..(k + 1) * N], digest(&device, &step.x).unwrap());
            }
        }
        assert_eq!((noted.loss.len(), noted.digests.len()), (3 * N, 2 * N));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = host();
    let step = Step::new(&device, 0, [0; N]);
    let steps = Steps::new(&device, 2, &step.x).unwrap();
    let refused = |x: &Tensor, found: Found, words: &str| {
        let error = steps.note(&device, x, found, None).unwrap_err().to_string();
        assert!(error.starts_with("steps_note") && error.contains(words), "{error}");
    };
    refused(&step.x.rows(0, 2).unwrap(), step.found(), "iterates");
    let short = step.loss.rows(0, 2).unwrap();
    refused(&step.x, Found { loss: &short, ..step.found() }, "losses");
    refused(&step.x, Found { margin: &step.prediction, ..step.found() }, "margins");
    refused(&step.x, Found { prediction: &step.loss, ..step.found() }, "predictions");
    assert!(steps.read(&device, 3, 0).is_err() && steps.read(&device, 1, 2).is_err());
    assert!(Steps::new(&device, 2, &Tensor::uninit(&device, &[2, 2], DType::I32).unwrap()).is_err());
}
