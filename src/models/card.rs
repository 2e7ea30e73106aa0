//! What a checkpoint says of itself, and whether that is true of what it is run on.

use serde_json::Value;

use super::network::Shape;
use super::network_shape;
use super::weights::Weights;
use crate::data::classes::plain;
use crate::data::prepare::Fit;
use crate::data::resize::Filter;
use crate::{Error, Result};

/// Means and deviations of pixels in [0, 1] lie below this; those of bytes lie far above.
const UNIT: f64 = 1.5;

/// What timm crops where a network does not say.
const CROP_PCT: f64 = 0.875;

/// Per channel.
pub type Triple = [f64; 3];

/// What a checkpoint says of itself.
#[derive(Clone, Debug)]
pub struct Card {
    pub arch: String,
    pub config: Value,
    /// Mean and deviation that pixels in [0, 1] are normalised by.
    pub mean: Option<Triple>,
    pub std: Option<Triple>,
    /// Names in the order of the logits.
    pub classes: Option<Vec<String>>,
    /// Of the images it was trained on.
    pub dataset: Option<String>,
    pub preparation: Preparation,
    /// Share of test images that it has right without an attack.
    pub clean_test_accuracy: Option<f64>,
    /// What it says and cannot be understood or followed.
    pub doubts: Vec<String>,
}

/// How images come to the size that a network was tested at; what is `None` is not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preparation {
    pub size: Option<[usize; 2]>,
    pub fit: Option<Fit>,
    pub filter: Option<Filter>,
    /// Of a crop: its side as a share of the resized image's shorter one.
    pub crop_pct: Option<f64>,
    /// Fields of the dataset that have to be said, since what the checkpoint says of them is nothing that is had here.
    pub unknown: Vec<(&'static str, String)>,
}

impl Preparation {
    /// The shorter side before a crop of this size.
    pub fn shorter(&self, size: [usize; 2]) -> Option<usize> {
        let side = size[0].max(size[1]);
        self.crop_pct.map(|share| ((side as f64 / share) as usize).max(side))
    }
}

impl Card {
    /// Reads the metadata.
    ///
    /// # Errors
    /// [`Error::File`] for an architecture that is missing or unknown, and for values that cannot be meant.
    pub fn read(weights: &Weights) -> Result<Card> {
        let bad = |problem: String| Error::file(weights.origin(), format!("metadata: {problem}"));
        let arch = weights.metadata("arch")?.to_owned();
        let config: Value = weights.metadata_json("config")?;
        let shape = network_shape(&arch, config.clone()).map_err(&bad)?;
        let text = |key: &str| weights.metadata(key).ok().map(str::trim).filter(|text| !text.is_empty());
        let mut doubts = Vec::new();
        let triple = |key: &str| -> Result<Option<Triple>> {
            let Some(text) = text(key) else { return Ok(None) };
            let values: Triple = serde_json::from_str(&as_list(text))
                .map_err(|e| bad(format!("`{key}`: expected three numbers, found `{}`: {e}", short(text))))?;
            unit(key, &values).map_err(&bad)?;
            Ok(Some(values))
        };
        let classes = match text("classes").map(names) {
            None => None,
            Some(Some(names)) => {
                let logits = config["classes"].as_u64().map_or(names.len(), |n| n as usize);
                if names.len() != logits {
                    return Err(bad(format!("`classes` names {} and `config` has {logits}", names.len())));
                }
                Some(names)
            }
            // How many there are is no more than the config says.
            Some(None) => {
                let said = text("classes").unwrap_or_default();
                if said.parse::<u64>().ok() != config["classes"].as_u64() {
                    let problem =
                        format!("`classes` is `{}`, which is neither a list of names nor their number", short(said));
                    doubts.push(problem);
                }
                None
            }
        };
        let clean_test_accuracy = text("clean_test_accuracy").and_then(|text| {
            let share = match text.trim_end_matches('%').trim().parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) && !text.ends_with('%') => Some(share),
                Ok(percent) if (0.0..=100.0).contains(&percent) => Some(percent / 100.0),
                _ => None,
            };
            if share.is_none() {
                doubts.push(format!("`clean_test_accuracy` is `{}`: expected a share of 0 to 1", short(text)));
            }
            share
        });
        let (mean, std) = (triple("mean")?, triple("std")?);
        Ok(Card {
            preparation: preparation(&text, shape.as_ref(), &config, &mut doubts),
            dataset: text("dataset").map(str::to_owned),
            arch,
            config,
            mean,
            std,
            classes,
            clean_test_accuracy,
            doubts,
        })
    }

    /// The network's shape.
    ///
    /// # Errors
    /// None for a card that was read; else what is wrong, in words.
    pub fn shape(&self) -> Result<Box<dyn Shape>, String> {
        network_shape(&self.arch, self.config.clone())
    }
}

