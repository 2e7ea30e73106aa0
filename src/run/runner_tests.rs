//! The runner with an engine whose outcomes are a function of model, epsilon and image.

use std::fs;
use std::path::Path;

use super::*;
use crate::config::Overrides;
use crate::data::saved::{Format, Places};
use crate::data::{Select, demo, saved};
use crate::run::rundir::IfRunning;

/// Fails after `batches` batches.
struct Fake<'a> {
    dataset: &'a Dataset,
    batches: usize,
    runs: usize,
}

impl Engine for Fake<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        if self.runs == self.batches {
            return Err(Error::device("the plug was pulled"));
        }
        self.runs += 1;
        let outcomes =
            images.iter().map(|&i| outcome(model, eps, self.dataset.ids[i], self.dataset.labels[i])).collect();
        let of = |sigma: f64| {
            images.iter().map(|&i| smoothed(model, eps, sigma, self.dataset.ids[i], self.dataset.labels[i])).collect()
        };
        let pixels = vec![images.iter().flat_map(|&i| pixels(self.dataset, eps, i)).collect()];
        Ok(Attacked { outcomes, beside: vec![], denoised: vec![of(0.25), of(0.5)], pixels })
    }

    fn device_name(&self) -> String {
        "fake".into()
    }
}

/// What an attack makes of an image.
fn pixels(dataset: &Dataset, eps: f64, image: usize) -> Vec<f32> {
    dataset.image(image).unwrap().into_iter().map(|v| (v + eps as f32).min(1.0)).collect()
}

fn outcome(model: usize, eps: f64, id: u64, label: u32) -> Outcome {
    let hash = (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 + model as u64) >> 40;
    let hardness = hash as f64 / f64::from(1 << 24);
    let (last, any) = (hardness > 10.0 * eps, hardness > 12.0 * eps);
    Outcome {
        prediction: if last { label } else { (label + 1) % 10 },
        clean_prediction: label,
        correct_clean: true,
        correct_last: last,
        correct_any: any,
        first_success: (!any).then_some(3),
        steps: 10,
        steps_saved: 0,
        margin: (hardness - 12.0 * eps) as f32,
        loss: hardness as f32,
        linf: eps as f32,
        l2: 1.5,
        violation: id == 4 && eps > 0.05,
        stage: None,
        nested: None,
        radius: None,
        asked: None,
        target: None,
        target_reached: None,
        top5: None,
        clean_top5: None,
    }
}

fn smoothed(model: usize, eps: f64, sigma: f64, id: u64, label: u32) -> Smoothed {
    let correct = f64::from(outcome(model, eps, id, label).loss) > 2.0 * eps + 0.4 * sigma;
    let prediction = if correct { label } else { (label + 2) % 10 };
    Smoothed {
        prediction,
        correct,
        draws: 1,
        correct_draws: u32::from(correct),
        confidence: 0.75,
        top5: None,
        target_reached: None,
        again: None,
    }
}

fn setup(batch: usize) -> (Config, Dataset) {
    setup_by(batch, Overrides::default())
}

fn setup_by(batch: usize, more: Overrides) -> (Config, Dataset) {
    let overrides = Overrides { limit: Some(11), batch: Some(batch), eps: Some(vec![0.06, 0.0, 0.03]), ..more };
    let mut config = Config::load(None, &overrides).unwrap();
    let dataset = demo::dataset(Some(config.limit), Select::First).unwrap();
    config.pin(&dataset).unwrap();
    (config, dataset)
}

/// One process: opens the folder and runs until the engine has done `batches`.
fn process(out: &Path, batch: usize, batches: usize, resume: bool) -> Result<Ledger> {
    let (config, dataset) = setup(batch);
    let dir = RunDir::open(Some(out), &config.name, resume)?;
    run(&config, &dataset, &mut Fake { dataset: &dataset, batches, runs: 0 }, &dir)
}

fn unbroken() -> (Ledger, Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let run = process(dir.path(), 4, usize::MAX, false).unwrap();
    let read = |name| fs::read(dir.path().join(name)).unwrap();
    (run, read("results.csv"), read("records.jsonl"))
}

