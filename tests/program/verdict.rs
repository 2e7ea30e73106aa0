//! What a run says of its own attack, and of targets, in every output: terminal, results.csv, exports and page.

use std::collections::HashMap;

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

#[test]
fn a_sound_attack_passes_with_the_number_of_its_checks() {
    let place = Place::new();
    let ran = place.run("sweep --limit 12 --eps 0,0.06 --no-defense --no-checks --out run").ok();
    assert!(ran.stdout.contains("verdict: pass, 7 of 13 checks"), "{}", ran.stdout);
    assert!(rows(&place.results("run")).iter().all(|row| row["verdict"] == "pass: 7 of 13 checks"));
}

#[test]
fn targeted_accuracy_is_of_the_label_and_reaching_the_target_a_column_of_its_own() {
    let place = Place::new();
    place.write(
        "try.toml",
        "limit = 16\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\neps = [0, 0.01, 0.06]\ntargeted = \"least-likely\"\n[defense]\nsigma = [0.25]\n",
    );
    let ran = place.run("sweep --config try.toml --no-checks --out run").ok();
    assert!(ran.stdout.contains("target reached in % (rule: least-likely)"), "{}", ran.stdout);
    let mut counts: HashMap<(String, String), [u64; 2]> = HashMap::new();
    let (mut third, mut reached) = (0, 0);
    for line in place.records("run") {
        let r: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (prediction, label, eps) = (r["prediction"].as_u64(), r["label"].as_u64(), r["eps"].to_string());
        let correct = if r["channel"] == 1 { &r["correct_last"] } else { &r["correct"] };
        if r["channel"] == 1 {
            assert!(r["target"].is_u64(), "{line}");
            assert_eq!(correct == true, prediction == label && r["correct_clean"] == true, "{line}");
            assert_eq!(r["target_reached"] == true, prediction == r["target"].as_u64(), "{line}");
            third += u64::from(prediction != label && prediction != r["target"].as_u64() && r["eps"] != 0.0);
        }
        reached += u64::from(r["target_reached"] == true);
        let cell = counts.entry((eps, r["channel"].to_string())).or_default();
        cell[0] += u64::from(correct == true);
        cell[1] += u64::from(r["target_reached"] == true);
    }
    assert!(third > 0 && reached > 0, "{third} in a third class, {reached} in the target: the test shows nothing");
    for row in rows(&place.results("run")) {
        let eps: f64 = row["eps"].parse().unwrap();
        let cell = counts.iter().find(|((e, c), _)| e.parse::<f64>() == Ok(eps) && *c == row["channel"]).unwrap().1;
        assert_eq!([row["correct"].parse(), row["target_reached"].parse()], cell.map(Ok), "{row:?}");
    }
}
