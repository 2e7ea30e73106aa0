//! Adversarial images that a sweep keeps, and those of others, scored.

use std::fs::File;
use std::path::{Path, PathBuf};

use rampart::attack::{Loss, Oracle as _, Query};
use rampart::config::open;
use rampart::data::saved::{self, About, Form, Format, Places, Saved, Set};
use rampart::device::{DType, Device};
use rampart::models::classifier::Classifier;
use rampart::tape::Precision;
use rampart::tensor::Tensor;

use crate::place::Place;

const NET: &str = "demo:resnet50-w16";

/// The images of the demo's network at 4/255, as a sweep saved them.
fn saved(place: &Place, format: Format) -> (PathBuf, Found) {
    let line = format!(
        "sweep --limit 12 --eps 0,4/255 --set attack.steps=5 --no-defense --no-checks --save {format} --out {format}"
    );
    place.run(&line).ok();
    let name = format!("{format}/adversarial/resnet50-w16-pgd-eps4_255.{format}");
    let path = place.path(&name);
    (name.into(), Found::read(&path))
}

/// What a file holds, all of it at once.
#[derive(Clone)]
struct Found {
    about: About,
    shape: [usize; 3],
    attacked: Vec<f32>,
    clean: Option<Vec<f32>>,
    labels: Vec<u32>,
    ids: Vec<u64>,
    predictions: Option<Vec<u32>>,
}

impl Found {
    fn read(path: &Path) -> Found {
        let saved = saved::read(Places { attacked: path, clean: None, labels: None }, None).unwrap();
        let all = |form| saved.images(form, 0..saved.labels.len(), saved.shape[2]).unwrap();
        let (attacked, clean) = (all(Form::Attacked).unwrap(), all(Form::Clean));
        let Saved { about, shape, labels, ids, predictions, .. } = saved;
        Found { about, shape, attacked, clean, labels, ids, predictions }
    }
}

fn write(path: &Path, about: About, attacked: &[f32], of: &Found) {
    let len = of.shape.iter().product::<usize>();
    let set = Set {
        about,
        shape: of.shape,
        labels: &of.labels,
        ids: &of.ids,
        predictions: of.labels.clone(),
        clean_predictions: None,
    };
    let clean = of.clean.as_ref().unwrap();
    let image = |form, i: usize| Ok(if form == Form::Clean { clean } else { attacked }[i * len..][..len].to_vec());
    saved::write(&mut File::create(path).unwrap(), Format::Safetensors, &set, image).unwrap();
}

#[test]
fn what_a_sweep_keeps_is_scored_as_the_sweep_did() {
    let place = Place::new();
    for format in [Format::Npz, Format::Safetensors] {
        let (file, found) = saved(&place, format);
        assert_eq!(found.about.eps, Some(4.0 / 255.0));
        assert_eq!(std::fs::read_dir(place.path(&format!("{format}/adversarial"))).unwrap().count(), 2);
        let ran = place.run(&format!("evaluate {} --model {NET} --device host --csv a.csv", file.display())).ok();
        // An epsilon of one norm is none of another.
        let l2 = place.run(&format!("evaluate {} --model {NET} --device host --norm l2", file.display()));
        l2.refused(2, &["--norm", "one in linf", "--eps"]);
        let right = place.results(&format.to_string());
        let right = right.lines().find(|line| line.contains("resnet50-w16,fashion-mnist,pgd,linf,0.0156")).unwrap();
        let right = right.split(',').nth(10).unwrap();
        for part in [
            "12 images of 32x32, floats, with clean images",
            "budget: linf 4/255",
            "over the budget: 0 of 12",
            "outside [0, 1]: 0 of 12",
            "predicted as the file says  12 of 12",
            &format!("right when attacked  {right} of 12"),
        ] {
            assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
        }
        let csv = place.read("a.csv");
        let rows: Vec<csv::StringRecord> =
            csv::Reader::from_reader(csv.as_bytes()).records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 12);
        for (row, prediction) in rows.iter().zip(found.predictions.unwrap()) {
            assert_eq!(row[4], prediction.to_string(), "{csv}");
        }
        // Under a smaller budget none of them counts, and that is told.
        let tight = place.run(&format!("evaluate {} --model {NET} --eps 1/255 --device host", file.display())).ok();
        for part in ["over the budget: 12 of 12", "counts as no success", "success              0 of"] {
            assert!(tight.stdout.contains(part), "{}| {part}", tight.stdout);
        }
        // Saved images are images like any other.
        place.run(&format!("attack {NET} {} --eps 1/255 --limit 2 --device host --dry-run", file.display())).ok();
    }
}

