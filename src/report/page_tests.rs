//! Pages of records that were made up: large ones, damaged ones, and those of a run that is not over.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::attack::Spec;
use crate::config::{Config, Overrides};
use crate::draw::{heat, html};
use crate::report::curves;
use crate::report::maps::Grid;
use crate::report::words::p_value;
use crate::run::results::{Channel, Under, cells};
use crate::run::rundir::RunDir;
use crate::run::trials::{
    Ablation, Against, Clamped, Differences, Eot, Gradients, Grey, Longer, Planted, Restarts, Signs, Trial, Trials,
};

fn config(eps: &[f64]) -> Config {
    let overrides = Overrides { eps: Some(eps.to_vec()), attack_through: true, ..Default::default() };
    Config::load(None, &overrides).unwrap()
}

/// A run of `n` images; image `i` survives in cell `c` when a hash of the two says so. Returns how many records there are.
fn write_run(dir: &Path, config: &Config, n: u64) -> usize {
    RunDir::open(Some(dir), "x", false)
        .unwrap()
        .settle(config, crate::run::settled::On { device: "host", ..Default::default() })
        .unwrap();
    let (mut text, mut count) = (String::new(), 0);
    for (c, cell) in cells(config).iter().enumerate() {
        let (name, attack) = (&config.models[cell.model].name, cell.channel.attack(config));
        for i in 0..n {
            let hash = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 + c as u64) >> 40;
            let right = hash as f64 / f64::from(1 << 24) > 10.0 * cell.eps;
            let label = i % 10;
            let prediction = if right { label } else { (label + 1) % 10 };
            let sigma = cell.channel.sigma().map_or("null".into(), |s| s.to_string());
            let found = match cell.channel {
                Channel::Undefended | Channel::Beside(_) => format!(
                    "\"prediction\":{prediction},\"clean_prediction\":{label},\"correct_clean\":true,\"correct_last\":{right},\"correct_any\":{right},\
                     \"first_success\":null,\"steps\":10,\"margin\":0.25,\"loss\":1.5,\"linf\":{},\"l2\":0.5,\"violation\":false",
                    cell.eps
                ),
                Channel::Denoised { .. } => format!(
                    "\"prediction\":{prediction},\"correct\":{right},\"draws\":1,\"correct_draws\":{},\"confidence\":0.75",
                    u8::from(right)
                ),
            };
            writeln!(
                text,
                "{{\"model\":\"{name}\",\"dataset\":\"made up\",\"attack\":\"{attack}\",\"norm\":\"linf\",\"eps\":{},\"sigma\":{sigma},\"channel\":{},\
                 \"image\":{i},\"label\":{label},{found}}}",
                cell.eps,
                cell.channel.number()
            )
            .unwrap();
            count += 1;
        }
    }
    fs::write(dir.join("records.jsonl"), text).unwrap();
    fs::write(dir.join(rundir::TIMES), "[]").unwrap();
    count
}

/// As many pictures as a sample holds at most, which do not compress.
fn write_samples(dir: &Path, config: &Config) {
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let mut uri = || heat::data_uri(&(0..112 * 112 * 3).map(|_| noise()).collect::<Vec<u8>>(), [112, 112]).unwrap();
    let models = config.models.iter().map(|model| {
        let strip = |image| json!({ "image": image, "label": "<Bag>", "fate": "broken", "pictures":
            (0..7).map(|k| json!({ "name": format!("state {k}"), "uri": uri(), "says": ["Coat", 0.5, k != 1] })).collect::<Vec<_>>() });
        json!({ "model": model.name, "strips": (0..24).map(strip).collect::<Vec<_>>(), "image": null, "maps": { "columns": [], "rows": [] } })
    });
    let samples = json!({ "eps": 0.02, "models": models.collect::<Vec<_>>() });
    fs::create_dir_all(dir.join("images")).unwrap();
    fs::write(dir.join(Samples::FILE), samples.to_string()).unwrap();
}

#[test]
fn runs_are_told_apart_by_their_folders() {
    let place = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let dir = place.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        write_run(&dir, &config(&[0.0]), 2);
        Ledger::read(&dir).unwrap()
    };
    let called = |runs: &[Ledger]| names(runs).join(" ");
    assert_eq!(called(&[run("a/demo-1"), run("a/demo-2")]), "demo-1 demo-2");
    assert_eq!(called(&[run("b/x/demo-1"), run("c/x/demo-1"), run("c/other")]), "b/x/demo-1 c/x/demo-1 other");
    let same = place.path().join("c/other");
    assert_eq!(called(&[Ledger::read(&same).unwrap(), Ledger::read(&same).unwrap()]), "other (1) other (2)");
}

