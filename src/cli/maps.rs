//! `rampart maps`: what the layers of a classifier make of images of one's own, clean, attacked and denoised.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{classifier, open, renamed, say, sides, values};
use super::denoise::{but, files, none};
use super::emulator::EmulatorArgs;
use crate::attack::{Batch, Oracle as _, Purpose, Said, Stream};
use crate::data::classes::Classes;
use crate::data::grey::{fits, luma};
use crate::data::prepare::{Fit, Prepare};
use crate::data::{demo, resize::Rgb8, to_bytes, unit};
use crate::defense::Denoiser;
use crate::defense::denoise::Level;
use crate::device::{DType, Device, DeviceChoice};
use crate::draw::heat;
use crate::draw::html::render;
use crate::files::write_whole;
use crate::models::classifier::Classifier;
use crate::number::Number;
use crate::number::eps_label;
use crate::ops::resize::Filter;
use crate::report::maps::{self, CAPTION, Grid};
use crate::report::page::{Fact, Maps, MapsOfImage, MapsPage, Says, Shown};
use crate::report::words::count;
use crate::stats::{softmax, top_class};
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Images, or folders of them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The classifier: a safetensors file, or demo:NAME
    #[arg(long, value_name = "FILE|demo:NAME", default_value = "demo:resnet50-cbam-w16")]
    weights: String,
    /// Modules by their names, as in relu,layer2.3,layer1.0.cbam.spatial_gate,stages.2.blocks.0.attn.weights; by default the end of each
    /// stage, and its gates or its attention rolled out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    layers: Option<Vec<String>>,
    /// How a network of one size gets images of any (CoAtNet; the others take every image as it is): all of it squashed, or the
    /// centre of it, its shorter side resized; bicubic as in Pillow [default: squash]
    #[arg(long, value_enum)]
    fit: Option<Fit>,
    /// Budgets of the attack (PGD, linf) in pixel units of [0, 1], as in 0.01,8/255
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "0.005,0.01,0.02,0.03,0.06",
        allow_hyphen_values = true
    )]
    eps: Vec<Number>,
    /// Noise of the defence in pixel units; the image attacked at the middle budget is denoised
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    sigma: Option<Vec<Number>>,
    /// The denoiser of --sigma
    #[arg(long, value_name = "FILE", default_value = "demo:unet-small", requires = "sigma")]
    denoiser: String,
    /// Height x width that the denoiser works at, where not at the image's; resized there and back, bicubic with antialias
    #[arg(long, value_name = "HxW", requires = "sigma")]
    denoiser_size: Option<String>,
    /// Take budgets and noise as they stand, however unusual
    #[arg(long)]
    as_written: bool,
    /// Steps of the attack
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: u32,
    /// Folder for maps.html and maps.csv
    #[arg(long, value_name = "DIR", default_value = "maps")]
    out: PathBuf,
    /// Seed of the start and of the noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Where the kernels run; auto takes CUDA where there is a GPU
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    emulator: EmulatorArgs,
}

