//! `rampart sweep` on a folder as ImageNet's, end to end: a small ResNet with seeded weights for 1000 classes, both channels, the
//! denoiser at another size.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rampart::models::weights::fill;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const CLASSES: usize = 1000;

/// The parameters of a ResNet-18 of this width under the names of torchvision.
fn resnet18(width: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![("conv1.weight".to_owned(), vec![width, 3, 7, 7])];
    let norm = |all: &mut Vec<(String, Vec<usize>)>, name: &str, c: usize| {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            all.push((format!("{name}.{part}"), vec![c]));
        }
    };
    norm(&mut all, "bn1", width);
    let mut from = width;
    for layer in 0..4 {
        let to = width << layer;
        for block in 0..2 {
            let name = format!("layer{}.{block}", layer + 1);
            for (i, c) in [(1, from), (2, to)] {
                all.push((format!("{name}.conv{i}.weight"), vec![to, c, 3, 3]));
                norm(&mut all, &format!("{name}.bn{i}"), to);
            }
            if from != to {
                all.push((format!("{name}.downsample.0.weight"), vec![to, from, 1, 1]));
                norm(&mut all, &format!("{name}.downsample.1"), to);
            }
            from = to;
        }
    }
    all.push(("fc.weight".into(), vec![CLASSES, from]));
    all.push(("fc.bias".into(), vec![CLASSES]));
    all
}

pub fn write_weights(path: &Path) {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = resnet18(8)
        .into_iter()
        .map(|(name, shape)| {
            let bytes = fill(&name, &shape).iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let config = r#"{"depth":18,"stem":"imagenet","width":8,"classes":1000}"#;
    let metadata = [("arch", "resnet"), ("config", config), ("mean", "[0.5,0.5,0.5]"), ("std", "[0.5,0.5,0.5]")];
    let metadata: HashMap<String, String> = metadata.map(|(k, v)| (k.into(), v.into())).into();
    safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
}

const CONFIG: &str = r#"
limit = 6
batch = 2
seed = 3
[dataset]
kind = "imagenet"
path = "val"
select = "first"
size = [64, 48]
[[models]]
weights = "small.safetensors"
[attack]
eps = [0.01, 0.1]
steps = 2
[defense]
weights = "demo:unet-small"
sigma = [0.25]
size = [32, 32]
attack = true
eot = 2
"#;

/// The folder with images of several kinds, one of them truncated; weights; a config.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imagenet");
    for (to, from) in [
        ("n01440764/1.JPEG", "colour.jpg"),
        ("n01440764/2.JPEG", "grey.jpg"),
        ("n01443537/1.JPEG", "cmyk.jpg"),
        ("n01443537/2.JPEG", "progressive.jpg"),
        ("n15075141/1.JPEG", "colour444.jpg"),
        ("n15075141/2.png", "palette.png"),
    ] {
        let to = dir.path().join("val").join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixtures.join(from), to).unwrap();
    }
    let bytes = fs::read(fixtures.join("progressive.jpg")).unwrap();
    fs::write(dir.path().join("val/n01443537/2.JPEG"), &bytes[..bytes.len() - 9]).unwrap();
    write_weights(&dir.path().join("small.safetensors"));
    fs::write(dir.path().join("try.toml"), CONFIG).unwrap();
    dir
}

fn sweep(dir: &Path, args: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    command.current_dir(dir).args(["sweep", "--config", "try.toml", "--device", "host"]).args(args.split_whitespace());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn records(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("records.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(ToString::to_string);
    lines
}

#[test]
fn a_folder_is_swept_in_both_channels() {
    let dir = place();
    let (stdout, stderr) = sweep(dir.path(), "--out run");
    for part in [
        "1 model x 3 epsilons x 5 images of imagenet · 1 file left out",
        "warning: left out: ",
        "n01443537/2.JPEG: not a readable image: the JPEG data is truncated",
        "denoised at 32x32 at sigma 0.25",
    ] {
        assert!(stderr.contains(part), "{stderr}| {part}");
    }
    for part in ["top-5 accuracy in %", "σ 0.25, attacked", "1 file left out"] {
        assert!(stdout.contains(part), "{stdout}| {part}");
    }
    let run = dir.path().join("run");
    let found = records(&run);
    assert_eq!(found.len(), 5 * 3 * 3);
    for record in &found {
        assert!(record["top5"].is_boolean() && record["label"].as_u64() < Some(1000), "{record}");
        assert_eq!(record["clean_top5"].is_boolean(), record["channel"] == 1, "{record}");
        let right = if record["channel"] == 1 { &record["correct_last"] } else { &record["correct"] };
        assert!(record["top5"] == true || *right == false, "{record}");
    }
    let columns = fs::read_to_string(run.join("results.csv")).unwrap();
    assert!(columns.starts_with("model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,"), "{columns}");
    assert_eq!(columns.lines().count(), 1 + 3 * 3);
    for name in ["small-eps-0.01.png", "small-eps-0.1.png", "small.png"] {
        let strip = image::open(run.join("images").join(name)).unwrap();
        // Clean, attacked, denoised.
        assert!(strip.height() > 3 * 64 && strip.width() > 5 * 96, "{name}: {}x{}", strip.height(), strip.width());
    }

    // Another batch size, and the run's own config: the same records.
    sweep(dir.path(), "--out other --batch 64");
    assert_eq!(records(&dir.path().join("other")), found);
    fs::copy(run.join("config.toml"), dir.path().join("try.toml")).unwrap();
    sweep(dir.path(), "--out again");
    assert_eq!(records(&dir.path().join("again")), found);
    assert_eq!(fs::read(dir.path().join("again/results.csv")).unwrap(), fs::read(run.join("results.csv")).unwrap());

    // A finished run resumed draws the same strips from attacks made again.
    let strip = |name: &str| fs::read(run.join("images").join(name)).unwrap();
    let before = strip("small-eps-0.1.png");
    sweep(dir.path(), "--out run --resume");
    assert_eq!(strip("small-eps-0.1.png"), before);
}

/// The photographs beside the repository as a flat folder, labels by their names.
#[test]
fn a_flat_folder_is_swept() {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/imagenet20");
    let Ok(entries) = fs::read_dir(&photos) else {
        println!("skipped: {} is not there", photos.display());
        return;
    };
    let dir = place();
    let names: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect();
    let labels: String = names
        .iter()
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            format!("{stem},{}\n", stem.rsplit('_').next().unwrap())
        })
        .collect();
    fs::write(dir.path().join("labels.csv"), labels).unwrap();
    let path = photos.display();
    let config = CONFIG
        .replace("path = \"val\"", &format!("path = \"{path}\"\nlabels = \"labels.csv\""))
        .replace("select = \"first\"", "select = \"random\"\nseed = 42")
        .replace("attack = true\neot = 2\n", "");
    fs::write(dir.path().join("try.toml"), config).unwrap();
    sweep(dir.path(), "--out run");
    let mut ids: Vec<u64> = records(&dir.path().join("run")).iter().map(|r| r["image"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    // numpy.random.seed(42), shuffle of 20: the first six.
    assert_eq!(ids, [0, 1, 5, 8, 15, 17]);
}
