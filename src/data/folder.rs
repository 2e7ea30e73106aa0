//! A folder with one folder of images per class. Which number a class has is the order of [`order`].

use std::path::{Path, PathBuf};

use super::chosen::chosen;
use super::classes::{self, Classes, is_imagenet, natural, place};
use super::dataset::Dataset;
use super::decode::{Other, decode_if, sides};
use super::listing::{self, name};
use super::prepare::Prepare;
use super::prepared::{self, HELD, Pixels, RGB, choose};
use super::resize::Rgb8;
use super::skipped::Skipped;
use super::source::{Named, Order, Row, Source, wrong};
use super::subset::Select;
use super::unit::unit;
use crate::error::{Error, Result};

pub const ROW: Row = Row {
    name: "folder",
    help: "one folder of images per class below `path`; with `fit` images of any size; `classes` lists the folders in the network's order",
    takes: &["path", "size", "fit", "shorter", "filter", "classes", "class_order", "list"],
    sees: |path, _| {
        let (folders, _) = listing::classes(path, &[]).ok()?;
        (!folders.is_empty() && !folders.iter().all(|f| is_imagenet(f))).then_some("one folder of images per class")
    },
    open: |said| {
        let path = said.needed_path("a folder with one folder of images per class")?.to_owned();
        let needs_fit = [("shorter", said.shorter.is_some()), ("filter", said.filter.is_some())];
        if let (None, Some((field, _))) = (said.fit, needs_fit.into_iter().find(|(_, given)| *given)) {
            return wrong(field, "nothing is resized: expected dataset.fit beside it");
        }
        let prepare = said.fit.is_some().then(|| said.prepare()).transpose()?;
        let (size, classes, list) = (said.size, said.classes.clone(), said.list.clone());
        Ok(Box::new(Folder { path, size, prepare, classes, list, order: said.class_order.clone() }))
    },
    by_class: true,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

struct Folder {
    path: PathBuf,
    size: Option<[usize; 2]>,
    /// Without it all images have one size already.
    prepare: Option<Prepare>,
    classes: Option<PathBuf>,
    list: Option<PathBuf>,
    /// Settled before.
    order: Option<Vec<String>>,
}

impl Source for Folder {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let names = self.order(None)?.map(|order| order.names).unwrap_or_default();
        let size = self.size.map(|[h, w]| (h, w));
        let place =
            Place { dir: &self.path, listed: self.classes.as_deref(), classes: &names, list: self.list.as_deref() };
        let mut data = match self.prepare {
            Some(prepare) => resized(place, prepare, limit, select)?,
            None => load(place, size, limit, select)?,
        };
        if let Some(file) = &self.classes {
            data.classes = Classes::load(file)?.names;
        }
        Ok(data)
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }

    fn order(&self, known: Option<Named>) -> Result<Option<Order>> {
        order(&self.path, (self.classes.as_deref(), self.list.as_deref()), self.order.as_deref(), known).map(Some)
    }

    fn note(&self) -> Option<&'static str> {
        self.prepare.map(|_| "reading every selected image once")
    }
}