/// # Errors
/// [`Error::Usage`] for bad flags and unknown layers, [`Error::File`] for a file that is no image or of a size the networks cannot
/// take, [`Error::Io`].
pub fn run(args: &Args) -> Result<()> {
    let eps = values(&args.eps, "--eps", 1.0, args.as_written)?;
    let sigma = values(args.sigma.as_deref().unwrap_or_default(), "--sigma", 1.0, args.as_written)?;
    if let Some(bad) = eps.iter().find(|e| !(**e > 0.0 && **e <= 1.0)) {
        return Err(Error::usage("--eps", format!("expected numbers above 0 and at most 1, found {bad}")));
    }
    // What the attack refuses is said before anything is loaded.
    Said { steps: Some(args.steps), ..Said::default() }.decided().map_err(of_flags)?;
    args.emulator.apply(args.device)?;
    let (files, mut left_out) = files(&args.images)?;
    let device = Device::open(args.device)?;
    let (weights, card) = classifier(&args.weights)?;
    let works_at = args.denoiser_size.as_deref().map(|text| sides("--denoiser-size", text)).transpose()?;
    let mut defence = match sigma.is_empty() {
        true => None,
        false => {
            let weights = open("--denoiser", &args.denoiser, &[demo::DENOISER])?;
            let denoiser = Denoiser::load(&device, args.precision, &weights)?;
            let levels = sigma.iter().map(|&s| denoiser.level(s).map_err(of_flags)).collect::<Result<Vec<_>>>()?;
            Some((denoiser, levels))
        }
    };
    let shape = card.shape().map_err(|problem| Error::file(weights.origin(), problem))?;
    if args.fit.is_some() && shape.size().is_none() {
        return Err(Error::usage(
            "--fit",
            "belongs to networks of one size, and this one takes images of any: leave it out",
        ));
    }
    let prepare = shape.size().map(|size| Prepare::at(size, args.fit.unwrap_or(Fit::Squash)));
    let mut known: Option<([usize; 2], Classifier)> = None;
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("maps.csv: {e}"));
    let (mut views, mut csv) = (Vec::new(), csv::Writer::from_writer(Vec::new()));
    csv.write_record(["image", "module", "state", "shift"]).map_err(|e| failed(&e))?;
    for image in &files {
        let (file, name) = (&image.file, &image.name);
        let Some(image) = image.read(&mut left_out)? else { continue };
        let image = if let Some(prepare) = prepare { prepare.apply(&image) } else { image };
        let Rgb8 { height: h, width: w, pixels: bytes } = image;
        let net = match known.take() {
            Some((size, net)) if size == [h, w] => net,
            _ => Classifier::described(&device, args.precision, &weights, &card, [h, w])?,
        };
        let pixels: Vec<f32> = bytes.iter().copied().map(unit).collect();
        let grey = fits(shape.channels(), 3).map_err(|problem| Error::file(weights.origin(), problem))?;
        let pixels = if grey { luma(&pixels) } else { pixels };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if let Some((denoiser, levels)) = defence.take() {
            let size = works_at.unwrap_or([h, w]);
            denoiser.takes_channels(shape.channels()).map_err(|problem| Error::usage("--sigma", problem))?;
            denoiser
                .takes(size)
                .map_err(|problem| Error::file(file, format!("denoiser: {problem}; --denoiser-size resizes them")))?;
            defence = Some((denoiser.at(size, [h, w], Filter::Bicubic)?, levels));
        }
        let one =
            One { args, net: &net, classes: card.classes.as_deref(), pixels, size: [h, w], id: u64::from(crc.sum()) };
        let modules = args.layers.clone().unwrap_or_else(|| maps::modules(&net));
        // A name that is none is found before the attacks.
        net.probe(&one.tensor(&one.pixels)?, &modules).map_err(of_flags)?;
        let states = one.states(&eps, defence.as_ref().map(|(d, levels)| (d, levels.as_slice())))?;
        let grid = maps::grid(&net, &modules, &states, [h, w])?;
        for row in &grid.rows {
            for (column, cell) in grid.columns.iter().zip(&row.cells) {
                let shift = format!("{:.6}", cell.shift);
                csv.write_record([name, &row.module, column, &shift]).map_err(|e| failed(&e))?;
            }
        }
        views.push(one.view(name, &states, grid)?);
        known = Some(([h, w], net));
    }
    let done = views.len();
    if done == 0 {
        return Err(none(&args.images));
    }
    let attack = format!(
        "PGD L∞, {} steps of 2.5 ε / {0}, away from the class predicted for the clean image; seed {}",
        args.steps, args.seed
    );
    let shift =
        "|f(x′) − f(x)| / |f(x)| in L2 over all values of the module, against the clean image; n = 1 image each";
    let page = MapsPage {
        title: "Feature maps and attention".into(),
        what: vec![
            Fact::new("model", &args.weights),
            Fact::new("attack", attack),
            Fact::new("shift", shift),
            Fact::new("✗", "predicted to be another class than the clean image"),
            Fact::new("colours", CAPTION),
        ],
        images: views,
    };
    let html = render(&page)?;
    write_whole(&args.out.join("maps.html"), html.as_bytes())?;
    write_whole(&args.out.join("maps.csv"), &csv.into_inner().map_err(|e| failed(&e))?)?;
    say(&format!("maps of {}: maps.html and maps.csv in {}{}", count(done, "image"), args.out.display(), but(left_out)))
}

