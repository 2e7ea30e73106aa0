//! Ranges as a profiler sees them: it is a library that the program loads, built here.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::place::*;

/// The recording library, built in `place`.
fn recorder(place: &Place) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nvtx_recorder.cpp");
    let library = place.path("recorder.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let built =
        Command::new(compiler).args(["-std=c++17", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success());
    library.to_str().unwrap().to_owned()
}

/// Ranges of a kind by name, and how often each was open.
type Seen = BTreeMap<(String, String), usize>;

/// What was recorded, each range closed at the depth it was opened.
fn seen(text: &str) -> Seen {
    let (mut kinds, mut seen, mut open) = (BTreeMap::new(), Seen::new(), Vec::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["category", number, name] => _ = kinds.insert(number, name),
            ["push", depth, category, color, name] => {
                assert_eq!(depth.parse(), Ok(open.len()), "{line}");
                assert!(color.starts_with("ff"), "{line}");
                open.push(name);
                *seen.entry((kinds[category].into(), name.into())).or_default() += 1;
            }
            ["pop", depth] => {
                open.pop().unwrap();
                assert_eq!(depth.parse(), Ok(open.len()), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(open, [""; 0]);
    assert_eq!(kinds.into_values().collect::<Vec<_>>(), ["phase", "batch", "step", "op"]);
    seen
}

fn of(seen: &Seen, kind: &str) -> Vec<(String, usize)> {
    seen.iter().filter(|((k, _), _)| k == kind).map(|((_, name), &times)| (name.clone(), times)).collect()
}

#[test]
fn a_profiler_sees_phases_batches_steps_and_kernels_of_a_sweep() {
    let place = Place::new();
    let library = recorder(&place);
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let flags =
        "sweep --config one.toml --limit 3 --batch 2 --eps 0,0.01 --steps 3 --sigma 0.25 --noise-seeds 1 --no-checks";
    let mut sweep = place.command(&format!("{flags} --out run"));
    // One thread: ranges of several are not within each other.
    let sweep = sweep
        .env("RAYON_NUM_THREADS", "1")
        .env("NVTX_INJECTION64_PATH", &library)
        .env("NVTX_RECORD", place.path("ranges.tsv"));
    assert!(sweep.output().unwrap().status.success());
    let seen = seen(&fs::read_to_string(place.path("ranges.tsv")).unwrap());

    // Two budgets, in two batches each.
    let batch = |eps: &str, images: u32| format!("resnet50-w16, eps {eps}, batch of {images}");
    let batches = [batch("0", 1), batch("0", 2), batch("0.01", 1), batch("0.01", 2)].map(|name| (name, 1));
    assert_eq!(of(&seen, "batch"), batches);
    let phases = [("attack", 4), ("denoising and its votes", 4), ("strips, samples and maps", 1)];
    assert_eq!(of(&seen, "phase"), phases.map(|(name, times)| (name.to_owned(), times)));
    // Both batches at the larger budget take three steps; the images that are shown were kept.
    assert_eq!(seen[&("step".into(), "attack step".into())], 6);
    assert!(seen[&("step".into(), "gradient".into())] >= 6);
    assert!(seen[&("step".into(), "denoise".into())] >= 4);
    for kernel in ["conv_f32", "pgd_step_linf", "group_norm_f32"] {
        assert!(of(&seen, "op").iter().any(|(name, _)| name.contains(kernel)), "{kernel}: {:?}", of(&seen, "op"));
    }
}

#[test]
fn a_profiler_that_cannot_be_loaded_is_said_and_changes_nothing() {
    let place = Place::new();
    place.write("none.so", "no library");
    for library in ["missing.so", "./none.so"] {
        let output = place.command("info").env("NVTX_INJECTION64_PATH", library).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success());
        assert!(said.contains(&format!("warning: NVTX_INJECTION64_PATH={library}: not loaded: ")), "{said}");
    }
}