/// Refuses what cannot be a mean or deviation of pixels in [0, 1].
///
/// # Errors
/// What is wrong with it, in words.
pub fn unit(key: &str, values: &Triple) -> Result<(), String> {
    if values.iter().any(|v| v.abs() > UNIT) {
        let [a, b, c] = values.map(|v| v / 255.0);
        let way_out = format!("divided by 255 these are [{a:.4}, {b:.4}, {c:.4}]");
        return Err(format!("`{key}`: expected values of pixels in [0, 1], found {values:?}: {way_out}"));
    }
    let good = values.iter().all(|&v| v.is_finite() && (key != "std" || v > 0.0));
    if good { Ok(()) } else { Err(format!("`{key}`: expected a finite mean and a positive std, found {values:?}")) }
}

/// Python's tuples as JSON has them.
fn as_list(text: &str) -> String {
    text.replace('(', "[").replace(",)", "]").replace(')', "]")
}

/// The beginning of a text, for a message.
fn short(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() { format!("{shown}..") } else { shown }
}

/// A list of names, or an object from numbers to names.
fn names(text: &str) -> Option<Vec<String>> {
    if let Ok(names) = serde_json::from_str::<Vec<String>>(text) {
        return Some(names);
    }
    let mut numbered: Vec<(usize, String)> = serde_json::from_str::<serde_json::Map<String, Value>>(text)
        .ok()?
        .into_iter()
        .map(|(number, name)| Some((number.parse().ok()?, name.as_str()?.to_owned())))
        .collect::<Option<_>>()?;
    numbered.sort_unstable();
    let whole = numbered.iter().enumerate().all(|(i, (number, _))| i == *number);
    whole.then(|| numbered.into_iter().map(|(_, name)| name).collect())
}

fn preparation<'a>(
    text: &impl Fn(&str) -> Option<&'a str>,
    shape: &dyn Shape,
    config: &Value,
    doubts: &mut Vec<String>,
) -> Preparation {
    let mut found = Preparation { size: shape.size(), ..Preparation::default() };
    if let Some(said) = text("input_size") {
        let sides =
            serde_json::from_str::<Vec<usize>>(&as_list(said)).or_else(|_| said.parse().map(|side| vec![side, side]));
        match sides.as_deref() {
            Ok([3, h, w]) | Ok([h, w]) if *h > 0 && *w > 0 => found.size = Some([*h, *w]),
            _ => doubts.push(format!("`input_size` is `{}`: expected channels, height and width", short(said))),
        }
    }
    if let Some(said) = text("crop_pct") {
        match said.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 1.0 => found.crop_pct = Some(share),
            _ => doubts.push(format!("`crop_pct` is `{}`: expected a share of 0 to 1", short(said))),
        }
    }
    if let Some(said) = text("interpolation") {
        found.filter = match said {
            "bilinear" => Some(Filter::Bilinear),
            "bicubic" => Some(Filter::Bicubic),
            other => {
                found.unknown.push(("filter", format!("interpolation `{}`", short(other))));
                None
            }
        };
    }
    let mode = text("crop_mode");
    match mode {
        // timm's squash resizes to more than the size, and cuts that out, where the share is below 1.
        Some("squash") if found.crop_pct.is_some_and(|share| share < 1.0) => {
            let share = found.crop_pct.unwrap_or_default();
            found.unknown.push(("fit", format!("crop_mode `squash` with crop_pct {share}")));
        }
        Some("squash") => found.fit = Some(Fit::Squash),
        Some("center") => found.fit = Some(Fit::Crop),
        None if found.crop_pct.is_some() => found.fit = Some(Fit::Crop),
        Some(other) => found.unknown.push(("fit", format!("crop_mode `{}`", short(other)))),
        None => {}
    }
    if found.fit == Some(Fit::Crop) {
        found.crop_pct = found.crop_pct.or(Some(CROP_PCT));
        // Of a residual network neither weights nor config tell; all of those with this stem are tested at 224 unless they say so.
        let imagenet = config["stem"] == "imagenet" || config.get("stem").is_none();
        found.size = found.size.or(imagenet.then_some([224, 224]));
    } else {
        found.crop_pct = None;
    }
    found
}