#[test]
fn results_have_the_agreed_form() {
    let (run, csv, records) = unbroken();
    let csv = String::from_utf8(csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,accuracy,ci_low,ci_high,\
         seed,device,precision,target_reached,verdict,left_out,seeds,mean,least,most,target_aimed"
    );
    assert_eq!(
        lines[1],
        "resnet50-w16,fashion-mnist,pgd,linf,0,10,0,,1,11,11,1.000000,0.741167,1.000000,0,fake,f32,,not judged,0,,,,,"
    );
    assert!(lines[4].starts_with("resnet50-w16,fashion-mnist,pgd,linf,0,10,0,0.25,2,11,"), "{}", lines[4]);
    let channels = [",,1,11,", ",0.25,2,11,", ",0.5,2,11,"];
    let begins = ["resnet50-w16", "resnet50-cbam-w16"].into_iter().flat_map(|model| {
        channels.into_iter().flat_map(move |channel| {
            ["0", "0.03", "0.06"].map(|eps| (format!("{model},fashion-mnist,pgd,linf,{eps},10,"), channel))
        })
    });
    let fits = |(line, (begin, channel)): (&&str, (String, &str))| line.starts_with(&begin) && line.contains(channel);
    assert!(lines[1..].iter().zip(begins).all(fits), "{csv}");
    assert_eq!((lines.len(), run.cells.len(), run.violations()), (19, 18, 2));
    assert_eq!(records.iter().filter(|&&b| b == b'\n').count(), 199);
}

#[test]
fn interrupted_after_any_batch_it_ends_the_same() {
    let (whole, csv, records) = unbroken();
    for batches in 0..18 {
        let dir = tempfile::tempdir().unwrap();
        let error = process(dir.path(), 4, batches, false).unwrap_err().to_string();
        assert!(error.contains("plug"), "{error}");
        assert!(!dir.path().join("results.csv").exists());
        let again = process(dir.path(), 4, usize::MAX, true).unwrap();
        assert_eq!((again.cells, again.found), (whole.cells.clone(), whole.found.clone()));
        assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), csv, "after {batches} batches");
        assert_eq!(fs::read(dir.path().join("records.jsonl")).unwrap(), records, "after {batches} batches");
    }
}

#[test]
fn interrupted_again_and_again_with_other_batches_it_ends_the_same() {
    let (_, csv, _) = unbroken();
    let dir = tempfile::tempdir().unwrap();
    process(dir.path(), 5, 1, false).unwrap_err();
    for batch in [1, 3, 2, 7] {
        process(dir.path(), batch, 2, true).unwrap_err();
    }
    process(dir.path(), 64, usize::MAX, true).unwrap();
    assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), csv);
}

/// One process that keeps its images.
fn saving(out: &Path, format: Format, batches: usize, resume: bool) -> Result<Ledger> {
    let (mut config, dataset) = setup(4);
    config.save = Some(format);
    let dir = RunDir::open(Some(out), &config.name, resume)?;
    run(&config, &dataset, &mut Fake { dataset: &dataset, batches, runs: 0 }, &dir)
}

fn adversarial(out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(out.join("adversarial"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn saved_images_are_whole_wherever_a_run_stopped() {
    let whole = tempfile::tempdir().unwrap();
    let ledger = saving(whole.path(), Format::Npz, usize::MAX, false).unwrap();
    let files = adversarial(whole.path());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["cbam-w16-pgd-eps0.03", "cbam-w16-pgd-eps0.06", "w16-pgd-eps0.03", "w16-pgd-eps0.06"];
    assert_eq!(names, expected.map(|name| format!("resnet50-{name}.npz")));

    let (_, dataset) = setup(4);
    let path = whole.path().join("adversarial/resnet50-w16-pgd-eps0.06.npz");
    let found = saved::read(Places { attacked: &path, clean: None, labels: None }, None).unwrap();
    assert_eq!((&found.ids, &found.labels), (&dataset.ids, &dataset.labels));
    let all: Vec<usize> = (0..dataset.len()).collect();
    let kept = |form| found.images(form, 0..found.labels.len(), 3).unwrap().unwrap();
    assert_eq!(kept(saved::Form::Clean), dataset.batch(&all).unwrap());
    assert_eq!(kept(saved::Form::Attacked), all.iter().flat_map(|&i| pixels(&dataset, 0.06, i)).collect::<Vec<_>>());
    let cell = ledger.cell(0, Channel::Undefended, 0.06).unwrap();
    let recorded: Vec<u32> = ledger.found[cell].iter().flatten().map(Found::prediction).collect();
    assert_eq!(found.predictions.unwrap(), recorded);

    for batches in 0..18 {
        let dir = tempfile::tempdir().unwrap();
        saving(dir.path(), Format::Npz, batches, false).unwrap_err();
        if batches == 4 {
            // What a machine that lost its power may have left of the last rows.
            let part = dir.path().join("adversarial/resnet50-w16-pgd-eps0.03.part");
            let mut rows = fs::read(&part).unwrap();
            let at = rows.len() - 100;
            rows[at] ^= 1;
            rows.extend([0; 5]);
            fs::write(&part, rows).unwrap();
        }
        saving(dir.path(), Format::Npz, usize::MAX, true).unwrap();
        assert!(adversarial(dir.path()) == files, "after {batches} batches");
    }
    // One that was thrown away is made again, without a record.
    let records = fs::read(whole.path().join("records.jsonl")).unwrap();
    fs::remove_file(&path).unwrap();
    saving(whole.path(), Format::Npz, usize::MAX, true).unwrap();
    assert!(adversarial(whole.path()) == files && fs::read(whole.path().join("records.jsonl")).unwrap() == records);
}

#[test]
fn a_torn_line_is_done_again() {
    let (_, csv, records) = unbroken();
    let dir = tempfile::tempdir().unwrap();
    process(dir.path(), 4, usize::MAX, false).unwrap();
    for keep in [records.len() - 1, records.len() - 40, records.len() / 2, 10, 0] {
        fs::write(dir.path().join("records.jsonl"), &records[..keep]).unwrap();
        fs::remove_file(dir.path().join("results.csv")).unwrap();
        process(dir.path(), 4, usize::MAX, true).unwrap();
        assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), csv, "{keep} bytes kept");
        assert_eq!(fs::read(dir.path().join("records.jsonl")).unwrap(), records, "{keep} bytes kept");
    }
}

#[test]
fn a_finished_run_does_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    process(dir.path(), 4, usize::MAX, false).unwrap();
    let csv = fs::read(dir.path().join("results.csv")).unwrap();
    process(dir.path(), 4, 0, true).unwrap();
    assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), csv);
}

