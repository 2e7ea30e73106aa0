//! What checkpoints say of themselves against what they are run on, and what lies in folders beside images: from outside.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use rampart::data::idx::FASHION;

use crate::imagenet_sweep::write_weights;
use crate::place::*;
use rampart::data::{Select, demo, to_bytes};
use rampart::models::weights::fill;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Of each class the first four images: without an attack the demo's network is right about 35 of these 40, measured in PyTorch.
const EACH: usize = 4;
const RIGHT: (&str, &str) = ("40", "35");

/// The images as files, where `name` says for their class and number within it.
fn write_images(place: &Place, name: impl Fn(usize, usize) -> String) {
    let data = demo::dataset(None, Select::First).unwrap();
    let mut seen = [0; 10];
    for i in 0..data.len() {
        let class = data.labels[i] as usize;
        if seen[class] == EACH {
            continue;
        }
        let image = RgbImage::from_raw(32, 32, to_bytes(&data.image(i).unwrap())).unwrap();
        let path = place.path(&name(class, seen[class]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let format = ImageFormat::from_path(&path).unwrap();
        image.save_with_format(path, format).unwrap();
        seen[class] += 1;
    }
    assert_eq!(seen, [EACH; 10]);
}

/// A sweep without an attack over `dataset`: what ran, and images and right ones of `results.csv`.
fn clean(place: &Place, dataset: &str) -> (Ran, (String, String)) {
    let config = format!("[dataset]\n{dataset}\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\neps = [0]\n");
    place.write("try.toml", config);
    let _ = fs::remove_dir_all(place.path("run"));
    let ran = place.run("sweep --config try.toml --no-checks --out run");
    if ran.code != Some(0) {
        return (ran, Default::default());
    }
    let results = place.results("run");
    let row: Vec<&str> = results.lines().nth(1).unwrap().split(',').collect();
    let found = (row[9].to_owned(), row[10].to_owned());
    (ran, found)
}

#[track_caller]
fn right(place: &Place, dataset: &str) -> Ran {
    let (ran, found) = clean(place, dataset);
    let ran = ran.ok();
    assert_eq!((found.0.as_str(), found.1.as_str()), RIGHT, "{}", ran.stderr);
    assert!(!ran.stdout.contains("(S1)"), "{}", ran.stdout);
    ran
}

#[test]
fn folders_named_as_the_checkpoint_has_its_classes_are_in_its_order() {
    let place = Place::new();
    let folder = |class: usize| FASHION[class].replace('/', "_");
    write_images(&place, |class, i| format!("data/{}/{i}.png", folder(class)));
    let ran = right(&place, "kind = \"folder\"\npath = \"data\"");
    assert!(
        ran.stderr.contains("classes, as resnet50-w16 says: 0 T-shirt_top, 1 Trouser, 2 Pullover"),
        "{}",
        ran.stderr
    );
    let config: toml::Table = place.read("run/config.toml").parse().unwrap();
    let order: Vec<&str> =
        config["dataset"]["class_order"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!((order[0], order[9], order.len()), ("T-shirt_top", "Ankle boot", 10));
    assert_eq!(config["models"][0]["clean_test_accuracy"].as_float(), Some(0.9227));
    // The stored config gives the same.
    let before = (place.results("run"), place.records("run"));
    place.run("sweep --config run/config.toml --no-checks --out again").ok();
    assert_eq!((place.results("again"), place.records("again")), before);

    // A list of one's own decides where the checkpoint is silent, and may not contradict it.
    let mut names: Vec<String> = (0..10).map(folder).collect();
    place.write("classes.txt", names.join("\n"));
    right(&place, "kind = \"folder\"\npath = \"data\"\nclasses = \"classes.txt\"");
    names.sort();
    place.write("classes.txt", names.join("\n"));
    let (ran, _) = clean(&place, "kind = \"folder\"\npath = \"data\"\nclasses = \"classes.txt\"");
    ran.refused(
        1,
        &["classes: not those of data: class 0 is `T-shirt/top` in the checkpoint and `Ankle boot` in the dataset"],
    );

    fs::rename(place.path("data/Bag"), place.path("data/Handbag")).unwrap();
    let (ran, _) = clean(&place, "kind = \"folder\"\npath = \"data\"");
    ran.refused(
        1,
        &["Handbag: expected a folder named after one of 10 classes, as resnet50-w16 says, the nearest without a folder is `Bag`"],
    );
}

#[test]
fn numbers_are_classes_in_their_order_and_a_wrong_one_is_a_failed_check() {
    let place = Place::new();
    write_images(&place, |class, i| format!("data/{}/{i}.png", class + 1));
    let ran = right(&place, "kind = \"folder\"\npath = \"data\"");
    assert!(
        ran.stderr.contains("classes, sorted by name, numbers as numbers and not as text: 0 1, 1 2,"),
        "{}",
        ran.stderr
    );
    // Sorted as text.
    place.write("classes.txt", "1\n10\n2\n3\n4\n5\n6\n7\n8\n9\n");
    let (ran, found) = clean(&place, "kind = \"folder\"\npath = \"data\"\nclasses = \"classes.txt\"");
    let ran = ran.ok();
    assert_eq!(found, ("40".into(), "5".into()));
    for part in [
        "verdict: DO NOT QUOTE",
        "fail S1 the clean accuracy is that of the checkpoint: ",
        "12.5 % of 40 [5.5, 26.1], the checkpoint says 92.27 %",
    ] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    assert!(place.read("run/report.html").contains("the clean accuracy is that of the checkpoint"));
}

#[test]
fn photographs_of_all_sizes_become_what_the_network_was_tested_with() {
    let place = Place::new();
    write_weights(&place.path("thousand.safetensors"));
    // Two of ImageNet's classes by the names that people have for them; `tench` is class 0.
    for (i, (class, [w, h])) in [("tench", [90, 60]), ("golden_retriever", [50, 120])].into_iter().enumerate() {
        let image = RgbImage::from_fn(w, h, |x, y| image::Rgb([x as u8 * 2, y as u8 * 2, 40 * i as u8]));
        fs::create_dir_all(place.path(&format!("photos/{class}"))).unwrap();
        image.save(place.path(&format!("photos/{class}/a.png"))).unwrap();
    }
    let attack = |more: &str| {
        place.run(&format!("attack thousand.safetensors photos --eps 2/255 --steps 1 --no-checks --device host {more}"))
    };
    // Nothing says what to do with them.
    attack("--out none").refused(1, &["a.png", "expected ", "dataset.fit"]);
    let ran = attack("--fit crop --size 32,48 --shorter 48 --out run").ok();
    assert!(
        ran.stderr.contains("classes, as ImageNet-1k says; 998 of 1000 without a folder: 0 tench, 1 "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("images become 32x48"), "{}", ran.stderr);
    let records = place.records("run");
    assert!(records.iter().any(|line| line.contains("\"label\":207")), "{records:?}");
    attack("--filter bilinear --out none").refused(2, &["--filter", "dataset.fit"]);
    // The same tensors without a word beside them: those of torchvision's networks are assumed, one half alone as well.
    let bytes = fs::read(place.path("thousand.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    safetensors::serialize_to_file(tensors, None, &place.path("silent.safetensors")).unwrap();
    let half =
        "attack silent.safetensors photos --fit crop --size 32,48 --shorter 48 --std .2,.2,.2 --device host --dry-run";
    let ran = place.run(half).ok();
    assert!(ran.stderr.contains("warning: std is said and mean is not: that of torchvision's"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("it says no mean and std"), "{}", ran.stderr);

    // One that is misspelt among those that are known.
    for class in ["tench", "goldfish", "golden retreiver"] {
        fs::create_dir_all(place.path(&format!("misspelt/{class}"))).unwrap();
        fs::copy(place.path("photos/tench/a.png"), place.path(&format!("misspelt/{class}/a.png"))).unwrap();
    }
    place
        .run("attack thousand.safetensors misspelt --eps 2/255 --fit squash --size 32,32 --device host --out none")
        .refused(1, &["golden retreiver: expected a folder named after one of 1000 classes", "`golden retriever`"]);

    // Of another network the folders are no classes.
    fs::rename(place.path("photos/tench"), place.path("photos/my cat")).unwrap();
    attack("--fit squash --size 32,32 --out none").refused(
        1,
        &["thousand.safetensors", "the network has 1000 classes, the images of ", "photos 2: dataset.classes"],
    );
}

#[test]
fn a_binary_format_takes_names_of_ones_own() {
    let place = Place::new();
    let record = |label: u8| [label].into_iter().chain((0..3072).map(move |i| (i % 200) as u8 + label));
    place.write("test_batch.bin", (0..12).flat_map(record).collect::<Vec<u8>>());
    place.write("names.txt", (0..12).map(|i| format!("kind {i}\n")).collect::<String>());
    let config = |classes: &str| {
        place.write("a.toml", format!("[dataset]\nkind = \"cifar10\"\npath = \".\"\n{classes}\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\neps = [0]\n"));
        place.run("sweep --config a.toml --no-checks --out run")
    };
    config("").refused(1, &["label of image 10: expected 0 to 9, found 10"]);
    config("classes = \"names.txt\"").refused(1, &["the network has 10 classes, the images of cifar10 12"]);
}

#[test]
fn every_kind_passes_over_the_same_files_and_tells_of_the_same() {
    let place = Place::new();
    // Half of the classes in another format, which loses nothing.
    let file = |class: usize, i: usize| format!("{class}/{i}.{}", if class.is_multiple_of(2) { "png" } else { "webp" });
    write_images(&place, |class, i| format!("data/{}", file(class, i)));
    write_images(&place, |class, i| format!("flat/{}", file(class, i).replace('/', "_")));
    for dir in ["data/3", "flat"] {
        let at = |name: &str| place.path(&format!("{dir}/{name}"));
        for name in ["Thumbs.db", "desktop.ini", ".DS_Store"] {
            fs::write(at(name), "left behind").unwrap();
        }
        fs::write(at("notes.txt"), "of a person").unwrap();
        fs::write(at("9.png"), "no image").unwrap();
        fs::create_dir(at("more")).unwrap();
    }
    fs::create_dir(place.path("data/__MACOSX")).unwrap();
    place.write("classes.txt", (0..10).map(|i| format!("{i}\n")).collect::<String>());
    let labels: String =
        (0..10).flat_map(|c| (0..EACH).map(move |i| (c, i))).map(|(c, i)| format!("{c}_{i},{c}\n")).collect();
    place.write("labels.csv", format!("\u{feff}9.png,9\n{labels}"));
    for (dataset, left) in [
        ("kind = \"folder\"\npath = \"data\"", 3),
        ("kind = \"imagenet\"\npath = \"data\"\nclasses = \"classes.txt\"\nsize = [32, 32]", 3),
        (
            "kind = \"imagenet\"\npath = \"flat\"\nclasses = \"classes.txt\"\nlabels = \"labels.csv\"\nsize = [32, 32]",
            3,
        ),
    ] {
        let ran = right(&place, dataset);
        for part in ["notes.txt: expected an image", "more: a folder among images", "9.png: not a readable image"] {
            assert!(ran.stderr.contains(part), "{}| {part}", ran.stderr);
        }
        assert!(!ran.stderr.contains("Thumbs") && !ran.stderr.contains("MACOSX"), "{}", ran.stderr);
        assert!(ran.stdout.contains(&format!("{left} files left out")), "{}", ran.stdout);
        let config: toml::Table = place.read("run/config.toml").parse().unwrap();
        assert_eq!(config["dataset"]["left_out"].as_integer(), Some(left));
        assert_eq!(place.read("run/left_out.csv").lines().count() as i64, 1 + left);
        let results = place.results("run");
        assert!(results.lines().skip(1).all(|row| row.ends_with(&format!(",{left},,,,,"))), "{results}");
        for format in ["html", "markdown", "json"] {
            place.run(&format!("report run --format {format} --out page")).ok();
            let text = place.read("page");
            assert!(text.contains(&format!("{left} files left out")), "{format}: {text}");
        }
    }
    // A limit counts what is readable.
    let place_limit = |limit| {
        place.write("try.toml", format!("limit = {limit}\n{}", place.read("try.toml")));
        place.run("sweep --config try.toml --dry-run").ok().stdout
    };
    assert!(place_limit(40).contains("40 images"));

    // Commands on files of one's own.
    let ran = place.run("denoise flat --sigma 0.25 --out denoised --device host").ok();
    assert!(ran.stdout.contains("80 images in denoised; 3 files left out"), "{}", ran.stdout);
    assert!(ran.stderr.contains("notes.txt: expected an image") && !ran.stderr.contains("desktop"), "{}", ran.stderr);
    for i in 1..10 {
        for k in 0..EACH {
            fs::remove_file(place.path(&format!("flat/{}", file(i, k).replace('/', "_")))).unwrap();
        }
    }
    let ran = place.run("maps flat --eps 0.01 --steps 1 --out maps --device host").ok();
    assert!(
        ran.stdout.contains("maps of 4 images: maps.html and maps.csv in maps; 3 files left out"),
        "{}",
        ran.stdout
    );
    // A file that is named must be an image.
    place.run("denoise flat/9.png --out denoised --device host").refused(1, &["flat/9.png: not a readable image"]);
}

/// Name, shape and bytes.
type Parts = Vec<(String, Vec<usize>, Vec<u8>)>;

/// The tensors of a ResNet-18 of width 8 for ImageNet's images, by the seeded fill.
fn network(classes: usize) -> Parts {
    let mut shapes = vec![("conv1.weight".to_owned(), vec![8, 3, 7, 7])];
    let norm = |shapes: &mut Vec<(String, Vec<usize>)>, name: &str, c: usize| {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{name}.{part}"), vec![c]));
        }
    };
    norm(&mut shapes, "bn1", 8);
    let mut from = 8;
    for (layer, to) in [8, 16, 32, 64].into_iter().enumerate() {
        for block in 0..2 {
            let name = format!("layer{}.{block}", layer + 1);
            for (i, c) in [(1, from), (2, to)] {
                shapes.push((format!("{name}.conv{i}.weight"), vec![to, c, 3, 3]));
                norm(&mut shapes, &format!("{name}.bn{i}"), to);
            }
            if from != to {
                shapes.push((format!("{name}.downsample.0.weight"), vec![to, from, 1, 1]));
                norm(&mut shapes, &format!("{name}.downsample.1"), to);
            }
            from = to;
        }
    }
    shapes.extend([("fc.weight".into(), vec![classes, 64]), ("fc.bias".into(), vec![classes])]);
    let bytes = |name: &str, shape: &[usize]| fill(name, shape).iter().flat_map(|v| v.to_le_bytes()).collect();
    shapes.into_iter().map(|(name, shape)| (name.clone(), shape.clone(), bytes(&name, &shape))).collect()
}

fn write_safetensors(path: &Path, parts: &Parts, metadata: Option<HashMap<String, String>>) {
    let views = parts
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, metadata, path).unwrap();
}

/// The network of ten classes with this metadata.
fn write_network(path: &Path, extra: &[(&str, &str)]) {
    let config = r#"{"depth":18,"stem":"imagenet","width":8,"classes":10}"#;
    let own = [("arch", "resnet"), ("config", config), ("mean", "[0.5,0.5,0.5]"), ("std", "[0.5,0.5,0.5]")];
    let metadata: HashMap<String, String> = own.iter().chain(extra).map(|&(k, v)| (k.into(), v.into())).collect();
    write_safetensors(path, &network(10), Some(metadata));
}

/// A checkpoint as `torch.save({key: {prefix + name: tensor}})` writes it; without keys the tensors are all there is.
fn write_torch(path: &Path, parts: &Parts, keys: &[(&str, &str)]) {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |v: usize| [&b"J"[..], &(v as u32).to_le_bytes()].concat();
    let tuple = |items: &[usize]| [&b"("[..], &items.iter().flat_map(|&v| int(v)).collect::<Vec<u8>>(), b"t"].concat();
    let dict = |prefix: &str| {
        let mut out = b"}(".to_vec();
        for (i, (name, shape, bytes)) in parts.iter().enumerate() {
            let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            out.extend(text(&format!("{prefix}{name}")));
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            out.extend(
                [
                    text("storage"),
                    b"ctorch\nFloatStorage\n".to_vec(),
                    text(&i.to_string()),
                    text("cpu"),
                    int(bytes.len() / 4),
                ]
                .concat(),
            );
            out.extend([b"tQ".to_vec(), int(0), tuple(shape), tuple(&strides), b"\x89NtR".to_vec()].concat());
        }
        out.push(b'u');
        out
    };
    let mut pickle = b"\x80\x02".to_vec();
    match keys {
        [] => pickle.extend(dict("")),
        keys => {
            pickle.extend(b"}(");
            keys.iter().for_each(|(key, prefix)| pickle.extend([text(key), dict(prefix)].concat()));
            pickle.push(b'u');
        }
    }
    pickle.push(b'.');

    let mut records = vec![("archive/data.pkl".to_owned(), pickle)];
    records.extend(parts.iter().enumerate().map(|(i, (_, _, bytes))| (format!("archive/data/{i}"), bytes.clone())));
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in &records {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let sizes = [crc.sum(), bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
        let [name_len, none] = [name.len() as u16, 0].map(u16::to_le_bytes);
        let common = [&[0; 10][..], &sizes, &name_len, &none].concat();
        let offset = file.len() as u32;
        directory.extend([&b"PK\x01\x02\0\0"[..], &common, &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat());
        file.extend([&b"PK\x03\x04"[..], &common, name.as_bytes(), bytes].concat());
    }
    let (count, start) = ((records.len() as u16).to_le_bytes(), file.len() as u32);
    file.extend(&directory);
    file.extend(
        [
            &b"PK\x05\x06\0\0\0\0"[..],
            &count,
            &count,
            &(directory.len() as u32).to_le_bytes(),
            &start.to_le_bytes(),
            &[0, 0],
        ]
        .concat(),
    );
    fs::write(path, file).unwrap();
}

/// A network that says nothing of its accuracy is not quoted where it has fewer right than a guess.
#[test]
fn fewer_right_than_a_guess_is_a_failed_check() {
    let place = Place::new();
    write_images(&place, |class, i| format!("data/{}/{i}.png", (class + 5) % 10));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/resnet50-w16.safetensors");
    let bytes = fs::read(file).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut said = header.metadata().clone().unwrap();
    said.retain(|key, _| ["arch", "config", "mean", "std"].contains(&key.as_str()));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    safetensors::serialize_to_file(tensors, Some(said), &place.path("silent.safetensors")).unwrap();
    let ran = place.run("attack silent.safetensors data --eps 0 --device host --no-checks --out run").ok();
    for part in ["verdict: DO NOT QUOTE", "where a guess among the labels has 10.0 %", "† not to be quoted"] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
}

#[test]
fn checkpoints_of_pytorch_are_run_as_they_come() {
    let place = Place::new();
    write_images(&place, |class, i| format!("data/{class}/{i}.png"));
    let run = |model: &str| {
        let dataset = "[dataset]\nkind = \"folder\"\npath = \"data\"";
        place.write(
            "try.toml",
            format!("limit = 10\n{dataset}\n[[models]]\nname = \"net\"\n{model}\n[attack]\neps = [0]\n"),
        );
        let _ = fs::remove_dir_all(place.path("run"));
        place.run("sweep --config try.toml --no-checks --out run")
    };
    write_network(&place.path("described.safetensors"), &[]);
    run("weights = \"described.safetensors\"").ok();
    let want = (place.results("run"), place.records("run"));
    let half = "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]";
    let (plain, file) = (network(10), |name: &str| place.path(name));
    write_torch(&file("plain.pth"), &plain, &[]);
    write_torch(&file("wrapped.pt"), &plain, &[("state_dict", "module.")]);
    write_torch(&file("both.pt"), &plain, &[("state_dict", "model."), ("ema", "")]);
    write_safetensors(&file("bare.safetensors"), &plain, None);
    let rename = |(name, shape, bytes): &(String, Vec<usize>, Vec<u8>)| {
        (name.replace("fc.", "linear.").replace("downsample", "shortcut"), shape.clone(), bytes.clone())
    };
    write_torch(&file("other.pth"), &plain.iter().map(rename).collect(), &[]);
    for (model, part) in [
        ("weights = \"plain.pth\"", r#"net: no `arch` in the metadata; the tensors are those of resnet {"#),
        ("weights = \"bare.safetensors\"", r#""depth":18"#),
        ("weights = \"wrapped.pt\"", "net: the network's tensors are those under `state_dict.module.`"),
        ("weights = \"both.pt\"\nstrip = \"ema.\"", "resnet"),
        ("weights = \"other.pth\"\nrename = [\"linear.=fc.\", \".shortcut.=.downsample.\"]", "resnet"),
    ] {
        let ran = run(&format!("{model}\n{half}")).ok();
        assert!(ran.stderr.contains(part), "{}| {part}", ran.stderr);
        assert_eq!((place.results("run"), place.records("run")), want, "{model}");
    }
    // A layer in front of it holds mean and deviation, and the metadata agree or do not.
    let layer = |names: [&str; 2], shape: &[usize]| {
        let values: Vec<u8> = (0..shape.iter().product()).flat_map(|_| 0.5f32.to_le_bytes()).collect();
        let own = plain.iter().map(|(name, shape, bytes)| (format!("model.{name}"), shape.clone(), bytes.clone()));
        names.map(|name| (name.to_owned(), shape.to_vec(), values.clone())).into_iter().chain(own).collect::<Parts>()
    };
    for (names, shape) in [
        (["normalize.mean", "normalize.std"], &[3][..]),
        (["mu", "sigma"], &[1, 3, 1, 1]),
        (["0._mean", "0._std"], &[1]),
    ] {
        write_safetensors(&file("layer.safetensors"), &layer(names, shape), None);
        let ran = run("weights = \"layer.safetensors\"").ok();
        let said = format!(
            "mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5] are those of its tensors `{}` and `{}`",
            names[0], names[1]
        );
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
        assert_eq!((place.results("run"), place.records("run")), want, "{names:?}");
    }
    let ran = run("weights = \"layer.safetensors\"\nstrip = \"model.\"").ok();
    assert!(ran.stderr.contains("are those of its tensors `0._mean` and `0._std`"), "{}", ran.stderr);
    assert_eq!((place.results("run"), place.records("run")), want);
    let metadata = HashMap::from([("mean".into(), "[0.4, 0.5, 0.5]".into()), ("std".into(), "[0.5, 0.5, 0.5]".into())]);
    write_safetensors(&file("layer.safetensors"), &layer(["mu", "sigma"], &[3]), Some(metadata));
    let ran = run("weights = \"layer.safetensors\"").ok();
    assert!(ran.stderr.contains("mean and std are not those of the tensors `mu` and `sigma`"), "{}", ran.stderr);
    run(&format!("weights = \"both.pt\"\n{half}")).refused(
        1,
        &["2 networks lie in it, under `ema.` and `state_dict.model.`: models.strip (--strip) chooses one"],
    );
    run(&format!("weights = \"other.pth\"\n{half}")).refused(
        1,
        &[
            "expected `arch` in the metadata or as models.arch, or the tensors of resnet, resnet_study, coatnet",
            "resnet is nearest",
            "models.rename",
        ],
    );
    run(&format!("weights = \"plain.pth\"\n{half}\nstrip = \"x.\""))
        .refused(2, &["models.strip: expected what names of tensors begin with, found `x.`", "the first is `"]);
    run("weights = \"plain.pth\"")
        .refused(1, &["plain.pth: expected `mean` in the metadata, or in the config as models.mean"]);
    run("weights = \"plain.pth\"\nmean = [127, 127, 127]").refused(2, &["models.mean", "in [0, 1]"]);

    // A thousand classes and a 7x7 stem are ImageNet's: so are normalisation and size, which are told and stored.
    write_torch(&file("imagenet.pth"), &network(1000), &[]);
    fs::rename(place.path("data/0"), place.path("data/n01440764")).unwrap();
    (1..10).for_each(|i| fs::remove_dir_all(place.path(&format!("data/{i}"))).unwrap());
    let config = "limit = 2\n[dataset]\nkind = \"imagenet\"\npath = \"data\"\n[[models]]\nweights = \"imagenet.pth\"\n[attack]\neps = [0]\n";
    place.write("try.toml", config);
    let ran = place.run("sweep --config try.toml --no-checks --out imagenet").ok();
    for part in [
        "imagenet: it says no mean and std: those of torchvision's",
        "images become 224x224, the centre of 256, bilinear: as torchvision tests such networks",
    ] {
        assert!(ran.stderr.contains(part), "{}| {part}", ran.stderr);
    }
    let stored: toml::Table = place.read("imagenet/config.toml").parse().unwrap();
    assert_eq!(stored["models"][0]["mean"].as_array().unwrap()[0].as_float(), Some(0.485));
    assert_eq!(stored["dataset"]["shorter"].as_integer(), Some(256));
}

#[test]
fn images_are_prepared_as_the_network_was_tested() {
    let place = Place::new();
    write_images(&place, |class, i| format!("data/{class}/{i}.png"));
    place.write("classes.txt", (0..10).map(|i| format!("{i}\n")).collect::<String>());
    let timm = [("interpolation", "bicubic"), ("crop_pct", "0.95"), ("crop_mode", "center"), ("classes", "10")];
    write_network(&place.path("a.safetensors"), &timm);
    let squash =
        [("interpolation", "bicubic"), ("crop_pct", "1.0"), ("crop_mode", "squash"), ("input_size", "[3, 64, 64]")];
    write_network(&place.path("b.safetensors"), &squash);
    let plan = |dataset: &str, models: &[&str]| {
        let models: String =
            models.iter().map(|name| format!("[[models]]\nweights = \"{name}.safetensors\"\n")).collect();
        let config = format!(
            "limit = 3\n[dataset]\nkind = \"imagenet\"\npath = \"data\"\nclasses = \"classes.txt\"\n{dataset}\n{models}"
        );
        place.write("try.toml", config);
        place.run("sweep --config try.toml --dry-run")
    };
    for (dataset, models, parts) in [
        ("", &["a"][..], &["images become 224x224, the centre of 235, bicubic: as a was tested"][..]),
        ("", &["b"], &["images become 64x64, squashed, bicubic: as b was tested"]),
        (
            "size = [64, 64]",
            &["a"],
            &[
                "images become 64x64, the centre of 67, bicubic",
                "warning: a was tested with 224x224; the config says otherwise",
            ],
        ),
        (
            "size = [48, 48]\nfit = \"squash\"\nfilter = \"bilinear\"",
            &["a"],
            &[
                "warning: a was tested with 224x224, fit crop, bicubic; the config says otherwise: 48x48, squashed, bilinear",
            ],
        ),
        ("size = [32, 32]\nfit = \"squash\"", &["a", "b"], &["images become 32x32, squashed, bicubic"]),
    ] {
        let ran = plan(dataset, models).ok();
        for part in parts {
            assert!(ran.stderr.contains(part), "{}| {part}", ran.stderr);
        }
    }
    plan("", &["a", "b"]).refused(2, &["dataset.size: a was made for 224x224 and b for 64x64: expected one of them"]);
    write_network(&place.path("c.safetensors"), &[("interpolation", "lanczos")]);
    plan("", &["c"]).refused(2, &["dataset.filter: c was tested with interpolation `lanczos`"]);
    assert!(plan("filter = \"bicubic\"", &["c"]).code == Some(0));
}

#[test]
fn checkpoints_are_opened_before_images() {
    let place = Place::new();
    fs::create_dir_all(place.path("data/empty")).unwrap();
    write_network(&place.path("bytes.safetensors"), &[("mean", "[123.675, 116.28, 103.53]")]);
    place.write("none.safetensors", "");
    for (weights, part) in [
        (
            "bytes",
            "bytes.safetensors: metadata: `mean`: expected values of pixels in [0, 1], found [123.675, 116.28, 103.53]",
        ),
        ("none", "none.safetensors: expected a safetensors file"),
    ] {
        let config =
            format!("[dataset]\nkind = \"folder\"\npath = \"data\"\n[[models]]\nweights = \"{weights}.safetensors\"\n");
        place.write("try.toml", config);
        place.run("sweep --config try.toml --dry-run").refused(1, &[part]);
    }
    place.write("good.bin", vec![3; 3073 * 4]);
    place.write(
        "try.toml",
        "[dataset]\nkind = \"cifar10\"\npath = \"good.bin\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n",
    );
    place.run("sweep --config try.toml --dry-run").refused(
        1,
        &["classes: not those of cifar10: class 0 is `T-shirt/top` in the checkpoint and `airplane` in the dataset"],
    );
}

#[test]
fn means_have_as_many_numbers_as_images_have_channels() {
    let place = Place::new();
    for values in ["0.5, 0.5", "0.5, 0.5, 0.5, 0.5", "0.4, 0.5"] {
        let text = format!("[[models]]\nweights = \"demo:resnet50-w16\"\nmean = [{values}]\nstd = [0.5]\n");
        place.write("short.toml", text);
        place
            .run("sweep --config short.toml --no-defense --limit 1 --eps 0 --no-checks --out run")
            .refused(2, &["models.mean", "expected 3 numbers, or one for all"]);
    }
}
