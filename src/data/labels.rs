//! Files of labels for flat folders: a file name, with or without extension, and a class by id or number.

use std::collections::HashMap;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::classes::{Classes, Named};
use crate::error::{Error, Result};
use crate::files;

/// Characters of a line that a message shows.
const SHOWN: usize = 80;

/// The class of each file named. Fields are separated by commas, or without any by semicolons, tabs or blanks, and may be quoted. The class is
/// the second one, or that which a heading calls so; others are ignored, as is a byte-order mark.
///
/// # Errors
/// [`Error::Io`], and [`Error::File`] for a line that names no class or gives a file another class than one before.
pub fn load(path: &Path, classes: &Classes) -> Result<HashMap<String, u32>> {
    let text = files::text(path, "read the labels")?;
    let text = text.trim_start_matches('\u{feff}');
    let delimiter = [b',', b';', b'\t'].into_iter().find(|&c| text.bytes().any(|b| b == c)).unwrap_or(b' ');
    let mut reader = ReaderBuilder::new();
    let mut reader =
        reader.has_headers(false).flexible(true).trim(Trim::All).delimiter(delimiter).from_reader(text.as_bytes());
    let (mut known, mut heading) = (HashMap::new(), None::<Heading>);
    // Where names are numbers themselves, a mixture of both makes two classes one.
    let ambiguous = classes.ids().iter().any(|id| id.parse::<u64>().is_ok());
    let mut first: Option<(u64, String, Named)> = None;
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|e| Error::file(path, format!("not a table of labels: {e}")))?;
        let line = record.position().map_or(0, |at| at.line());
        let Some((file, class)) = (match &heading {
            Some(heading) => heading.fields(&record),
            None => fields(&record),
        }) else {
            continue;
        };
        let bad = |problem: String| Error::file(path, format!("line {line}: {problem}"));
        if i == 0 && heads(&record) {
            heading = Heading::of(&record).map_err(bad)?;
            let numbered = classes.find(class).is_some() && classes.how(class) == Named::Number;
            if heading.is_none() && classes.find(class).is_some() && !numbered {
                let problem =
                    "expected a heading that calls the second column `label` or `class`, found a class's name";
                return Err(bad(format!("{problem}, `{class}`")));
            }
            // An image may be called `image`.
            if heading.is_some() || !numbered {
                continue;
            }
        }
        if heading.is_none() && one_of_many(&record) {
            let problem = "a column per class, as it seems: expected a heading, and one column with the class";
            return Err(bad(problem.into()));
        }
        let word = class.split_whitespace().next().unwrap_or_default();
        let found = [class, word].into_iter().find_map(|text| Some((classes.find(text)?, classes.how(text), text)));
        match found {
            Some((class, how, text)) => {
                let (at, other, before) = first.get_or_insert_with(|| (line, text.to_owned(), how));
                if *before != how && ambiguous {
                    let of = |how: Named| if how == Named::Number { "number" } else { "name" };
                    return Err(bad(format!(
                        "`{text}` is a class's {}, and `{other}` of line {at} a class's {}: expected one of both in all lines",
                        of(how),
                        of(*before)
                    )));
                }
                let before = known.insert(file.to_owned(), class);
                if let Some(before) = before.filter(|&before| before != class) {
                    let problem = format!("line {line}: {file} has class {class} here and class {before} before");
                    return Err(Error::file(path, problem));
                }
            }
            None if i == 0 && class_word(&record) => {
                heading =
                    Heading::of(&record).map_err(|problem| Error::file(path, format!("line {line}: {problem}")))?;
            }
            None => {
                let whole = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim();
                let shown: String = whole.chars().take(SHOWN).collect();
                let problem =
                    format!("line {line}: expected a file and one of {} classes, found `{shown}`", classes.len());
                return Err(Error::file(path, problem));
            }
        }
    }
    Ok(known)
}

/// Whether a first line calls its columns: the first is called what files are, and no file is called so.
fn heads(record: &StringRecord) -> bool {
    fields(record).is_some_and(|(file, _)| FILE.contains(&file.to_ascii_lowercase().as_str()))
}

/// Whether what stands behind the file is 0 and once 1, in three columns or more.
fn one_of_many(record: &StringRecord) -> bool {
    let rest: Vec<&str> = record.iter().skip(1).map(|field| field.trim_matches('"').trim()).collect();
    let of = |text: &str| rest.iter().filter(|field| field.trim_end_matches(".0") == text).count();
    rest.len() >= 3 && of("0") + of("1") == rest.len() && of("1") == 1
}

/// What headings call the two columns.
const FILE: [&str; 8] = ["file", "filename", "file_name", "image", "image_id", "imageid", "path", "name"];
const CLASS: [&str; 10] =
    ["label", "labels", "class", "class_id", "classid", "target", "synset", "wnid", "category", "predictionstring"];

/// Which columns a heading names.
struct Heading {
    file: usize,
    class: usize,
}

