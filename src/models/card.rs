//! What a checkpoint says of itself, and whether that is true of what it is run on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::graph::{self, Channels, Layout};
use super::metadata::{PerChannel, as_list, for_channels, short, sides, unit};
use super::network::{Row, Shape};
use super::normalisation::Normalisation;
use super::weights::Weights;
use super::{NETWORKS, network_shape};
use crate::data::classes::{self, plain};
use crate::data::prepare::{Fit, Prepare};
use crate::data::resize::Filter;
use crate::device::Device;
use crate::tape::Precision;
use crate::{Error, Result};

/// Mean and deviation of torchvision's networks for ImageNet.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// What timm crops where a network does not say.
const CROP_PCT: f64 = 0.875;

/// How an ONNX graph takes images, as far as it is said beside the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    pub channels: Option<Channels>,
    pub layout: Option<Layout>,
    /// The largest value of a pixel, 1 or 255.
    pub range: Option<f64>,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug)]
pub struct Card {
    pub arch: String,
    pub config: Value,
    /// Mean and deviation that pixels in [0, 1] are normalised by.
    pub mean: Option<Vec<f64>>,
    pub std: Option<Vec<f64>>,
    /// Names in the order of the logits.
    pub classes: Option<Vec<String>>,
    /// Of the images it was trained on.
    pub dataset: Option<String>,
    pub preparation: Preparation,
    /// Share of test images that it has right without an attack.
    pub clean_test_accuracy: Option<f64>,
    /// Whether the normalisation is what such networks usually have, of a graph none, and nothing that it says.
    pub assumed: bool,
    /// The step of a graph by which it takes pixels of 0 to 255, where nothing says what it takes.
    pub bytes: Option<String>,
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
        Self::of(weights, weights.metadata("arch")?.to_owned(), weights.metadata_json("config")?, 1.0)
    }

    /// What else the metadata says of a network of this form, whose mean and deviation are of pixels up to `range`.
    fn of(weights: &Weights, arch: String, config: Value, range: f64) -> Result<Card> {
        let bad = |problem: String| Error::file(weights.origin(), format!("metadata: {problem}"));
        let shape = network_shape(&arch, config.clone()).map_err(&bad)?;
        let text = |key: &str| weights.metadata(key).ok().map(str::trim).filter(|text| !text.is_empty());
        if arch != graph::NAME {
            taken_as_usual(&text).map_err(&bad)?;
        }
        let mut doubts = Vec::new();
        let per_channel = |key: &str| -> Result<Option<Vec<f64>>> {
            let Some(text) = text(key) else { return Ok(None) };
            let found: Option<PerChannel> = serde_json::from_str(&as_list(text)).ok();
            let channels = shape.channels();
            let found = match found {
                Some(PerChannel::Each(values)) if values.len() == channels => Some(values),
                Some(one) if channels == 1 => for_channels(&Vec::from(one), 1).ok(),
                _ => None,
            };
            let expected = if channels == 1 { "one number".into() } else { format!("{channels} numbers") };
            let wrong = || bad(format!("`{key}`: expected {expected}, found `{}`", short(text)));
            let values: Vec<f64> = found.ok_or_else(wrong)?.into_iter().map(|v| v / range).collect();
            unit(key, &values).map_err(&bad)?;
            Ok(Some(values))
        };
        let classes = match text("classes").map(classes::from_json) {
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
        let (mean, std) = (per_channel("mean")?, per_channel("std")?);
        Ok(Card {
            preparation: preparation(&text, shape.as_ref(), &config, &mut doubts),
            dataset: text("dataset").map(str::to_owned),
            arch,
            config,
            mean,
            std,
            classes,
            clean_test_accuracy,
            assumed: false,
            bytes: None,
            doubts,
        })
    }

    /// Finds the network's tensors, which may lie behind a wrapper's prefix, and reads the metadata; without an architecture in it, that
    /// one is taken whose tensors these are. What was found out and not said is told.
    ///
    /// # Errors
    /// As [`Card::read`]; [`Error::File`] for tensors that are those of no network or of several.
    pub fn find(weights: Weights) -> Result<(Weights, Card, Vec<String>)> {
        if weights.graph().is_some() {
            let (card, notes) = Self::of_graph(&weights, &Takes::default())?;
            return Ok((weights, card, notes));
        }
        let said = weights.has_metadata("arch");
        let rows: Vec<&Row> = match said {
            true => NETWORKS.iter().filter(|row| weights.metadata("arch").is_ok_and(|arch| arch == row.name)).collect(),
            false => NETWORKS.iter().collect(),
        };
        let fits = |prefix: &str| {
            let shape = |name: &str| weights.shape_of(&format!("{prefix}{name}"));
            rows.iter().find_map(|row| Some((*row, (row.infer)(&shape)?)))
        };
        let mut found: Vec<(String, (&Row, Value))> = match fits("") {
            Some(found) => vec![(String::new(), found)],
            None => {
                prefixes(&weights).into_iter().filter_map(|prefix| Some((prefix.clone(), fits(&prefix)?))).collect()
            }
        };
        if found.len() > 1 {
            let places: Vec<String> = found.iter().take(4).map(|(prefix, _)| format!("`{prefix}`")).collect();
            let problem = format!(
                "{} networks lie in it, under {}: models.strip (--strip) chooses one",
                found.len(),
                places.join(" and ")
            );
            return Err(Error::file(weights.origin(), problem));
        }
        let Some((prefix, (row, config))) = found.pop() else {
            // Tensors that do not fit what the metadata says are told one by one when the network is built.
            return match said {
                true => Self::read(&weights).map(|card| (weights, card, vec![])),
                false => Err(none_fits(&weights)),
            };
        };
        let mut notes = Vec::new();
        let normalisation = Normalisation::find(&weights)?;
        let weights = match &normalisation {
            Some(found) => weights.without(&found.names),
            None => weights,
        };
        let all = weights.names().count();
        let weights = if prefix.is_empty() { weights } else { weights.stripped(&prefix)? };
        if !prefix.is_empty() {
            let left = match all - weights.names().count() {
                0 => String::new(),
                others => format!("; {others} others are not used"),
            };
            notes.push(format!("the network's tensors are those under `{prefix}`{left}"));
        }
        // An architecture alone leaves the rest to the tensors.
        if said && weights.has_metadata("config") {
            let mut card = Self::read(&weights)?;
            notes.extend(card.normalised(&weights, normalisation.as_ref())?);
            return Ok((weights, card, notes));
        }
        if network_shape(row.name, config.clone()).is_err() {
            let problem = format!(
                "expected `arch` and `config` in the metadata or in the config, as models.arch and models.config: these are the tensors of a {}, \
                 but they do not tell all of it; tools/import/export_timm.py NAME OUT.safetensors --weights IN writes it",
                row.name
            );
            return Err(Error::file(weights.origin(), problem));
        }
        notes.push(format!(
            "no `{}` in the metadata; the tensors are those of {} {config}, taken to compute as its author's",
            if said { "config" } else { "arch" },
            row.name
        ));
        let mut card = Self::of(&weights, row.name.into(), config, 1.0)?;
        if card.config["stem"] == "imagenet"
            && card.config["classes"] == 1000
            && card.mean.is_none()
            && card.std.is_none()
        {
            (card.mean, card.std, card.assumed) = (Some(IMAGENET.0.to_vec()), Some(IMAGENET.1.to_vec()), true);
            if card.preparation == Preparation::default() {
                card.preparation = Preparation {
                    size: Some(Prepare::CROP.size),
                    fit: Some(Fit::Crop),
                    filter: Some(Prepare::CROP.filter),
                    crop_pct: Some(CROP_PCT),
                    unknown: vec![],
                };
            }
        }
        notes.extend(card.normalised(&weights, normalisation.as_ref())?);
        Ok((weights, card, notes))
    }

    /// Takes mean and deviation from the checkpoint's own tensors where nothing else says them; says what was done.
    fn normalised(&mut self, weights: &Weights, found: Option<&Normalisation>) -> Result<Option<String>> {
        let Some(found) = found else { return Ok(None) };
        let channels = self.shape().map_err(|problem| Error::file(weights.origin(), problem))?.channels();
        let [mean, std] = found.values(weights, channels)?;
        let names = format!("`{}` and `{}`", found.names[0], found.names[1]);
        let said = |own: &Option<Vec<f64>>| own.is_some() && !self.assumed;
        if !said(&self.mean) && !said(&self.std) {
            let note = format!("mean {mean:?} and std {std:?} are those of its tensors {names}");
            (self.mean, self.std, self.assumed) = (Some(mean), Some(std), false);
            return Ok(Some(note));
        }
        let near = |own: &Option<Vec<f64>>, other: &[f64]| {
            own.as_ref().is_none_or(|own| own.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4))
        };
        if !near(&self.mean, &mean) || !near(&self.std, &std) {
            self.doubts.push(format!("mean and std are not those of the tensors {names}: {mean:?} and {std:?}"));
        }
        Ok(None)
    }

    /// The same of an ONNX graph: how it takes images from `said`, else from its metadata, else as most do.
    ///
    /// # Errors
    /// [`Error::File`] for metadata that cannot be meant, and for a graph that cannot be run.
    pub fn of_graph(weights: &Weights, said: &Takes) -> Result<(Card, Vec<String>)> {
        let bad = |problem: String| Error::file(weights.origin(), problem);
        let Some(model) = weights.graph() else { return Err(bad("expected an ONNX graph".into())) };
        let text = |key: &str| model.metadata.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
        let word = |key: &str| text(key).map(|word| Value::String(word.to_lowercase()));
        let wrong = |key: &str, e: serde_json::Error| bad(format!("metadata: `{key}`: {e}"));
        let own: Option<Layout> =
            word("layout").map(serde_json::from_value).transpose().map_err(|e| wrong("layout", e))?;
        let named = |word: Value| match word.as_str() {
            Some("1") => "grey".into(),
            Some("2") => "two".into(),
            Some("3") => "rgb".into(),
            Some("4" | "rgba") => "four".into(),
            _ => word,
        };
        let channels: Option<Channels> =
            word("channels").map(named).map(serde_json::from_value).transpose().map_err(|e| wrong("channels", e))?;
        let range = match text("input_range").map(|text| text.rsplit("..").next().unwrap_or(text)) {
            _ if said.range.is_some() => said.range.unwrap_or(1.0),
            None | Some("1" | "1.0") => 1.0,
            Some("255" | "255.0") => 255.0,
            Some(other) => {
                return Err(bad(format!("metadata: `input_range`: expected 1 or 255, found `{}`", short(other))));
            }
        };
        let (layout, guessed) = graph::layout_of(model, said.layout.or(own));
        let size = graph::size_of(model, layout);
        let channels = said.channels.or(channels).unwrap_or(match graph::depth_of(model, layout) {
            Some(1) => Channels::Grey,
            Some(2) => Channels::Two,
            Some(4) => Channels::Four,
            _ => Channels::Rgb,
        });
        let found = graph::inspect(model, size.or_else(|| text("input_size").and_then(sides)), (channels, layout))?;
        if found.classes < 2 {
            let way_out = "of the value z before a sigmoid, let the graph end in Concat(-z/2, z/2)";
            return Err(bad(format!(
                "expected a logit for each of two classes or more, found one value per image: {way_out}"
            )));
        }
        let config = graph::Config { classes: found.classes, size: size.or(found.only), channels, layout };
        let config = serde_json::to_value(config).map_err(|e| bad(e.to_string()))?;
        let mut card = Self::of(weights, graph::NAME.into(), config, range)?;
        let mut notes = Vec::from_iter(guessed);
        if let Some([h, w]) = size.filter(|_| model.flat) {
            let (from, order) = match (channels.count(), said.layout.or(own)) {
                (1, _) => ("grey images", String::new()),
                (_, None) => (
                    "images",
                    ", channel by channel as PyTorch flattens them; models.layout = \"nhwc\" (--layout nhwc) takes them pixel by pixel".into(),
                ),
                (_, Some(layout)) => ("images", format!(", {layout}")),
            };
            notes.push(format!("its input has not the axes of images: {from} of {h}x{w} are reshaped to it{order}"));
        }
        if let Some([h, w]) = found.only {
            notes.push(format!("its file fixes no size of images: {h}x{w} is taken, which its weights fit"));
        }
        if found.halved > 0 {
            notes.push(format!(
                "its casts to 16-bit floats ({}) are left out: what lies behind them is computed in float32 and not rounded",
                found.halved
            ));
        }
        if let Some(op) = found.cut {
            notes.push(format!("the graph ends in {op}, which is left out: what goes into it are the logits"));
        }
        if !model.others.is_empty() {
            notes.push(format!("its outputs {} are not used, only the first", model.others.join(", ")));
        }
        if card.mean.is_none() && card.std.is_none() {
            let range_is_said = said.range.is_some() || text("input_range").is_some();
            card.bytes = graph::takes_bytes(model).filter(|_| !range_is_said);
            (card.mean, card.std, card.assumed) = (Some(vec![0.0; 3]), Some(vec![1.0 / range; 3]), true);
        }
        Ok((card, notes))
    }

    /// What is assumed and not said, in words.
    pub fn assumption(&self) -> Option<String> {
        if self.arch == graph::NAME {
            let pixels = match self.std.as_deref() {
                Some([std, ..]) if *std < 1.0 => "times 255",
                _ => "in [0, 1]",
            };
            let text = format!(
                "warning: neither its metadata nor the config say mean and std: pixels {pixels} go in as they are, which is right where \
                 the graph normalises them itself"
            );
            return self.assumed.then_some(text);
        }
        let (mean, std) = IMAGENET;
        let text = || {
            format!(
                "it says no mean and std: those of torchvision's networks for ImageNet are used, {mean:?} and {std:?}"
            )
        };
        self.assumed.then(text)
    }

    /// What is assumed of the other half where mean or std is said alone, in words.
    pub fn half(&self, said: &str, other: &str) -> Option<String> {
        let own = if other == "mean" { &self.mean } else { &self.std };
        let whose = if self.arch == graph::NAME { "pixels as they are" } else { "torchvision's networks for ImageNet" };
        let text = || {
            format!(
                "warning: {said} is said and {other} is not: that of {whose} is used, {own:?}",
                own = own.as_deref().unwrap_or_default()
            )
        };
        self.assumed.then(text)
    }

    /// How many classes the network tells apart, if its form says so.
    pub fn logits(&self) -> Option<usize> {
        self.config["classes"].as_u64().map(|classes| classes as usize)
    }

    /// The network's shape.
    ///
    /// # Errors
    /// None for a card that was read; else what is wrong, in words.
    pub fn shape(&self) -> Result<Box<dyn Shape>, String> {
        network_shape(&self.arch, self.config.clone())
    }
}

