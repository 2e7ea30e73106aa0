//! ONNX graphs as users meet them: what `info` says, a sweep, and messages about files that cannot be run.

use std::fs;
use std::path::Path;

use rampart::data::tensors::TensorFile;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

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
        ("mean = 0.5\nstd = 0.25\ninput_range = 255", "has no effect beside models.mean and models.std"),
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

/// Four grey images of 28x28 as bytes, the third of them brighter.
fn grey_bytes() -> Vec<u8> {
    (0..4 * 28 * 28).map(|i| ((i * 37 + i / 28 * 11) % 201 + if i / 784 == 2 { 50 } else { 0 }) as u8).collect()
}

/// Images and labels as safetensors.
fn arrays(shape: &[usize], bytes: &[u8], labels: &[u8]) -> Vec<u8> {
    let images = TensorView::new(Dtype::U8, shape.to_vec(), bytes).unwrap();
    let labels = TensorView::new(Dtype::U8, vec![labels.len()], labels).unwrap();
    safetensors::serialize([("x", images), ("y", labels)], None).unwrap()
}

#[test]
fn a_network_of_one_channel_is_attacked_in_one() {
    let place = Place::new();
    place.write("grey.onnx", fixture("grey.onnx"));
    let bytes = grey_bytes();
    place.write("grey.safetensors", arrays(&[4, 28, 28], &bytes, &[0, 1, 2, 3]));
    let flags = "--norm l2 --eps 0,0.5 --steps 2 --no-checks --save safetensors";
    let ran = place.run(&format!("attack grey.onnx grey.safetensors {flags} --out grey")).ok();
    assert!(ran.stderr.contains("one channel"), "{}", ran.stderr);

    // The perturbation is of one channel, and whoever reads it finds what the run found.
    let saved = TensorFile::open(&place.path("grey/adversarial/grey-pgd-eps0.5.safetensors")).unwrap();
    assert_eq!(saved.get("x").unwrap().shape, [4, 1, 28, 28]);
    let scored = place
        .run("evaluate grey/adversarial/grey-pgd-eps0.5.safetensors --model grey.onnx --norm l2 --eps 0.5 --csv s.csv");
    assert!(scored.ok().stdout.contains("over the budget: 0 of 4"));
    let column = |csv: &str, name: &str| -> Vec<String> {
        let at = csv.lines().next().unwrap().split(',').position(|head| head == name).unwrap();
        csv.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
    };
    let l2: Vec<f64> = column(&place.read("s.csv"), "l2").iter().map(|l2| l2.parse().unwrap()).collect();
    assert!(l2.iter().all(|l2| (0.4..0.500_01).contains(l2)), "{l2:?}");
    let of_run = |run: &str| -> Vec<u64> {
        let records = place.read(&format!("{run}/records.jsonl"));
        records
            .lines()
            .skip(1)
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["prediction"].as_u64().unwrap())
            .collect()
    };
    let evaluated: Vec<u64> = column(&place.read("s.csv"), "prediction").iter().map(|p| p.parse().unwrap()).collect();
    assert_eq!(of_run("grey")[4..], evaluated);

    // The same images in other forms: three equal channels, and the planes first.
    place.write(
        "rgb.safetensors",
        arrays(&[4, 28, 28, 3], &bytes.iter().flat_map(|&b| [b; 3]).collect::<Vec<_>>(), &[0, 1, 2, 3]),
    );
    place.write("planes.safetensors", arrays(&[4, 1, 28, 28], &bytes, &[0, 1, 2, 3]));
    for form in ["rgb", "planes"] {
        place.run(&format!("attack grey.onnx {form}.safetensors {flags} --out {form}")).ok();
        assert_eq!(of_run(form), of_run("grey"), "{form}");
    }
    // IDX as it lies there, not padded.
    let head = |magic: u32, sides: &[u32]| -> Vec<u8> {
        [magic].iter().chain(sides).flat_map(|word| word.to_be_bytes()).collect()
    };
    fs::create_dir(place.path("idx")).unwrap();
    place.write("idx/t10k-images-idx3-ubyte", [head(0x803, &[4, 28, 28]), bytes].concat());
    place.write("idx/t10k-labels-idx1-ubyte", [head(0x801, &[4]), vec![0, 1, 2, 3]].concat());
    place.run(&format!("attack grey.onnx idx {flags} --out of-idx")).ok();
    assert_eq!(of_run("of-idx"), of_run("grey"));

    // Noise alone certifies it; the denoiser of the demo has three channels.
    let certified = place.run("certify grey.onnx grey.safetensors --limit 2 --sigma 0.1 --n 30 --out certified").ok();
    assert!(certified.stdout.contains("certified"), "{}", certified.stdout);
    let denoised =
        place.run("attack grey.onnx grey.safetensors --eps 0 --sigma 0.25 --denoiser demo:unet-small --out no");
    denoised.refused(1, &["3 channels, found 1", "noise alone"]);
    place.write("config.toml", "[[models]]\nweights = \"grey.onnx\"\nchannels = \"rgb\"\n");
    place
        .run("sweep --config config.toml --out no")
        .refused(1, &["its input has 1 channels: expected 3", "channels = \"rgb\""]);
}

