//! ONNX graphs as users meet them: what `info` says, a sweep, and messages about files that cannot be run.

use std::fs;
use std::path::Path;

use crate::place::Place;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx").join(name)).unwrap()
}

#[test]
fn info_tells_what_becomes_of_a_graph() {
    let place = Place::new();
    place.write("net.onnx", fixture("subsampled.onnx"));
    let told = place.run("info net.onnx").ok().stdout;
    for part in ["16x16 rgb, nchw", "7 logits", "conv2d", "2 linear", "parameters"] {
        assert!(told.contains(part), "{told}| {part}");
    }
    // Batch norms and activations are gone.
    let simplified = told.lines().find(|line| line.contains("simplified")).unwrap();
    assert!(!simplified.contains("Relu") && !simplified.contains("BatchNormalization"), "{simplified}");
    place.run("info net.onnx --size 17x17").refused(1, &["net.onnx", "takes images of 16x16, found 17x17"]);
    place.run("info net.safetensors").refused(2, &["MODEL", "expected an ONNX graph"]);
}

#[test]
fn a_graph_is_attacked_like_any_network() {
    let place = Place::new();
    let config = |models: &str| {
        format!(
            "limit = 4\nbatch = 2\n[[models]]\nweights = \"net.onnx\"\n{models}\n[attack]\neps = [0, 0.02]\nsteps = 2\n"
        )
    };
    place.write("net.onnx", fixture("cifar.onnx"));
    place.write("config.toml", config(""));
    let ran = place.run("sweep --config config.toml --out run --no-checks").ok();
    let csv = place.read("run/results.csv");
    assert!(csv.lines().count() > 2 && csv.contains("net"), "{csv}\n{}", ran.stderr);
    let attacked = place.read("run/records.jsonl").lines().filter(|line| line.contains("\"channel\":1")).count();
    assert_eq!(attacked, 8);

    // Swapping red and blue is another network.
    place.write("config.toml", config("channels = \"bgr\""));
    place.run("sweep --config config.toml --out bgr --no-checks").ok();
    assert_ne!(place.read("bgr/records.jsonl"), place.read("run/records.jsonl"));
    for (line, part) in [
        ("strip = \"a.\"", "models.strip"),
        ("channels = \"grb\"", "channels"),
        ("input_range = 2", "models.input_range"),
        ("layout = \"nhwc\"", "channels"),
    ] {
        place.write("config.toml", config(line));
        let ran = place.run("sweep --config config.toml --out other --no-checks");
        assert!(ran.code == Some(1) || ran.code == Some(2), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(part) && !ran.stderr.contains("panicked"), "{line}: {}", ran.stderr);
        assert!(!place.path("other/results.csv").exists());
    }
}

#[test]
fn settings_of_graphs_are_refused_for_other_files() {
    let place = Place::new();
    place.write("config.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\nlayout = \"nhwc\"\n");
    place.run("sweep --config config.toml --out run").refused(2, &["models.layout", "ONNX"]);
}

#[test]
fn a_broken_graph_is_refused_before_anything_is_written() {
    let place = Place::new();
    let bytes = fixture("subsampled.onnx");
    place.write("config.toml", "[[models]]\nweights = \"net.onnx\"\n");
    for (content, part) in [
        (&bytes[..bytes.len() / 2], "net.onnx"),
        (&b""[..], "empty file"),
        (&b"not a model at all"[..], "expected an ONNX model"),
    ] {
        place.write("net.onnx", content);
        place.run("sweep --config config.toml --out run").refused(1, &[part]);
        place.run("info net.onnx").refused(1, &[part]);
        assert!(!place.path("run").exists());
    }
}