#[test]
fn records_of_another_experiment_are_errors() {
    let (_, _, records) = unbroken();
    let text = String::from_utf8(records).unwrap();
    let first = text.lines().nth(1).unwrap();
    for (changed, expected) in [
        (first.replace("resnet50-w16", "vgg"), "line 1: model vgg at eps 0 is not in the config"),
        (first.replace("\"eps\":0.0", "\"eps\":0.5"), "line 1: model resnet50-w16 at eps 0.5"),
        (first.replace("\"image\":0", "\"image\":11"), "line 1: image 11 is not in the dataset"),
        (first.replace("\"label\":9", "\"label\":2"), "line 1: label of image 0: expected 9, found 2"),
        (
            first.replace("\"sigma\":null", "\"sigma\":0.25"),
            "line 1: image 0 of model resnet50-w16 at eps 0, sigma 0.25: the outcome",
        ),
        (
            first.replace("\"sigma\":null", "\"sigma\":0.75"),
            "line 1: model resnet50-w16 at eps 0, sigma 0.75 is not in the",
        ),
        (first.replace("\"prediction\":", "\"prediction\":1"), "`correct_last` is true, and the prediction is 1"),
        (first.replace("\"linf\":", "\"linf\":9"), "`violation` is false, and `linf` is 9"),
        (format!("{first}\n{first}"), "line 2: image 0 of model resnet50-w16 at eps 0 was recorded before"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        process(dir.path(), 4, 0, false).unwrap_err();
        fs::write(dir.path().join("records.jsonl"), format!("{changed}\n")).unwrap();
        let error = process(dir.path(), 4, usize::MAX, true).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_engine_that_forgets_an_image_is_an_error() {
    struct Forgetful;
    impl Engine for Forgetful {
        fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
            let outcomes = images[1..].iter().map(|_| outcome(model, eps, 0, 0)).collect();
            Ok(Attacked { outcomes, ..Default::default() })
        }
        fn device_name(&self) -> String {
            "fake".into()
        }
    }
    let (config, dataset) = setup(4);
    let out = tempfile::tempdir().unwrap();
    let dir = RunDir::open(Some(out.path()), "x", false).unwrap();
    let error = run(&config, &dataset, &mut Forgetful, &dir).unwrap_err().to_string();
    assert!(error.contains("expected 4 outcomes of a batch, got 3"), "{error}");
}

/// One process of several: its part, until the engine has done `batches`.
fn part(out: &Path, part: &str, batch: usize, batches: usize) -> Result<Ledger> {
    let (config, dataset) = setup(batch);
    part_of(out, part, &config, &dataset, batches)
}

fn part_of(out: &Path, part: &str, config: &Config, dataset: &Dataset, batches: usize) -> Result<Ledger> {
    let dir = RunDir::join(Some(out), part.parse().unwrap(), IfRunning::Refuse)?.unwrap();
    run(config, dataset, &mut Fake { dataset, batches, runs: 0 }, &dir)
}

/// What `rampart merge` does, and what it lists where it refuses.
fn merge(out: &Path) -> Result<(), Vec<String>> {
    let dir = RunDir::open(Some(out), "x", true).unwrap();
    let survey = join::survey(out).unwrap().unwrap();
    let problems = survey.problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    survey.join(&dir).map(drop).map_err(|e| vec![e.to_string()])
}

fn visible(out: &Path) -> Vec<String> {
    let names = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
    names.sort();
    names
}

#[test]
fn parts_joined_are_one_run_byte_for_byte() {
    let (whole, csv, records) = unbroken();
    for of in [1, 2, 3, 7] {
        let dir = tempfile::tempdir().unwrap();
        // Each in batches of its own, some interrupted, in any order.
        for i in (1..=of).rev() {
            let name = format!("{i}/{of}");
            if i % 2 == 0 {
                part(dir.path(), &name, 2, 3).unwrap_err();
            }
            part(dir.path(), &name, 3 + i, usize::MAX).unwrap();
        }
        assert!(!dir.path().join("results.csv").exists());
        // A page of parts that nobody joined has the same counts.
        assert_eq!(Ledger::read(dir.path()).unwrap().cells, whole.cells);
        merge(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("records.jsonl")).unwrap(), records, "{of} parts");
        assert_eq!(visible(dir.path()), ["config.toml", "records.jsonl"]);
        let run = process(dir.path(), 4, 0, true).unwrap();
        assert_eq!((run.cells, fs::read(dir.path().join("results.csv")).unwrap()), (whole.cells.clone(), csv.clone()));
    }
}

#[test]
fn what_parts_left_undone_is_listed_and_goes_on_alone_or_in_other_parts() {
    let (_, csv, records) = unbroken();
    for way in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        part(dir.path(), "1/3", 4, usize::MAX).unwrap();
        part(dir.path(), "3/3", 2, 3).unwrap_err();
        let before = visible(dir.path());
        let problems = merge(dir.path()).unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("part 2/3: missing: no records-2-of-3.jsonl"), "{problems:?}");
        assert!(problems[1].starts_with("part 3/3: unfinished: ") && problems[1].ends_with(" of 66 records"));
        assert_eq!(visible(dir.path()), before, "nothing was changed");
        let error = part(dir.path(), "2/4", 4, usize::MAX).unwrap_err().to_string();
        assert!(error.contains("is split into 3 parts") && error.contains("--shard I/3"), "{error}");
        // Joined as far as it is; then the rest.
        let locked = RunDir::open(Some(dir.path()), "x", true).unwrap();
        join::survey(dir.path()).unwrap().unwrap().join(&locked).unwrap();
        drop(locked);
        if way == 0 {
            process(dir.path(), 4, usize::MAX, true).unwrap();
        } else {
            for i in 1..=4 {
                part(dir.path(), &format!("{i}/4"), 4, usize::MAX).unwrap();
            }
            merge(dir.path()).unwrap();
            process(dir.path(), 4, 0, true).unwrap();
        }
        assert_eq!(fs::read(dir.path().join("records.jsonl")).unwrap(), records);
        assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), csv);
    }
}