#[test]
fn a_page_says_what_the_attack_aims_at_and_how_it_was_begun() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[0.0, 0.02]);
    config.attack.targeted = crate::attack::Target::LeastLikely;
    write_run(dir.path(), &config, 4);
    let run = Ledger::read(dir.path()).unwrap();
    let facts = what(&run);
    let value = |name: &str| facts.iter().find(|f| f.name == name).map(|f| f.value.as_str()).unwrap();
    assert!(value("targeted").contains("least likely") && value("targeted").contains("rule: least-likely"));
    assert!(value("begun (UTC)").starts_with("20") && value("command").contains("rampart"));
    let html = of_run(&run).unwrap();
    assert!(html.contains("PGD, targeted, within ε = 0.02") && html.contains("rule: least-likely"), "{html}");
}

#[test]
fn classes_that_fell_furthest_come_first_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), &config(&[0.0, 0.02]), 200);
    let run = Ledger::read(dir.path()).unwrap();
    let cell = run.cell(0, Channel::Undefended, 0.02).unwrap();
    let right = (0..200).filter(|&image| run.correct(cell, image).unwrap()).count();
    let page = serde_json::to_value(gather(&run).unwrap().by_class.unwrap()).unwrap();
    assert_eq!(page["eps"], "0.02");
    let rows = page["models"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    let share = |row: &Value, text: &Value| {
        let percent: f64 = text.as_str().unwrap().trim_end_matches(" %").parse().unwrap();
        percent / 100.0 * row["n"].as_f64().unwrap()
    };
    let total: f64 = rows.iter().map(|row| share(row, &row["after"][0])).sum();
    assert!((total - right as f64).abs() < 1e-6, "{total}, not {right}");
    let after: Vec<f64> = rows.iter().map(|row| share(row, &row["after"][0])).collect();
    assert!(rows.iter().all(|row| row["n"] == 20 && row["clean"] == "100.0 %") && after.is_sorted(), "{page}");
    for row in rows {
        let class: u32 = row["class"].as_str().unwrap().trim_start_matches("class ").parse().unwrap();
        let wrong = 20.0 - share(row, &row["after"][0]);
        let want = if wrong > 0.5 { format!("class {} ({wrong:.0})", (class + 1) % 10) } else { String::new() };
        assert_eq!(row["taken_for"], want.as_str(), "{row}");
    }
}

/// A picture of one pixel.
fn dot() -> String {
    heat::data_uri(&[9, 9, 9], [1, 1]).unwrap()
}

fn grid() -> Value {
    let row = |module: &str, strip: bool| {
        let cells: Vec<Value> = [0.0, 0.5].map(|shift| json!({ "picture": dot(), "shift": shift })).into();
        json!({ "module": module, "what": "values", "shape": "4", "lo": 0.0, "hi": 2.0, "strip": strip, "cells": cells })
    };
    json!({ "columns": ["clean", "attacked"], "rows": [row("layer1", false), row("layer1.0.gate", true)] })
}

/// A run with everything that a page can show: pictures, maps, times, a failed check, and a record that is missing.
fn write_all(dir: &Path) {
    let mut config = config(&[0.0, 0.02]);
    config.defense.suite = true;
    config.attack.beside = vec![Spec { eps: config.attack.eps.clone(), ..Spec::fgsm() }];
    write_run(dir, &config, 4);
    let path = dir.join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    fs::write(dir.join(rundir::TIMES), "[[\"attack\", 1.5], [\"votes\", 0.5]]").unwrap();
    // Of the first model there is nothing but a loss that falls.
    let mut trials = tried("a");
    trials.models[0].longer.as_mut().unwrap().best = (0..=20).map(|step| 1.0 - f64::from(step) / 40.0).collect();
    fs::write(dir.join(Trials::FILE), serde_json::to_string(&trials).unwrap()).unwrap();
    let models = config.models.iter().map(|model| {
        let pictures = [json!(["Coat", 0.75, true]), json!(null), json!(["Bag", 0.5, false])]
            .map(|says| json!({ "name": "state", "uri": dot(), "says": says }));
        let strip = json!({ "image": 2, "label": "Coat", "fate": "broken", "pictures": pictures });
        json!({ "model": model.name, "strips": [strip], "image": 2, "maps": grid() })
    });
    let samples = json!({ "eps": 0.02, "models": models.collect::<Vec<_>>() });
    fs::create_dir_all(dir.join("images")).unwrap();
    fs::write(dir.join(Samples::FILE), samples.to_string()).unwrap();
}

