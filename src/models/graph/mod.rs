//! Any network as an ONNX graph: read, specialised to a size of images, simplified pass by pass, and lowered to op calls.
//!
//! | pass | |
//! |---|---|
//! | `read`, `flat` | parses, inlines functions, sorts, decodes constants |
//! | `guards` | choices between two values of a number, as some activations are spelt |
//! | `shapes`, `fold` | the shape of every value, the batch an unknown factor; computes what is known beforehand |
//! | `counted` | what is read by the number of the image is read from each image alone |
//! | `ending` | cuts what makes probabilities of logits off the end |
//! | `identities` | drops what does nothing, spells alike what is alike |
//! | `fuse` | batch norms, scales, residuals, activations, and what is spelt out, into one node each |
//! | `layout` | columns of weights after a flattening |
//! | `heads` | attention reads its heads where they were made |
//! | `lower` | op calls, with values in the order in memory that each wants |
//!
//! A new operator is a name in `known`, a shape in `shapes` and a case in `lower`.

mod axes;
mod choice;
mod counted;
mod ending;
mod flat;
mod fold;
mod fuse;
mod guards;
mod heads;
mod identities;
mod ir;
mod known;
mod layout;
mod lower;
mod masks;
mod operands;
mod plan;
mod proto;
mod range;
pub mod read;
mod resample;
mod shapes;
mod single;
mod tables;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::metadata::MOST_CHANNELS;
use super::network::{Network, Shape};
use super::probe::Probe;
use super::weights::Weights;
use crate::choice::choice;
use crate::device::Device;
use crate::ops::resize::{Along, along};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};
use ir::{Ir, Node};
pub use plan::Plan;
use read::Model;

/// As cards and dumps spell it.
pub const NAME: &str = "onnx";

choice! {
    /// The channels that a graph takes, and in which order.
    Channels {
        /// red, green, blue
        Rgb = "rgb",
        /// blue, green, red, as OpenCV and Caffe have it
        Bgr = "bgr",
        /// one: colours as ITU-R 601-2 luma
        Grey = "grey",
        /// as arrays of two channels have them
        Two = "two",
        /// as arrays of four channels have them
        Four = "four",
    }
}

impl Channels {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Grey => 1,
            Channels::Two => 2,
            Channels::Four => 4,
        }
    }
}

choice! {
    /// The order of a graph's input axes.
    Layout {
        /// images, channels, rows, columns, as PyTorch has it
        Nchw = "nchw",
        /// images, rows, columns, channels, as TensorFlow has it
        Nhwc = "nhwc",
    }
}

/// How a graph takes images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub classes: usize,
    /// Height and width, where the file fixes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    #[serde(default = "rgb")]
    pub channels: Channels,
    #[serde(default = "nchw")]
    pub layout: Layout,
}

fn rgb() -> Channels {
    Channels::Rgb
}

fn nchw() -> Layout {
    Layout::Nchw
}

/// What the passes made of a graph.
pub struct Simplified {
    ir: ir::Ir,
    /// Nodes that the output depends on, as the file has them.
    pub before: Vec<(String, usize)>,
    /// The same after all passes.
    pub after: Vec<(String, usize)>,
    /// The operator that was cut off the end.
    pub cut: Option<String>,
}

/// Whether the input is (N, C, H, W) or (N, H, W, C): as said, and if nothing is said as its first steps or else the dimensions that the
/// file fixes tell; and a warning where they do not.
pub fn layout_of(model: &Model, said: Option<Layout>) -> (Layout, Option<String>) {
    if let Some(layout) = said {
        return (layout, None);
    }
    let (channels, guessed) = axes::told(model);
    let (layout, other) = match channels {
        axes::ChannelAxis::First => (Layout::Nchw, Layout::Nhwc),
        axes::ChannelAxis::Last => (Layout::Nhwc, Layout::Nchw),
    };
    let sides: Vec<String> = model.image.iter().map(|side| side.map_or("?".into(), |n| n.to_string())).collect();
    let warning = format!(
        "warning: nothing tells whether its input ({}) has the channels first or last: {layout} is taken; models.layout = \"{other}\" \
         (--layout {other}) is the other",
        sides.join(", ")
    );
    (layout, guessed.then_some(warning))
}

