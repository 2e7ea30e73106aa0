//! ImageNet's way from files to batches: decoding and resizing against Pillow and OpenCV, folders, labels, damaged files, lazy
//! batches.

use std::fs;
use std::path::{Path, PathBuf};

use rampart::data::decode::decode;
use rampart::data::imagenet::{self, HELD, Source};
use rampart::data::prepare::{Fit, Prepare};
use rampart::data::resize::{Filter, Rgb8, resize};
use rampart::data::{Dataset, Pixels, Select};
use serde::Deserialize;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imagenet").join(name)
}

/// As `noise` of tools/reference/imagenet_fixtures.py.
fn noise(height: usize, width: usize) -> Rgb8 {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    Rgb8 { height, width, pixels: (0..height * width * 3).map(next).collect() }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[derive(Deserialize)]
struct Cases {
    resizes: Vec<Resize>,
    crops: Vec<Crop>,
}

#[derive(Deserialize)]
struct Resize {
    from: [usize; 2],
    to: [usize; 2],
    filter: Filter,
    crc32: u32,
}

#[derive(Deserialize)]
struct Crop {
    from: [usize; 2],
    shorter: usize,
    crop: usize,
    crc32: u32,
}

fn cases() -> Cases {
    serde_json::from_slice(&fs::read(fixture("resizes.json")).unwrap()).unwrap()
}

#[test]
fn resizes_are_pillows_byte_for_byte() {
    let cases = cases().resizes;
    assert_eq!(cases.len(), 24);
    for Resize { from, to, filter, crc32: want } in cases {
        let found = resize(&noise(from[0], from[1]), to[0], to[1], filter);
        assert_eq!(crc32(&found.pixels), want, "{from:?} to {to:?}, {filter}");
    }
}

#[test]
fn crops_are_torchvisions_byte_for_byte() {
    for Crop { from, shorter, crop, crc32: want } in cases().crops {
        let prepare = Prepare { fit: Fit::Crop, size: [crop, crop], shorter, filter: Filter::Bilinear };
        let found = prepare.apply(&noise(from[0], from[1]));
        assert_eq!(crc32(&found.pixels), want, "{from:?} to {shorter}, cut to {crop}");
    }
}

/// Mean and largest difference in grey levels.
fn difference(a: &Rgb8, b: &Rgb8) -> (f64, u8) {
    assert_eq!((a.height, a.width), (b.height, b.width));
    let each = || a.pixels.iter().zip(&b.pixels).map(|(&a, &b)| a.abs_diff(b));
    (each().map(f64::from).sum::<f64>() / a.pixels.len() as f64, each().max().unwrap_or(0))
}

#[test]
fn opencvs_default_is_met() {
    for (from, to) in [([8, 8], [56, 56]), ([11, 7], [30, 24]), ([30, 24], [11, 7])] {
        let want = decode(&fixture(&format!("opencv-{}x{}-{}x{}.png", from[0], from[1], to[0], to[1]))).unwrap();
        let found = resize(&noise(from[0], from[1]), to[0], to[1], Filter::Opencv);
        let (mean, largest) = difference(&found, &want);
        println!("{from:?} to {to:?}: mean {mean:.4}, largest {largest}");
        assert!(largest <= 1 && mean <= 0.01, "{from:?} to {to:?}: mean {mean:.4}, largest {largest}");
    }
}

#[test]
fn every_kind_of_image_is_read_as_pillow_does() {
    let mut seen = 0;
    for entry in fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let want = fixture(&format!("{name}.rgb.png"));
        if !want.exists() {
            continue;
        }
        seen += 1;
        let (mean, largest) = difference(&decode(&path).unwrap(), &decode(&want).unwrap());
        println!("{name}: mean {mean:.3}, largest {largest}");
        // Decoders of what loses bits may round differently.
        let limit = if name.ends_with(".jpg") || name == "colour.webp" { (0.5, 4) } else { (0.0, 0) };
        assert!(mean <= limit.0 && largest <= limit.1, "{name}: mean {mean:.3}, largest {largest}");
    }
    assert_eq!(seen, 25);
}

/// The photographs beside the repository, which may not be part of it.
fn photos() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/imagenet20");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return None;
    };
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect();
    files.sort();
    Some(files)
}