#[test]
fn torn_doubled_and_foreign_parts_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    for i in 1..=3 {
        part(dir.path(), &format!("{i}/3"), 4, usize::MAX).unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    let second = fs::read(path("records-2-of-3.jsonl")).unwrap();
    let card = fs::read(path("records-2-of-3.json")).unwrap();
    let lines: Vec<&[u8]> = second.split_inclusive(|&b| b == b'\n').collect();
    let other = {
        let (mut config, dataset) = setup(4);
        config.seed = 9;
        let dir = tempfile::tempdir().unwrap();
        part_of(dir.path(), "2/3", &config, &dataset, usize::MAX).unwrap();
        fs::read(dir.path().join("records-2-of-3.jsonl")).unwrap()
    };
    let first = fs::read(path("records-1-of-3.jsonl")).unwrap();
    let of_first: Vec<&[u8]> = first.split_inclusive(|&b| b == b'\n').collect();
    let cases: [(&str, Vec<u8>, bool, &str); 5] = [
        ("torn", lines[..9].concat(), true, "records-2-of-3.jsonl: torn or changed"),
        ("doubled", [&second[..], lines[5]].concat(), false, "was recorded before"),
        ("of another part", [&second[..], of_first[4]].concat(), false, "is not of part 2/3"),
        ("of another run", other, false, "seed is 0 in config.toml, and these records were made with seed 9"),
        ("no records", b"precious\n".to_vec(), false, "line 1: expected the settings"),
    ];
    for (what, bytes, with_card, problem) in cases {
        fs::write(path("records-2-of-3.jsonl"), &bytes).unwrap();
        match with_card {
            true => fs::write(path("records-2-of-3.json"), &card).unwrap(),
            false => fs::remove_file(path("records-2-of-3.json")).unwrap_or_default(),
        }
        let before = visible(dir.path());
        let problems = merge(dir.path()).unwrap_err().join("\n");
        assert!(problems.contains(problem), "{what}: {problems}");
        assert_eq!(visible(dir.path()), before, "{what}");
        assert_eq!(fs::read(path("records-2-of-3.jsonl")).unwrap(), bytes, "{what}");
    }
    // A part of another split beside them, and a card of another part.
    fs::write(path("records-2-of-3.jsonl"), &second).unwrap();
    fs::write(path("records-2-of-3.json"), fs::read(path("records-1-of-3.json")).unwrap()).unwrap();
    fs::write(path("records-2-of-4.jsonl"), &second).unwrap();
    let problems = merge(dir.path()).unwrap_err().join("\n");
    assert!(problems.contains("records-2-of-3.json: expected what part 2/3 of this run did, found that of 1/3"));
    assert!(problems.contains("records-2-of-4.jsonl: part 2/4 is of another split"), "{problems}");
    fs::remove_file(path("records-2-of-4.jsonl")).unwrap();
    fs::write(path("records-2-of-3.json"), &card).unwrap();
    merge(dir.path()).unwrap();
    assert_eq!(fs::read(path("records.jsonl")).unwrap(), unbroken().2);
}