fn of_flags(error: Error) -> Error {
    let flags = [("attack.steps", "--steps"), ("layers", "--layers"), ("defense.sigma", "--sigma")];
    flags.into_iter().fold(error, |error, (field, flag)| renamed(error, field, flag))
}

/// One image of the user's.
struct One<'a> {
    args: &'a Args,
    net: &'a Classifier,
    classes: Option<&'a [String]>,
    pixels: Vec<f32>,
    size: [usize; 2],
    id: u64,
}

impl One<'_> {
    fn tensor(&self, pixels: &[f32]) -> Result<Tensor> {
        let [h, w, c] = self.net.image_shape();
        Tensor::from_f32(self.net.device(), &[1, h, w, c], DType::F32, pixels)
    }

    /// The class of highest logit and its softmax.
    fn says(&self, pixels: &[f32]) -> Result<(u32, f32)> {
        let z = self.net.logits(&self.tensor(pixels)?)?.to_f32(self.net.device())?;
        let top = top_class(&z);
        Ok((top as u32, softmax(&z)[top] as f32))
    }

    /// Clean, attacked at each budget, and the middle one denoised at each sigma.
    fn states(&self, eps: &[f64], defence: Option<(&Denoiser, &[Level])>) -> Result<Vec<(String, Vec<f32>)>> {
        let label = [self.says(&self.pixels)?.0];
        let images = self.tensor(&self.pixels)?;
        let said = Said { steps: Some(self.args.steps), ..Said::default() };
        let attack = said.decided().and_then(|spec| spec.build()).map_err(of_flags)?;
        let mut states = vec![("clean".to_owned(), self.pixels.clone())];
        for &eps in eps {
            let batch = Batch { images: &images, labels: &label, ids: &[self.id] };
            let found = attack.run(self.net, batch, eps, self.args.seed)?;
            states.push((format!("ε {}", eps_label(eps)), found.last.to_f32(self.net.device())?));
        }
        if let Some((denoiser, levels)) = defence {
            let middle = 1 + eps.len() / 2;
            let (name, pixels) = states[middle.min(states.len() - 1)].clone();
            let stream = Stream::new(self.args.seed, Purpose::Noise);
            for level in levels {
                let denoised = denoiser.images(&self.tensor(&pixels)?, &[self.id], level, &stream)?;
                states.push((format!("{name}, denoised σ {}", level.sigma), denoised.to_f32(denoiser.device())?));
            }
        }
        Ok(states)
    }

    fn view(&self, name: &str, states: &[(String, Vec<f32>)], grid: Grid) -> Result<MapsOfImage> {
        let mut pictures = Vec::new();
        // Where a checkpoint does not tell the names, 1000 classes are those of ImageNet.
        let imagenet = Classes::imagenet();
        let names = match self.classes {
            Some(names) => names,
            None if self.net.classes() == imagenet.len() => imagenet.names(),
            None => &[],
        };
        let clean = self.says(&self.pixels)?.0;
        for (state, pixels) in states {
            let (class, share) = self.says(pixels)?;
            let label = names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
            let says = Says { label, confidence: 100.0 * f64::from(share), wrong: class != clean };
            let (small, size) = heat::thumbnail(pixels, self.size, 128);
            let uri = heat::data_uri(&to_bytes(&small), size)?;
            pictures.push(Shown { name: state.clone(), uri, says: Some(says) });
        }
        Ok(MapsOfImage { name: name.into(), pictures, maps: Maps::new(grid) })
    }
}