impl Heading {
    /// None of two columns, whatever they are called.
    fn of(record: &StringRecord) -> Result<Option<Heading>, String> {
        let names: Vec<String> = record.iter().map(|name| name.trim_matches('"').trim().to_ascii_lowercase()).collect();
        let place = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        match (place(&FILE).unwrap_or(0), place(&CLASS)) {
            // The usual two, in which a line may be parted otherwise than the rest.
            (0, Some(1)) | (0, None) if names.len() <= 2 => Ok(None),
            (file, Some(class)) if file != class => Ok(Some(Heading { file, class })),
            _ if names.len() <= 2 => Ok(None),
            _ => Err(format!(
                "expected a heading that calls one of its {} columns `label` or `class`, found {}",
                names.len(),
                names.join(", ")
            )),
        }
    }

    fn fields<'r>(&self, record: &'r StringRecord) -> Option<(&'r str, &'r str)> {
        let field = |at: usize| record.get(at).map_or("", |field| field.trim_matches('"').trim());
        let (file, class) = (field(self.file), field(self.class));
        let empty = record.iter().all(|field| field.trim().is_empty());
        (!empty).then(|| (file.rsplit(['/', '\\']).next().unwrap_or(file), class))
    }
}

/// Whether the second field of a first line is a word, as in a heading; a number that is no class is a wrong one.
fn class_word(record: &StringRecord) -> bool {
    fields(record).is_some_and(|(_, class)| class.parse::<f64>().is_err())
}

/// The file, without the folders it is said to lie in, and the class; `None` for an empty line.
fn fields(record: &StringRecord) -> Option<(&str, &str)> {
    // A blank before a quote makes it part of the field; several blanks between two fields are empty ones.
    let mut fields = record.iter().map(|field| field.trim_matches('"').trim()).filter(|field| !field.is_empty());
    let (first, second) = (fields.next()?, fields.next());
    let (file, class) = match second {
        Some(class) => (first, class),
        // A line with another separator than the rest.
        None => first.split_once(['\t', ' ', ';']).unwrap_or((first, "")),
    };
    Some((file.rsplit(['/', '\\']).next().unwrap_or(file), class.trim()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tables_of_labels_come_in_many_forms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            load(&path, &Classes::imagenet())
        };
        for text in [
            "\u{feff}img 0.png,9\nimg 1.png,2\n",
            "\"img 0.png\",\"9\"\n\"img 1.png\",\"2\"\n",
            "\u{feff}\"img 0.png\", \"9\"\r\n \"img 1.png\" , 2 \r\n\r\n",
            "file,class\nval/img 0.png,9,more\nval\\img 1.png,2\n",
            "id,Image,label\n7,img 0.png,9\n8,val/img 1.png,2\n",
            "file,number,class\nimg 0.png,1,9\nimg 1.png,3,2\n",
            "name,file\nimg 0.png,9\nimg 1.png,2\n",
            "img 0.png;9\nimg 1.png;2",
            "img 0.png\t9\nimg 1.png\t2",
            "\"img 0.png\"   9\n\"img 1.png\" 2\n",
            "img 0.png,n01518878\nimg 1.png,n01484850 5 6 7 8\n",
        ] {
            let found = read(text).unwrap();
            assert_eq!((found.len(), found["img 0.png"], found["img 1.png"]), (2, 9, 2), "{text}");
        }
        assert_eq!(read("\"a,b.png\",3").unwrap()["a,b.png"], 3);
        for (text, part) in [
            ("a.png,1\nb.png,x\n", "line 2: expected a file and one of 1000 classes, found `b.png,x`"),
            ("a.png,1000\nb.png,2\n", "line 1: expected a file and one of 1000 classes, found `a.png,1000`"),
            ("a.png,-1\nb.png,2\n", "line 1: expected a file and one of 1000 classes"),
            (
                "a,b,c\na.png,1,2\n",
                "line 1: expected a heading that calls one of its 3 columns `label` or `class`, found a, b, c",
            ),
            ("a.png,1\na.png,2\n", "line 2: a.png has class 2 here and class 1 before"),
            ("file,tench,goldfish,hen\na.png,0,1,0\n", "line 1: expected a heading that calls one of its 4 columns"),
            (
                "image,n01440764\na.png,1\n",
                "line 1: expected a heading that calls the second column `label` or `class`",
            ),
            ("a.png,0,1,0\n", "line 1: a column per class, as it seems"),
            ("image,0,label\na.png,x,y\n", "line 2: expected a file and one of 1000 classes"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("labels.csv") && error.contains(part), "{error}");
        }
        // Names that are numbers, and numbers from 0 on.
        let numbered = Classes::or(None, &["1", "2", "3", "4"]).unwrap();
        fs::write(&path, "a.png,1\nb.png,0\n").unwrap();
        let error = load(&path, &numbered).unwrap_err().to_string();
        assert!(error.contains("`0` is a class's number, and `1` of line 1 a class's name"), "{error}");
        fs::write(&path, "a.png,1\nb.png,4\n").unwrap();
        assert_eq!(load(&path, &numbered).unwrap()["b.png"], 3);
        assert_eq!(read("a.png,1\nb.png,n01518878\n").unwrap()["b.png"], 9);
    }
}