/// What the small attacks of a sound run leave behind.
fn tried(model: &str) -> Trials {
    let broken = || Against { n: 16, own: 4, other: 8, ..Against::default() };
    let nothing = || Against { n: 4, own: 4, other: 4, asked: 1000, ..Against::default() };
    let trial = Trial {
        model: model.into(),
        gradients: Some(Gradients {
            n: 16,
            faint: Some(vec![]),
            lengths: vec![(-1, 16)],
            median_log10: -0.5,
            ..Gradients::default()
        }),
        differences: Some(Differences { worst: vec![(0, 1e-4), (1, 1e-3)] }),
        differences_defended: Some(Differences { worst: vec![(0, 1e-4), (1, 1e-3)] }),
        longer: Some(Longer {
            n: 16,
            steps: 10,
            best: (0..=20).map(|step| 1.0 - 0.5f64.powi(step)).collect(),
            right: [4, 4],
            broken_later: vec![],
            differ: Some(vec![]),
            recorded: None,
        }),
        single: Some(broken()),
        rounded: Some(Against { n: 16, own: 4, other: 4, ..Against::default() }),
        transferred: Some(nothing()),
        grey: Some(Grey { n: 8, eps: 0.5, right: vec![1, 2], largest_class: 2 }),
        other_loss: Some(Against { n: 8, own: 3, other: 3, ..Against::default() }),
        planted: Some(Planted { n: 4, missed: vec![] }),
        active: Some(Planted { n: 4, missed: vec![] }),
        random: Some(nothing()),
        square: Some(nothing()),
        restarts: Some(Restarts { n: 8, one: 4, five: Some(4), half: 4, twice: 4, broken: vec![] }),
        eot: Some(Eot { n: 2, sigma: 0.25, curve: vec![(1, 0.1, 0.5), (20, 0.6, 0.7)] }),
        ablation: Some(Ablation { n: 16, sigma: 0.25, undefended: 15, no_noise: 15, denoised: 14, noise_alone: 4 }),
        clamped: Some(Clamped { pixels: Some(0.5), gates: vec![], dead: vec![("layer1".into(), 0.1)] }),
        ..Trial::default()
    };
    Trials { eps: 0.02, budget: None, spent: 8.0, models: vec![trial], left: vec![] }
}

/// The pointers to all keys of all objects in a value.
fn keys(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.push((at.into(), key.clone()));
                keys(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| keys(value, &format!("{at}/{i}"), found)),
        _ => {}
    }
}

/// Whatever a page's values hold is shown, and whatever its template shows is held: without any one key it cannot be made.
fn every_key_is_needed<P: html::Page>(page: &P) {
    let whole = serde_json::to_value(page).unwrap();
    assert_eq!(html::fill(P::TEMPLATE, &whole).unwrap(), render(page).unwrap());
    let mut all = Vec::new();
    keys(&whole, "", &mut all);
    assert!(all.len() > 40, "{}", all.len());
    let spare = all.into_iter().filter(|(at, key)| {
        let mut less = whole.clone();
        less.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(key);
        html::fill(P::TEMPLATE, less).is_ok()
    });
    let spare: Vec<String> = spare.map(|(at, key)| format!("{at}/{key}")).collect();
    assert_eq!(spare, [""; 0], "{} is made without them", P::TEMPLATE);
}

#[test]
fn every_value_of_a_page_is_shown_and_none_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let run = || Ledger::read(dir.path()).unwrap();
    let page = gather(&run()).unwrap();
    assert!(page.lead.verdict() == "fail" && page.unfinished.is_some() && !page.adaptive.is_empty());
    assert!(page.suite.is_some() && !page.decided.is_empty() && !page.beside.is_empty());
    every_key_is_needed(&page);
    let other = tempfile::tempdir().unwrap();
    write_all(other.path());
    let path = other.path().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("seed = 0", "seed = 7", 1)).unwrap();
    let both = gather_all(&[run(), Ledger::read(other.path()).unwrap()]).unwrap();
    assert_eq!(both.differs.iter().find(|d| d.name == "seed").unwrap().values, ["0", "7"]);
    every_key_is_needed(&both);
    let shown = |wrong| Shown {
        name: "clean".into(),
        uri: dot(),
        says: Some(Says { label: "Coat".into(), confidence: 75.0, wrong }),
    };
    let maps = serde_json::from_value::<Grid>(grid()).unwrap();
    every_key_is_needed(&MapsPage {
        title: "maps".into(),
        what: vec![Fact::new("model", "demo")],
        images: vec![MapsOfImage {
            name: "a.png".into(),
            pictures: vec![shown(false), shown(true)],
            maps: Maps::new(maps),
        }],
    });
}