#[test]
fn photographs_come_out_within_a_few_grey_levels() {
    let Some(files) = photos() else { return };
    for (name, prepare) in [("squash", Prepare::SQUASH), ("crop", Prepare::CROP)] {
        let want = decode(&fixture(&format!("photos-{name}.png"))).unwrap();
        assert_eq!(want.height, files.len());
        let (mut sum, mut largest) = (0.0, 0);
        for (file, row) in files.iter().zip(want.pixels.chunks_exact(want.width * 3)) {
            let image = prepare.apply(&decode(file).unwrap());
            assert_eq!([image.height, image.width], prepare.size);
            let (mut state, mut pixels) = (1u64, Vec::new());
            for _ in 0..want.width {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let place = (state >> 33) as usize % (image.height * image.width);
                pixels.extend_from_slice(&image.pixels[place * 3..][..3]);
            }
            let found = Rgb8 { height: 1, width: want.width, pixels };
            let (mean, most) = difference(&found, &Rgb8 { height: 1, width: want.width, pixels: row.to_vec() });
            println!("{name} {}: mean {mean:.3}, largest {most}", file.file_name().unwrap().to_string_lossy());
            assert!(mean <= 0.5 && most <= 8, "{name} {}: mean {mean:.3}, largest {most}", file.display());
            sum += mean;
            largest = largest.max(most);
        }
        println!("{name}: mean {:.3}, largest {largest}", sum / files.len() as f64);
    }
}

/// A folder with every difficulty: two class folders, a grey and a CMYK image, a truncated and an empty one, other files.
fn difficult() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str, from: &str| {
        let to = dir.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixture(from), to).unwrap();
    };
    place("n01440764/a.JPEG", "colour.jpg");
    place("n01440764/b.JPEG", "grey.jpg");
    place("n01440764/notes.txt", "resizes.json");
    place("n02012849/a.JPEG", "cmyk.jpg");
    place("n02012849/c.png", "palette.png");
    place("n02012849/d.png", "rgb.png");
    let whole = fs::read(fixture("colour.jpg")).unwrap();
    fs::write(dir.path().join("n01440764/c.JPEG"), &whole[..whole.len() / 2]).unwrap();
    fs::write(dir.path().join("n02012849/b.JPEG"), "").unwrap();
    dir
}

const SMALL: Prepare = Prepare { fit: Fit::Squash, size: [6, 8], shorter: 6, filter: Filter::Bicubic };

fn load(dir: &Path, limit: Option<usize>, select: Select, held: usize) -> rampart::Result<Dataset> {
    imagenet::load(Source { root: dir, labels: None, classes: None, list: None }, SMALL, limit, select, held)
}

#[test]
fn folders_are_classes_and_bad_files_are_left_out() {
    let dir = difficult();
    let data = load(dir.path(), None, Select::First, HELD).unwrap();
    assert_eq!((data.height, data.width, data.classes.len(), data.len()), (6, 8, 1000, 5));
    // n02012849 is class 134, a crane; ids count the bad files.
    assert_eq!((&data.labels[..], &data.ids[..]), (&[0, 0, 134, 134, 134][..], &[0, 1, 3, 5, 6][..]));
    assert_eq!((data.classes[0].as_str(), data.classes[134].as_str()), ("tench", "crane"));
    let problems: Vec<String> = data.skipped.iter().map(|s| s.problem.clone()).collect();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].contains("n01440764/notes.txt: expected an image"), "{problems:?}");
    assert!(problems[1].contains("n01440764/c.JPEG") && problems[1].contains("truncated"), "{problems:?}");
    assert!(problems[2].contains("n02012849/b.JPEG") && problems[2].contains("not a readable image"), "{problems:?}");

    let direct = SMALL.apply(&decode(&dir.path().join("n02012849/c.png")).unwrap());
    let floats: Vec<f32> = direct.pixels.iter().map(|&v| f32::from(v) / 255.0).collect();
    assert_eq!(data.image(3).unwrap(), floats);
    // Grey has three equal channels.
    assert!(data.image(1).unwrap().chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
}