#[test]
fn networks_of_two_and_four_channels_take_arrays_as_they_are() {
    let place = Place::new();
    for (name, [channels, height, width]) in [("two", [2, 10, 14]), ("four", [4, 12, 12])] {
        place.write(&format!("{name}.onnx"), fixture(&format!("{name}.onnx")));
        let plane = height * width;
        let planes: Vec<u8> = (0..4 * channels * plane).map(|i| ((i * 37 + i / plane * 91) % 251) as u8).collect();
        let pixels: Vec<u8> = (0..4 * channels * plane)
            .map(|i| {
                let (n, pixel, c) = (i / (channels * plane), i / channels % plane, i % channels);
                planes[(n * channels + c) * plane + pixel]
            })
            .collect();
        let labels = [0, 1, 2, 3];
        let flags = "--norm linf --eps 0,0.1 --steps 2 --no-checks --save safetensors";
        let mut found = Vec::new();
        for (form, shape, bytes) in
            [("planes", [4, channels, height, width], &planes), ("pixels", [4, height, width, channels], &pixels)]
        {
            let data = format!("{name}-{form}.safetensors");
            place.write(&data, arrays(&shape, bytes, &labels));
            place.run(&format!("attack {name}.onnx {data} {flags} --out {name}-{form}")).ok();
            let saved =
                TensorFile::open(&place.path(&format!("{name}-{form}/adversarial/{name}-pgd-eps0.1.safetensors")));
            let saved = saved.unwrap();
            let clean = saved.get("clean").unwrap();
            assert_eq!(clean.shape, [4, channels, height, width]);
            let expected: Vec<u8> = planes.iter().flat_map(|&b| (f32::from(b) / 255.0).to_le_bytes()).collect();
            assert!(clean.data() == expected, "{data}: not the pixels that were given");
            found.push(
                place.read(&format!("{name}-{form}/records.jsonl")).lines().skip(1).map(prediction).collect::<Vec<_>>(),
            );
        }
        assert_eq!(found[0], found[1], "{name}");
        // What was saved scores as it did, and every attack and certificate goes through.
        let file = format!("{name}-planes/adversarial/{name}-pgd-eps0.1.safetensors");
        let scored = place.run(&format!("evaluate {file} --model {name}.onnx --norm linf --eps 0.1")).ok();
        assert!(scored.stdout.contains("over the budget: 0 of 4"), "{}", scored.stdout);
        let data = format!("{name}-planes.safetensors");
        let certified = format!("certify {name}.onnx {data} --limit 1 --sigma 0.1 --n 20 --out {name}-certified");
        assert!(place.run(&certified).ok().stdout.contains("certified"));
        place
            .run(&format!(
                "attack {name}.onnx {data} --method autoattack --eps 0.1 --limit 2 --no-checks --out {name}-aa"
            ))
            .ok();

        // Colours are no such images.
        place.write("rgb.safetensors", arrays(&[4, height, width, 3], &vec![100; 12 * plane], &labels));
        let refused = place.run(&format!("attack {name}.onnx rgb.safetensors --eps 0.1 --out no"));
        refused.refused(2, &[&format!("images of {channels} channels, found 3"), ".npz"]);
        place
            .run(&format!("attack {name}.onnx {data} --eps 0 --sigma 0.25 --denoiser demo:unet-small --out no"))
            .refused(1, &[&format!("3 channels, found {channels}"), "noise alone"]);
        place
            .run(&format!("attack {name}.onnx {data} --eps 0 --mean 0.1,0.2,0.3 --std 1 --out no"))
            .refused(2, &["--mean", &format!("expected {channels} numbers")]);
        assert!(!place.path("no").exists());
    }
}

/// The class that a record says was predicted.
fn prediction(line: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["prediction"].as_u64().unwrap()
}

#[test]
fn a_graph_of_flat_inputs_takes_images() {
    let place = Place::new();
    place.write("flat.onnx", fixture("flat.onnx"));
    let bytes: Vec<u8> = (0..4 * 196).map(|i| ((i * 37 + i / 196 * 91) % 251) as u8).collect();
    place.write("grey.safetensors", arrays(&[4, 14, 14], &bytes, &[0, 1, 2, 3]));
    let ran = place.run("attack flat.onnx grey.safetensors --eps 0,0.1 --steps 2 --no-checks --out grey").ok();
    assert!(ran.stderr.contains("grey images of 14x14 are reshaped to it"), "{}", ran.stderr);
    assert!(place.run("info flat.onnx").ok().stdout.contains("14x14 grey"));

    // Of colours the order is told, and may be said.
    place.write("colour.onnx", fixture("flat_colour.onnx"));
    let bytes: Vec<u8> = (0..4 * 192).map(|i| ((i * 37 + i / 64 * 91) % 251) as u8).collect();
    place.write("colour.safetensors", arrays(&[4, 3, 8, 8], &bytes, &[0, 1, 2, 3]));
    let flags = "--eps 0,0.05 --steps 2 --no-checks";
    let ran = place.run(&format!("attack colour.onnx colour.safetensors {flags} --out planes")).ok();
    assert!(ran.stderr.contains("channel by channel") && ran.stderr.contains("--layout nhwc"), "{}", ran.stderr);
    let ran = place.run(&format!("attack colour.onnx colour.safetensors {flags} --layout nhwc --out pixels")).ok();
    assert!(!ran.stderr.contains("channel by channel"), "{}", ran.stderr);
    let margins = |run: &str| -> Vec<String> {
        let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["margin"].to_string();
        place.read(&format!("{run}/records.jsonl")).lines().skip(1).map(record).collect()
    };
    assert_ne!(margins("planes"), margins("pixels"));
    place.run("attack flat.onnx colour.safetensors --eps 0 --out no").refused(1, &["14x14"]);
}
