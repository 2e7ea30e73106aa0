//! `rampart evaluate`: adversarial images of anybody, scored.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{keeps, say};
use super::emulator::EmulatorArgs;
use super::settings::OfNetworks;
use crate::attack::{Norm, Oracle as _};
use crate::config::{Config, Overrides, Set};
use crate::data::saved::{self, Form, Places, Saved};
use crate::device::{Device, DeviceChoice};
use crate::error::{Error, Result};
use crate::files::write_output;
use crate::models::classifier::Classifier;
use crate::number::{Number, eps_label, plausible};
use crate::report::words::count;
use crate::run::evaluate::{Limit, Scored, score};
use crate::run::progress::note;
use crate::stats::wilson;
use crate::tape::Precision;

/// Score adversarial images that lie in a file, whoever made them: which networks they fool, whether they keep to a budget and to
/// [0, 1], and which of them would be undone by rounding to 8 bits.
///
/// An image counts as a success if the network is right about the clean one and wrong about the attacked one, and if the attacked one
/// keeps to the budget. Without clean images every image counts as right before, and no budget can be checked.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Made by --save of a sweep, or by others: a .npz, .safetensors or .pt (as torch.save wrote it) with attacked \
                        images (x_adv, adv_inputs, ...; without such a name x, images, ...), labels (y, labels, ...) and clean images (clean, \
                        clean_inputs, ...; beside x_adv and its like also x, images, ...), \
                        NCHW or NHWC, floats in [0, 1] or uint8."
)]
pub struct Args {
    /// The images: .npz, .safetensors, .pt; or .npy with --labels
    pub file: PathBuf,

    /// A network, as `rampart attack` takes it; may be repeated
    #[arg(long = "model", value_name = "WEIGHTS", required = true)]
    pub models: Vec<String>,

    /// The clean images, where the file has none: arrays in the same order
    #[arg(long, value_name = "FILE")]
    pub clean: Option<PathBuf>,

    /// The labels, where they have a file of their own
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,

    /// The budget, for pixels in [0, 1], as in 8/255 [default: as the file says]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub eps: Option<Number>,

    /// How the budget is measured [default: as the file says, else linf]
    #[arg(long, value_enum)]
    pub norm: Option<Norm>,

    /// Images at most
    #[arg(long, value_name = "IMAGES")]
    pub limit: Option<usize>,

    /// Where the kernels run; auto takes CUDA where there is a GPU
    #[arg(long, value_enum)]
    pub device: Option<DeviceChoice>,

    /// Number format of weights and activations
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,

    /// Images per batch: changes speed and memory, never a result
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,

    /// Writes a line per network and image
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,

    #[command(flatten)]
    pub networks: OfNetworks,

    #[command(flatten)]
    pub emulator: EmulatorArgs,
}

/// # Errors
/// [`Error::Usage`] for flags that contradict each other; what reading the file and the networks returns.
pub fn run(args: &Args) -> Result<()> {
    let config = args.config()?;
    if let Some(path) = &args.csv {
        let inputs = [&args.clean, &args.labels].into_iter().flatten().chain([&args.file]).cloned();
        let networks = config.models.iter().map(|model| PathBuf::from(&model.weights));
        keeps(path, "--csv", inputs.chain(networks))?;
    }
    args.emulator.apply(config.device)?;
    if args.limit == Some(0) {
        return Err(Error::usage("--limit", "expected at least 1, found 0"));
    }
    let places = Places { attacked: &args.file, clean: args.clean.as_deref(), labels: args.labels.as_deref() };
    let saved = saved::read(places, args.limit).map_err(|e| super::common::renamed(e, "labels", "--labels"))?;
    pixels(&args.file, &saved)?;
    let limit = args.budget(&saved)?;
    let device = Device::open(config.device)?;
    let mut all = Vec::new();
    for model in &config.models {
        let checkpoint = model.open()?;
        checkpoint.notes.iter().for_each(note);
        let [height, width, _] = saved.shape;
        let size = [height, width];
        let net = Classifier::described(&device, config.precision, &checkpoint.weights, &checkpoint.card, size)?;
        if let [.., 1] = net.image_shape() {
            note(format!(
                "{}: images are taken in one channel: grey ones as they are, colours as ITU-R 601-2 luma",
                model.name
            ));
        }
        let scored = score(&net, &saved, limit, config.batch).map_err(|e| match e {
            Error::Failed(problem) => {
                Error::file(&args.file, format!("{problem} of {} ({} classes)", model.name, net.classes()))
            }
            other => other,
        })?;
        all.push((model.name.clone(), scored));
    }
    if let Some(path) = &args.csv {
        write_output(path, &csv(&all)?)?;
    }
    say(&told(&args.file, &saved, limit, &all))
}