/// The image size that the file fixes, if it does.
pub fn size_of(model: &Model, layout: Layout) -> Option<[usize; 2]> {
    let at = if layout == Layout::Nchw || model.flat { 2 } else { 1 };
    match model.image.get(at..at + 2) {
        Some(&[Some(h), Some(w)]) => Some([h as usize, w as usize]),
        _ => None,
    }
}

/// Whether its first steps bring pixels of 0 to 255 to a smaller range, in words.
pub fn takes_bytes(model: &Model) -> Option<String> {
    range::takes_bytes(&model.ir)
}

/// The channels that the file fixes, if it does.
pub fn depth_of(model: &Model, layout: Layout) -> Option<usize> {
    let at = if layout == Layout::Nchw || model.flat { 1 } else { 3 };
    model.image.get(at).copied().flatten().and_then(|n| usize::try_from(n).ok())
}

/// Runs all passes but the last for images of `size` (H, W).
///
/// # Errors
/// [`Error::File`] with the node that cannot be run and why.
pub fn simplify(model: &Model, size: [usize; 2], (channels, layout): (Channels, Layout)) -> Result<Simplified> {
    let bad = |problem: String| Error::file(&model.origin, problem);
    let depth = channels.count();
    if let Some(found) = depth_of(model, layout).filter(|&found| found != depth) {
        let other = if layout == Layout::Nchw { "nhwc" } else { "nchw" };
        let expected = match found {
            1..=MOST_CHANNELS => format!("{depth}, as models.channels = \"{channels}\" says"),
            _ => format!("1 to {MOST_CHANNELS}"),
        };
        return Err(bad(format!(
            "its input has {found} channels: expected {expected} (models.layout = \"{other}\" says that the channels stand elsewhere)"
        )));
    }
    if let Some(fixed) = size_of(model, layout).filter(|&fixed| fixed != size) {
        return Err(bad(format!(
            "it takes images of {}x{}, found {}x{}: resize them, or export it with dynamic height and width",
            fixed[0], fixed[1], size[0], size[1]
        )));
    }
    let image = if layout == Layout::Nchw { [depth, size[0], size[1]] } else { [size[0], size[1], depth] };
    let mut ir = model.ir.clone();
    let before = ir.counts();
    // A node that does not fit says more with the size of the images beside it.
    let sized = |problem: String| match size_of(model, layout) {
        Some(_) => bad(problem),
        None => bad(format!("for images of {}x{}: {problem}", size[0], size[1])),
    };
    guards::run(&mut ir);
    shapes::run(&mut ir, image).map_err(sized)?;
    let cut = ending::cut(&mut ir);
    identities::run(&mut ir);
    masks::run(&mut ir).map_err(bad)?;
    fuse::run(&mut ir);
    identities::run(&mut ir);
    layout::run(&mut ir);
    let after = ir.counts();
    Ok(Simplified { ir, before, after, cut })
}

impl Simplified {
    /// The last pass: op calls with their constants on a device.
    ///
    /// # Errors
    /// [`Error::File`] with the node that cannot be computed and why; what the device reports.
    pub fn lower(&self, model: &Model, device: &Device, precision: Precision, layout: Layout) -> Result<Plan> {
        lower::lower(&self.ir, device, precision, layout == Layout::Nchw).map_err(|wrong| match wrong {
            lower::Wrong::Words(problem) => Error::file(&model.origin, problem),
            lower::Wrong::Error(error) => error,
        })
    }

    /// The number of logits.
    pub fn classes(&self) -> Option<usize> {
        let shape = self.ir.shape(self.ir.output)?;
        shape.iter().filter(|d| !d.batch).try_fold(1usize, |p, d| p.checked_mul(usize::try_from(d.n).ok()?))
    }
}

/// Images for a graph whose file does not fix their size: what ImageNet's, CIFAR's and MNIST's networks usually take.
const USUAL: [[usize; 2]; 4] = [[224, 224], [32, 32], [64, 64], [28, 28]];
/// Sides of square ones for a graph that takes none of these, as one whose last layer knows how many values there are.
const OTHERS: [usize; 25] =
    [8, 16, 20, 24, 36, 40, 48, 56, 72, 80, 96, 112, 128, 160, 192, 227, 240, 256, 288, 299, 300, 320, 331, 384, 448];

