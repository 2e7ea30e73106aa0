//! `rampart maps`, and the maps of a CoAtNet that was swept.

use std::fs;
use std::path::Path;

use crate::place::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

#[test]
fn maps_of_files_of_ones_own() {
    let place = Place::new();
    let grey = |seed: u32| image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * y * seed % 251) as u8; 3]));
    grey(3).save(place.path("one.png")).unwrap();
    grey(5).save(place.path("two.png")).unwrap();
    place.run("maps one.png two.png --eps 0.01,0.03 --sigma 0.25 --device host --out m").ok();
    let csv = place.read("m/maps.csv");
    let rows: Vec<Vec<String>> = csv::Reader::from_reader(csv.as_bytes())
        .records()
        .map(|r| r.unwrap().iter().map(str::to_owned).collect())
        .collect();
    // Two images, five stages and four gates of either kind, four states.
    assert_eq!(rows.len(), 2 * (5 + 8) * 4, "{csv}");
    for row in &rows {
        let shift: f64 = row[3].parse().unwrap();
        assert!(if row[2] == "clean" { shift == 0.0 } else { shift > 0.0 && shift.is_finite() }, "{row:?}");
    }
    let page = place.read("m/maps.html");
    assert_eq!(page.matches("<img ").count(), 2 * (4 + 13 * 4));
    place
        .run("maps one.png --layers relu,layer9.0 --device host")
        .refused(2, &["--layers", "layer9.0", "layer4.2.cbam.spatial_gate"]);
    place.run("maps one.png --eps 8 --device host").refused(2, &["--eps", "beyond 1", "8/255"]);
    place.run("maps one.png --weights demo:vgg --device host").refused(2, &["--weights", "demo:vgg"]);
    place.write("no.png", "not a picture");
    place.run("maps no.png --device host").refused(1, &["no.png", "not a readable image"]);
    image::RgbImage::new(30, 30).save(place.path("odd.png")).unwrap();
    place.run("maps odd.png --sigma 0.25 --device host").refused(1, &["odd.png", "a multiple of", "--denoiser-size"]);
    place.run("maps odd.png --sigma 0.25 --denoiser-size 32x32 --eps 0.01 --steps 1 --layers relu --device host --out odd").ok();
    place.run("maps odd.png --sigma 0.25 --denoiser-size 32 --device host").refused(2, &["--denoiser-size", "`32`"]);
}

/// The CoAtNet of a dump, for images of 48x48, with a head of 1000 classes.
fn write_coatnet(path: &Path) {
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/feature_map/coatnet_rollout.safetensors");
    let bytes = fs::read(dump).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let attrs: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["attrs"]).unwrap();
    let mut config = attrs["config"].clone();
    config["classes"] = 1000.into();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let head = |name: &str, shape: &[usize]| -> (String, Vec<usize>, Vec<u8>) {
        let values = rampart::models::weights::fill(name, shape);
        (name.into(), shape.into(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let heads = [head("head.fc.weight", &[1000, 16]), head("head.fc.bias", &[1000])];
    let tensors = all.tensors();
    let body = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix("w.")?.to_owned(), t.clone())));
    let body = body.filter(|(name, _)| !name.starts_with("head.fc."));
    let heads = heads
        .iter()
        .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let half = "[0.5,0.5,0.5]".to_owned();
    let metadata = [("arch", "coatnet".into()), ("config", config.to_string()), ("mean", half.clone()), ("std", half)];
    let metadata = metadata.map(|(k, v)| (k.to_owned(), v)).into();
    safetensors::serialize_to_file(body.chain(heads), Some(metadata), path).unwrap();
}

#[test]
fn what_maps_cannot_heed_is_refused() {
    let place = Place::new();
    image::RgbImage::new(32, 32).save(place.path("a.png")).unwrap();
    for (flags, part) in [
        ("--denoiser nix", "--sigma"),
        ("--denoiser-size 16x16", "--sigma"),
        ("--fit crop", "--fit: belongs to networks of one size"),
        ("--eps 0.01,0.01", "--eps: 0.01 is listed twice"),
    ] {
        place.run(&format!("maps a.png {flags} --out m")).refused(2, &[part]);
    }
    place.run("denoise a.png --sigma 0.25,0.25 --out d").refused(2, &["--sigma: 0.25 is listed twice"]);
}