/// Killed between the records and the parts that they came from.
#[test]
fn parts_that_were_joined_before_are_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut left = Vec::new();
    for i in 1..=2 {
        part(dir.path(), &format!("{i}/2"), 4, usize::MAX).unwrap();
    }
    for name in visible(dir.path()).into_iter().filter(|name| name != "config.toml") {
        left.push((name.clone(), fs::read(dir.path().join(name)).unwrap()));
    }
    merge(dir.path()).unwrap();
    for (name, bytes) in left {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    merge(dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join("records.jsonl")).unwrap(), unbroken().2);
    assert_eq!(visible(dir.path()), ["config.toml", "records.jsonl"]);
}

#[test]
fn nested_budgets_of_an_image_stay_in_one_part() {
    let of = |parts: Option<u32>| {
        let (mut config, dataset) = setup_by(4, Overrides { no_defense: true, ..Default::default() });
        (config.attack.nest, config.score) = (true, crate::config::settings::Score::Any);
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Undefended(Fake { dataset: &dataset, batches: usize::MAX, runs: 0 });
        match parts {
            None => drop(run(&config, &dataset, &mut engine, &RunDir::open(Some(dir.path()), "x", false).unwrap())),
            Some(of) => {
                for i in 1..=of {
                    let shard = format!("{i}/{of}").parse().unwrap();
                    let dir = RunDir::join(Some(dir.path()), shard, IfRunning::Refuse).unwrap().unwrap();
                    run(&config, &dataset, &mut engine, &dir).unwrap();
                }
                merge(dir.path()).unwrap();
            }
        }
        fs::read(dir.path().join("records.jsonl")).unwrap()
    };
    let whole = of(None);
    assert!(String::from_utf8(whole.clone()).unwrap().contains("\"nested\":0."));
    assert_eq!(of(Some(3)), whole);
}

struct Undefended<'a>(Fake<'a>);

impl Engine for Undefended<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        Ok(Attacked { denoised: vec![], ..self.0.run(model, eps, images)? })
    }

    fn device_name(&self) -> String {
        self.0.device_name()
    }
}

#[test]
fn attacked_images_of_parts_become_the_files_of_one_run() {
    let saved = |parts: u32| {
        let (mut config, dataset) = setup(4);
        config.save = Some(Format::Npz);
        let dir = tempfile::tempdir().unwrap();
        for i in 1..=parts {
            part_of(dir.path(), &format!("{i}/{parts}"), &config, &dataset, usize::MAX).unwrap();
        }
        merge(dir.path()).unwrap();
        let whole = RunDir::open(Some(dir.path()), "x", true).unwrap();
        run(&config, &dataset, &mut Fake { dataset: &dataset, batches: 0, runs: 0 }, &whole).unwrap();
        let mut files: Vec<_> =
            fs::read_dir(dir.path().join("adversarial")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.iter().map(|f| (f.file_name().unwrap().to_owned(), fs::read(f).unwrap())).collect::<Vec<_>>()
    };
    let one = saved(1);
    assert_eq!(one.len(), 4, "two models, two budgets above 0");
    assert_eq!(saved(3), one);
}