/// What stands before a dot in any name, with the dot.
fn prefixes(weights: &Weights) -> BTreeSet<String> {
    weights.names().flat_map(|name| name.match_indices('.').map(|(at, _)| name[..=at].to_owned())).collect()
}

/// That tensors are those of no network, and which has the most like them.
fn none_fits(weights: &Weights) -> Error {
    let digits = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "#");
    let own: BTreeSet<String> = weights.names().map(digits).collect();
    let like = |row: &Row| {
        let shape = (row.parse)(serde_json::from_str(row.small).ok()?).ok()?;
        let small = Weights::seeded();
        shape.build(&Device::host().ok()?, Precision::F32, &small, shape.size().unwrap_or([64, 64])).ok()?;
        let known: BTreeSet<String> = small.wanted().iter().map(|name| digits(name)).collect();
        let has = |name: &String| {
            known.iter().any(|k| name == k || name.ends_with(k) && name[..name.len() - k.len()].ends_with('.'))
        };
        let stranger = weights
            .names()
            .find(|name| !has(&digits(name)) && !name.ends_with("num_batches_tracked"))
            .map(str::to_owned);
        Some((own.iter().filter(|name| has(name)).count(), row.name, stranger))
    };
    let names: Vec<&str> = NETWORKS.iter().map(|row| row.name).collect();
    let hint = match NETWORKS.iter().filter_map(like).max_by_key(|(count, ..)| *count).filter(|(count, ..)| *count > 0)
    {
        _ if weights.names().any(|name| name.contains("input_blocks.")) => {
            "these look like a diffusion network's, for [defense] weights".into()
        }
        None => "none of the names is like one of theirs".to_owned(),
        Some((count, name, None)) => format!("{name} is nearest, with {count} of {} kinds of names", own.len()),
        Some((count, name, Some(stranger))) => {
            format!(
                "{name} is nearest, with {count} of {} kinds of names, but not as in `{}`",
                own.len(),
                short(&stranger)
            )
        }
    };
    let problem = format!(
        "expected `arch` in the metadata or as models.arch, or the tensors of {} under their names: {hint}; models.strip and models.rename change names, \
         tools/import/convert_checkpoint.py and tools/import/export_timm.py write what is missing",
        names.join(", ")
    );
    Error::file(weights.origin(), problem)
}