/// How the classes of a checkpoint compare with those of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    Same,
    /// Other words, perhaps, for the same things in the same order.
    Doubtful(String),
    /// Other things, or other words for most of them.
    Other(String),
    /// The same things in another order.
    Order(String),
}

/// Compares `said`, the names of the logits, with the `names` that labels index and their other names, if there are such.
pub fn agreement(said: &[String], names: &[String], others: &[String]) -> Agreement {
    if said.len() != names.len() {
        return Agreement::Other(format!("it has {} classes, the dataset {}", said.len(), names.len()));
    }
    // Of several words for one class the first counts.
    let first = |name: &str| plain(name.split(',').next().unwrap_or(name));
    let ours = |i: usize| [names.get(i), others.get(i)].into_iter().flatten();
    let is =
        |name: &str, i: usize| ours(i).any(|own| own == name || plain(own) == plain(name) || first(own) == first(name));
    let different: Vec<usize> = (0..said.len()).filter(|&i| !is(&said[i], i)).collect();
    let Some(&at) = different.first() else { return Agreement::Same };
    let pair = |i: usize| {
        format!("class {i} is `{}` in the checkpoint and `{}` in the dataset", short(&said[i]), short(&names[i]))
    };
    for &i in &different {
        let mut places = (0..names.len()).filter(|&j| is(&said[i], j));
        // A name that two classes share says nothing.
        if let (Some(j), None) = (places.next(), places.next()) {
            let unique = said.iter().filter(|name| plain(name) == plain(&said[i])).count() == 1;
            if unique {
                return Agreement::Order(format!(
                    "{}, where `{}` is class {j}: another order",
                    pair(i),
                    short(&said[i])
                ));
            }
        }
    }
    match 2 * different.len() > said.len() {
        true => Agreement::Other(pair(at)),
        false => Agreement::Doubtful(format!("{}; so are {} of {}", pair(at), different.len(), said.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::{Dtype, tensor::TensorView};

    use super::*;
    use crate::data::tensors::TensorFile;

    fn card(extra: &[(&str, &str)]) -> Result<Card> {
        let mut metadata: HashMap<String, String> = HashMap::from([
            ("arch".into(), "resnet".into()),
            ("config".into(), r#"{"depth":18,"stem":"imagenet","width":8,"classes":3}"#.into()),
        ]);
        metadata.extend(extra.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())));
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let bytes = safetensors::serialize([("x", view)], Some(metadata)).unwrap();
        Card::read(&Weights::of(TensorFile::owned("net.safetensors".as_ref(), bytes)?.into(), ""))
    }

    #[test]
    fn what_timm_writes_is_understood() {
        let found = card(&[
            ("mean", "[0.485, 0.456, 0.406]"),
            ("std", "(0.229, 0.224, 0.225)"),
            ("classes", r#"["a", "b", "c"]"#),
            ("dataset", "imagenet"),
            ("interpolation", "bicubic"),
            ("crop_pct", "0.95"),
            ("crop_mode", "center"),
            ("clean_test_accuracy", "0.9227"),
        ])
        .unwrap();
        let want = Preparation {
            size: Some([224, 224]),
            fit: Some(Fit::Crop),
            filter: Some(Filter::Bicubic),
            crop_pct: Some(0.95),
            unknown: vec![],
        };
        assert_eq!((found.preparation.shorter([224, 224]), &found.preparation), (Some(235), &want));
        assert_eq!((found.mean, found.std), (Some([0.485, 0.456, 0.406]), Some([0.229, 0.224, 0.225])));
        assert_eq!(
            (found.classes.unwrap(), found.clean_test_accuracy),
            (vec!["a", "b", "c"].into_iter().map(String::from).collect(), Some(0.9227))
        );
        assert!(found.doubts.is_empty());

        let squash = card(&[("crop_mode", "squash"), ("crop_pct", "1.0"), ("input_size", "[3, 96, 128]")]).unwrap();
        let want = Preparation { size: Some([96, 128]), fit: Some(Fit::Squash), ..Preparation::default() };
        assert_eq!(squash.preparation, want);
        assert_eq!(card(&[]).unwrap().preparation, Preparation::default());
        let other = card(&[("crop_mode", "border"), ("interpolation", "lanczos")]).unwrap().preparation.unknown;
        assert_eq!(other.iter().map(|(field, _)| *field).collect::<Vec<_>>(), ["filter", "fit"]);
        assert_eq!(card(&[("crop_mode", "squash"), ("crop_pct", "0.9")]).unwrap().preparation.unknown.len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_or_doubted() {
        for (key, value, part) in [
            ("mean", "[123.675, 116.28, 103.53]", "divided by 255 these are [0.4850, 0.4560, 0.4060]"),
            ("std", "[58.395, 57.12, 57.375]", "`std`: expected values of pixels in [0, 1]"),
            ("std", "[0.2, 0, 0.2]", "positive std"),
            ("mean", "[0.5]", "expected three numbers, found `[0.5]`"),
            ("classes", r#"["a", "b"]"#, "`classes` names 2 and `config` has 3"),
        ] {
            let error = card(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with("net.safetensors: metadata: ") && error.contains(part), "{error}");
        }
        for (key, value) in [
            ("classes", "many"),
            ("clean_test_accuracy", "best"),
            ("crop_pct", "2"),
            ("input_size", "big"),
            ("classes", "4"),
        ] {
            assert_eq!(card(&[(key, value)]).unwrap().doubts.len(), 1, "{key} {value}");
        }
        assert!(card(&[("classes", "3")]).unwrap().doubts.is_empty());
        assert_eq!(card(&[("clean_test_accuracy", "92.27 %")]).unwrap().clean_test_accuracy, Some(0.9227));
        assert_eq!(
            card(&[("classes", r#"{"1": "b", "0": "a", "2": "c"}"#)]).unwrap().classes.unwrap(),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn classes_are_compared_name_by_name() {
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let ours = strings(&["airplane", "automobile", "bird", "T-shirt/top"]);
        let found = |said: &[&str]| agreement(&strings(said), &ours, &strings(&["n1", "n2", "n3", "n4"]));
        assert_eq!(found(&["Airplane", "automobile", "bird, fowl", "T-shirt_top"]), Agreement::Same);
        assert_eq!(found(&["n1", "n2", "n3", "n4"]), Agreement::Same);
        assert!(
            matches!(found(&["plane", "car", "bird", "t shirt top"]), Agreement::Doubtful(why) if why.contains("class 0 is `plane`"))
        );
        let wrong = |said: &[&str], part: &str| match found(said) {
            Agreement::Other(why) | Agreement::Order(why) => assert!(why.contains(part), "{why}"),
            other => panic!("{said:?}: {other:?}"),
        };
        wrong(
            &["automobile", "airplane", "bird", "T-shirt/top"],
            "class 0 is `automobile` in the checkpoint and `airplane` in the dataset, where `automobile` is class 1",
        );
        wrong(&["0", "1", "2", "3"], "class 0 is `0`");
        wrong(&["airplane"], "it has 1 classes, the dataset 4");
    }
}
