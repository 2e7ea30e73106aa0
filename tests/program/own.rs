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