/// The classes in the order of their numbers: as `said`; or as the file `classes` lists them, which like a list of images may lie beside the
/// folders; or as a network has them whose names are
/// those of the folders; or else sorted by name, numbers as numbers. A class may be without a folder, but no folder without a class.
///
/// # Errors
/// [`Error::File`] when there is no folder or one whose name is no class, [`Error::Io`].
pub fn order(
    dir: &Path,
    (classes, list): (Option<&Path>, Option<&Path>),
    said: Option<&[String]>,
    known: Option<Named>,
) -> Result<Order> {
    let own: Vec<&Path> = classes.into_iter().chain(list).collect();
    let (folders, _) = listing::classes(dir, &own)?;
    if folders.is_empty() {
        return Err(Error::file(dir, "expected one folder of images per class, found none"));
    }
    let found: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let listed = classes.map(Classes::load).transpose()?;
    if let Some((names, list)) = said.zip(listed.as_ref()).filter(|(names, list)| *names != list.ids) {
        let at = names.iter().zip(&list.ids).position(|(a, b)| a != b).unwrap_or(names.len().min(list.len()));
        let shown = |names: &[String]| names.get(at).map_or("nothing".to_owned(), |name| format!("`{name}`"));
        let problem = format!("class {at}: class_order says {}, the list {}", shown(names), shown(&list.ids));
        return Err(Error::file(classes.unwrap_or(dir), problem));
    }
    let without = |names: &[String]| match names.len() - found.len() {
        0 => String::new(),
        more => format!("; {more} of {} without a folder", names.len()),
    };
    let settled = match (said, &listed) {
        (Some(names), _) => Some((names.to_vec(), "as class_order says".to_owned())),
        (None, Some(list)) => Some((list.ids.clone(), format!("as {} lists them", classes.unwrap_or(dir).display()))),
        (None, None) => None,
    };
    if let Some((names, why)) = settled {
        located(&folders, &names, &why)?;
        let why = why + &without(&names);
        return Ok(Order { names, why });
    }
    let mut sorted = found.clone();
    sorted.sort_by(|a, b| natural(a, b));
    let why = match sorted == found {
        true => "sorted by name".to_owned(),
        false => "sorted by name, numbers as numbers and not as text".to_owned(),
    };
    let Some(Named { who, names }) = known else { return Ok(Order { names: sorted, why }) };
    let none = found.iter().all(|folder| place(folder, names).is_none());
    // Numbers are no names of their own: which they stand for is their order.
    if none && found.iter().all(|folder| folder.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(Order { names: sorted, why });
    }
    let places = located(&folders, names, &format!("as {who} says"))?;
    let mut names = names.to_vec();
    for (folder, at) in found.iter().zip(places) {
        names[at].clone_from(folder);
    }
    let why = format!("as {who} says{}", without(&names));
    Ok(Order { names, why })
}

/// Which of `names` each folder is.
fn located(folders: &[PathBuf], names: &[String], why: &str) -> Result<Vec<usize>> {
    let mut owners: Vec<Option<&PathBuf>> = vec![None; names.len()];
    let mut places = Vec::new();
    for folder in folders {
        let own = name(folder);
        let Some(at) = place(&own, names) else {
            let free = names
                .iter()
                .filter(|n| !folders.iter().any(|f| place(&name(f), names).is_some_and(|at| names[at] == **n)));
            let nearest = free.min_by_key(|n| strsim::levenshtein(&classes::plain(n), &classes::plain(&own)));
            let hint = nearest.map_or(String::new(), |name| format!(", the nearest without a folder is `{name}`"));
            let problem = format!(
                "expected a folder named after one of {} classes, {why}{hint}; dataset.classes takes a file that lists the folders in the \
                 order of the network's classes",
                names.len()
            );
            return Err(Error::file(folder, problem));
        };
        if let Some(other) = owners[at].replace(folder) {
            let problem = format!("expected one folder of class `{}`, found {} as well", names[at], other.display());
            return Err(Error::file(folder, problem));
        }
        places.push(at);
    }
    Ok(places)
}

/// Where a set lies.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub dir: &'a Path,
    /// The names of the folders in the order of their numbers, and the file that they come from.
    pub classes: &'a [String],
    pub listed: Option<&'a Path>,
    /// A list of images, see `chosen.rs`; without it all of them.
    pub list: Option<&'a Path>,
}