/// Bytes of memory that this process needed at most, or 0 where the system does not tell.
fn peak_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).map_or(0, |kib| kib << 10)
}

#[test]
fn a_page_of_ten_thousand_images_is_made_quickly_and_stays_small() {
    let (dir, config) = (tempfile::tempdir().unwrap(), config(&[0.0, 0.005, 0.01, 0.02, 0.03, 0.06]));
    let records = write_run(dir.path(), &config, 10_000);
    assert_eq!(records, 600_000);
    write_samples(dir.path(), &config);
    let begin = Instant::now();
    let html = of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{records} records: {seconds:.2} s, page {} bytes, process at most {} MiB",
        html.len(),
        peak_bytes() >> 20
    );
    assert!(html.len() < 15_000_000, "{} bytes", html.len());
    assert!(html.contains("10000 images of made up") && html.contains("strips are only in images&#x2f;samples.json"));
    assert!(!html.contains("<Bag>") && html.contains("&lt;Bag&gt;"));
    // Debug builds are slower by an order.
    assert!(cfg!(debug_assertions) || seconds < 10.0, "{seconds} s");
    // Other tests of this process run beside, and the records were made up in memory.
    assert!(peak_bytes() < 1_000_000_000, "{} bytes", peak_bytes());
}

#[test]
fn the_terminal_has_every_table_with_the_p_values_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&[0.0, 0.03]);
    config.dataset.left_out = Some(3);
    write_run(dir.path(), &config, 200);
    let run = Ledger::read(dir.path()).unwrap();
    let tables = summary::tables(&run, &Mark::default());
    for text in
        ["the last iterate counts", "any successful iterate", "majority of 1 draw", "McNemar", "3 files left out"]
    {
        assert!(tables.contains(text), "{text}: {tables}");
    }
    for pair in paired::models(&run) {
        let cell = format!("{}:{} {}", pair.only_first, pair.only_second, p_value(pair.p_adjusted));
        assert!(tables.contains(&cell), "{cell}: {tables}");
    }
}

#[test]
fn a_clean_accuracy_far_below_the_checkpoints_own_fails() {
    use checks::Verdict;
    let mut config = config(&[0.0, 0.02]);
    let mut verdict = |said: Option<f64>, clean: u64| {
        config.models[0].clean_test_accuracy = said;
        let dir = tempfile::tempdir().unwrap();
        let mut run = Ledger::new(dir.path(), &config, &config.dataset.load(1).unwrap(), "host");
        let cell = run.cell(0, Channel::Undefended, 0.0).unwrap();
        (run.cells[cell].n, run.cells[cell].clean) = (40, clean);
        let named = checks::failed(&checks::all(&run, None)).iter().any(|name| name.contains("S1"));
        let summed = checks::summed(&checks::all(&run, None));
        let told = summed.starts_with("fail: ") && summed.contains("S1");
        let check = checks::all(&run, None).remove(0);
        assert_eq!((named, told), (check.verdict == Verdict::Fail, check.verdict == Verdict::Fail));
        (check.verdict, check.numbers())
    };
    // Of 40 images, in the right order of classes and in a wrong one.
    let said = Some(0.9227);
    assert_eq!(verdict(said, 35).0, Verdict::Pass);
    let (failed, numbers) = verdict(said, 13);
    assert_eq!((failed, numbers.len()), (Verdict::Fail, 1));
    assert!(numbers[0].contains("resnet50-w16: 32.5 % of 40 [20.1, 48.0], the checkpoint says 92.27 %"), "{numbers:?}");
    // The interval of 33 of 40 ends at 91.3 %.
    assert_eq!([0.92, 0.93, 0.97].map(|said| verdict(Some(said), 33).0), [Verdict::Pass, Verdict::Warn, Verdict::Fail]);
    assert_eq!(verdict(None, 13).0, Verdict::NotRun);
}

