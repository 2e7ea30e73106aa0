//! What is known before an image is read: the checkpoints' own words, set against what they are run on.

use std::fmt::Display;
use std::path::Path;

use super::progress::note;
use crate::config::{Checkpoint, Config, open};
use crate::data::classes::{Classes, place, plain};
use crate::data::prepare::Fit;
use crate::data::{Dataset, Named, SOURCES, Said};
use crate::defense::Denoiser;
use crate::defense::suite::SUITE;
use crate::error::{Error, Result};
use crate::models::card::{Agreement, Preparation, agreement};

/// Classes whose names a note shows.
const SHOWN: usize = 20;

/// The checkpoints of an experiment, opened.
pub(super) struct Intake {
    /// With the name of the model.
    models: Vec<(String, Checkpoint)>,
    /// What the denoiser was trained on.
    denoiser: Option<String>,
}

impl Intake {
    /// Opens every checkpoint; what they say and the config does not is in `config` from here on.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing, no checkpoint, or does not say what is needed; [`Error::Usage`] where the config has
    /// to decide.
    pub fn open(config: &mut Config) -> Result<Intake> {
        let mut models = Vec::new();
        for model in &mut config.models {
            let checkpoint = model.open()?;
            checkpoint.notes.iter().for_each(note);
            let own = checkpoint.card.clean_test_accuracy;
            if let (Some(said), Some(own)) =
                (model.clean_test_accuracy, own.filter(|_| own != model.clean_test_accuracy))
            {
                note(format!(
                    "{}: the checkpoint has clean_test_accuracy {own}; the config's {said} is used",
                    model.name
                ));
            }
            if checkpoint.card.assumed {
                (model.mean, model.std) = (checkpoint.card.mean.clone(), checkpoint.card.std.clone());
            }
            model.clean_test_accuracy = model.clean_test_accuracy.or(own);
            models.push((model.name.clone(), checkpoint));
        }
        let denoiser = match config.defense.denoiser() {
            Some(name) => {
                let weights = open(name)?;
                Denoiser::described(&weights)?;
                weights.metadata("dataset").ok().map(str::to_owned)
            }
            None => None,
        };
        let intake = Intake { models, denoiser };
        intake.prepare(config)?;
        intake.order(config)?;
        Ok(intake)
    }

    fn preparations(&self) -> impl Iterator<Item = (&str, &Preparation)> {
        self.models.iter().map(|(name, checkpoint)| (name.as_str(), &checkpoint.card.preparation))
    }