#[test]
fn maps_of_a_transformer_take_photos_of_any_size() {
    use rampart::data::{
        decode::decode,
        prepare::{Fit, Prepare},
    };
    let place = Place::new();
    write_coatnet(&place.path("coatnet.safetensors"));
    let photo =
        image::RgbImage::from_fn(91, 70, |x, y| image::Rgb([(x * 2) as u8, (y * 3) as u8, (x * y % 251) as u8]));
    photo.save(place.path("photo.png")).unwrap();
    let run = |file: &str, more: &str, out: &str| {
        let flags = "--weights coatnet.safetensors --eps 0.01,0.03 --steps 3 --device host";
        place.run(&format!("maps {file} {flags} {more} --out {out}"))
    };
    run("photo.png", "--sigma 0.25 --denoiser-size 32x32", "a").ok();
    let page = place.read("a/maps.html");
    for part in ["stages.2.attention_rollout", "rolled out over the stage", "3x3x1", "6x6x1"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<b>class "), "ImageNet's classes have names");
    let csv = place.read("a/maps.csv");
    // Three stages and two of them of attention, four states.
    assert_eq!(csv.lines().count(), 1 + (3 + 2) * 4, "{csv}");
    for line in csv.lines().skip(1) {
        let shift: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        assert_eq!(shift == 0.0, line.contains(",clean,"), "{line}");
    }

    // As if the image had been prepared before, in either way.
    let mut both = Vec::new();
    for (fit, name) in [(Fit::Squash, "squash"), (Fit::Crop, "crop")] {
        let small = Prepare::at([48, 48], fit).apply(&decode(&place.path("photo.png")).unwrap());
        let file = format!("{name}.png");
        image::RgbImage::from_raw(48, 48, small.pixels).unwrap().save(place.path(&file)).unwrap();
        run(&file, "", "small").ok();
        run("photo.png", &format!("--fit {name}"), "large").ok();
        let csv = place.read("large/maps.csv");
        assert_eq!(csv.replace("photo", name), place.read("small/maps.csv"));
        both.push(csv);
    }
    assert_ne!(both[0], both[1]);

    run("photo.png", "--layers stages.1.blocks.2.attn.weights", "weights").ok();
    assert!(place.read("weights/maps.html").contains("36x36"));
    run("photo.png", "--layers stages.1.blocks.2.attn", "no").refused(
        2,
        &["--layers", "stages.1.blocks.2.attn.weights", "stages.1.attention_rollout", "found `stages.1.blocks.2.attn`"],
    );
}

/// CoAtNet from end to end: folder, attack at its own size, denoiser at another, page with its attention.
#[test]
fn a_transformer_is_swept_behind_the_denoiser() {
    let place = Place::new();
    write_coatnet(&place.path("coatnet.safetensors"));
    for (class, seed) in [("n01440764", 3u32), ("n01443537", 5)] {
        let folder = place.path(&format!("val/{class}"));
        fs::create_dir_all(&folder).unwrap();
        let photo = image::RgbImage::from_fn(70, 53, |x, y| {
            image::Rgb([(x * 3) as u8, (y * 4) as u8, (x * y * seed % 251) as u8])
        });
        photo.save(folder.join("1.png")).unwrap();
    }
    place.write(
        "c.toml",
        "limit = 2\n[dataset]\nkind = \"imagenet\"\npath = \"val\"\nfit = \"squash\"\nsize = [48, 48]\nfilter = \"bicubic\"\n\
         [[models]]\nweights = \"coatnet.safetensors\"\n[attack]\neps = [0, \"8/255\"]\nsteps = 2\n\
         [defense]\nweights = \"demo:unet-small\"\nsigma = [0.25]\nsize = [32, 32]\nfilter = \"bicubic\"\n",
    );
    let ran = place.run("sweep --config c.toml --device host --no-checks --out r").ok();
    assert!(ran.stdout.contains("top-5 accuracy in %") && ran.stderr.contains("denoised at 32x32"), "{}", ran.stderr);
    let records = place.records("r");
    // Two images at two epsilons in two channels.
    assert_eq!(records.len(), 2 * 2 * 2, "{records:?}");
    for line in &records {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["prediction"].as_u64().unwrap() < 1000);
        if let Some(linf) = record["linf"].as_f64() {
            let eps = record["eps"].as_f64().unwrap();
            assert!(linf <= eps + 1e-6 && (linf > 0.0) == (eps > 0.0), "{line}");
        }
    }
    let page = place.read("r/report.html");
    for part in ["stages.2.attention_rollout", "48x48", "denoiser at", "32x32", "id=\"accuracy-top5\""] {
        assert!(page.contains(part), "{part}");
    }
}
