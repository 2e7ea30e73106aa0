//! Checkpoints as PyTorch wrote them (tests/fixtures/torch, by tools/reference/torch_fixtures.py), whole and damaged.

use std::path::{Path, PathBuf};

use rampart::data::tensors::TensorFile;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name)
}

/// The values of a tensor and its shape.
fn floats(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = file.get(name).unwrap_or_else(|| panic!("{name}: {:?}", file.names()));
    (view.shape.to_vec(), view.floats().unwrap())
}

#[test]
fn tensors_are_read_from_both_formats() {
    for name in ["tensors.pth", "before-1.6.pth"] {
        let file = TensorFile::open(&fixture(name)).unwrap();
        let counted = |first: f32, n: usize| (0..n).map(|i| first + i as f32 / 4.0).collect::<Vec<f32>>();
        for (tensor, shape, values) in [
            ("f32", vec![2, 3], counted(1.0, 6)),
            ("f16", vec![3], counted(2.0, 3)),
            ("bf16", vec![3], counted(3.0, 3)),
            ("f64", vec![2], counted(4.0, 2)),
            ("shared", vec![4, 3], counted(5.0, 12)),
            // Views of the same storage.
            ("rows", vec![2, 3], counted(5.75, 6)),
            ("transposed", vec![3, 4], (0..12).map(|i| 5.0 + (i % 4 * 3 + i / 4) as f32 / 4.0).collect()),
            ("every_other", vec![2, 3], [counted(5.0, 3), counted(6.5, 3)].concat()),
            ("empty", vec![0, 3], vec![]),
            ("parameter", vec![2, 2], counted(6.0, 4)),
        ] {
            assert_eq!(floats(&file, tensor), (shape, values), "{name}: {tensor}");
        }
        assert_eq!(file.get("count").unwrap().integers().unwrap(), [7], "{name}");
        assert_eq!((file.names().len(), file.names()[0].as_str()), (11, "f32"), "{name}");
        assert!(file.metadata().is_none());
    }
}

#[test]
fn tensors_are_found_among_other_things() {
    let file = TensorFile::open(&fixture("nested.pt")).unwrap();
    assert_eq!(file.names(), ["state_dict.module.a.weight", "state_dict.module.b.bias", "optimizer.state.0.step"]);
    assert_eq!(floats(&file, "state_dict.module.b.bias"), (vec![2], vec![2.0, 2.25]));
}

fn refusal(path: &Path) -> String {
    TensorFile::open(path).err().unwrap().to_string()
}

#[test]
fn what_is_no_state_dict_is_named() {
    for (name, part) in [
        ("module.pt", "a pickled `torch.nn.modules.linear.Linear`, not its tensors: save its state_dict()"),
        ("script.pt", "a TorchScript archive"),
    ] {
        let error = refusal(&fixture(name));
        assert!(
            error.contains(part) && error.contains("tools/import/convert_checkpoint.py") && error.lines().count() == 1,
            "{error}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.pth");
    for (bytes, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..], "a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:", "an ONNX graph"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "one that does not parse"),
        (b"PK\x03\x04\x14\0", "a zip archive that is damaged or truncated"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0]\x94.", "a Python pickle that PyTorch did not write"),
        (b"", "an empty file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains("net.pth: expected") && error.contains(part), "{error}");
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let origin = Path::new("net.pth");
    for name in ["tensors.pth", "before-1.6.pth", "nested.pt"] {
        let good = std::fs::read(fixture(name)).unwrap();
        for len in 0..good.len() {
            // The comment at the end of an archive may be missing, nothing else.
            assert!(TensorFile::owned(origin, good[..len].to_vec()).is_err(), "{name}: {len} of {} bytes", good.len());
        }
        let mut told = 0;
        for i in 0..good.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[i] ^= flip;
                told += usize::from(TensorFile::owned(origin, bad).is_err());
            }
        }
        println!("{name}: {told} of {} damages are told", 3 * good.len());
    }
    // Of a value in an archive each is: it has checksums.
    let good = std::fs::read(fixture("tensors.pth")).unwrap();
    let value = 5.75f32.to_le_bytes();
    let at = good.windows(4).position(|bytes| bytes == value).unwrap();
    let mut bad = good.clone();
    bad[at + 2] ^= 1;
    let error = TensorFile::owned(origin, bad).err().unwrap().to_string();
    assert!(error.contains("damaged: the checksum of the record"), "{error}");
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    let good = std::fs::read(fixture("before-1.6.pth")).unwrap();
    // `f32`: shape (2, 3) becomes (2, 200); this format has no checksums.
    let shape = good.windows(4).position(|b| b == [b'K', 2, b'K', 3]).unwrap();
    let mut bad = good.clone();
    bad[shape + 3] = 200;
    let error = TensorFile::owned(Path::new("net.pth"), bad).err().unwrap().to_string();
    assert!(error.contains("tensor `f32`: shape [2, 200] is more than the 6 values of its storage"), "{error}");
}