#[test]
fn batches_from_files_are_those_from_memory() {
    let dir = difficult();
    let held = load(dir.path(), None, Select::First, HELD).unwrap();
    let lazy = load(dir.path(), None, Select::First, 0).unwrap();
    assert!(matches!((&held.pixels, &lazy.pixels), (Pixels::Bytes(_), Pixels::Files(_))));
    assert_eq!((held.crc32(), &held.ids, &held.skipped), (lazy.crc32(), &lazy.ids, &lazy.skipped));
    // In order, again from the front, back and forth, one twice.
    for batch in [&[0, 1][..], &[2, 3], &[4], &[0, 1], &[4, 0], &[3], &[1, 2, 2], &[0, 1, 2, 3, 4]] {
        assert_eq!(held.batch(batch).unwrap(), lazy.batch(batch).unwrap(), "{batch:?}");
    }
    assert_eq!(lazy.take(3).unwrap().pixels, held.take(3).unwrap().pixels);

    let changed = dir.path().join("n02012849/d.png");
    fs::copy(fixture("grey.png"), &changed).unwrap();
    // Once more what may already have been prepared.
    lazy.batch(&[0]).and_then(|_| lazy.batch(&[0])).unwrap();
    let error = lazy.batch(&[4]).unwrap_err().to_string();
    assert!(error.contains("d.png") && error.contains("other pixels than when the run began"), "{error}");
    fs::remove_file(&changed).unwrap();
    lazy.batch(&[0]).and_then(|_| lazy.batch(&[0])).unwrap();
    let error = lazy.batch(&[4]).unwrap_err().to_string();
    assert!(error.contains("d.png"), "{error}");
}

#[test]
fn a_limit_counts_readable_images() {
    let dir = difficult();
    let ids = |limit, select| load(dir.path(), Some(limit), select, HELD).map(|data| data.ids);
    assert_eq!(ids(2, Select::Balanced).unwrap(), [0, 3]);
    // Of numpy's shuffle of 7 by seed 42 the first three are 0, 1 and 5.
    assert_eq!(ids(3, Select::Random(42)).unwrap(), [0, 1, 5]);
    // The third is damaged: the one after it takes its place, from memory and from files.
    for held in [HELD, 0] {
        let data = load(dir.path(), Some(3), Select::First, held).unwrap();
        assert_eq!(
            (&data.ids[..], data.skipped.len(), data.batch(&[0, 1, 2]).unwrap().len()),
            (&[0, 1, 3][..], 2, 432)
        );
    }
    for name in ["n01440764/a.JPEG", "n01440764/b.JPEG", "n02012849/a.JPEG", "n02012849/c.png", "n02012849/d.png"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let error = ids(3, Select::First).unwrap_err().to_string();
    assert!(error.contains("expected readable images, found none") && error.contains("a.JPEG"), "{error}");
}

#[test]
fn a_flat_folder_takes_its_labels_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("val");
    fs::create_dir(&root).unwrap();
    for name in ["x_1.jpg", "x_2.jpg", "x_3.jpg"] {
        fs::copy(fixture("colour.jpg"), root.join(name)).unwrap();
    }
    let labels = dir.path().join("labels.csv");
    let load = |text: &str| {
        fs::write(&labels, text).unwrap();
        imagenet::load(
            Source { root: &root, labels: Some(&labels), classes: None, list: None },
            SMALL,
            None,
            Select::First,
            HELD,
        )
    };
    let data =
        load("ImageId,PredictionString\nx_2,n02012849 85 1 499 272 \nx_1.jpg,999\n\nx_3.jpg\tn01440764\nother,5\n")
            .unwrap();
    assert_eq!((&data.labels[..], &data.ids[..]), (&[999, 134, 0][..], &[0, 1, 2][..]));
    for (text, part) in [
        ("x_1,1\nx_2,2\n", "expected a label of x_3.jpg, found none"),
        ("x_1,1\nx_2,1000\n", "line 2: expected a file and one of 1000 classes, found `x_2,1000`"),
        ("x_1,1\nx_2\n", "line 2"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains("labels.csv") && error.contains(part), "{error}");
    }
    let source = Source { root: &root, labels: None, classes: None, list: None };
    let error = imagenet::load(source, SMALL, None, Select::First, HELD).unwrap_err().to_string();
    assert!(error.contains("a flat folder needs a file of `labels`"), "{error}");
}

#[test]
fn other_classes_come_from_a_list() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["Dog", "polar_bear"] {
        fs::create_dir_all(dir.path().join("val").join(name)).unwrap();
        fs::copy(fixture("rgb.png"), dir.path().join("val").join(name).join("1.png")).unwrap();
    }
    let (root, list) = (dir.path().join("val"), dir.path().join("classes.txt"));
    fs::write(&list, "polar bear\ncat\ndog\n").unwrap();
    let load = |classes| {
        imagenet::load(Source { root: &root, labels: None, classes, list: None }, SMALL, None, Select::First, HELD)
    };
    let data = load(Some(&list)).unwrap();
    assert_eq!((&data.labels[..], data.classes.len()), (&[0, 2][..], 3));
    let error = load(None).unwrap_err().to_string();
    assert!(error.contains("Dog: expected a folder named after one of 1000 classes, as n01440764"), "{error}");
}