/// All images of a set, class by class, each class in the sorted order of its file names, or those of its list. Only the selected files
/// are decoded, as `decode` does; those that cannot be are left out, told and replaced, as is whatever lies there and is no image.
///
/// `size` is the `(height, width)` that every image must have; without it the first image decides.
///
/// # Errors
/// [`Error::File`] when there is no class or no image, or the size of one differs; [`Error::Io`] when a folder cannot be read.
pub fn load(place: Place, size: Option<(usize, usize)>, limit: Option<usize>, select: Select) -> Result<Dataset> {
    let Found { files, labels, ids, mut skipped } = found(place)?;
    // Before any is decoded: of files that are a few bytes each the pixels may be more than memory holds.
    let first = || select.indices(&labels, limit).into_iter().find_map(|i| sides(&files[i]).ok());
    let expected = size.or_else(first);
    let (height, width) = expected.unwrap_or_default();
    let images = limit.unwrap_or(files.len()).min(files.len());
    prepared::held(images, [height, width, RGB], size_of::<f32>())
        .map_err(|problem| Error::file(place.dir, format!("{problem}; dataset.fit makes them smaller")))?;
    let (images, unreadable) = choose(&files, &labels, (limit, select), |file| decode_if(file, expected));
    if images.is_empty() {
        return Err(none_readable(place.dir, &unreadable, &skipped));
    }
    skipped.extend(unreadable);
    if let Some((i, Other { found: (h, w), .. })) =
        images.iter().find_map(|(i, image)| Some((i, image.as_ref().err()?)))
    {
        let problem = format!(
            "expected {height}x{width} pixels (height x width), found {h}x{w}; dataset.fit crop or squash, with dataset.size, makes \
             images of any size one"
        );
        return Err(Error::file(&files[*i], problem));
    }
    let (mut pixels, mut kept) = (Vec::new(), Vec::new());
    for (i, image) in images {
        let Ok(Rgb8 { pixels: bytes, .. }) = image else { continue };
        pixels.extend(bytes.into_iter().map(unit));
        kept.push(i);
    }
    Ok(Dataset {
        name: name(place.dir),
        height,
        width,
        classes: place.classes.to_vec(),
        pixels: Pixels::Floats(pixels),
        labels: kept.iter().map(|&i| labels[i]).collect(),
        ids: kept.iter().map(|&i| ids[i] as u64).collect(),
        skipped,
    })
}

/// As [`load`], every image resized to the size wanted.
fn resized(place: Place, prepare: Prepare, limit: Option<usize>, select: Select) -> Result<Dataset> {
    let Found { files, labels, ids, mut skipped } = found(place)?;
    let (pixels, kept, unreadable) = prepared::read(&files, &labels, (limit, select), prepare, HELD);
    if kept.is_empty() {
        return Err(none_readable(place.dir, &unreadable, &skipped));
    }
    skipped.extend(unreadable);
    Ok(Dataset {
        name: name(place.dir),
        height: prepare.size[0],
        width: prepare.size[1],
        classes: place.classes.to_vec(),
        pixels,
        labels: kept.iter().map(|&i| labels[i]).collect(),
        ids: kept.iter().map(|&i| ids[i] as u64).collect(),
        skipped,
    })
}

struct Found {
    files: Vec<PathBuf>,
    labels: Vec<u32>,
    /// Their places among all images of the set.
    ids: Vec<usize>,
    /// What lies there and is no image.
    skipped: Vec<Skipped>,
}

/// The images in the order of the list, or of the classes, whatever that of their folders.
fn found(place: Place) -> Result<Found> {
    let own: Vec<&Path> = place.listed.into_iter().chain(place.list).collect();
    let (folders, mut skipped) = listing::classes(place.dir, &own)?;
    let places = located(&folders, place.classes, "as before")?;
    let mut all = Vec::new();
    for (folder, class) in folders.iter().zip(places) {
        let (images, strays) = listing::images(folder)?;
        all.extend(images.into_iter().map(|file| (class as u32, file)));
        skipped.extend(strays);
    }
    all.sort_by_key(|(class, _)| *class);
    let (labels, files): (Vec<u32>, Vec<PathBuf>) = all.into_iter().unzip();
    let ids = chosen(place.list, &files)?;
    let (files, labels) = ids.iter().map(|&i| (files[i].clone(), labels[i])).unzip();
    Ok(Found { files, labels, ids, skipped })
}