/// What is no pixel is refused as `attack` refuses it: under a budget none of it would count, and all of it be "right".
#[test]
fn normalised_values_and_grey_levels_are_no_pixels() {
    let place = Place::new();
    let (_, found) = saved(&place, Format::Safetensors);
    let len = found.shape.iter().product::<usize>();
    for (name, of) in [("normalised", (|v| (v - 0.3) / 0.25) as fn(f32) -> f32), ("levels", |v| 255.0 * v)] {
        let path = place.path(&format!("{name}.safetensors"));
        let values: Vec<f32> = found.attacked.iter().map(|&v| of(v)).collect();
        write(&path, About::default(), &values, &found);
        let ran = place.run(&format!("evaluate {name}.safetensors --model {NET} --eps 4/255 --device host"));
        ran.refused(1, &[&format!("{name}.safetensors: images: expected floats in [0, 1]"), "undo any normalisation"]);
    }
    // One of them among many is counted, and no success.
    let mut one = found.attacked.clone();
    one[..len].iter_mut().for_each(|v| *v *= 255.0);
    write(&place.path("one.safetensors"), About::default(), &one, &found);
    let ran = place.run(&format!("evaluate one.safetensors --model {NET} --eps 4/255 --device host")).ok();
    assert!(ran.stdout.contains("outside [0, 1]: 1 of 12"), "{}", ran.stdout);
}

/// torchattacks 3.5.1, PGD at 4/255 on the same network; made by tools/checks/adversarial_torch.py.
#[test]
fn what_torchattacks_saved_is_scored() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adversarial/torchattacks.pt");
    let ran = place.run(&format!("evaluate {} --model {NET} --eps 4/255 --device host", file.display())).ok();
    for part in [
        "4 images of 32x32, floats, with clean images",
        "over the budget: 0 of 4",
        "right when attacked  1 of 4",
        "success              3 of 4",
        "predicted as the file says  4 of 4",
    ] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
}

/// Between two grid points of a line there are images that fool the network and do so no more once they are rounded.
#[test]
fn successes_that_rounding_undoes_are_counted() {
    let place = Place::new();
    let (_, mut found) = saved(&place, Format::Npz);
    let len = found.shape.iter().product::<usize>();
    let clean = found.clean.take().unwrap();
    let n = found.labels.len();
    let steps: Vec<f32> = (0..4).flat_map(|k| [0.2, 0.45].map(|s| k as f32 + s)).collect();
    // Steps of 1/255 from the clean image towards the attacked one.
    let at = |i: usize, step: f32| -> Vec<f32> {
        let pairs = clean[i * len..][..len].iter().zip(&found.attacked[i * len..][..len]);
        pairs.map(|(c, a)| c + (a - c).signum() * (255.0 * (a - c).abs()).min(step) / 255.0).collect()
    };
    let device = Device::host().unwrap();
    let net = Classifier::load(&device, Precision::F32, &open(NET).unwrap(), [found.shape[0], found.shape[1]]).unwrap();
    let prediction = |pixels: &[f32], label: u32| {
        let x = Tensor::from_f32(&device, &[1, found.shape[0], found.shape[1], 3], DType::F32, pixels).unwrap();
        net.evaluate(&x, &Query::new(&[label], Loss::CrossEntropy)).unwrap().prediction[0]
    };
    let mut all = Found { attacked: vec![], clean: Some(vec![]), labels: vec![], ids: vec![], ..found.clone() };
    let (mut success, mut undone) = (0, 0);
    for i in 0..n {
        let label = found.labels[i];
        for &step in &steps {
            let image = at(i, step);
            let grid: Vec<f32> = image.iter().map(|v| (255.0 * v).round() / 255.0).collect();
            if prediction(&clean[i * len..][..len], label) == label && prediction(&image, label) != label {
                success += 1;
                undone += usize::from(prediction(&grid, label) == label);
            }
            all.attacked.extend(image);
            all.clean.as_mut().unwrap().extend(&clean[i * len..][..len]);
            all.labels.push(label);
            all.ids.push(all.ids.len() as u64);
        }
    }
    assert!(undone > 0 && undone < success, "{undone} of {success}");
    write(&place.path("line.safetensors"), About::default(), &all.attacked, &all);
    let ran = place.run(&format!("evaluate line.safetensors --model {NET} --eps 4/255 --device host")).ok();
    assert!(ran.stdout.contains(&format!("undone by 8 bits     {undone} of {success}")), "{undone} {}", ran.stdout);
}