/// Networks that are built from tensors take RGB of 0 to 1; whether the metadata say otherwise.
fn taken_as_usual<'t>(text: &impl Fn(&str) -> Option<&'t str>) -> Result<(), String> {
    for (key, usual, what) in [
        ("channels", &["rgb", "3"][..], "red, green, blue"),
        ("input_range", &["1", "1.0", "0..1", "0..1.0", "0.0..1.0", "[0, 1]", "[0,1]"], "pixels of 0 to 1"),
        ("layout", &["nchw", "nhwc"], "any layout"),
    ] {
        if let Some(found) = text(key).filter(|text| !usual.contains(&text.to_lowercase().as_str())) {
            let way_out = "an ONNX export may take others (tools/import/export_onnx.py)";
            return Err(format!(
                "`{key}`: expected {what}, as networks of tensors take, found `{}`: {way_out}",
                short(found)
            ));
        }
    }
    Ok(())
}

fn preparation<'a>(
    text: &impl Fn(&str) -> Option<&'a str>,
    shape: &dyn Shape,
    config: &Value,
    doubts: &mut Vec<String>,
) -> Preparation {
    let mut found = Preparation { size: shape.size(), ..Preparation::default() };
    if let Some(said) = text("input_size") {
        match sides(said) {
            Some(size) => found.size = Some(size),
            None => doubts.push(format!("`input_size` is `{}`: expected channels, height and width", short(said))),
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
        assert_eq!((found.mean, found.std), (Some(vec![0.485, 0.456, 0.406]), Some(vec![0.229, 0.224, 0.225])));
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
            ("mean", "[0.5]", "expected 3 numbers, found `[0.5]`"),
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
