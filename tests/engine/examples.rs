//! The configs in `examples/`: all are accepted once what they name is there, and the presets say what they promise.

use std::fs;
use std::path::Path;

use rampart::attack::Profile;
use rampart::attack::{HandOver, Space, StepSize};
use rampart::config::{Config, Overrides};
use rampart::data::prepare::Fit;
use rampart::data::resize::Filter;

/// The config as if every path it names were there.
fn load(name: &str) -> Config {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let examples = dir.path().join("repository/examples");
    fs::create_dir_all(&examples).unwrap();
    for path in text.lines().filter(|l| !l.starts_with('#')).flat_map(|l| l.split('"')).filter(|p| p.starts_with("../"))
    {
        let path = examples.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(examples.join(name), text).unwrap();
    Config::load(Some(&examples.join(name)), &Overrides::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_example_is_accepted() {
    let names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
    let names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names.iter().filter(|name| name.ends_with(".toml")) {
        assert_eq!(load(name).name, name.trim_end_matches(".toml"));
    }
}

#[test]
fn the_study_is_as_it_was_run() {
    for (name, eps, sigma) in [
        ("study-cifar.toml", vec![0.0, 0.005, 0.02, 0.04, 0.05, 0.1], vec![0.0, 0.25, 0.5, 1.0, 1.5, 3.0]),
        ("study-imagenet.toml", vec![0.0, 0.005, 0.01, 0.03, 0.05, 0.1, 0.5], vec![0.25, 0.5, 1.0, 1.5]),
    ] {
        let config = load(name);
        let (data, attack, defense) = (&config.dataset, &config.attack, &config.defense);
        assert_eq!((&attack.eps, &defense.sigma, config.limit, data.seed), (&eps, &sigma, 1000, Some(42)));
        assert_eq!((attack.steps, attack.step, attack.random_start), (5, StepSize::Absolute(2.0 / 255.0), false));
        assert_eq!((attack.profile, attack.hand_over), (Profile::Torchattacks, HandOver::EightBit));
        assert_eq!((defense.draws(), defense.attack, defense.size), (1, false, None));
        if data.kind == "cifar10" {
            assert_eq!(
                (data.said.size, data.said.filter, attack.space),
                (Some([224, 224]), Some(Filter::Opencv), Space::Pixel)
            );
            assert_eq!((defense.rescaling(), config.models.len()), ((false, false), 2));
        } else {
            assert_eq!(
                (data.said.size, data.said.filter, data.said.fit),
                (Some([384, 384]), Some(Filter::Bicubic), Some(Fit::Squash))
            );
            assert_eq!((defense.rescaling(), attack.space), ((true, true), Space::Normalised));
        }
    }
}

#[test]
fn the_corrections_undo_it() {
    for (name, size, filter) in
        [("corrected-cifar.toml", None, None), ("corrected-imagenet.toml", Some([256, 256]), Some(Filter::Bicubic))]
    {
        let config = load(name);
        let (attack, defense) = (&config.attack, &config.defense);
        assert!((attack.step_size(0.1) - 0.025).abs() < 1e-12 && attack.random_start, "{attack:?}");
        assert_eq!((attack.space, attack.hand_over, attack.eps[0]), (Space::Pixel, HandOver::Float, 0.0));
        assert_eq!((defense.size, defense.filter, defense.rescaling()), (size, filter, (true, true)));
        assert_eq!((defense.draws(), defense.attack, defense.eot()), (5, true, 20));
    }
}
