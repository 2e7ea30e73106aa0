//! `rampart info`: what this binary can run on, its kernels, or what it makes of an ONNX graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::{say, sides};
use crate::device::{Device, DeviceChoice, IMAGES, KERNELS, emulated, level};
use crate::models::card::{Card, Takes};
use crate::models::graph;
use crate::models::graph::read;
use crate::models::weights::Weights;
use crate::tape::Precision;
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// An ONNX graph: its nodes before and after simplification, the ops that compute it, products and parameters
    model: Option<PathBuf>,
    /// Height and width of the images, where the graph takes any
    #[arg(long, value_name = "HEIGHTxWIDTH", requires = "model")]
    size: Option<String>,
    /// Only the devices
    #[arg(long, conflicts_with = "model")]
    devices: bool,
}

/// # Errors
/// What is wrong with the graph; [`crate::Error::Io`] when nothing can be printed. A device that cannot be opened is listed with the reason.
pub fn run(args: &Args) -> Result<()> {
    if let Some(path) = &args.model {
        return graph(path, args.size.as_deref());
    }
    let mut lines = vec![format!("rampart {}", env!("CARGO_PKG_VERSION"))];
    for name in [DeviceChoice::Host, DeviceChoice::Cuda] {
        lines.push(match Device::open(name) {
            Ok(device) => format!("  {:<8} {}", name.to_string(), device.name()),
            Err(e) => format!("  {:<8} not available: {e}", name.to_string()),
        });
    }
    // Not opened: a process has one driver, and the line above may have taken the real one.
    lines.push(match emulated::effective() {
        Ok(effective) => format!("  emulated {}, in this program", effective.model),
        Err(e) => format!("  emulated not available: {e}"),
    });
    if !args.devices {
        let ptx: usize = IMAGES.iter().map(|image| image.ptx.len()).sum();
        let machine_code: Vec<usize> = IMAGES.iter().filter_map(|image| Some(image.fatbin?.len())).collect();
        lines.push(match machine_code.len() {
            0 => format!("\nCUDA images: none; prebuilt PTX: {} files, {:.1} MB", IMAGES.len(), ptx as f64 / 1e6),
            n => format!(
                "\nCUDA images: {n} files, {:.1} MB; PTX: {} files, {:.1} MB",
                machine_code.iter().sum::<usize>() as f64 / 1e6,
                IMAGES.len(),
                ptx as f64 / 1e6
            ),
        });
        let level = level::current().unwrap_or("none of them");
        let (levels, compiler) = (level::names().join(", "), env!("RAMPART_HOST_COMPILER"));
        lines.push(format!("host kernels: {levels}, by {compiler}; running {level}"));
        for image in IMAGES {
            lines.extend(
                image.stale.map(|what| format!("stale: the PTX of kernels/{}.cu is older than {what}", image.file)),
            );
        }
        lines.push(format!("\n{:<28} {:<14} {:>7} {:>13}", "kernel", "file", "threads", "shared bytes"));
        for k in KERNELS {
            let file = format!("kernels/{}.cu", k.file);
            lines.push(format!("{:<28} {file:<14} {:>7} {:>13}", k.name, k.threads, k.shared));
        }
    }
    say(&lines.join("\n"))
}

/// What becomes of an ONNX graph.
fn graph(path: &Path, size: Option<&str>) -> Result<()> {
    if !read::is_onnx(path) {
        let problem = format!("expected an ONNX graph, MODEL.onnx, found {}", path.display());
        return Err(Error::usage("MODEL", problem));
    }
    let weights = Weights::open(path)?;
    let (card, notes) = Card::of_graph(&weights, &Takes::default())?;
    let Some(model) = weights.graph() else { return Err(Error::file(path, "expected an ONNX graph")) };
    let config: graph::Config =
        serde_json::from_value(card.config.clone()).map_err(|e| Error::file(path, e.to_string()))?;
    let said = size.map(|text| sides("--size", text)).transpose()?;
    let size = said.or(config.size).or(card.preparation.size);
    let way_out = "--size HEIGHTxWIDTH: the graph takes images of any size, and the work depends on it";
    let size = size.ok_or_else(|| Error::usage("--size", format!("expected {way_out}")))?;
    let simplified = graph::simplify(model, size, (config.channels, config.layout))?;
    let plan = simplified.lower(model, &Device::host()?, Precision::F32, config.layout)?;
    let total = |counts: &[(String, usize)]| counts.iter().map(|(_, n)| n).sum::<usize>();
    let list = |counts: &[(String, usize)]| -> String {
        counts.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    };
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &plan.steps {
        *calls.entry(step.call.name()).or_default() += 1;
    }
    let mut calls: Vec<(String, usize)> = calls.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    calls.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut lines = vec![
        format!("{}: {:.1} MB, by {}", path.display(), model.bytes as f64 / 1e6, model.producer),
        format!("  takes      {}x{} {}, {}", size[0], size[1], config.channels, config.layout),
        format!("  makes      {} logits", plan.classes),
        format!("  nodes      {:>5}  {}", total(&simplified.before), list(&simplified.before)),
        format!("  simplified {:>5}  {}", total(&simplified.after), list(&simplified.after)),
        format!("  op calls   {:>5}  {}", total(&calls), list(&calls)),
        format!("  products   {:.3} GFLOP per image", plan.flops as f64 / 1e9),
        format!("  parameters {:.3} M", plan.parameters as f64 / 1e6),
    ];
    let bytes =
        card.bytes.iter().map(|step| format!("it seems to take pixels of 0 to 255 (models.input_range): {step}"));
    lines.extend(notes.into_iter().chain(card.assumption()).chain(bytes).map(|note| format!("  {note}")));
    say(&lines.join("\n"))
}
