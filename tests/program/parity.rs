//! Every PyTorch dump of `tests/fixtures`, in both precisions, and what `rampart parity` says of dumps that are wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rampart::device::Device;
use rampart::parity::{Verdict, replay};
use rampart::tape::Precision;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let list =
        |folder: &Path| -> Vec<PathBuf> { std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect() };
    let mut files: Vec<PathBuf> = list(&root).iter().filter(|p| p.is_dir()).flat_map(|p| list(p)).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    files
}

/// Replays all; prints the worst error of each op and tensor, fails with every file that does.
fn all(precision: Precision) {
    let device = Device::host().unwrap();
    let files = fixtures();
    assert!(files.len() >= 150, "fixtures are missing: {}", files.len());
    let mut worst: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    let mut failures = Vec::new();
    for file in &files {
        let report = replay(file, &device, precision);
        let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        match &report.verdict {
            Verdict::Compared { worst: w, all } => {
                for c in all {
                    let entry = worst.entry((report.op.clone(), c.tensor.clone())).or_insert((0.0, c.limit));
                    if c.rel_err > entry.0 {
                        *entry = (c.rel_err, c.limit);
                    }
                }
                if !report.passed() {
                    failures.push(format!("{name} {}: {:.2e} of {:.0e}", w.tensor, w.rel_err, w.limit));
                }
            }
            Verdict::Unsupported { reason } => failures.push(format!("{name}: {reason}")),
        }
    }
    for ((op, tensor), (err, limit)) in worst {
        println!("{op:<18} {tensor:<14} worst {err:.1e} of {limit:.0e}");
    }
    assert!(failures.is_empty(), "{} of {} dumps failed:\n{}", failures.len(), files.len(), failures.join("\n"));
}

#[test]
fn every_dump_agrees_in_float32() {
    all(Precision::F32);
}

#[test]
fn every_dump_agrees_in_bfloat16() {
    all(Precision::Bf16);
}

/// A dump of `y = relu(x)` with what a case changes about it.
struct Dump {
    op: &'static str,
    attrs: &'static str,
    tensors: Vec<(&'static str, Vec<usize>, Vec<f32>)>,
    rtol: Option<&'static str>,
}

impl Dump {
    fn new() -> Self {
        let tensors = vec![("in.x", vec![3], vec![-1.0, 0.5, 2.0]), ("out.y", vec![3], vec![0.0, 0.5, 2.0])];
        Dump { op: "relu", attrs: "{}", tensors, rtol: None }
    }

    fn with(name: &'static str, values: Vec<f32>) -> Self {
        let mut dump = Dump::new();
        dump.tensors.retain(|(n, ..)| *n != name);
        dump.tensors.push((name, vec![values.len()], values));
        dump
    }

    fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let mut metadata =
            HashMap::from([("op".to_string(), self.op.to_string()), ("attrs".into(), self.attrs.into())]);
        metadata.extend(self.rtol.map(|r| ("rtol".to_string(), r.to_string())));
        let bytes: Vec<Vec<u8>> =
            self.tensors.iter().map(|(.., v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = self
            .tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), b)| (*name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
        let path = folder.join(name);
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        path
    }
}

fn parity(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rampart")).arg("parity").args(args).args(["--device", "host"]).output().unwrap()
}

fn text(out: &[u8]) -> String {
    String::from_utf8(out.to_vec()).unwrap()
}

/// Runs one dump; the exit code and the first line.
fn verdict(dump: &Dump) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = dump.write(folder.path(), "case.safetensors");
    let out = parity(&[path.to_str().unwrap()]);
    (out.status.code().unwrap(), text(&out.stdout).lines().next().unwrap_or_default().to_string())
}