#[test]
fn counts_of_the_page_are_those_of_the_records() {
    let (dir, config) = (tempfile::tempdir().unwrap(), config(&[0.0, 0.02]));
    write_run(dir.path(), &config, 50);
    let run = Ledger::read(dir.path()).unwrap();
    assert_eq!((run.ids.len(), run.progress(), run.dataset.as_str()), (50, (1000, 1000), "made up"));
    let cell = run.cell(1, Channel::Denoised { sigma: 0.5, under: Under::Through }, 0.02).unwrap();
    let right = (0..50).filter(|&i| run.correct(cell, i) == Some(true)).count() as u64;
    assert_eq!(run.cells[cell].correct(run.config.score), right);
    let pairs = paired::models(&run);
    assert_eq!(pairs.len(), 5 * 2);
    for pair in &pairs {
        assert_eq!(pair.both + pair.only_first + pair.only_second + pair.neither, 50, "{pair:?}");
        assert!(pair.lo <= pair.difference && pair.difference <= pair.hi && pair.p <= pair.p_adjusted, "{pair:?}");
    }
    let html = of_run(&run).unwrap();
    assert!(
        html.contains(&format!("{right}/50"))
            && !html.contains("id=\"unfinished\"")
            && !html.contains("http:")
            && !html.contains("https:")
    );
    assert!(
        html.contains("Undefended, PGD within ε = 0.02 (L∞) leaves ")
            && html.contains(" % of 50 images right for resnet50-w16 (100.0 % when clean)")
    );
    let both = of_runs(&[Ledger::read(dir.path()).unwrap(), Ledger::read(dir.path()).unwrap()]).unwrap();
    assert!(both.contains("figure-2") && both.contains("The same model in two runs"));
}

#[test]
fn an_unfinished_run_says_so_and_a_damaged_one_is_refused() {
    let (dir, config) = (tempfile::tempdir().unwrap(), config(&[0.0, 0.02]));
    write_run(dir.path(), &config, 4);
    let path = dir.path().join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    assert!(of_run(&Ledger::read(dir.path()).unwrap()).unwrap().contains("79 of 80 records so far"));
    assert_eq!(fs::read_to_string(&path).unwrap().len(), text.len() - 20, "reading must not change the records");
    let refused = |text: String, part: &str| {
        fs::write(&path, text).unwrap();
        let error = Ledger::read(dir.path()).map(|run| run.ids.len()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(format!("{text}{text}"), "line 81: image 0 of model resnet50-w16 at eps 0 was recorded before");
    refused(text.replacen("resnet50-w16", "vgg", 1), "line 1: model vgg at eps 0 is not in the config");
    let (before, behind) = text.rsplit_once("\"label\":1,").unwrap();
    refused(format!("{before}\"label\":2,{behind}"), "label of image");
    refused(text.replacen("\"label\":1", "\"label\":2", 1), "`correct_last` is true, and the prediction is 1");
    fs::write(dir.path().join(Trials::FILE), "{").unwrap();
    fs::write(&path, text).unwrap();
    // What can be made again is left out.
    assert!(of_run(&Ledger::read(dir.path()).unwrap()).unwrap().contains("needs trials.json"));
}

/// A run that somebody sends: whatever its files say stays text, and pictures are pictures.
#[test]
fn a_page_trusts_nothing_that_a_run_directory_holds() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let good = of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
    assert!(good.contains("<img ") && good.contains("Content-Security-Policy"));
    let samples = fs::read_to_string(dir.path().join(Samples::FILE)).unwrap();
    // A quote as JSON has it.
    let attack = r#"\"><script>alert(1)</script><img src=x onerror=alert(2)>"#;
    for (from, to) in [
        (dot(), format!("{}{attack}", dot())),
        (dot(), "data:image/svg+xml;base64,PHN2Zz4=".to_owned()),
        (dot(), "javascript:alert(3)".to_owned()),
        (dot(), "data:image/png;base64,PHNjcmlwdD4=".to_owned()),
    ] {
        fs::write(dir.path().join(Samples::FILE), samples.replacen(&from, &to, 1)).unwrap();
        let page = of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
        assert!(!page.contains("<img ") && !page.contains("alert("), "{to}");
    }
    // Names and classes.
    fs::write(dir.path().join(Samples::FILE), samples.replace("Coat", attack).replace("state", attack)).unwrap();
    fs::write(dir.path().join(rundir::TIMES), format!("[[\"{attack}\", 1.5]]")).unwrap();
    let records = fs::read_to_string(dir.path().join("records.jsonl")).unwrap();
    fs::write(dir.path().join("records.jsonl"), records.replace("made up", attack)).unwrap();
    let page = of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(!page.contains("onerror=alert(2)>"), "{page}");
}

/// Files that are made of others never keep a page from being made.
#[test]
fn damaged_files_that_are_made_again_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    for name in [Samples::FILE, Trials::FILE, rundir::TIMES] {
        for text in ["", "{", "[]", "null", "{\"eps\":1}", "[[1,2]]", "\0\0"] {
            let kept = fs::read(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
            of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
            fs::write(dir.path().join(name), kept).unwrap();
        }
    }
    let dir_in_place = dir.path().join(Trials::FILE);
    fs::remove_file(&dir_in_place).unwrap();
    fs::create_dir(&dir_in_place).unwrap();
    of_run(&Ledger::read(dir.path()).unwrap()).unwrap();
}

/// The page of a run and that of the same run with other times differ in the marked block alone.
#[test]
fn times_stand_in_one_block() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path());
    let page = |times: &str| {
        fs::write(dir.path().join(rundir::TIMES), times).unwrap();
        of_run(&Ledger::read(dir.path()).unwrap()).unwrap()
    };
    let without = |page: &str| {
        let (before, rest) = page.split_once("<!-- times").unwrap();
        format!("{before}{}", rest.split_once("<!-- end of times -->").unwrap().1)
    };
    let (a, b) = (page("[[\"attack\", 1.5]]"), page("[[\"attack\", 77.5], [\"votes\", 3.0]]"));
    assert_ne!(a, b);
    assert_eq!(without(&a), without(&b));
}