    /// What all networks that say something of a field say alike, if the config leaves the field open.
    fn one<T: PartialEq>(
        &self,
        config: &Config,
        field: &'static str,
        of: impl Fn(&Preparation) -> Option<T>,
        shown: impl Fn(&T) -> String,
    ) -> Result<Option<T>> {
        if !config.dataset.is_open(field) {
            return Ok(None);
        }
        let said: Vec<(&str, T)> = self.preparations().filter_map(|(name, own)| Some((name, of(own)?))).collect();
        if let Some(pair) = said.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            let [(a, first), (b, second)] = pair else { return Ok(None) };
            let problem = format!(
                "{a} was made for {} and {b} for {}: expected one of them in the config, for all models",
                shown(first),
                shown(second)
            );
            return Err(Error::usage(format!("dataset.{field}"), problem));
        }
        Ok(said.into_iter().next().map(|(_, value)| value))
    }

    /// Of images that have one of a few sizes, and are not resized, the one that the networks take, where the config leaves it open.
    fn size(&self, config: &mut Config) -> Result<()> {
        let size = self.one(config, "size", |p| p.size, |[h, w]| format!("{h}x{w}"))?;
        let Some([h, w]) = size.filter(|_| config.dataset.said.size.is_none()) else { return Ok(()) };
        let said = Said { size: Some([h, w]), ..config.dataset.said.clone() };
        // That it is none of them is told beside the images.
        if config.dataset.prepare_as(said).is_ok() && config.dataset.said.size.is_some() {
            note(format!("images are taken as {h}x{w}, which the networks were made for"));
        }
        Ok(())
    }

    /// Values per pixel that all networks take.
    ///
    /// # Errors
    /// [`Error::Usage`] where two of them differ.
    pub fn channels(&self) -> Result<usize> {
        let mut all = Vec::new();
        for (name, Checkpoint { weights, card, .. }) in &self.models {
            let shape = card.shape().map_err(|problem| Error::file(weights.origin(), problem))?;
            all.push((name, shape.channels()));
        }
        if let Some([(a, first), (b, second)]) = all.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            let problem =
                format!("{a} takes {first} channels and {b} {second}: expected one of them, in runs of their own");
            return Err(Error::usage("models", problem));
        }
        Ok(all.first().map_or(3, |(_, channels)| *channels))
    }

    /// Size and resize as the networks were tested, where the config leaves them open.
    fn prepare(&self, config: &mut Config) -> Result<()> {
        let row = config.dataset.row()?;
        if !row.takes.contains(&"fit") {
            return if row.takes.contains(&"size") { self.size(config) } else { Ok(()) };
        }
        for (name, own) in self.preparations() {
            if let Some((field, what)) = own.unknown.iter().find(|(field, _)| config.dataset.is_open(field)) {
                let problem = format!(
                    "{name} was tested with {what}, which is not to be had here: expected the config to say what to use"
                );
                return Err(Error::usage(format!("dataset.{field}"), problem));
            }
        }
        let text = |value: &dyn Display| value.to_string();
        let size = self.one(config, "size", |p| p.size, |[h, w]| format!("{h}x{w}"))?;
        let fit = self.one(config, "fit", |p| p.fit, |fit| text(fit))?;
        let filter = self.one(config, "filter", |p| p.filter, |filter| text(filter))?;
        // A format whose images have one size already resizes them only to one that is said.
        if config.dataset.said.size.is_none() && size.is_none() {
            return Ok(());
        }
        let dataset = &mut config.dataset;
        let kept = |field: &str| !dataset.is_open(field);
        let mut said = dataset.said.clone();
        said.size = if kept("size") { said.size } else { size };
        said.fit = if kept("fit") { said.fit } else { fit };
        said.filter = if kept("filter") { said.filter } else { filter };
        if !kept("shorter") {
            said.shorter = None;
            if let (Some(Fit::Crop), Some(size)) = (said.fit, said.size) {
                said.shorter =
                    self.one(config, "shorter", |p| p.shorter(size), |side| format!("a shorter side of {side}"))?;
            }
        }
        let mut settled = said.clone();
        row.source(&mut settled)?;
        // The images of a folder have one size unless something says how they get it.
        if settled.fit.is_none() {
            return Ok(());
        }
        let dataset = &mut config.dataset;
        dataset.prepare_as(said)?;
        let whole = |fit: Option<Fit>, shorter: Option<usize>| match (fit, shorter) {
            (Some(Fit::Squash), _) => ", squashed".to_owned(),
            (Some(Fit::Crop), Some(side)) => format!(", the centre of {side}"),
            (Some(Fit::Crop), None) => ", cropped".to_owned(),
            (None, _) => String::new(),
        };
        let used = &dataset.said;
        let [h, w] = used.size.unwrap_or_default();
        let filter = used.filter.map_or(String::new(), |filter| format!(", {filter}"));
        let shown = format!("{h}x{w}{}{filter}", whole(used.fit, used.shorter));
        let decided = ["size", "fit", "filter"].into_iter().any(|field| dataset.is_open(field));
        if decided {
            let of: Vec<&str> =
                self.preparations().filter(|(_, p)| **p != Preparation::default()).map(|(name, _)| name).collect();
            // A graph that fixes the size of its images says nothing of how they come to it.
            let prepared =
                self.preparations().any(|(_, p)| *p != Preparation { size: p.size, ..Preparation::default() });
            let why = match of.is_empty() {
                true => "no checkpoint says otherwise".to_owned(),
                false if !prepared => {
                    format!("the size is that of {}; of all else no checkpoint says otherwise", of.join(" and "))
                }
                false if self.models.iter().all(|(_, c)| c.card.assumed) => {
                    "as torchvision tests such networks".to_owned()
                }
                false => format!("as {} was tested, where the config leaves it open", of.join(" and ")),
            };
            note(format!("images become {shown}: {why}"));
        }
        for (name, own) in self.preparations() {
            let side =
                own.size.zip(own.fit).filter(|(_, fit)| *fit == Fit::Crop).and_then(|(size, _)| own.shorter(size));
            let differs = |other: bool, text: String| other.then_some(text);
            let parts = [
                own.size.and_then(|size| differs(Some(size) != used.size, format!("{}x{}", size[0], size[1]))),
                own.fit.and_then(|fit| differs(Some(fit) != used.fit, format!("fit {fit}"))),
                side.filter(|_| own.size == used.size && own.fit == used.fit)
                    .and_then(|side| differs(Some(side) != used.shorter, format!("a shorter side of {side}"))),
                own.filter.and_then(|filter| differs(Some(filter) != used.filter, text(&filter))),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            if !parts.is_empty() {
                note(format!(
                    "warning: {name} was tested with {}; the config says otherwise: {shown}",
                    parts.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The number of each class, where the format leaves it open.
    fn order(&self, config: &mut Config) -> Result<()> {
        let source = config.dataset.source()?;
        let named =
            self.models.iter().find_map(|(name, c)| Some(Named { who: name, names: c.card.classes.as_deref()? }));
        let imagenet = Classes::imagenet();
        let usual = Named { who: "ImageNet-1k", names: imagenet.names() };
        // A network of a thousand classes that names none is nearly always of these, if the folders are called so.
        let thousand = named.is_none() && self.models.iter().all(|(_, c)| c.card.logits() == Some(imagenet.len()));
        let found = match thousand.then(|| source.order(Some(usual))) {
            Some(Ok(order)) => order,
            Some(Err(problem)) => {
                let own = source.order(named)?;
                let names = own.as_ref().map_or(&[][..], |order| &order.names);
                let known = names.iter().filter(|name| place(name, imagenet.names()).is_some()).count();
                // Most of them are: another is misspelt, and sorting would number them all wrongly.
                if 2 * known > names.len() {
                    return Err(problem);
                }
                own
            }
            None => source.order(named)?,
        };
        let Some(order) = found else {
            // Labels that are numbers are those of the network.
            let dataset = &mut config.dataset;
            if let Some(&(_, Checkpoint { ref card, .. })) = self.models.first()
                && let Some(logits) = card.logits()
                && dataset.said.classes.is_none()
                && dataset.row()?.takes.contains(&"class_order")
            {
                dataset.said.class_order = Some((0..logits).map(|class| class.to_string()).collect());
            }
            return Ok(());
        };
        let from = config.dataset.said.path.as_deref().map_or(String::new(), |path| format!(" of {}", path.display()));
        for (_, Checkpoint { weights, card, .. }) in &self.models {
            if let Some(logits) = card.logits().filter(|logits| *logits != order.names.len()) {
                return Err(other_count(weights.origin(), logits, order.names.len(), &from));
            }
        }
        let shown: Vec<String> =
            order.names.iter().take(SHOWN).enumerate().map(|(i, name)| format!("{i} {name}")).collect();
        let more = match order.names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more, all of them in config.toml"),
        };
        note(format!("classes, {}: {}{more}", order.why, shown.join(", ")));
        config.dataset.said.class_order = Some(order.names);
        Ok(())
    }

    /// Sets the checkpoints' classes, data and size against the images.
    ///
    /// # Errors
    /// [`Error::File`] for a network of other classes, or of the same in another order.
    pub fn compare(&self, config: &Config, dataset: &Dataset) -> Result<()> {
        let others = config.dataset.source()?.ids()?.unwrap_or_default();
        let numbers = dataset.classes.iter().all(|name| name.bytes().all(|b| b.is_ascii_digit()));
        // A folder of one's own may be called anything.
        let set = |name: &str| SOURCES.iter().any(|row| row.is_published() && plain(row.name) == plain(name));
        let known = set(&dataset.name) && config.dataset.said.classes.is_none();
        for (name, Checkpoint { weights, card, .. }) in &self.models {
            if let Some(logits) = card.logits().filter(|logits| *logits != dataset.classes.len()) {
                let from = format!(" of {}", dataset.name);
                return Err(other_count(weights.origin(), logits, dataset.classes.len(), &from));
            }
            check_classes(config, dataset.classes.len())?;
            let mut same = false;
            if let Some(said) = &card.classes {
                match agreement(said, &dataset.classes, &others) {
                    Agreement::Same => same = true,
                    Agreement::Doubtful(why) => note(format!("warning: {name}: {why}: taken for the same")),
                    // Numbers and a list of the user's own are no names to compare.
                    Agreement::Other(why)
                        if said.len() == dataset.classes.len()
                            && (numbers || config.dataset.said.classes.is_some()) =>
                    {
                        note(format!("warning: {name}: {why}: taken for the same, in this order"));
                    }
                    Agreement::Other(why) | Agreement::Order(why) => {
                        return Err(Error::file(
                            weights.origin(),
                            format!("classes: not those of {}: {why}", dataset.name),
                        ));
                    }
                }
            }
            if let Some(own) = card.dataset.as_deref().filter(|own| known && !alike(own, &dataset.name) && !same) {
                let problem = format!("it was trained on {own}, and these images are {}", dataset.name);
                // Another of the sets that this program knows, and nothing says that the two share their classes.
                if card.classes.is_none() && SOURCES.iter().any(|row| alike(row.name, own)) {
                    let way_out = "if its classes are theirs, dataset.classes (--classes FILE) lists them";
                    return Err(Error::file(weights.origin(), format!("dataset: {problem}: {way_out}")));
                }
                note(format!("warning: {name}: {problem}"));
            }
            let images = [dataset.height, dataset.width];
            if config.dataset.said.fit.is_none()
                && let Some([h, w]) = card.preparation.size.filter(|size| *size != images)
            {
                let [ih, iw] = images;
                let how = match config.dataset.row()?.takes.contains(&"fit") {
                    true => "nothing says to resize them (dataset.fit)",
                    false => "this kind resizes none",
                };
                note(format!("warning: {name} was tested at {h}x{w}; these images are {ih}x{iw}, and {how}"));
            }
        }
        for (name, checkpoint) in &self.models {
            let (Some(own), Some(trained)) = (self.denoiser.as_deref(), checkpoint.card.dataset.as_deref()) else {
                continue;
            };
            if !alike(own, trained) {
                note(format!("warning: the denoiser was trained on {own}, and {name} on {trained}"));
            }
        }
        if let Some(own) = self.denoiser.as_deref().filter(|own| known && !alike(own, &dataset.name)) {
            note(format!("warning: the denoiser was trained on {own}, and these images are {}", dataset.name));
        }
        Ok(())
    }
}

/// Refuses attacks that need more classes than there are.
pub(super) fn check_classes(config: &Config, classes: usize) -> Result<()> {
    for spec in [&config.attack].into_iter().chain(&config.attack.beside) {
        spec.check_stages(classes)?;
    }
    for row in SUITE.iter().filter(|_| config.defense.suite) {
        let spec = row.spec(config.attack.norm, &config.attack.eps, config.defense.steps())?;
        spec.check_stages(classes).map_err(|e| match e {
            Error::Usage { problem, .. } => Error::usage("defense.suite", format!("{}: {problem}", row.name)),
            other => other,
        })?;
    }
    Ok(())
}

/// That a network and images have other numbers of classes.
pub(super) fn other_count(network: &Path, logits: usize, classes: usize, from: &str) -> Error {
    let problem = format!(
        "the network has {logits} classes, the images{from} {classes}: dataset.classes takes a file that lists the network's classes, one \
         per line in its order; some may have no images"
    );
    Error::file(network, problem)
}

/// Whether two names of datasets may mean the same one: `imagenet`, `ImageNet-1k`.
fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (plain(a), plain(b));
    let known = |name: &str| SOURCES.iter().any(|row| plain(row.name) == name);
    // CIFAR-10 is not the beginning of CIFAR-100.
    if known(&a) && known(&b) {
        return a == b;
    }
    a.starts_with(&b) || b.starts_with(&a)
}
