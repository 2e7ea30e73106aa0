//! Images in tar files, as WebDataset keeps them: of each sample an image and a label, `KEY.jpg` and `KEY.cls`, side by side.
//!
//! Nothing is unpacked: of every tar file the headers are read once, and images are read where they lie.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::{self, Classes, natural};
use super::dataset::Dataset;
use super::decode::{EXTENSIONS, decode_bytes};
use super::listing;
use super::prepare::Prepare;
use super::prepared::{self, HELD};
use super::skipped::Skipped;
use super::source::{Named, Order, Row, Source};
use super::subset::Select;
use crate::error::{Error, Result};
use crate::files;

pub const ROW: Row = Row {
    name: "webdataset",
    help: "tar files of images and labels side by side (`KEY.jpg`, `KEY.cls`), in a folder or a single one: read where they lie",
    takes: &["path", "size", "fit", "shorter", "filter", "classes", "class_order"],
    sees: |path, _| (!tars(path).ok()?.is_empty()).then_some("tar files"),
    open: |said| {
        let path = said.needed_path("a folder of tar files, or one of them")?.to_owned();
        let (classes, order) = (said.classes.clone(), said.class_order.clone());
        Ok(Box::new(Tars { path, classes, order, prepare: said.prepare()? }))
    },
    by_class: false,
    top5: true,
    limit: 1000,
    breaks_at: 8,
    models: &[],
    denoiser: None,
};

/// Bytes of a label, or of a name that has an entry of its own, at most.
const TEXT: u64 = 64 << 10;
const BLOCK: u64 = 512;

struct Tars {
    path: PathBuf,
    classes: Option<PathBuf>,
    /// Settled before.
    order: Option<Vec<String>>,
    prepare: Prepare,
}

/// The tar files of a folder, numbers in their names as numbers; or the one that `path` is.
fn tars(path: &Path) -> Result<Vec<PathBuf>> {
    let is_tar = |path: &Path| path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar"));
    if !path.is_dir() {
        return Ok(Some(path.to_owned()).filter(|path| is_tar(path)).into_iter().collect());
    }
    let mut found: Vec<PathBuf> = listing::list(path)?.into_iter().filter(|path| is_tar(path)).collect();
    found.sort_by(|a, b| natural(&listing::name(a), &listing::name(b)));
    Ok(found)
}

/// Where an image lies: in which file, from which byte on, and how many.
type Place = (u32, u64, u64);

/// What the headers say.
#[derive(Default)]
struct Found {
    /// As `tar/KEY.jpg`.
    images: Vec<PathBuf>,
    labels: Vec<u32>,
    places: HashMap<PathBuf, Place>,
    skipped: Vec<Skipped>,
}

impl Source for Tars {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let tars = tars(&self.path)?;
        if tars.is_empty() {
            return Err(Error::file(&self.path, "expected a .tar file, or a folder of them, found none"));
        }
        let mut found = Found::default();
        for (number, tar) in tars.iter().enumerate() {
            found.scan(number as u32, tar)?;
        }
        let Found { images, labels, places, mut skipped } = found;
        let classes = classes::numbered(&labels, self.classes.as_deref(), self.order.as_deref(), &self.path)?;
        let decode = move |image: &Path| {
            let Some(&(tar, at, len)) = places.get(image) else {
                return Err(Error::file(image, "not in the tar file"));
            };
            let tar = &tars[tar as usize];
            let io = |e| Error::io(tar, "read an image", e);
            let mut file = files::open(tar, "read an image")?;
            file.seek(SeekFrom::Start(at)).map_err(io)?;
            let mut bytes = vec![0; len as usize];
            file.read_exact(&mut bytes).map_err(io)?;
            decode_bytes(image, bytes)
        };
        let (pixels, kept, unreadable) =
            prepared::read_by(Arc::new(decode), &images, &labels, (limit, select), self.prepare, HELD);
        skipped.extend(unreadable);
        if kept.is_empty() {
            let first = skipped.first().map_or(String::new(), |s| format!("; {}", s.problem));
            return Err(Error::file(&self.path, format!("expected readable images with labels, found none{first}")));
        }
        let [height, width] = self.prepare.size;
        Ok(Dataset {
            name: self.path.file_stem().map_or("tar".into(), |stem| stem.to_string_lossy().into_owned()),
            height,
            width,
            classes,
            pixels,
            labels: kept.iter().map(|&i| labels[i]).collect(),
            ids: kept.iter().map(|&i| i as u64).collect(),
            skipped,
        })
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }

    /// Labels are numbers already; the network's own names for them are better than the numbers.
    fn order(&self, known: Option<Named>) -> Result<Option<Order>> {
        Ok(Order::of_numbers(self.classes.is_some(), self.order.as_deref(), known))
    }

    fn note(&self) -> Option<&'static str> {
        Some("reading every selected image once")
    }
}

