//! The corpora of `fuzz/corpus/`: seeds, and every input that ever did harm.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::targets::{TARGETS, run};

/// Bytes that all inputs together may add to what the process takes.
const MEMORY: u64 = 300 << 20;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs of a target with their names, those of its folder and the fixtures that are of its kind.
pub fn of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut fixtures = |folder: &str, fits: &dyn Fn(&Path) -> bool| {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && fs::metadata(&path).unwrap().len() < 64 << 10 && fits(&path) {
                paths.push(path);
            }
        }
    };
    let all = |_: &Path| true;
    match target {
        "dump" => {
            for entry in fs::read_dir(root.join("tests/fixtures")).unwrap() {
                let folder = entry.unwrap().path();
                if folder.is_dir() {
                    let small = |p: &Path| fs::metadata(p).unwrap().len() < 8 << 10;
                    let dump = |p: &Path| p.extension().is_some_and(|e| e == "safetensors") && small(p);
                    fixtures(&folder.display().to_string(), &dump);
                }
            }
        }
        "checkpoint" => fixtures("tests/fixtures/torch", &all),
        "onnx" => fixtures("tests/fixtures/onnx", &|p| p.extension().is_some_and(|e| e == "onnx")),
        "image" => fixtures("tests/fixtures/imagenet", &all),
        "fatbin" => fixtures("emulator/tests/fatbin", &|p| p.extension().is_some_and(|e| e == "fatbin")),
        "ptx" => fixtures("emulator/tests/ptx", &all),
        _ => {}
    }
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no inputs");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_corpus() {
    let root = folder("");
    let mut folders: Vec<String> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name));
}

/// In one process, one after the other: the most that it ever took is known at the end.
#[test]
fn every_input_is_read_or_refused_within_its_limits() {
    let before = peak();
    for (name, target) in TARGETS {
        for (path, bytes) in of(name) {
            let begin = Instant::now();
            run(target, &bytes);
            // The longest takes two seconds of a processor, of which a busy machine gives a part.
            assert!(begin.elapsed() < Duration::from_secs(60), "{}: {:?}", path.display(), begin.elapsed());
        }
    }
    if let (Some(before), Some(after)) = (before, peak()) {
        println!("the most memory: {} MB over {} MB", (after - before) >> 20, before >> 20);
        // Sanitizers keep what was freed, and a margin around everything.
        let most = if std::env::var_os("ASAN_OPTIONS").is_some() { 2 * MEMORY } else { MEMORY };
        assert!(after - before < most, "{} MB over the start", (after - before) >> 20);
    }
}

/// The most resident memory of this process so far, bytes; only Linux tells.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}
