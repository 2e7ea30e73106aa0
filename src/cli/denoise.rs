//! `rampart denoise`: noises and denoises image files, so that one can look at what the defence does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{open, renamed, say, values};
use super::emulator::EmulatorArgs;
use crate::data::decode::decode;
use crate::data::listing;
use crate::data::resize::Rgb8;
use crate::data::{Skipped, demo, to_bytes, unit};
use crate::defense::Denoiser;
use crate::device::{DType, Device, DeviceChoice};
use crate::draw::picture;
use crate::files::write_whole;
use crate::number::Number;
use crate::ops::philox::{Purpose, Stream};
use crate::report::words::count;
use crate::run::progress::note;
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Images, or folders of them; sides must be multiples of what the network halves
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Noise in pixel units of [0, 1], as in 0.25,0.5
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0.25", allow_hyphen_values = true)]
    sigma: Vec<Number>,
    /// The denoiser: a safetensors file, or demo:unet-small, which knows clothes of 32x32 pixels
    #[arg(long, value_name = "FILE", default_value = "demo:unet-small")]
    weights: String,
    /// Folder for NAME.sigma-S.noised.png and NAME.sigma-S.denoised.png
    #[arg(long, value_name = "DIR", default_value = "denoised")]
    out: PathBuf,
    /// Take the noise as it stands, however unusual: grey levels, noise above 1
    #[arg(long)]
    as_written: bool,
    /// Seed of the noise; what an image gets depends on the seed and its own pixels alone
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
/// [`Error::Usage`] for bad flags, [`Error::File`] for a file that is no image or of a size the network cannot take.
pub fn run(args: &Args) -> Result<()> {
    args.emulator.apply(args.device)?;
    let sigma = values(&args.sigma, "--sigma", 1.0, args.as_written)?;
    let (files, mut left_out) = files(&args.images)?;
    let device = Device::open(args.device)?;
    let weights = open("--weights", &args.weights, &[demo::DENOISER])?;
    let denoiser = Denoiser::load(&device, args.precision, &weights)?;
    let level = |&sigma: &f64| denoiser.level(sigma).map_err(|e| renamed(e, "defense.sigma", "--sigma"));
    let levels = sigma.iter().map(level).collect::<Result<Vec<_>>>()?;
    fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, "create the folder", e))?;
    let mut done = 0;
    for image in &files {
        let Image { file, name, .. } = image;
        let Some(Rgb8 { height: h, width: w, pixels: bytes }) = image.read(&mut left_out)? else { continue };
        done += 1;
        denoiser.takes([h, w]).map_err(|problem| Error::file(file, problem))?;
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        let (pixels, ids): (Vec<f32>, _) = (bytes.into_iter().map(unit).collect(), [u64::from(crc.sum())]);
        let x = Tensor::from_f32(&device, &[1, h, w, 3], DType::F32, &pixels)?;
        let stream = Stream::new(args.seed, Purpose::Noise);
        for level in &levels {
            let s = &level.step;
            let noisy = denoiser.noised(&x, &ids, level, &stream)?.to_f32(&device)?;
            let clean = denoiser.images(&x, &ids, level, &stream)?.to_f32(&device)?;
            for (what, values) in [("noised", &noisy), ("denoised", &clean)] {
                let png = picture::png(&to_bytes(values), (w as u32, h as u32))?;
                let path = args.out.join(format!("{name}.sigma-{}.{what}.png", level.sigma));
                write_whole(&path, &png)?;
            }
            let mse =
                pixels.iter().zip(&clean).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / pixels.len() as f64;
            let real = denoiser.schedule().map_or(level.sigma, |schedule| schedule.sigma(s));
            say(&format!("{}: sigma {} (step {}, really {real:.5}): MSE {mse:.6}", file.display(), level.sigma, s.t))?;
        }
    }
    if done == 0 {
        return Err(none(&args.images));
    }
    say(&format!("{} images in {}{}", 2 * done * levels.len(), args.out.display(), but(left_out)))
}

/// An image file that was named, or that lies in a folder that was.
pub(super) struct Image {
    pub file: PathBuf,
    /// What its results are called by.
    pub name: String,
    named: bool,
}

impl Image {
    /// Its pixels. One of a folder that cannot be read is left out: told, counted and `None`.
    ///
    /// # Errors
    /// As [`decode`] for a file that was named itself.
    pub fn read(&self, left_out: &mut usize) -> Result<Option<Rgb8>> {
        match decode(&self.file) {
            Err(e) if !self.named => {
                tell(&Skipped::of(&self.file, &e));
                *left_out += 1;
                Ok(None)
            }
            found => found.map(Some),
        }
    }
}

fn tell(skipped: &Skipped) {
    note(format!("warning: left out: {}", skipped.problem));
}

/// How many files were left out, at the end of a sentence.
pub(super) fn but(left_out: usize) -> String {
    if left_out == 0 { String::new() } else { format!("; {} left out", count(left_out, "file")) }
}

/// Every image, and how much of the folders is left out, as it is for datasets.
pub(super) fn files(given: &[PathBuf]) -> Result<(Vec<Image>, usize)> {
    let (mut all, mut left_out) = (Vec::new(), 0);
    for path in given {
        if !path.is_dir() {
            all.push((path.clone(), true));
            continue;
        }
        let (images, strays) = listing::images(path)?;
        all.extend(images.into_iter().map(|file| (file, false)));
        left_out += strays.len();
        strays.iter().for_each(tell);
    }
    let mut seen = BTreeSet::new();
    let named = all.into_iter().map(|(file, named)| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if seen.insert(name.clone()) {
            Ok(Image { file, name, named })
        } else {
            Err(Error::file(&file, format!("expected different file names, found a second `{name}`")))
        }
    });
    let named: Vec<_> = named.collect::<Result<_>>()?;
    if named.is_empty() { Err(none(given)) } else { Ok((named, left_out)) }
}

/// That there is nothing to work on.
pub(super) fn none(given: &[PathBuf]) -> Error {
    Error::file(given.first().map_or(Path::new("."), PathBuf::as_path), "expected readable images, found none")
}
