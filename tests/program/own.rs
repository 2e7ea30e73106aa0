//! A network of one's own on the command line: `attack`, `init`, `--set`, and the reference of keys.

use std::fs;
use std::path::Path;

use crate::place::Place;

const DEMO: &str = "demo:resnet50-cbam-w16";

#[test]
fn the_reference_of_keys_is_what_the_program_says() {
    let place = Place::new();
    let said = place.run("config --keys --markdown").ok().stdout;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let stored = fs::read_to_string(&file).unwrap_or_default();
    assert!(said == stored, "docs/config.md is not what `rampart config --keys --markdown` prints: write it anew");
    for key in ["steps", "sigma", "kind", "weights", "input_range", "seed"] {
        assert!(said.contains(key), "{key}");
    }
}

#[test]
fn a_key_that_is_set_is_the_key_of_the_file() {
    let place = Place::new();
    place.write(
        "a.toml",
        format!("limit = 6\n[attack]\nsteps = 3\neps = [0, 0.01]\n[[models]]\nweights = \"{DEMO}\"\n"),
    );
    place.write("b.toml", format!("limit = 6\n[attack]\neps = [0, 0.01]\n[[models]]\nweights = \"{DEMO}\"\n"));
    place.run("sweep --config a.toml --no-defense --no-checks --out a").ok();
    place.run("sweep --config b.toml --no-defense --no-checks --set attack.steps=3 --out b").ok();
    assert_eq!(place.records("a"), place.records("b"));
    place.run("sweep --config a.toml --set attack.stpes=3").refused(2, &["attack.stpes", "attack.steps"]);
    place.run("sweep --config a.toml --set attack.steps=many").refused(2, &["--set attack.steps", "many"]);
}

#[test]
fn one_line_attacks_a_network_of_ones_own() {
    let place = Place::new();
    place.write("a.toml", format!("limit = 6\n[attack]\nsteps = 3\nrestarts = 2\neps = [0, 0.25]\nnorm = \"l2\"\n[[models]]\nweights = \"{DEMO}\"\n"));
    place.run("sweep --config a.toml --no-defense --no-checks --out a").ok();
    let line = format!(
        "attack {DEMO} demo --eps 0.25 --norm l2 --steps 3 --restarts 2 --limit 6 --device host --no-checks --out b"
    );
    place.run(&line).ok();
    assert_eq!(place.records("a"), place.records("b"));
    place.run("attack nothing.pth demo --device host").refused(2, &["nothing.pth"]);
}

#[test]
fn a_starter_config_runs() {
    let place = Place::new();
    place.run(&format!("init {DEMO} demo --out my.toml")).ok();
    let text = place.read("my.toml");
    assert!(text.contains(DEMO) && text.contains('#'), "{text}");
    place.run("sweep --config my.toml --limit 2 --no-checks --dry-run").ok();
    place.run(&format!("init {DEMO} demo --out my.toml")).refused(2, &["my.toml"]);
}

/// The demo's network as a file that says nothing of itself.
fn plain(place: &Place) -> &'static str {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/resnet50-cbam-w16.safetensors");
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    place.write("plain.safetensors", safetensors::serialize(tensors.tensors(), None).unwrap());
    "plain.safetensors"
}

#[test]
fn a_config_says_what_a_checkpoint_does_not() {
    let place = Place::new();
    let weights = plain(&place);
    let demo = rampart::config::open(DEMO).unwrap();
    let said = |key: &str| demo.metadata(key).unwrap().to_owned();
    let mean = format!("mean = {}\nstd = {}\n", said("mean"), said("std"));
    let json: serde_json::Value = serde_json::from_str(&said("config")).unwrap();
    let table = json.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>();
    let table = format!("config = {{ {} }}\n", table.join(", "));
    let config = |lines: &str| {
        format!(
            "limit = 6\n[attack]\nsteps = 2\neps = [0, 0.01]\n[[models]]\nweights = \"{weights}\"\nname = \"net\"\n{lines}"
        )
    };
    let sweep = |lines: &str, out: &str| {
        place.write("a.toml", config(lines));
        place.run(&format!("sweep --config a.toml --no-defense --no-checks --out {out}"))
    };
    let arch = "arch = \"resnet\"\n";
    sweep(&format!("{arch}{table}{mean}"), "whole").ok();
    let own = config("").replace(weights, DEMO);
    place.write("own.toml", own);
    place.run("sweep --config own.toml --no-defense --no-checks --out own").ok();
    assert_eq!(place.records("whole"), place.records("own"));
    // What a run wrote down can be run again; JSON as text is the same table; an architecture alone leaves the rest to the tensors.
    place.run("sweep --config whole/config.toml --no-checks --out again").ok();
    let text = format!("config = '{}'\n", said("config"));
    sweep(&format!("{arch}{text}{mean}"), "text").ok();
    let ran = sweep(&format!("{arch}{mean}"), "arch").ok();
    assert!(ran.stderr.contains("no `config` in the metadata"), "{}", ran.stderr);
    for run in ["again", "text", "arch"] {
        assert_eq!(place.records(run), place.records("own"), "{run}");
    }
    // One that does not fit is refused.
    let other = json.to_string().replace("\"classes\":10", "\"classes\":11");
    assert_ne!(other, json.to_string());
    sweep(&format!("{arch}config = '{other}'\n{mean}"), "other").refused(1, &["plain.safetensors", "11 classes"]);
    sweep(&format!("{table}{mean}"), "bad").refused(2, &["models.config", "models.arch"]);
    sweep(&format!("arch = \"vgg\"\n{mean}"), "bad").refused(2, &["models.arch", "resnet", "vgg"]);
    sweep(&format!("{arch}config = 3\n{mean}"), "bad").refused(2, &["models.config", "found 3"]);
    sweep(&format!("{arch}config = '{{'\n{mean}"), "bad").refused(2, &["models.config", "JSON"]);
    sweep(arch, "bad").refused(1, &["mean", "models.mean"]);
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx/cifar.onnx");
    let line = format!("attack {} demo --device host --arch resnet", graph.display());
    place.run(&line).refused(2, &["--arch", "ONNX graph"]);
}