fn none_readable(dir: &Path, unreadable: &[Skipped], strays: &[Skipped]) -> Error {
    let first = unreadable.first().or(strays.first()).map_or(String::new(), |s| format!("; {}", s.problem));
    Error::file(dir, format!("expected readable images in its class folders, found none{first}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use image::{GrayImage, RgbImage};

    fn rgb(path: &Path, width: u32, height: u32, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(width, height, |x, y| image::Rgb([value, x as u8, y as u8])).save(path).unwrap();
    }

    fn load_some(dir: &Path, size: Option<(usize, usize)>, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let classes = order(dir, (None, None), None, None)?.names;
        load(Place { dir, classes: &classes, listed: None, list: None }, size, limit, select)
    }

    fn load_all(dir: &Path) -> Result<Dataset> {
        load_some(dir, None, None, Select::First)
    }

    #[test]
    fn classes_and_files_are_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        rgb(&root.join("zebra/1.png"), 5, 3, 30);
        rgb(&root.join("ape/b.bmp"), 5, 3, 20);
        rgb(&root.join("ape/a.PNG"), 5, 3, 10);
        fs::write(root.join("README.txt"), "not a class").unwrap();
        fs::write(root.join("ape/.DS_Store"), "hidden").unwrap();
        let data = load_all(&root).unwrap();
        assert_eq!((data.name.as_str(), data.height, data.width), ("set", 3, 5));
        assert_eq!((&data.classes[..], &data.labels[..]), (&["ape".to_string(), "zebra".into()][..], &[0, 0, 1][..]));
        assert_eq!(data.image(2).unwrap()[(2 * 5 + 4) * 3..], [unit(30), unit(4), unit(2)]);
        let one = load_some(&root, Some((3, 5)), Some(2), Select::Balanced).unwrap();
        assert_eq!((&one.ids[..], one.image(1).unwrap()), (&[0, 2][..], data.image(2).unwrap()));
    }

    #[test]
    fn grey_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        GrayImage::from_pixel(2, 2, image::Luma([51])).save(dir.path().join("a/g.png")).unwrap();
        assert_eq!(load_all(dir.path()).unwrap().image(0).unwrap(), [0.2; 12]);
    }

    #[test]
    fn what_is_no_image_is_left_out_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        for i in 0..4 {
            rgb(&root.join(format!("a/{i}.png")), 4, 4, i);
            rgb(&root.join(format!("b/{i}.png")), 4, 4, 10 + i);
        }
        for (name, text) in
            [("a/0.png", "no image"), ("a/Thumbs.db", ""), ("b/desktop.ini", ""), ("b/9.png", ""), ("b/notes.txt", "")]
        {
            fs::write(root.join(name), text).unwrap();
        }
        fs::create_dir(root.join("a/more")).unwrap();
        fs::create_dir(root.join("__MACOSX")).unwrap();
        let data = load_all(&root).unwrap();
        assert_eq!((&data.ids[..], &data.labels[..]), (&[1, 2, 3, 4, 5, 6, 7][..], &[0, 0, 0, 1, 1, 1, 1][..]));
        let told: Vec<String> = data.skipped.iter().map(|s| s.problem.clone()).collect();
        let parts = [
            "a/more: a folder",
            "b/notes.txt: expected an image",
            "a/0.png: not a readable",
            "b/9.png: not a readable",
        ];
        assert_eq!(told.len(), parts.len(), "{told:?}");
        assert!(told.iter().zip(parts).all(|(told, part)| told.contains(part)), "{told:?}");
        // A limit counts what is readable, and what it does not reach is not told of.
        let some = load_some(&root, None, Some(4), Select::Balanced).unwrap();
        assert_eq!((&some.ids[..], some.skipped.len()), (&[1, 2, 4, 5][..], 3));
        assert_eq!(load_some(&root, None, Some(1), Select::First).unwrap().ids, [1]);
        assert_eq!(load_some(&root, None, Some(100), Select::First).unwrap().len(), 7);
    }

    #[test]
    fn classes_have_the_order_of_the_list_or_the_network_or_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        let folders = |names: &[&str]| {
            let _ = fs::remove_dir_all(&root);
            names.iter().for_each(|name| fs::create_dir_all(root.join(name)).unwrap());
        };
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let names = strings(&["T-shirt/top", "Trouser", "Bag"]);
        let known = Some(Named { who: "net", names: &names });
        let found = |known| order(&root, (None, None), None, known).map(|o| (o.names.join(","), o.why));

        folders(&["bag", "T-shirt_top", "trouser"]);
        assert_eq!(found(known).unwrap(), ("T-shirt_top,trouser,bag".into(), "as net says".into()));
        assert_eq!(found(None).unwrap().0, "T-shirt_top,bag,trouser");
        // A class without a folder keeps its number.
        folders(&["Bag", "Trouser"]);
        assert_eq!(found(known).unwrap().0, "T-shirt/top,Trouser,Bag");
        for (given, part) in [
            (
                &["Bag", "Trousers"][..],
                "Trousers: expected a folder named after one of 3 classes, as net says, the nearest without a folder is `Trouser`",
            ),
            (&["cat", "dog", "emu"], "cat: expected a folder"),
            (&["1", "Bag"], "1: expected a folder"),
            (&["Bag", "bag"], "bag: expected one folder of class `Bag`, found"),
        ] {
            folders(given);
            let error = found(known).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        folders(&["10", "9", "1"]);
        for known in [None, known] {
            assert_eq!(
                found(known).unwrap(),
                ("1,9,10".into(), "sorted by name, numbers as numbers and not as text".into())
            );
        }

        let list = root.join("classes.txt");
        fs::write(&list, "\u{feff}10\n1\n9\n11\n").unwrap();
        let listed = order(&root, (Some(&list), None), None, known).unwrap();
        assert_eq!(
            (listed.names.join(","), listed.why.ends_with("lists them; 1 of 4 without a folder")),
            ("10,1,9,11".into(), true)
        );
        assert_eq!(
            order(&root, (Some(&list), None), Some(&strings(&["10", "1", "9", "11"])), None).unwrap().names,
            listed.names
        );
        let error = order(&root, (Some(&list), None), Some(&strings(&["10", "9"])), None).unwrap_err().to_string();
        assert!(error.contains("class 1: class_order says `9`, the list `1`"), "{error}");
        assert_eq!(
            order(&root, (None, None), Some(&strings(&["9", "1", "10"])), known).unwrap().names,
            ["9", "1", "10"]
        );
    }

    #[test]
    fn bad_folders_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let message = |size| load_some(dir.path(), size, None, Select::First).unwrap_err().to_string();
        assert!(message(None).contains("one folder of images per class"));
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(message(None).contains("found none"));
        rgb(&dir.path().join("a/1.png"), 4, 4, 0);
        rgb(&dir.path().join("a/2.png"), 4, 5, 0);
        assert!(message(None).contains("2.png: expected 4x4 pixels (height x width), found 5x4"));
        assert!(message(Some((9, 9))).contains("1.png: expected 9x9"));
        for name in ["1.png", "2.png"] {
            fs::write(dir.path().join("a").join(name), "no image").unwrap();
        }
        assert!(message(None).contains("found none; ") && message(None).contains("1.png: not a readable image"));
        assert!(matches!(load_all(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    /// Their pixels are not even there.
    #[test]
    fn what_no_memory_holds_is_told_from_the_headers() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        (0..5).for_each(|i| fs::write(dir.path().join(format!("a/{i}.ppm")), "P6 9000 9000 255\n").unwrap());
        let message = |size, limit| load_some(dir.path(), size, limit, Select::First).unwrap_err().to_string();
        assert!(
            message(None, None).contains("at most 4 GiB in memory, found 5 of 9000x9000 pixels"),
            "{}",
            message(None, None)
        );
        assert!(message(None, None).contains("dataset.fit"));
        assert!(message(None, Some(4)).contains("0.ppm: not a readable image"));
        assert!(message(Some((8, 8)), None).contains("0.ppm: expected 8x8 pixels (height x width), found 9000x9000"));
    }
}