impl Args {
    /// The networks as a config says them.
    fn config(&self) -> Result<Config> {
        let mut set = self.networks.sets()?;
        set.push(Set::flag("FILE", "dataset.kind", "arrays")?);
        set.push(Set::flag("FILE", "dataset.path", &self.file.display().to_string())?);
        let mut names: Vec<String> = Vec::new();
        for (number, weights) in self.models.iter().enumerate() {
            let of =
                |key: &str, text: &str| Ok::<_, Error>(Set { model: Some(number), ..Set::flag("--model", key, text)? });
            let stem = super::attack::name(weights);
            let same = names.iter().filter(|name| **name == stem).count();
            let name = if same == 0 { stem.clone() } else { format!("{stem}-{}", same + 1) };
            set.push(of("models.weights", weights)?);
            set.push(of("models.name", &name)?);
            names.push(stem);
        }
        let overrides = Overrides {
            device: self.device,
            precision: self.precision,
            batch: self.batch,
            set,
            ..Overrides::default()
        };
        Config::load(None, &overrides)
    }

    /// What the images have to keep to, if that is said anywhere.
    fn budget(&self, saved: &Saved) -> Result<Option<Limit>> {
        let own = saved.about.norm.as_deref().and_then(|text| <Norm as clap::ValueEnum>::from_str(text, true).ok());
        let norm = self.norm.or(own).unwrap_or(Norm::Linf);
        if let (Some(of_file), None, true) = (own, &self.eps, own != Some(norm)) {
            let problem =
                format!("the file's budget is one in {of_file}: expected --eps beside it, found {norm} alone");
            return Err(Error::usage("--norm", problem));
        }
        let Some(eps) = self.eps.map(|eps| eps.value).or(saved.about.eps) else {
            return match self.norm {
                Some(_) => Err(Error::usage("--norm", "belongs to a budget, and neither the file nor --eps has one")),
                None => Ok(None),
            };
        };
        if let Some(number) = &self.eps {
            plausible(std::slice::from_ref(number), f64::INFINITY).map_err(|problem| Error::usage("--eps", problem))?;
        }
        let flag = if self.eps.is_some() { "--eps".to_owned() } else { format!("{}: eps", self.file.display()) };
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::usage(flag, format!("expected a number of at least 0, found {eps}")));
        }
        if !saved.has_clean() {
            let problem = "a budget needs the clean images: expected an array `clean` in the file, or --clean FILE";
            return Err(Error::usage(flag, problem));
        }
        Ok(Some(Limit { norm, eps }))
    }
}

/// How far a value of an attacked image may lie outside [0, 1] before it is none of a pixel.
const NEAR: f32 = 0.1;

/// Refuses images most of which are no pixels: grey levels, or normalised values.
fn pixels(file: &Path, saved: &Saved) -> Result<()> {
    let beyond = |v: &f32| *v < -NEAR || *v > 1.0 + NEAR;
    let mut strange: Vec<f32> = Vec::new();
    for i in 0..if saved.eight_bit { 0 } else { saved.labels.len() } {
        let image = saved.images(Form::Attacked, i..i + 1, saved.shape[2])?;
        strange.extend(image.into_iter().flatten().find(beyond));
    }
    match strange.first() {
        Some(value) if 2 * strange.len() > saved.labels.len() => Err(Error::file(
            file,
            format!(
                "images: expected floats in [0, 1], found {} of {} with others, as {value}: divide grey levels by 255 or save them as uint8, and \
                 undo any normalisation",
                strange.len(),
                saved.labels.len()
            ),
        )),
        _ => Ok(()),
    }
}

fn share(part: usize, all: usize) -> String {
    if all == 0 {
        return "none".into();
    }
    let interval = wilson(part as u64, all as u64);
    let percent = 100.0 * part as f64 / all as f64;
    format!("{part} of {all}: {percent:.1} % [{:.1}, {:.1}]", 100.0 * interval.lo, 100.0 * interval.hi)
}