#[test]
fn what_is_no_image_counts_as_no_success() {
    let place = Place::new();
    let (_, mut found) = saved(&place, Format::Npz);
    let len = found.shape.iter().product::<usize>();
    found.attacked[3] = f32::NAN;
    found.attacked[len + 5] = 1.5;
    found.attacked[2 * len] = -0.1;
    write(&place.path("bad.safetensors"), About::default(), &found.attacked, &found);
    for eps in ["", "--eps 2.0"] {
        let ran = place.run(&format!("evaluate bad.safetensors --model {NET} {eps} --device host --csv a.csv")).ok();
        assert!(ran.stdout.contains("outside [0, 1]: 3 of 12"), "{}", ran.stdout);
        assert!(ran.stdout.contains("1 image with values that are no numbers, the first is"), "{}", ran.stdout);
        // Neither hides the other: what is outside may be over the budget as well, and NaN is the largest of all.
        assert!(eps.is_empty() || ran.stdout.contains("over the budget: 1 of 12"), "{}", ran.stdout);
        assert!(ran.stdout.contains("linf: mean NaN, largest NaN"), "{}", ran.stdout);
        let within: Vec<String> = csv::Reader::from_reader(place.read("a.csv").as_bytes())
            .records()
            .map(|row| row.unwrap()[10].to_owned())
            .collect();
        assert_eq!(within[..4], ["false", "false", "false", "true"]);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::new();
    let (file, found) = saved(&place, Format::Npz);
    let file = file.display();
    let line = |rest: &str| format!("evaluate {rest} --device host");
    place.run(&line(&format!("{file} --model nothing.onnx"))).refused(2, &["--model", "nothing.onnx"]);
    place.run(&line(&format!("nothing.npz --model {NET}"))).refused(2, &["nothing.npz"]);
    place.run(&line(&format!("{file} --model {NET} --eps -1"))).refused(2, &["--eps", "-1"]);
    place.run(&line(&format!("{file} --model {NET} --eps 8"))).refused(2, &["--eps", "8/255"]);
    place.run(&line(&format!("{file} --model {NET} --limit 0"))).refused(2, &["--limit"]);
    let before = std::fs::read(place.path("run").join(file.to_string())).ok();
    place.run(&line(&format!("{file} --model {NET} --csv {file}"))).refused(2, &["--csv", "would be replaced"]);
    assert_eq!(std::fs::read(place.path("run").join(file.to_string())).ok(), before);
    place.run(&line(&format!("{file} --model {NET} --steps 3"))).refused(2, &["--steps"]);
    place.write("a.npy", b"");
    place.run(&line(&format!("a.npy --model {NET}"))).refused(2, &["--labels", "a.npy"]);
    // Without clean images no budget can be checked.
    let tensor = |dtype, shape: &[usize], bytes: &'static [u8]| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap()
    };
    let images = vec![7u8; 2 * found.shape.iter().product::<usize>()].leak();
    let named = |name: &'static str, labels: &'static [u8]| {
        let x = tensor(safetensors::Dtype::U8, &[2, found.shape[0], found.shape[1], 3], images);
        let all = [(name, x), ("y", tensor(safetensors::Dtype::U8, &[2], labels))];
        safetensors::serialize(all, None).unwrap()
    };
    let two = |labels: &'static [u8]| named("x_adv", labels);
    place.write("two.safetensors", two(&[0, 1]));
    let two_of = |rest: &str| place.run(&line(&format!("two.safetensors --model {NET} {rest}")));
    two_of("--eps 8/255").refused(2, &["--eps", "--clean"]);
    two_of("--norm l2").refused(2, &["--norm", "--eps"]);
    two_of("--csv .").refused(2, &["--csv: expected a file, found the folder ."]);
    let ran = two_of("").ok();
    assert!(
        ran.stdout.contains("8-bit values, without clean images") && !ran.stdout.contains("undone"),
        "{}",
        ran.stdout
    );
    place.write("two.safetensors", two(&[0, 200]));
    two_of("").refused(1, &["two.safetensors", "found 200", "10 classes"]);
    // The clean ones from elsewhere.
    place.write("two.safetensors", two(&[0, 1]));
    place.write("clean.safetensors", named("images", &[0, 1]));
    let ran = two_of("--clean clean.safetensors --eps 0").ok();
    assert!(ran.stdout.contains("over the budget: 0 of 2"), "{}", ran.stdout);
    two_of(&format!("--clean {file} --eps 0")).refused(1, &["expected 2, one for each label, found 12"]);
}

#[test]
fn a_run_that_keeps_nothing_is_not_resumed_as_one_that_does() {
    let place = Place::new();
    let line = "sweep --limit 2 --eps 1/255 --set attack.steps=1 --no-defense --no-checks --out run";
    place.run(line).ok();
    assert!(!place.path("run/adversarial").exists());
    place.run(&format!("{line} --resume --save npz")).refused(2, &["save"]);
}
