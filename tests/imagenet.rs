//! ImageNet's way from files to batches: decoding and resizing against Pillow and OpenCV, folders, labels, damaged files, lazy
//! batches.

use std::fs;
use std::path::{Path, PathBuf};

use rampart::data::decode::decode;
use rampart::data::imagenet::{self, Fit, HELD, Prepare, Source};
use rampart::data::resize::{Filter, Rgb8, resize};
use rampart::data::{Dataset, Pixels, Select};
use serde::Deserialize;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imagenet").join(name)
}

/// As `noise` of tools/imagenet_fixtures.py.
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
        // Decoders of JPEG may round differently.
        let limit = if name.ends_with(".jpg") { (0.5, 4) } else { (0.0, 0) };
        assert!(mean <= limit.0 && largest <= limit.1, "{name}: mean {mean:.3}, largest {largest}");
    }
    assert_eq!(seen, 17);
}
