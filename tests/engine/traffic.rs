//! What crosses between host and device: a batch of images once, whatever the number of steps and sigmas.

use rampart::config::{Config, Overrides};
use rampart::device::{DeviceChoice, Traffic};
use rampart::run::Engine;
use rampart::run::engine::{AttackEngine, KEPT};

const N: usize = 16;

/// The traffic of one batch at one epsilon.
fn traffic(sigma: &[f64], steps: u32) -> (Traffic, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("try.toml");
    let text = format!("[attack]\nsteps = {steps}\n[[models]]\nweights = \"demo:resnet50-w16\"\n");
    std::fs::write(&path, text).unwrap();
    let overrides = Overrides {
        eps: Some(vec![0.03]),
        sigma: Some(sigma.to_vec()),
        limit: Some(KEPT + N),
        device: Some(DeviceChoice::Host),
        ..Default::default()
    };
    let config = Config::load(Some(&path), &overrides).unwrap();
    let data = config.dataset.load(config.limit).unwrap();
    let mut engine = AttackEngine::new(&config, &data).unwrap();
    let images: Vec<usize> = (KEPT..KEPT + N).collect();
    engine.device().take_traffic();
    engine.run(0, 0.03, &images).unwrap();
    (engine.device().take_traffic(), (N * data.image_len() * 4) as u64)
}

#[test]
fn a_batch_goes_up_once_and_never_comes_back() {
    for (sigma, steps) in [(&[][..], 2), (&[0.25], 2), (&[0.25, 0.5, 1.0], 2), (&[0.25], 6)] {
        let (found, batch) = traffic(sigma, steps);
        // Beside the images: labels, noise keys and the like up; losses, margins, predictions and logits down.
        let rest = found.uploaded.checked_sub(batch).expect("the images go up");
        assert!(rest < batch / 10, "sigma {sigma:?}, {steps} steps: {found:?}, a batch has {batch} bytes");
        assert!(found.downloaded < batch / 10, "sigma {sigma:?}, {steps} steps: {found:?}, a batch has {batch} bytes");
    }
}