#[test]
fn checks_judge_what_the_records_show() {
    let (dir, config) = (tempfile::tempdir().unwrap(), config(&[0.0, 0.02, 0.06]));
    write_run(dir.path(), &config, 200);
    let trial = |change: &dyn Fn(&mut Trial)| {
        let mut trials = tried("m");
        change(&mut trials.models[0]);
        checks::all(&Ledger::read(dir.path()).unwrap(), Some(&trials))
    };
    let verdict = |checks: &[checks::Check], name: &str| checks.iter().find(|c| c.id == name).unwrap().verdict;
    use checks::Verdict::{Fail, NotRun, Pass, Warn};
    let good = trial(&|_| {});
    let own = [
        "S2", "S3", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "S14", "S20", "S22", "S23", "S24", "S25", "S26",
        "S27", "S28",
    ];
    for id in own {
        assert_eq!(verdict(&good, id), Pass, "{id}");
    }
    // Four images in ten are right at eps 0.06.
    assert_eq!(verdict(&good, "S5"), Warn);
    let none: fn() -> Against = Against::default;
    type Change<'a> = &'a dyn Fn(&mut Trial);
    let cases: [(&str, checks::Verdict, Change); 31] = [
        ("S6", Fail, &|t| t.single = Some(Against { n: 16, own: 5, other: 4, only_own: vec![3], ..none() })),
        ("S6", Warn, &|t| t.single = Some(Against { n: 16, own: 5, other: 9, only_own: vec![3], ..none() })),
        ("S7", Warn, &|t| t.longer.as_mut().unwrap().right = [5, 2]),
        ("S7", Fail, &|t| t.longer.as_mut().unwrap().right = [2, 3]),
        ("S8", Fail, &|t| t.restarts.as_mut().unwrap().five = Some(8)),
        ("S8", Warn, &|t| t.restarts.as_mut().unwrap().twice = 1),
        ("S8", NotRun, &|t| t.restarts = None),
        ("S9", Warn, &|t| t.square = Some(Against { n: 4, own: 4, other: 3, only_own: vec![8], ..none() })),
        ("S9", Warn, &|t| t.transferred = Some(Against { n: 16, own: 4, other: 3, only_own: vec![8], ..none() })),
        ("S10", Fail, &|t| t.random = Some(Against { n: 4, own: 4, other: 3, only_own: vec![8], ..none() })),
        ("S11", Fail, &|t| t.gradients.as_mut().unwrap().zero = vec![4]),
        ("S11", Fail, &|t| t.gradients.as_mut().unwrap().not_finite = vec![4]),
        ("S11", Warn, &|t| t.gradients.as_mut().unwrap().tiny = vec![4]),
        ("S12", Fail, &|t| t.differences.as_mut().unwrap().worst = vec![(0, 1.0), (1, 1.0)]),
        ("S12", Fail, &|t| t.differences_defended.as_mut().unwrap().worst = vec![(0, 1.0), (1, 1.0)]),
        ("S13", Fail, &|t| t.gradients.as_mut().unwrap().faint = Some(vec![1, 2])),
        ("S13", Fail, &|t| t.other_loss = Some(Against { n: 8, own: 8, other: 1, ..none() })),
        ("S13", Warn, &|t| t.other_loss = Some(Against { n: 8, own: 8, other: 7, ..none() })),
        ("S14", Warn, &|t| t.eot.as_mut().unwrap().curve = vec![(1, 0.01, 0.5), (20, 0.1, 0.5)]),
        ("S20", Fail, &|t| t.longer.as_mut().unwrap().best = vec![1.0; 21]),
        ("S22", Warn, &|t| t.rounded = Some(Against { n: 16, own: 4, other: 6, only_other: vec![1, 2], ..none() })),
        ("S23", Fail, &|t| t.longer.as_mut().unwrap().differ = Some(vec![1])),
        ("S23", NotRun, &|t| t.longer.as_mut().unwrap().differ = None),
        ("S25", Fail, &|t| t.planted.as_mut().unwrap().missed = vec![2]),
        ("S25", NotRun, &|t| t.planted.as_mut().unwrap().n = 0),
        ("S26", Warn, &|t| t.clamped.as_mut().unwrap().pixels = Some(0.99)),
        ("S26", Warn, &|t| t.clamped.as_mut().unwrap().dead = vec![("layer1".into(), 0.7)]),
        ("S27", Fail, &|t| t.active.as_mut().unwrap().missed = vec![2, 3]),
        ("S28", Warn, &|t| t.ablation.as_mut().unwrap().no_noise = 2),
        ("S28", Warn, &|t| t.ablation.as_mut().unwrap().denoised = 1),
        ("S5", Fail, &|t| t.grey.as_mut().unwrap().right = vec![1, 2, 3]),
    ];
    for (name, expected, change) in cases {
        assert_eq!(verdict(&trial(change), name), expected, "{name}");
    }
    let none = checks::all(&Ledger::read(dir.path()).unwrap(), None);
    assert_eq!(verdict(&none, "S11"), NotRun);
}