impl Found {
    /// Reads the headers of a tar file. Its samples follow those of the files before.
    fn scan(&mut self, number: u32, tar: &Path) -> Result<()> {
        let mut samples: BTreeMap<usize, Sample> = BTreeMap::new();
        let mut order: HashMap<String, usize> = HashMap::new();
        entries(tar, |file, entry| {
            let (folder, last) = entry.name.rsplit_once('/').unwrap_or(("", &entry.name));
            // What systems leave behind.
            let Some((stem, extension)) = last.split_once('.').filter(|(stem, _)| !stem.is_empty()) else {
                return Ok(());
            };
            let extension = extension.to_ascii_lowercase();
            let key = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
            let count = order.len();
            let at = *order.entry(key.clone()).or_insert(count);
            let sample = samples.entry(at).or_insert_with(|| Sample { key, ..Sample::default() });
            if EXTENSIONS.contains(&extension.as_str()) {
                sample.twice |= sample.image.replace((entry.name.clone(), entry.at, entry.len)).is_some();
            } else if extension == "cls" {
                sample.twice |= sample.label.replace(text(file, &entry)?).is_some();
            }
            Ok(())
        })?;
        for Sample { key, image, label, twice } in samples.into_values() {
            let at = tar.join(&key);
            let number_of = |label: &str| label.trim().parse::<u32>().ok().filter(|&label| label < 1 << 20);
            let (problem, label) = match (&image, label.as_deref().map(|label| (label, number_of(label)))) {
                _ if twice => {
                    (Some("several images or labels of this name: which belong together is not known".to_owned()), 0)
                }
                (Some(_), Some((_, Some(label)))) => (None, label),
                (None, _) => (Some("no image beside it".to_owned()), 0),
                (_, None) => (Some("no label (.cls) beside it".to_owned()), 0),
                (_, Some((label, None))) => {
                    let shown: String = label.trim().chars().take(40).collect();
                    (Some(format!("label: expected a class's number, found `{shown}`")), 0)
                }
            };
            match (problem, image) {
                (None, Some((name, from, len))) => {
                    let path = tar.join(name);
                    self.places.insert(path.clone(), (number, from, len));
                    self.images.push(path);
                    self.labels.push(label);
                }
                (problem, _) => self.skipped.push(Skipped::new(&at, problem.unwrap_or_default())),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sample {
    key: String,
    /// Its name, and where it lies.
    image: Option<(String, u64, u64)>,
    label: Option<String>,
    /// Whether there are several of either.
    twice: bool,
}

/// A file within a tar file.
struct Entry {
    name: String,
    at: u64,
    len: u64,
}

fn text(file: &mut fs::File, entry: &Entry) -> Result<String, String> {
    if entry.len > TEXT {
        return Err(format!("{}: expected at most {TEXT} bytes, found {}", entry.name, entry.len));
    }
    let mut bytes = vec![0; entry.len as usize];
    let read = file.seek(SeekFrom::Start(entry.at)).and_then(|_| file.read_exact(&mut bytes));
    read.map_err(|e| format!("{}: {e}", entry.name))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Walks over the files of a tar file: ustar, with the long names of GNU and of pax.
///
/// Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".
fn entries(tar: &Path, mut each: impl FnMut(&mut fs::File, Entry) -> Result<(), String>) -> Result<()> {
    let io = |e| Error::io(tar, "read the tar file", e);
    let mut file = files::open(tar, "read the tar file")?;
    let end = file.metadata().map_err(io)?.len();
    let (mut at, mut long, mut pax_len) = (0, None, None);
    while at + BLOCK <= end {
        let bad = |problem: String| Error::file(tar, format!("byte {at}: {problem}"));
        let mut header = [0; BLOCK as usize];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut header)).map_err(io)?;
        // Two blocks of zeros end it.
        if header.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let own: u64 =
            (0..header.len()).map(|i| u64::from(if (148..156).contains(&i) { b' ' } else { header[i] })).sum();
        if octal(&header[148..156]) != Some(own) {
            return Err(bad("no header of a tar file: its checksum does not hold".into()));
        }
        let size = octal(&header[124..136]).ok_or_else(|| bad("the size of an entry is no number".into()))?;
        let kind = header[156];
        let len = if matches!(kind, b'L' | b'x' | b'g' | b'K') { size } else { pax_len.take().unwrap_or(size) };
        let begin = at + BLOCK;
        if len > end - begin {
            return Err(bad(format!("truncated: an entry of {len} bytes, and {} are left", end - begin)));
        }
        let own_name = || {
            let part = |range: std::ops::Range<usize>| {
                String::from_utf8_lossy(header[range].split(|&b| b == 0).next().unwrap_or_default()).into_owned()
            };
            let prefix = if &header[257..262] == b"ustar" && header[262] == 0 { part(345..500) } else { String::new() };
            if prefix.is_empty() { part(0..100) } else { format!("{prefix}/{}", part(0..100)) }
        };
        let entry = |name: String| Entry { name, at: begin, len };
        match kind {
            b'L' => {
                long =
                    Some(text(&mut file, &entry("a long name".into())).map_err(bad)?.trim_end_matches('\0').to_owned())
            }
            b'x' => {
                for (key, value) in records(&text(&mut file, &entry("a pax header".into())).map_err(bad)?) {
                    match key {
                        "path" => long = Some(value.to_owned()),
                        "size" => pax_len = value.parse().ok(),
                        _ => {}
                    }
                }
            }
            b'0' | 0 => {
                let name = long.take().unwrap_or_else(own_name);
                each(&mut file, entry(name.trim_start_matches("./").to_owned())).map_err(bad)?;
            }
            _ => long = None,
        }
        at = begin + len.next_multiple_of(BLOCK);
    }
    Err(Error::file(tar, "truncated: expected a block of zeros at its end"))
}

/// A number in octal digits, or where those do not suffice in bytes behind a set bit.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let mut digits = field.iter().skip(1).copied();
        return digits.try_fold(u64::from(field[0] & 0x7f), |sum, byte| Some(sum.checked_mul(256)? + u64::from(byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`.
fn records(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.split_once(' ')?.1.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::data::prepare::Fit;
    use crate::data::resize::Filter;

    fn png(path: &Path, grey: u8) {
        image::RgbImage::from_pixel(3, 2, image::Rgb([grey, grey, grey])).save(path).unwrap();
    }

    fn load(path: &Path) -> Result<Dataset> {
        let prepare = Prepare { fit: Fit::Squash, size: [2, 3], shorter: 3, filter: Filter::Bilinear };
        Tars { path: path.to_owned(), classes: None, order: None, prepare }.load(None, Select::First)
    }

    /// In every dialect that tar writes.
    #[test]
    fn samples_of_several_files_are_read_where_they_lie() {
        for format in ["ustar", "gnu", "pax"] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let long = format!("{}/{}", "a".repeat(90), "b".repeat(if format == "ustar" { 60 } else { 160 }));
            fs::create_dir_all(root.join("in").join(&long)).unwrap();
            let mut shown = vec![];
            for (shard, keys) in [("2", vec!["x0", "x1"]), ("10", vec!["y0"])] {
                let mut names: Vec<String> = vec![];
                for (i, key) in keys.iter().enumerate() {
                    let key = format!("{long}/{key}");
                    let grey = (shown.len() * 20 + 10) as u8;
                    png(&root.join("in").join(format!("{key}.png")), grey);
                    fs::write(root.join("in").join(format!("{key}.cls")), format!("{}\n", i + 3)).unwrap();
                    fs::write(root.join("in").join(format!("{key}.json")), "{}").unwrap();
                    names.extend(["cls", "json", "png"].map(|e| format!("{key}.{e}")));
                    shown.push((grey, i as u32 + 3));
                }
                let tar = root.join(format!("shard-{shard}.tar"));
                let mut ran = Command::new("tar");
                ran.arg(format!("--format={format}")).arg("-cf").arg(&tar);
                assert!(ran.arg("-C").arg(root.join("in")).args(&names).status().unwrap().success());
            }
            fs::remove_dir_all(root.join("in")).unwrap();
            let data = load(root).unwrap();
            assert_eq!(data.labels, shown.iter().map(|s| s.1).collect::<Vec<_>>(), "{format}");
            assert_eq!((data.ids.clone(), data.classes.len(), data.skipped.len()), (vec![0, 1, 2], 5, 0));
            for (i, (grey, _)) in shown.iter().enumerate() {
                assert!(data.image(i).unwrap().iter().all(|&v| (v * 255.0).round() as u8 == *grey), "{format} {i}");
            }
            assert_eq!(load(&root.join("shard-10.tar")).unwrap().labels, [3]);
            // Cut off, and changed.
            let tar = root.join("shard-2.tar");
            let bytes = fs::read(&tar).unwrap();
            for (cut, problem) in [(700, "truncated"), (512, "truncated")] {
                fs::write(&tar, &bytes[..cut]).unwrap();
                let error = load(root).unwrap_err().to_string();
                assert!(error.contains("shard-2.tar") && error.contains(problem), "{format} {cut}: {error}");
            }
            fs::write(&tar, [b"?", &bytes[1..]].concat()).unwrap();
            assert!(load(root).unwrap_err().to_string().contains("checksum"), "{format}");
        }
    }

    #[test]
    fn what_is_no_sample_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        png(&dir.path().join("a.png"), 9);
        png(&dir.path().join("b.png"), 9);
        png(&dir.path().join("c.png"), 9);
        for (name, text) in [("a.cls", "0"), ("c.cls", "cat"), ("d.cls", "1"), ("e.png", "no image"), ("e.cls", "0")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("f.cls"), "0").unwrap();
        png(&dir.path().join("f.png"), 9);
        let names = ["a.png", "a.cls", "b.png", "c.png", "c.cls", "d.cls", "e.png", "e.cls", "f.cls", "f.png"];
        let tar = dir.path().join("all.tar");
        let ran = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).args(names).status();
        assert!(ran.unwrap().success());
        // The second of a name is another image's, or another label's.
        let more = Command::new("tar").arg("-rf").arg(&tar).arg("-C").arg(dir.path()).arg("f.cls").status();
        assert!(more.unwrap().success());
        let data = load(&tar).unwrap();
        assert_eq!((&data.ids[..], &data.labels[..]), (&[0][..], &[0][..]));
        let problems: Vec<&str> = data.skipped.iter().map(|s| s.problem.as_str()).collect();
        for part in
            ["no label (.cls)", "found `cat`", "no image beside it", "not a readable image", "several images or labels"]
        {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert_eq!(problems.len(), 5);
    }

    #[test]
    fn numbers_of_any_size_are_read() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"      0\0"), Some(0));
        assert_eq!(octal(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Some((2 << 32) + 1));
        assert_eq!(octal(b"00x"), None);
        assert_eq!(octal(&[0xff; 12]), None);
    }
}
