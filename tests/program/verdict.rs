//! What a run says of its own attack, and of targets, in every output: terminal, results.csv, exports and page.

use std::collections::HashMap;
use std::path::Path;

use crate::place::*;
use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The demo's plain classifier with the last layer times `factor`: the same predictions.
fn scaled(place: &Place, factor: f32) {
    let bytes = rampart::data::demo::weights("resnet50-w16").unwrap();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let own: Vec<(String, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values: Vec<f32> = match view.dtype() {
                Dtype::F16 => {
                    data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
                }
                _ => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            };
            let factor = if name.starts_with("fc.") { factor } else { 1.0 };
            (name, values.into_iter().flat_map(|v| (factor * v).to_le_bytes()).collect())
        })
        .collect();
    let views = own.iter().map(|(name, data)| {
        let view = file.tensor(name).unwrap();
        (name.as_str(), TensorView::new(Dtype::F32, view.shape().to_vec(), data).unwrap())
    });
    safetensors::serialize_to_file(views, header.metadata().clone(), &place.path("scaled.safetensors")).unwrap();
}

fn rows(csv: &str) -> Vec<HashMap<String, String>> {
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

#[test]
fn saturated_logits_are_marked_wherever_their_accuracy_stands() {
    let place = Place::new();
    scaled(&place, 1e4);
    place.write(
        "try.toml",
        "limit = 12\n[[models]]\nweights = \"scaled.safetensors\"\n[attack]\neps = [0, 0.03]\n[defense]\nsigma = []\n",
    );
    let ran = place.run("sweep --config try.toml --no-checks --out run").ok();
    for part in ["DO NOT QUOTE", "the logits are not saturated", "keep a loss of exactly 0 at eps 0.03"] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    let found = rows(&place.results("run"));
    assert!(
        found.iter().all(|row| row["verdict"].starts_with("fail: ") && row["verdict"].contains("saturated")),
        "{found:?}"
    );
    assert!(place.read("run/report.html").contains("the logits are not saturated"));
    for format in ["csv", "json", "markdown"] {
        let export = place.run(&format!("report run --format {format}")).ok().stdout;
        assert!(export.contains("the logits are not saturated") && export.contains("fail"), "{format}: {export}");
    }
}

/// A small network of tests/fixtures/planted, swept with time for every check.
fn swept(place: &Place, name: &str, more: &str) -> Ran {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/planted/{name}.onnx"));
    place.write(
        "planted.toml",
        format!(
            "limit = 32\n[[models]]\nweights = {weights:?}\n[attack]\neps = [0, 0.02, 0.06]\n[defense]\nsigma = []\n"
        ),
    );
    place.run(&format!("sweep --config planted.toml --checks-budget 60 --out {name} {more}"))
}

/// The verdicts of `verdicts.json` by id.
fn verdicts(place: &Place, run: &str) -> HashMap<String, String> {
    let found: serde_json::Value = serde_json::from_str(&place.read(&format!("{run}/verdicts.json"))).unwrap();
    let checks = found["checks"].as_array().unwrap().iter();
    checks.map(|c| (c["id"].as_str().unwrap().to_owned(), c["verdict"].as_str().unwrap().to_owned())).collect()
}

/// Which planted gradient turns which verdicts, in every output; and no accuracy stands alone then.
#[test]
fn planted_gradients_fail_everywhere() {
    let place = Place::new();
    for (name, failed) in [
        ("saturated", &["S5", "S11", "S13", "S25"][..]),
        ("shattered", &["S5", "S11", "S12", "S20"]),
        ("zero", &["S5", "S11", "S20", "S27"]),
    ] {
        let ran = swept(&place, name, "").ok();
        let found = verdicts(&place, name);
        for id in failed {
            assert_eq!(found[*id], "fail", "{name} {id}: {found:?}");
            assert!(ran.stdout.contains(&format!("fail {id} ")), "{name} {id}: {}", ran.stdout);
            let csv = rows(&place.results(name));
            assert!(csv.iter().all(|row| row["verdict"].contains(&format!("{id} "))), "{name} {id}: {csv:?}");
        }
        // No number of a table is without its mark, on the terminal, in exports and on the page.
        let unmarked = |text: &str, begin: &str| {
            let own = text.lines().filter(|line| line.starts_with(begin));
            let cells: Vec<String> = own.flat_map(|line| line.split_whitespace().map(str::to_owned)).collect();
            cells.into_iter().filter(|cell| cell.parse::<f64>().is_ok_and(|v| v > 1.0)).collect::<Vec<_>>()
        };
        assert_eq!(unmarked(&ran.stdout, &format!("{name}, undefended")), [""; 0], "{}", ran.stdout);
        let note = ran.stdout.lines().find(|line| line.starts_with("† not to be quoted: of the attack's checks S"));
        assert!(note.is_some_and(|note| note.contains("S11 the gradient is not masked")), "{}", ran.stdout);
        let page = place.read(&format!("{name}/report.html"));
        let fell = page.split("class=\"fell\">").nth(1).unwrap();
        let (before, _) = fell.split_once(" failed: ").unwrap();
        assert!(
            before.starts_with("Not to be quoted, as S") && before.contains("S11 the gradient is not masked"),
            "{before}"
        );
        assert!(page.contains(" %†</b>") && !page.contains(" %</b>"), "{name}");
        assert!(place.read(&format!("{name}/plots/accuracy.svg")).contains("S11"), "{name}");
        for format in ["markdown", "latex"] {
            let export = place.run(&format!("report {name} --format {format}")).ok().stdout;
            assert!(export.contains("not to be quoted") && export.contains("fail: "), "{export}");
            let sign = if format == "latex" { "$^\\dagger$ [" } else { "† [" };
            let (marked, all) = (export.matches(sign).count(), export.matches(" [").count());
            assert_eq!(marked + 1, all, "{format}: {export}");
        }
    }
    // Images stand behind a verdict.
    let text = place.read("zero/verdicts.json");
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let forbidden = found["forbidden_by"].as_array().unwrap();
    assert!(forbidden.iter().any(|name| name.as_str().unwrap().starts_with("S11 ")), "{text}");
    let check = found["checks"].as_array().unwrap().iter().find(|c| c["id"] == "S11").unwrap();
    assert_eq!(check["found"][0]["images"].as_array().unwrap().len(), 16, "{check}");
}

#[test]
fn strict_is_an_error_after_all_is_written() {
    let place = Place::new();
    swept(&place, "shattered", "--strict").refused(1, &["--strict", "S11"]);
    for file in ["report.html", "verdicts.json", "results.csv"] {
        assert!(place.path(&format!("shattered/{file}")).is_file(), "{file}");
    }
    place.run("report shattered --format csv --strict").refused(1, &["--strict", "S12"]);
    let ran = swept(&place, "sound", "--strict").ok();
    let found = verdicts(&place, "sound");
    for id in ["S2", "S3", "S4", "S6", "S7", "S10", "S11", "S12", "S13", "S20", "S23", "S24", "S25", "S27"] {
        assert_eq!(found[id], "pass", "{id}: {found:?}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains('†') && !place.read("sound/report.html").contains('†'));
}

/// What found no time says so, and what would give it more; more time on a finished run is used.
#[test]
fn checks_stay_within_their_budget() {
    let place = Place::new();
    let flags = "--limit 8 --eps 0,0.02 --no-defense --out run";
    place.run(&format!("sweep {flags} --checks-budget 0")).ok();
    let trials: serde_json::Value = serde_json::from_str(&place.read("run/trials.json")).unwrap();
    assert!(trials["models"][0]["longer"].is_null() && trials["models"][0]["gradients"].is_object(), "{trials}");
    assert!(place.read("run/report.html").contains("--checks-budget SECONDS gives it more"));
    assert_eq!(verdicts(&place, "run")["S7"], "not run");
    place.run(&format!("sweep {flags} --resume --checks-budget 90")).ok();
    assert_eq!(verdicts(&place, "run")["S23"], "pass");
    place.run("sweep --limit 2 --checks-budget 5 --no-checks --out no").refused(2, &["--checks-budget", "--no-checks"]);
    place.run("sweep --limit 2 --checks-budget=-1 --out no").refused(2, &["--checks-budget", "at least 0"]);
}

/// Whoever goes on with a run or joins its parts leaves out what those who began it left out.
#[test]
fn a_run_without_checks_is_gone_on_with_without_them() {
    let place = Place::new();
    let flags = "--limit 4 --eps 0,0.02 --steps 2 --no-defense";
    place.run(&format!("sweep {flags} --no-checks --out run")).ok();
    let ran = place.run("sweep --resume --out run").ok();
    assert!(ran.stderr.contains("begun with --no-checks") && !place.path("run/trials.json").exists(), "{}", ran.stderr);
    place.run("sweep --resume --out run --checks-budget 0").ok();
    assert!(place.path("run/trials.json").exists());
    for part in ["1/2", "2/2"] {
        place.run(&format!("sweep {flags} --no-checks --out parts --shard {part}")).ok();
    }
    place.run("merge parts").ok();
    assert!(place.path("parts/report.html").exists() && !place.path("parts/trials.json").exists());
}

/// Three seeds of the noise by default: the first one is that of a run with one, and batches change none.
#[test]
fn seeds_of_the_noise_stand_beside_the_first() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let flags = "--config one.toml --limit 12 --eps 0.03 --sigma 0.5 --no-checks";
    let ran = place.run(&format!("sweep {flags} --out a")).ok();
    place.run(&format!("sweep {flags} --batch 5 --out b")).ok();
    place.run(&format!("sweep {flags} --noise-seeds 1 --out one")).ok();
    assert_eq!((place.records("a"), place.results("a")), (place.records("b"), place.results("b")));
    let (three, one) = (rows(&place.results("a")), rows(&place.results("one")));
    for (a, b) in three.iter().zip(&one) {
        assert_eq!([&a["correct"], &a["accuracy"]], [&b["correct"], &b["accuracy"]]);
        assert!(b["seeds"].is_empty() && (a["seeds"] == "3") == (a["channel"] == "2"), "{a:?}");
    }
    let denoised: Vec<_> = three.iter().filter(|row| row["channel"] == "2").collect();
    assert_eq!(denoised.len(), 2, "eps 0 stands beside: {three:?}");
    let of = |row: &HashMap<String, String>, name: &str| row[name].parse::<f64>().unwrap();
    assert!(denoised.iter().all(|row| of(row, "least") <= of(row, "mean") && of(row, "mean") <= of(row, "most")));
    assert!(denoised.iter().any(|row| of(row, "least") < of(row, "most")), "{denoised:?}");
    for part in [
        "four numbers at eps 0.03",
        "(over 3 seeds",
        "(blind, non-adaptive), not run: the number before is non-adaptive",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    place.run("sweep --limit 2 --noise-seeds 9 --out no").refused(2, &["--noise-seeds", "1 to 5, found 9"]);
}

#[test]
fn a_sound_attack_passes_with_the_number_of_its_checks() {
    let place = Place::new();
    let ran = place.run("sweep --limit 12 --eps 0,0.06 --no-defense --no-checks --out run").ok();
    assert!(ran.stdout.contains("verdict: pass, 8 of 32 checks"), "{}", ran.stdout);
    assert!(rows(&place.results("run")).iter().all(|row| row["verdict"] == "pass: 8 of 32 checks"));
}

#[test]
fn targeted_accuracy_is_of_the_label_and_reaching_the_target_a_column_of_its_own() {
    let place = Place::new();
    place.write(
        "try.toml",
        "limit = 16\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\neps = [0, 0.01, 0.06]\ntargeted = \"least-likely\"\n[defense]\nsigma = [0.25]\n",
    );
    let ran = place.run("sweep --config try.toml --no-checks --out run").ok();
    assert!(
        ran.stdout.contains("target reached in % of images of other classes (rule: least-likely)"),
        "{}",
        ran.stdout
    );
    let mut counts: HashMap<(String, String), [u64; 3]> = HashMap::new();
    let (mut third, mut reached) = (0, 0);
    for line in place.records("run") {
        let r: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (prediction, label, eps) = (r["prediction"].as_u64(), r["label"].as_u64(), r["eps"].to_string());
        let correct = if r["channel"] == 1 { &r["correct_last"] } else { &r["correct"] };
        if r["channel"] == 1 {
            assert!(r["target"].is_u64(), "{line}");
            assert_eq!(correct == true, prediction == label && r["correct_clean"] == true, "{line}");
            // An image of the target's class has nothing to reach.
            let aimed = r["target"].as_u64() != label;
            assert_eq!(r["target_reached"].as_bool(), aimed.then_some(prediction == r["target"].as_u64()), "{line}");
            third += u64::from(prediction != label && prediction != r["target"].as_u64() && r["eps"] != 0.0);
        }
        reached += u64::from(r["target_reached"] == true);
        let cell = counts.entry((eps, r["channel"].to_string())).or_default();
        cell[0] += u64::from(correct == true);
        cell[1] += u64::from(r["target_reached"] == true);
        cell[2] += u64::from(r["target_reached"].is_boolean());
    }
    assert!(third > 0 && reached > 0, "{third} in a third class, {reached} in the target: the test shows nothing");
    for row in rows(&place.results("run")) {
        let eps: f64 = row["eps"].parse().unwrap();
        let cell = counts.iter().find(|((e, c), _)| e.parse::<f64>() == Ok(eps) && *c == row["channel"]).unwrap().1;
        let found = ["correct", "target_reached", "target_aimed"].map(|column| row[column].parse());
        assert_eq!(found, cell.map(Ok), "{row:?}");
    }
}

/// What an attack left is what its records say, also where its experiments are made with another: one that breaks nothing does not pass.
#[test]
fn an_attack_that_is_weaker_than_one_step_fails() {
    let place = Place::new();
    place.write("one.toml", "limit = 24\n[[models]]\nweights = \"demo:resnet50-w16\"\n[defense]\nsigma = []\n");
    for (name, flags) in [
        ("square", "--method square --steps 2 --eps 0.03"),
        ("fmn", "--method fmn --steps 2 --eps 0.03"),
        ("pgd", "--steps 1 --step-size 0.0005 --random-start=false --eps 0.03"),
        ("random", "--method random --steps 2 --eps 0.03"),
    ] {
        let ran = place.run(&format!("sweep --config one.toml {flags} --out {name}")).ok();
        assert!(ran.stdout.contains("fail S6 many steps beat one"), "{name}: {}", ran.stdout);
        assert!(place.results(name).contains("fail: "), "{}", place.results(name));
    }
    let found = verdicts(&place, "square");
    assert_eq!(found["S6"], "fail", "{found:?}");
}

/// An estimator that takes no notice of the defence makes no adaptive number, wherever that stands.
#[test]
fn a_blind_estimator_is_called_non_adaptive() {
    let place = Place::new();
    let flags =
        "--limit 4 --eps 0,0.01 --steps 2 --eot 2 --sigma 0.25 --no-checks --attack-through defense --estimator blind";
    let ran = place.run(&format!("sweep {flags} --out run")).ok();
    assert!(ran.stdout.contains("blind to it (non-adaptive)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("not run: the estimator is blind"), "{}", ran.stdout);
    let page = place.read("run/report.html");
    assert!(
        page.contains("a non-adaptive number") && !page.contains("an attack that goes through the denoiser"),
        "{page}"
    );
    assert_eq!(verdicts(&place, "run")["S18"], "not run");
}

/// Where there is no denoiser, nothing is called denoised.
#[test]
fn noise_alone_is_not_called_denoised() {
    let place = Place::new();
    let ran =
        place.run("sweep --limit 3 --eps 0,0.01 --steps 1 --sigma 0.25 --denoiser none --no-checks --out run").ok();
    assert!(ran.stdout.contains("accuracy in %, noised, not denoised; the attack"), "{}", ran.stdout);
    let page = place.read("run/report.html");
    assert!(page.contains("Under noise alone (σ = 0.25)") && !page.contains("Denoised first"), "{page}");
}