/// Records of one cell alone: nothing is said of the others, and no check passes for want of something to look at.
#[test]
fn what_has_no_records_is_not_measured() {
    let (dir, config) = (tempfile::tempdir().unwrap(), config(&[0.0, 0.02, 0.06]));
    write_run(dir.path(), &config, 20);
    let path = dir.path().join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first: String = text.split_inclusive('\n').take(20).collect();
    fs::write(&path, first).unwrap();
    fs::remove_file(dir.path().join(rundir::TIMES)).unwrap();
    let run = Ledger::read(dir.path()).unwrap();
    let points: usize = curves::all_series(&run).iter().map(|s| s.points.len()).sum();
    assert_eq!(points, 1);
    let html = of_run(&run).unwrap();
    assert!(!html.contains("0/0") && html.contains("20 of at least"));
    for check in checks::all(&run, None) {
        let looked = ["S2", "S3", "S24"].contains(&check.id);
        assert_eq!(check.verdict == checks::Verdict::NotRun, !looked, "{} {:?}", check.name, check.numbers());
    }
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), &config, 20);
    let mut trials = tried("m");
    trials.models[0].longer.as_mut().unwrap().best = vec![f64::NAN];
    let trials = serde_json::to_string(&trials).unwrap();
    fs::write(dir.path().join(Trials::FILE), trials).unwrap();
    assert!(of_run(&Ledger::read(dir.path()).unwrap()).unwrap().contains("a mean loss is not finite"));
}

/// A run whose records are changed line by line before it is judged.
fn altered(config: &Config, trials: Option<&Trials>, change: impl Fn(&str) -> String) -> Vec<checks::Check> {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), config, 200);
    let path = dir.path().join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.lines().map(|line| change(line) + "\n").collect::<String>()).unwrap();
    checks::all(&Ledger::read(dir.path()).unwrap(), trials)
}

/// A record whose prediction is the label where it says that it is right, and which is not right where it was made to be another.
fn agreeing(line: &str) -> String {
    let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
    if record["correct"] == true {
        record["prediction"] = record["label"].clone();
    }
    if record["correct_last"] == true && record["prediction"] != record["label"] {
        record["correct_last"] = false.into();
    }
    record.to_string()
}

fn of_id<'a>(checks: &'a [checks::Check], id: &str) -> &'a checks::Check {
    checks.iter().find(|check| check.id == id).unwrap()
}

