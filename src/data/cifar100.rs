//! CIFAR-100 in its binary format: as CIFAR-10, but two label bytes in front, of the 20 coarse classes and of the 100 fine ones, which count.

use super::cifar10::{Form, TAKES};
use super::source::Row;

/// The fine classes, in the order of their numbers.
pub const CLASSES: [&str; 100] = [
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];

const FORM: Form = Form { name: "cifar100", test: "test.bin", labels: 2, classes: &CLASSES };

pub const ROW: Row = Row {
    name: "cifar100",
    help: "the binary version of CIFAR-100, its fine classes: a .bin file, or the folder with test.bin; with `size` images are resized",
    takes: TAKES,
    sees: |path, _| FORM.sees(path).then_some("records of CIFAR-100"),
    open: |said| FORM.open(said),
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use super::super::cifar10::{self, decode};
    use super::super::classes::Classes;
    use super::super::subset::Select;
    use super::*;

    #[test]
    fn the_fine_label_counts() {
        let record =
            |coarse: u8, fine: u8| [coarse, fine].into_iter().chain((0..3072).map(move |i| (i % 251) as u8 ^ fine));
        let bytes: Vec<u8> = record(4, 99).chain(record(0, 0)).chain(record(19, 41)).collect();
        let all = |bytes: &[u8]| {
            decode(
                (FORM, Classes::or(None, &CLASSES).unwrap()),
                Path::new("test.bin"),
                Cursor::new(bytes),
                None,
                Select::First,
                None,
            )
        };
        let data = all(&bytes).unwrap();
        assert_eq!((&data.labels[..], data.classes.len(), data.name.as_str()), (&[99, 0, 41][..], 100, "cifar100"));
        assert_eq!((data.classes[41].as_str(), data.classes[99].as_str()), ("lawn_mower", "worm"));
        // The green plane of the last image.
        assert_eq!(data.image(2).unwrap()[1], f32::from(bytes[2 * 3074 + 2 + 1024]) / 255.0);
        let error = all(&record(0, 100).collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(error.contains("expected 0 to 99, found 100"), "{error}");
    }

    #[test]
    fn the_two_sets_are_told_apart_by_their_length() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len, sees) in [("test.bin", 5 * 3074, [false, true]), ("test_batch.bin", 5 * 3073, [true, false])] {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![0; len]).unwrap();
            assert_eq!([(cifar10::ROW.sees)(&path, false).is_some(), (ROW.sees)(&path, false).is_some()], sees);
        }
    }
}
