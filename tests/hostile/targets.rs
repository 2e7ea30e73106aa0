//! What takes bytes from outside, a function each. The fuzz targets of `fuzz/` include this file as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ptx_emulator::fatbin::ptx_of_bytes;
use ptx_emulator::machine::{Machine, Options};
use rampart::config::{Config, Overrides};
use rampart::data::prepare::Prepare;
use rampart::data::saved::{self, Places};
use rampart::data::tensors::TensorFile;
use rampart::data::{Said, Select, cifar10, decode, idx, row};
use rampart::device::{DType, Device};
use rampart::models::card::{Card, Takes};
use rampart::models::weights::Weights;
use rampart::parity::replay;
use rampart::report::page;
use rampart::run::ledger::Ledger;
use rampart::run::records;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

/// Takes bytes; whatever they are, it returns.
pub type Target = fn(&[u8], &Path);

/// By the name of the folder in `fuzz/corpus/`.
pub const TARGETS: [(&str, Target); 14] = [
    ("arrays", arrays),
    ("checkpoint", checkpoint),
    ("cifar", cifar),
    ("config", config),
    ("dump", dump),
    ("fatbin", fatbin),
    ("idx", images_and_labels),
    ("image", image),
    ("mat", mat),
    ("onnx", onnx),
    ("ptx", ptx),
    ("records", of_records),
    ("samples", samples),
    ("saved", adversarial),
];

/// The target of this name.
#[allow(dead_code, reason = "the fuzz targets ask by name, the tests take all")]
pub fn named(name: &str) -> Target {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map_or_else(|| panic!("no target is called {name}"), |&(_, target)| target)
}

/// Runs a target in a folder of its own.
pub fn run(target: Target, bytes: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a folder for what is read")
    });
    target(bytes, folder.path());
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder is ours");
    path
}

fn checkpoint(bytes: &[u8], folder: &Path) {
    let path = put(folder, "a.safetensors", bytes);
    if let Ok(file) = TensorFile::open(&path) {
        for name in file.names().iter().take(64) {
            let Some(view) = file.get(name) else { continue };
            let _ = (view.floats(), view.integers());
        }
    }
    let Ok(weights) = Weights::open(&path) else { return };
    if let Ok((weights, card, _)) = Card::find(weights)
        && let Ok(shape) = card.shape()
    {
        let size = shape.size().unwrap_or([32, 32]);
        if size[0].max(size[1]) <= 64 {
            let _ = shape.build(host(), Precision::F32, &weights, size).map(drop);
        }
    }
}

/// Read, lowered for images of a small size, and run on one.
fn onnx(bytes: &[u8], folder: &Path) {
    let Ok(weights) = Weights::open(&put(folder, "a.onnx", bytes)) else { return };
    let Ok((card, _)) = Card::of_graph(&weights, &Takes::default()) else { return };
    let Ok(shape) = card.shape() else { return };
    let size = shape.size().unwrap_or([32, 32]);
    if size[0].max(size[1]) > 64 {
        return;
    }
    let Ok(net) = shape.build(host(), Precision::F32, &weights, size) else { return };
    let image = Tensor::from_f32(host(), &[1, size[0], size[1], 3], DType::F32, &vec![0.5; size[0] * size[1] * 3]);
    let _ = net.forward(&Graph::inference(host(), Precision::F32), &image.expect("memory for one image"));
}

fn dump(bytes: &[u8], folder: &Path) {
    let path = put(folder, "a.safetensors", bytes);
    for precision in [Precision::F32, Precision::Bf16] {
        let _ = replay(&path, host(), precision);
    }
}

fn host() -> &'static Device {
    static HOST: OnceLock<Device> = OnceLock::new();
    HOST.get_or_init(|| Device::host().expect("the host is always there"))
}

/// The length of the images, four bytes, then the images, then the labels.
fn images_and_labels(bytes: &[u8], folder: &Path) {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let (images, labels) = rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()));
    let (images, labels) = (put(folder, "x.images", images), put(folder, "x.labels", labels));
    for select in [Select::First, Select::Balanced] {
        let _ = idx::load(&images, &labels, Some(2), select);
    }
}

fn mat(bytes: &[u8], folder: &Path) {
    let mut said = Said { path: Some(put(folder, "a.mat", bytes)), ..Said::default() };
    let source = row("svhn").and_then(|row| row.source(&mut said));
    let _ = source.expect("nothing is read yet").load(Some(2), Select::Balanced);
}

fn cifar(bytes: &[u8], folder: &Path) {
    let _ = cifar10::load(&put(folder, "a.bin", bytes), Some(2), Select::Balanced, None);
}

fn arrays(bytes: &[u8], folder: &Path) {
    for name in ["a.npz", "a.safetensors"] {
        let mut said = Said { path: Some(put(folder, name, bytes)), ..Said::default() };
        let source = row("arrays").and_then(|row| row.source(&mut said));
        let _ = source.expect("nothing is read yet").load(Some(2), Select::First);
    }
}

fn adversarial(bytes: &[u8], folder: &Path) {
    for name in ["a.npz", "a.safetensors", "a.pt", "a.npy"] {
        let path = put(folder, name, bytes);
        for labels in [None, Some(path.as_path())] {
            let _ = saved::read(Places { attacked: &path, clean: None, labels }, Some(2)).map(drop);
        }
    }
}

fn image(bytes: &[u8], folder: &Path) {
    let Ok(image) = decode::decode(&put(folder, "a.png", bytes)) else { return };
    assert_eq!(image.pixels.len(), image.height * image.width * 3);
    for prepare in [Prepare::CROP, Prepare::SQUASH] {
        let found = prepare.apply(&image);
        assert_eq!([found.height, found.width], prepare.size);
    }
}

fn config(bytes: &[u8], folder: &Path) {
    let path = put(folder, "a.toml", bytes);
    let _ = (Config::load(Some(&path), &Overrides::default()), Config::of_run(&path));
}

/// A run directory whose config is that of the demo.
fn demo(folder: &Path) {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let overrides = Overrides { eps: Some(vec![0.0, 0.02]), ..Overrides::default() };
        toml::to_string(&Config::load(None, &overrides).expect("the demo")).expect("a config is TOML")
    });
    put(folder, "config.toml", text.as_bytes());
}

fn of_records(bytes: &[u8], folder: &Path) {
    demo(folder);
    let _ = fs::remove_dir_all(folder.join("images"));
    let _ = records::each(&put(folder, "records.jsonl", bytes), |_: records::Record| Ok(()));
    if let Ok(run) = Ledger::read(folder) {
        let _ = page::of_run(&run);
    }
}

/// The files that a page is made of beside the records; one input is all three.
fn samples(bytes: &[u8], folder: &Path) {
    demo(folder);
    put(folder, "records.jsonl", b"");
    fs::create_dir_all(folder.join("images")).expect("the folder is ours");
    for name in ["images/samples.json", "trials.json", "timings.json"] {
        put(folder, name, bytes);
    }
    let Ok(run) = Ledger::read(folder) else { return };
    if let Ok(page) = page::of_run(&run) {
        assert_eq!(page.matches("<script").count(), 1, "the page has one script, its own");
    }
}

fn ptx(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let mut machine = Machine::new(Options::default());
    let Ok(mut module) = machine.load(&text) else { return };
    for name in module.kernel_names().iter().take(8) {
        let _ = module.kernel(name);
    }
    machine.unload(module);
}

fn fatbin(bytes: &[u8], folder: &Path) {
    if let Ok(text) = ptx_of_bytes(bytes, (9, 0)) {
        ptx(text.as_bytes(), folder);
    }
}