#[test]
fn checks_of_the_records_fail_where_the_records_do() {
    use checks::Verdict::{Fail, Pass, Warn};
    let overrides = Overrides { eps: Some(vec![0.0, 0.02, 0.03]), suite: true, ..Default::default() };
    let config = Config::load(None, &overrides).unwrap();
    let same = |line: &str| line.to_owned();
    let good = altered(&config, None, same);
    for id in ["S2", "S3", "S4", "S15", "S16", "S17", "S18", "S21"] {
        assert_eq!(of_id(&good, id).verdict, Pass, "{id}: {:?}", of_id(&good, id).found);
    }
    // What turns which verdict: lines that hold the first of these have the second for the third.
    let all_right = |attack: &str| (format!("\"attack\":\"{attack}\""), "\"correct\":false", "\"correct\":true");
    let cases = [
        ("S2", Fail, ("\"eps\":0.02,\"sigma\":null".to_owned(), "\"violation\":false", "\"violation\":true")),
        ("S3", Fail, ("\"eps\":0,\"sigma\":null".to_owned(), "\"prediction\":4,", "\"prediction\":5,")),
        ("S21", Warn, ("\"eps\":0.02,\"sigma\":null".to_owned(), "\"correct_any\":true", "\"correct_any\":false")),
        ("S15", Fail, all_right("a6-fixed")),
        ("S17", Fail, all_right("a1-exact")),
        ("S18", Fail, all_right("suite")),
        ("S16", Warn, ("\"eps\":0,\"sigma\":0.25".to_owned(), "\"correct_draws\":1", "\"correct_draws\":0")),
    ];
    for (id, verdict, (holds, from, to)) in cases {
        let change =
            |line: &str| if line.contains(&holds) { agreeing(&line.replace(from, to)) } else { line.to_owned() };
        let found = altered(&config, None, change);
        let check = of_id(&found, id);
        assert_eq!(check.verdict, verdict, "{id}: {:?}", check.found);
        let named = check.found.iter().any(|finding| !finding.images.is_empty());
        assert!(named || id == "S16", "{id} names no image: {:?}", check.found);
    }
    // Each budget has the records of the other.
    let swapped = |line: &str| match line {
        line if line.contains("\"eps\":0.02,") => line.replace("\"eps\":0.02,", "\"eps\":0.03,"),
        line => line.replace("\"eps\":0.03,", "\"eps\":0.02,").replace("\"linf\":0.03", "\"linf\":0.02"),
    };
    let rising = altered(&config, None, swapped);
    assert_ne!(of_id(&rising, "S4").verdict, Pass, "{:?}", of_id(&rising, "S4").found);
}

#[test]
fn checks_of_other_precisions_and_attacks_judge_theirs() {
    use checks::Verdict::{NotRun, Pass, Warn};
    let mut config = config(&[0.0, 0.02]);
    let judged = |config: &Config, change: &dyn Fn(&mut Trial)| {
        let mut trials = tried("m");
        change(&mut trials.models[0]);
        altered(config, Some(&trials), str::to_owned)
    };
    assert_eq!(of_id(&judged(&config, &|_| {}), "S24").verdict, Pass);
    config.precision = crate::tape::Precision::Bf16;
    let other = |images: Vec<u64>| Some(Against { n: 256, own: 256, only_own: images, ..Against::default() });
    assert_eq!(of_id(&judged(&config, &|_| {}), "S24").verdict, NotRun);
    assert_eq!(of_id(&judged(&config, &|t| t.precision = other(vec![])), "S24").verdict, Pass);
    assert_eq!(of_id(&judged(&config, &|t| t.precision = other(vec![3, 4])), "S24").verdict, Warn);

    config.attack = crate::attack::Said {
        method: Some("autoattack".into()),
        eps: Some(vec![0.0.into(), 0.02.into()]),
        ..Default::default()
    }
    .decided()
    .unwrap();
    config.defense = crate::config::DefenseConfig::default();
    config.score = crate::config::settings::Score::Any;
    let signs = || Signs { n: 16, passes: vec![15; 5], classes: 10, ..Signs::default() };
    let good = judged(&config, &|t| t.signs = Some(signs()));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Signs));
    let cases: [Change; 5] = [
        ("A1", &|s| s.passes[3] = 14),
        ("A1", &|s| s.apart = 0.1),
        ("A2", &|s| s.probabilities = 16),
        ("A3", &|s| s.flat = 1),
        ("A4", &|s| s.classes = 5),
    ];
    for (id, change) in cases {
        assert_eq!(of_id(&good, id).verdict, Pass, "{id}");
        let found = judged(&config, &|t| {
            let mut own = signs();
            change(&mut own);
            t.signs = Some(own);
        });
        assert_eq!(of_id(&found, id).verdict, Warn, "{id}");
    }
}
