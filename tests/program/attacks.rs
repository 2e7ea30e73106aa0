//! Every attack that is ours, from the command line: neither batches, nor a kill, nor parts change a byte of what it leaves.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rampart::attack::ATTACKS;

use crate::place::*;

/// What is said of an attack beside its name: long enough for circles, checkpoints, retreats and small windows. AutoAttack's stages have
/// lengths of their own: a budget that leaves few images to the long ones.
fn flags(method: &str, norm: &str) -> String {
    let eps = if norm == "linf" { "0.01" } else { "0.3" };
    let said = match method {
        "fgsm" => format!("--eps {eps}"),
        // Points that follow no gradient break nothing nearby.
        "random" => format!("--eps {} --steps 12", if norm == "linf" { "0.15" } else { "9.5" }),
        "autoattack" | "autoattack-plus" => "--eps 0.02".into(),
        "autoattack-rand" => format!("--eps {eps}"),
        "square" => format!("--eps {} --steps 60", if norm == "linf" { "0.03" } else { "1.5" }),
        "fab" => format!("--eps {eps} --steps 3 --restarts 2"),
        "fab-t" | "apgd-t" => format!("--eps {eps} --steps 4"),
        "ddn" | "fmn" => format!("--eps {} --steps 20", if norm == "linf" { "0.02" } else { "1.5" }),
        "pgd" => format!("--eps {eps} --steps 25 --rel-step 0.5 --restarts 2"),
        _ => format!("--eps {eps} --steps 12"),
    };
    let limit = if method.starts_with("autoattack") { 3 } else { 5 };
    format!("--method {method} --norm {norm} --config one.toml --no-defense --no-checks --limit {limit} {said}")
}

fn alike(norm: &str) {
    // MIM is of L-inf, DDN of L2, and the stages of an AutoAttack in L2 are tried here one by one.
    let tried = |name: &&str| match norm {
        "linf" => *name != "ddn",
        _ => *name != "mim" && !name.starts_with("autoattack"),
    };
    for method in ATTACKS.iter().map(|row| row.name).filter(tried) {
        let (place, flags) = (Place::new(), flags(method, norm));
        place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
        place.run(&format!("sweep {flags} --batch 64 --out whole")).ok();
        let whole = (place.results("whole"), place.records("whole"));
        assert!(whole.1.iter().any(|line| line.contains("\"correct_any\":false")), "{method}: {}", whole.0);
        // Some in batches of one, the rest after the kill in batches of two.
        killed(&place, &flags);
        place.run(&format!("sweep {flags} --batch 2 --resume --out torn")).ok();
        assert_eq!((place.results("torn"), place.records("torn")), whole, "{method} {norm}, killed");
        for (part, batch) in [("1/2", 1), ("2/2", 7)] {
            place.run(&format!("sweep {flags} --batch {batch} --shard {part} --out parts")).ok();
        }
        place.run("merge --no-checks parts").ok();
        assert_eq!((place.results("parts"), place.records("parts")), whole, "{method} {norm}, in parts");
    }
}

/// Begins a run in `torn` and kills it between two of its batches: a fast one may need more tries.
fn killed(place: &Place, flags: &str) {
    let written = || fs::read_to_string(place.path("torn/records.jsonl")).unwrap_or_default().lines().count();
    for _ in 0..20 {
        let mut command = place.command(&format!("sweep {flags} --batch 1 --out torn"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begin = Instant::now();
        while written() < 3 {
            assert!(begin.elapsed() < Duration::from_secs(240), "no records");
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL
        child.kill().unwrap();
        if child.wait().unwrap().code().is_none() && !place.path("torn/results.csv").exists() {
            return;
        }
        fs::remove_dir_all(place.path("torn")).unwrap();
    }
    panic!("it was always done before it could be killed: {flags}");
}

#[test]
fn neither_batches_nor_kills_nor_parts_change_an_attack_in_linf() {
    alike("linf");
}

#[test]
fn neither_batches_nor_kills_nor_parts_change_an_attack_in_l2() {
    alike("l2");
}

/// Three images and a budget that the first stages are enough for.
#[test]
fn autoattack_tells_what_its_stages_did_and_what_its_authors_warn_of() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let ran = place.run("sweep --config one.toml --method autoattack --eps 0,0.03 --no-defense --limit 3 --checks-budget 90 --out a").ok();
    for stage in ["apgd-ce", "apgd-t", "fab-t", "square"] {
        for row in [format!("after {stage}"), format!("passes of {stage}")] {
            assert!(ran.stdout.contains(&row), "{row}: {}", ran.stdout);
        }
    }
    let stages = |line: &String| -> Vec<(u64, u64)> {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(record["asked"].clone()).unwrap()
    };
    let records = place.records("a");
    assert!(records.iter().all(|line| !stages(line).is_empty()), "{records:?}");
    assert!(records.iter().any(|line| stages(line)[0].0 > 0), "{records:?}");
    let trials: serde_json::Value = serde_json::from_str(&place.read("a/trials.json")).unwrap();
    let signs = &trials["models"][0]["signs"];
    assert_eq!(
        (signs["probabilities"].as_u64(), signs["flat"].as_u64(), signs["classes"].as_u64()),
        (Some(0), Some(0), Some(10))
    );
    assert_eq!(signs["apart"].as_f64(), Some(0.0));
    assert_eq!(signs["passes"].as_array().map(Vec::len), Some(5));
    let times = place.read("a/timings.json");
    assert!(["apgd-ce", "apgd-t", "fab-t", "square"].iter().all(|stage| times.contains(stage)), "{times}");
    let page = place.read("a/report.html");
    for said in [
        "the network answers twice the same",
        "outputs are logits",
        "APGD begins on a slope",
        "there are classes enough",
        "attacks without a gradient find nothing new",
        "passes of fab-t",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

/// An adversarially trained network, on which nearly every image comes round: a stranger's, which is not in this repository.
#[test]
fn circles_of_a_robust_network_are_left_early_with_the_same_bytes() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let (network, images) = (shared.join("thirdparty/cifar10-resnet2b.opset9.onnx"), shared.join("data/cifar10"));
    if !network.is_file() || !images.is_dir() {
        eprintln!("not run: {} and {} are missing", network.display(), images.display());
        return;
    }
    let place = Place::new();
    let config = format!(
        "[dataset]\nkind = \"cifar10\"\npath = {images:?}\n[[models]]\nweights = {network:?}\n\
         [attack]\neps = [\"2/255\"]\nsteps = 200\nrel_step = 0.25\n"
    );
    place.write("robust.toml", config);
    let records = |out: &str, more: &str| {
        place.run(&format!("sweep --config robust.toml --no-checks --limit 16 {more} --out {out}")).ok();
        (place.results(out), place.records(out))
    };
    let (results, stopped) = records("stopped", "");
    let saved = |line: &str| -> u64 {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["steps_saved"].as_u64().unwrap_or_default()
    };
    let without = |line: &String| line.replace(&format!("\"steps_saved\":{},", saved(line)), "");
    let plain: Vec<String> = stopped.iter().map(without).collect();
    assert_eq!(records("whole", "--stop-cycles=false"), (results, plain));
    let all: u64 = stopped.iter().map(|line| saved(line)).sum();
    assert!(all > 16 * 100, "{all} of 3200 steps");
}