/// What is known of a graph before it is built.
pub struct Inspected {
    pub classes: usize,
    /// The operator that is cut off the end.
    pub cut: Option<String>,
    /// The size of images that its weights fit, where the file fixes none and the usual ones do not fit.
    pub only: Option<[usize; 2]>,
    /// Casts to 16-bit floats, which do nothing here.
    pub halved: usize,
}

/// Runs the passes on images of a size that the graph takes.
///
/// # Errors
/// As [`simplify`], of the first size that was tried; [`Error::File`] when the output is no logits.
pub fn inspect(model: &Model, size: Option<[usize; 2]>, how: (Channels, Layout)) -> Result<Inspected> {
    let one = |size: [usize; 2]| {
        let simplified = simplify(model, size, how)?;
        let none = || Error::file(&model.origin, "expected logits (N, classes) as its output");
        let halved = model.ir.nodes.iter().filter(|node| is_halving(&model.ir, node)).count();
        Ok(Inspected { classes: simplified.classes().ok_or_else(none)?, cut: simplified.cut, only: None, halved })
    };
    if let Some(size) = size {
        return one(size);
    }
    let mut first = None;
    for size in USUAL {
        match one(size) {
            Ok(found) => return Ok(found),
            Err(error) => first = first.or(Some(error)),
        }
    }
    for size in OTHERS.map(|side| [side, side]) {
        if let Ok(found) = one(size) {
            return Ok(Inspected { only: Some(size), ..found });
        }
    }
    Err(match first {
        Some(Error::File { file, problem }) => {
            let way_out = "export it with the size of its images, or with metadata `input_size`";
            let problem =
                format!("{problem} (the file fixes no size; neither this one nor other usual ones fit: {way_out})");
            Error::File { file, problem }
        }
        other => other.unwrap_or_else(|| Error::file(&model.origin, "no size of images was tried")),
    })
}

fn is_halving(ir: &Ir, node: &Node) -> bool {
    node.op == "Cast" && matches!(node.int("to"), Some(10 | 16)) && ir.known(node, 0).is_none()
}

impl Shape for Config {
    fn size(&self) -> Option<[usize; 2]> {
        self.size
    }

    fn channels(&self) -> usize {
        self.channels.count()
    }

    fn build(
        &self,
        device: &Device,
        precision: Precision,
        weights: &Weights,
        size: [usize; 2],
    ) -> Result<Box<dyn Network>> {
        let none = || Error::file(weights.origin(), "expected an ONNX graph");
        let model = weights.graph().ok_or_else(none)?;
        let how = (self.channels, self.layout);
        let plan = simplify(model, size, how)?.lower(model, device, precision, self.layout)?;
        if plan.classes != self.classes {
            let problem = format!("expected {} logits, found {}", self.classes, plan.classes);
            return Err(Error::file(&model.origin, problem));
        }
        weights.take(plan.parameters);
        let swap = match self.channels {
            Channels::Rgb | Channels::Grey | Channels::Two | Channels::Four => None,
            Channels::Bgr => Some(Arc::new(Along::gather(device, 3, &[Some(2), Some(1), Some(0)])?)),
        };
        Ok(Box::new(OnnxNetwork { plan, swap, image: [size[0], size[1], self.channels.count()] }))
    }
}

/// A graph as a network.
struct OnnxNetwork {
    plan: Plan,
    /// Turns RGB into what it takes.
    swap: Option<Arc<Along>>,
    /// H, W, C
    image: [usize; 3],
}

impl Network for OnnxNetwork {
    fn classes(&self) -> usize {
        self.plan.classes
    }

    fn stages(&self) -> Vec<String> {
        self.plan.stages.clone()
    }

    fn widest(&self, _: usize, _: usize) -> usize {
        self.plan.widest
    }

    fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let [_, h, w, c] = x.dims4("onnx")?;
        if [h, w, c] != self.image {
            return Err(Error::shape("onnx", "image", format!("{:?}", self.image), format!("{:?}", [h, w, c])));
        }
        let swapped = self.swap.as_ref().map(|swap| along(g, x, 3, swap)).transpose()?;
        self.plan.run(g, swapped.as_ref().unwrap_or(x), &mut |name, t| probe.see(name, t))
    }
}