#[test]
fn a_right_dump_passes_and_a_wrong_one_fails() {
    let (code, line) = verdict(&Dump::new());
    assert!(code == 0 && line.starts_with("ok ") && line.contains("out.y"), "{code} {line}");
    let (code, line) = verdict(&Dump::with("out.y", vec![0.0, 0.5, 2.1]));
    assert!(code == 1 && line.starts_with("FAIL "), "{code} {line}");
    // An own limit counts, and must be one.
    let (code, line) = verdict(&Dump { rtol: Some("0.1"), ..Dump::with("out.y", vec![0.0, 0.5, 2.1]) });
    assert!(code == 0, "{code} {line}");
    let (code, line) = verdict(&Dump { rtol: Some("many"), ..Dump::new() });
    assert!(code == 1 && line.contains("rtol"), "{code} {line}");
    // A reference of zeros is met by zeros only.
    assert_eq!(
        verdict(&Dump { tensors: vec![("in.x", vec![1], vec![-1.0]), ("out.y", vec![1], vec![0.0])], ..Dump::new() }).0,
        0
    );
    assert_eq!(
        verdict(&Dump { tensors: vec![("in.x", vec![1], vec![1.0]), ("out.y", vec![1], vec![0.0])], ..Dump::new() }).0,
        1
    );
}

#[test]
fn nan_and_infinity_fail_where_the_reference_has_none() {
    for bad in [f32::NAN, f32::INFINITY] {
        let (code, line) = verdict(&Dump::with("in.x", vec![-1.0, 0.5, bad]));
        assert!(code == 1 && line.starts_with("FAIL "), "{code} {line}");
        let (code, line) = verdict(&Dump::with("out.y", vec![0.0, 0.5, bad]));
        assert!(code == 1 && line.starts_with("FAIL "), "{code} {line}");
    }
    let mut both = Dump::with("in.x", vec![-1.0, 0.5, f32::INFINITY]);
    both.tensors[0].2[2] = f32::INFINITY;
    assert_eq!(verdict(&both).0, 0);
}

#[test]
fn what_is_unknown_is_named() {
    let unsupported = |dump: &Dump, what: &str| {
        let (code, line) = verdict(dump);
        assert!(code == 1 && line.starts_with("UNSUPPORTED ") && line.contains(what), "{code} {line}");
    };
    unsupported(&Dump { op: "warp_drive", ..Dump::new() }, "`warp_drive`");
    unsupported(&Dump { attrs: r#"{"speed": 9}"#, ..Dump::new() }, "`speed`");
    unsupported(&Dump::with("in.mask", vec![1.0]), "`in.mask`");
    unsupported(&Dump::with("w.bias", vec![1.0]), "`w.bias`");
    unsupported(&Dump::with("out.z", vec![1.0]), "`out.z`");
    unsupported(&Dump { tensors: vec![("out.y", vec![1], vec![1.0])], ..Dump::new() }, "`in.x`");
    unsupported(&Dump { tensors: vec![("in.x", vec![1], vec![1.0])], ..Dump::new() }, "out.");
    unsupported(&Dump { op: "max_pool2d", attrs: r#"{"kernel": 3}"#, ..Dump::new() }, "kernel");
    unsupported(&Dump { op: "max_pool2d", ..Dump::new() }, "`kernel`");
}

#[test]
fn files_that_are_none_are_errors_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.safetensors");
    for bytes in [&b""[..], b"hello", &[0xff; 64]] {
        std::fs::write(&path, bytes).unwrap();
        let out = parity(&[path.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stdout).contains("broken.safetensors"), "{}", text(&out.stdout));
    }
    let missing = folder.path().join("missing.safetensors");
    let out = parity(&[missing.to_str().unwrap()]);
    assert!(out.status.code() == Some(1) && text(&out.stderr).contains("missing.safetensors"), "{}", text(&out.stderr));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(parity(&[empty.path().to_str().unwrap()]).status.code(), Some(1), "nothing to check is no success");
    assert_eq!(parity(&[path.to_str().unwrap(), "--precision", "f8"]).status.code(), Some(2));
}

#[test]
fn folders_are_searched_and_a_summary_comes_last() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    Dump::new().write(folder.path(), "right.safetensors");
    Dump::with("out.y", vec![1.0, 1.0, 1.0]).write(&inner, "wrong.safetensors");
    std::fs::write(folder.path().join("notes.txt"), "not a dump").unwrap();
    let out = parity(&[folder.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stdout).lines().last(), Some("1 passed, 1 failed"));

    let out = parity(&[folder.path().to_str().unwrap(), "--json"]);
    let lines: Vec<serde_json::Value> = text(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        lines.iter().any(|l| l["op"] == "relu" && l["file"].as_str().unwrap().ends_with("wrong.safetensors")),
        "{lines:?}"
    );
    assert_eq!(out.status.code(), Some(1));
}