/// What is said of every network.
fn told(file: &Path, saved: &Saved, limit: Option<Limit>, all: &[(String, Vec<Scored>)]) -> String {
    let form = if saved.eight_bit { "8-bit values" } else { "floats" };
    let (n, [h, w, _]) = (saved.labels.len(), saved.shape);
    let with = if saved.has_clean() { "with" } else { "without" };
    let mut lines = vec![format!("{}: {n} images of {h}x{w}, {form}, {with} clean images", file.display())];
    if !saved.taken.is_empty() {
        lines.push(saved.taken.clone());
    }
    let known: Vec<String> = [&saved.about.attack, &saved.about.model, &saved.about.dataset]
        .into_iter()
        .zip(["attack", "made on", "images of"])
        .filter_map(|(value, what)| value.as_ref().map(|value| format!("{what} {value}")))
        .collect();
    if !known.is_empty() {
        lines.push(format!("as the file says: {}", known.join(", ")));
    }
    lines.push(match limit {
        Some(Limit { norm, eps }) => format!("budget: {norm} {}", eps_label(eps)),
        None => "budget: none said (--eps); what counts is [0, 1] alone".into(),
    });
    if !saved.has_clean() {
        lines.push("without clean images a success is any wrong prediction, also of what was wrong before".into());
    }
    // The same for every network.
    if let Some((_, scored)) = all.first() {
        if saved.has_clean() {
            for (name, of) in [("linf", (|s| s.budget.linf) as fn(&Scored) -> f32), ("l2", |s| s.budget.l2)] {
                // NaN stays.
                let most = scored.iter().map(of).fold(0.0f32, |a, b| if a.is_nan() || a > b { a } else { b });
                let mean = scored.iter().map(|s| f64::from(of(s))).sum::<f64>() / scored.len() as f64;
                lines.push(format!("{name}: mean {mean:.6}, largest {most:.6}"));
            }
        }
        let outside = scored.iter().filter(|s| s.outside()).count();
        let mut over = 0;
        if let Some(Limit { norm, eps }) = limit {
            over = scored.iter().filter(|s| s.budget.exceeds(norm, eps)).count();
            lines.push(format!("over the budget: {over} of {n}"));
        }
        lines.push(format!("outside [0, 1]: {outside} of {n}"));
        let broken: Vec<String> = scored.iter().filter(|s| s.is_broken()).map(|s| s.id.to_string()).collect();
        if let Some(first) = broken.first() {
            lines.push(format!(
                "warning: {} with values that are no numbers, the first is {first}",
                count(broken.len(), "image")
            ));
        }
        if over + outside > 0 {
            lines.push("warning: what breaks the budget or [0, 1] counts as no success".into());
        }
    }
    for (name, scored) in all {
        let count = |of: fn(&Scored) -> bool| scored.iter().filter(|s| of(s)).count();
        lines.push(format!("\n{name}"));
        let right = count(Scored::right_clean);
        if saved.has_clean() {
            lines.push(format!("  right when clean     {}", share(right, n)));
        }
        let success = count(Scored::success);
        lines.push(format!("  right when attacked  {}", share(right - success, n)));
        lines.push(format!("  success              {}", share(success, right)));
        if !saved.eight_bit {
            let undone = count(Scored::undone);
            lines.push(format!("  undone by 8 bits     {}", share(undone, success)));
            if limit.is_some() {
                let out = count(Scored::pushed_out);
                lines.push(format!("  over budget by them  {}", share(out, success)));
            }
        }
        let made_here = saved.about.sigma.is_none() && saved.about.model.as_ref().is_none_or(|own| own == name);
        if let Some(known) = saved.predictions.as_ref().filter(|_| made_here && all.len() == 1) {
            let same = scored.iter().zip(known).filter(|(s, known)| s.prediction == **known).count();
            lines.push(format!("  predicted as the file says  {same} of {n}"));
        }
    }
    lines.join("\n")
}

fn csv(all: &[(String, Vec<Scored>)]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::error::Error| Error::Failed(format!("--csv: {e}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    let columns = [
        "model",
        "id",
        "label",
        "clean_prediction",
        "prediction",
        "prediction_8bit",
        "linf",
        "l2",
        "low",
        "high",
        "within",
        "success",
        "undone_by_8bit",
    ];
    csv.write_record(columns).map_err(|e| failed(&e))?;
    for (name, scored) in all {
        for s in scored {
            let known = |v: f32| if v.is_nan() { String::new() } else { v.to_string() };
            let row = [
                name.clone(),
                s.id.to_string(),
                s.label.to_string(),
                s.clean_prediction.map_or(String::new(), |p| p.to_string()),
                s.prediction.to_string(),
                s.rounded_prediction.to_string(),
                known(s.budget.linf),
                known(s.budget.l2),
                known(s.budget.low),
                known(s.budget.high),
                s.within.to_string(),
                s.success().to_string(),
                s.undone().to_string(),
            ];
            csv.write_record(row).map_err(|e| failed(&e))?;
        }
    }
    csv.into_inner().map_err(|e| failed(e.error()))
}
