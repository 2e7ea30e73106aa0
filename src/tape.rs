//! A graph runs ops on one device at one precision and, with a tape, records how to take the gradient of its input.
//!
//! Only input gradients exist: weights are constants. An op records a closure that turns the gradient of its output into
//! contributions to the gradients of its inputs. Contributions to one tensor are added as they come, and the mask of the
//! ReLU that made the tensor is applied with the last one, so that both ride in the epilogue of the kernel at hand.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::choice::choice;
use crate::device::{DType, Device, Kernel, nvtx};
use crate::tensor::{Outline, Tensor, TensorId};
use crate::{Error, Result};

choice! {
    /// Number format of activations and weights. Sums are float32 in all of them.
    Precision {
        /// float32; on CUDA each product is three TF32 products.
        F32 = "f32",
        /// bfloat16 activations and weights.
        Bf16 = "bf16",
        /// float32 storage, one TF32 product on CUDA; the same as `f32` on the host.
        Tf32 = "tf32",
    }
}

impl Precision {
    /// Element type of activations.
    pub fn dtype(self) -> DType {
        if self == Precision::Bf16 { DType::BF16 } else { DType::F32 }
    }
}

/// The op that adds two gradients and applies a mask; either may be missing. It comes from the ops, which the tape lies below.
pub type Accumulate = fn(&Graph, &Tensor, Option<&Tensor>, Option<&Tensor>) -> Result<Tensor>;

type Backward = Box<dyn FnOnce(&Graph, &Tensor, &mut Grads) -> Result<()>>;

struct Node {
    name: &'static str,
    inputs: Vec<TensorId>,
    output: Outline,
    backward: Backward,
}

struct Tape {
    accumulate: Accumulate,
    nodes: Vec<Node>,
    uses: HashMap<TensorId, u32>,
    masks: HashMap<TensorId, Tensor>,
    /// Masks of outputs that some op reads under other dimensions, where the rows of the mask would be others: no kernel fuses them.
    late: HashMap<TensorId, Tensor>,
}

/// Where ops run: a device, a precision and, when gradients are wanted, a tape.
pub struct Graph {
    device: Device,
    precision: Precision,
    tape: Option<RefCell<Tape>>,
}

impl Graph {
    /// Runs ops and keeps nothing.
    pub fn inference(device: &Device, precision: Precision) -> Self {
        Graph { device: device.clone(), precision, tape: None }
    }

    /// Runs ops and records what [`Graph::backward`] needs. [`crate::ops::recording`] hands in `accumulate`.
    pub fn recording(device: &Device, precision: Precision, accumulate: Accumulate) -> Self {
        let tape =
            Tape { accumulate, nodes: vec![], uses: HashMap::new(), masks: HashMap::new(), late: HashMap::new() };
        Graph { device: device.clone(), precision, tape: Some(RefCell::new(tape)) }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Element type of activations.
    pub fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    pub fn records(&self) -> bool {
        self.tape.is_some()
    }

    /// An activation for a kernel to fill.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is out of memory.
    pub fn uninit(&self, shape: &[usize]) -> Result<Tensor> {
        Tensor::uninit(&self.device, shape, self.dtype())
    }

    /// A bit per value of an activation `(rows, c)`, each row rounded up to 16 bits.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is out of memory.
    pub fn uninit_mask(&self, rows: usize, c: usize) -> Result<Tensor> {
        Tensor::uninit(&self.device, &[rows, c.div_ceil(16) * 2], DType::U8)
    }

    /// Whether a kernel of this graph can read `x`: values in the graph's format, on its device.
    ///
    /// # Errors
    /// [`Error::Shape`] for another format, [`Error::Device`] for memory of another device.
    pub fn takes(&self, op: &'static str, what: &str, x: &Tensor) -> Result<()> {
        if x.dtype() != self.dtype() {
            let (want, found) = (self.dtype(), x.dtype());
            return Err(Error::shape(op, format!("{what}: element type"), format!("{want:?}"), format!("{found:?}")));
        }
        self.holds(op, what, x)
    }

    /// Whether `x` is floating-point values, of either format, on the graph's device.
    ///
    /// # Errors
    /// As [`Graph::takes`].
    pub fn floats(&self, op: &'static str, what: &str, x: &Tensor) -> Result<()> {
        if !matches!(x.dtype(), DType::F32 | DType::BF16) {
            return Err(Error::shape(op, format!("{what}: element type"), "F32 or BF16", format!("{:?}", x.dtype())));
        }
        self.holds(op, what, x)
    }

    fn holds(&self, op: &'static str, what: &str, x: &Tensor) -> Result<()> {
        match x.is_of(&self.device) {
            true => Ok(()),
            false => Err(Error::device(format!("{op}: {what}: expected memory of the device {}", self.device.kind()))),
        }
    }

    /// The dimensions `(N, H, W, C)` of an activation that [`Graph::takes`] agrees to.
    ///
    /// # Errors
    /// As [`Graph::takes`] and [`Tensor::dims4`].
    pub fn dims4(&self, op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
        self.takes(op, "input", x)?;
        x.dims4(op)
    }

    /// The dimensions `(N, K)` of a matrix that [`Graph::takes`] agrees to.
    ///
    /// # Errors
    /// As [`Graph::takes`] and [`Tensor::dims2`].
    pub fn dims2(&self, op: &'static str, x: &Tensor) -> Result<[usize; 2]> {
        self.takes(op, "input", x)?;
        x.dims2(op)
    }

    /// See [`Device::launch`].
    ///
    /// # Errors
    /// [`Error::Limit`] for a grid that a GPU would refuse.
    pub fn launch<A: bytemuck::Pod>(&self, kernel: &'static Kernel<A>, grid: [usize; 3], args: &A) -> Result<()> {
        self.device.launch(kernel, grid, args)
    }

    /// Records how `output` depends on `inputs`. The closure must claim each input's gradient exactly once, by
    /// [`Grads::slot`] and [`Grads::put`] or by [`Grads::add`]. Does nothing without a tape.
    pub fn record(
        &self,
        name: &'static str,
        inputs: &[&Tensor],
        output: &Tensor,
        backward: impl FnOnce(&Graph, &Tensor, &mut Grads) -> Result<()> + 'static,
    ) {
        let Some(tape) = &self.tape else { return };
        let mut tape = tape.borrow_mut();
        for input in inputs {
            *tape.uses.entry(input.id()).or_default() += 1;
            if tape.masks.get(&input.id()).is_some_and(|bits| !has_rows_of(bits, input.shape()))
                && let Some(bits) = tape.masks.remove(&input.id())
            {
                tape.late.insert(input.id(), bits);
            }
        }
        let inputs = inputs.iter().map(|t| t.id()).collect();
        tape.nodes.push(Node { name, inputs, output: output.outline(), backward: Box::new(backward) });
    }

    /// Notes that the gradient of `y` is to be zeroed where `bits` are 0, because a ReLU made `y`.
    pub fn mask(&self, y: &Tensor, bits: Tensor) {
        if let Some(tape) = &self.tape {
            tape.borrow_mut().masks.insert(y.id(), bits);
        }
    }

    /// The gradient of `x`, given the gradient `dy` of `y`. Consumes the tape.
    ///
    /// # Errors
    /// [`Error::Shape`] when `dy` is not of the shape and format of `y`, `y` does not depend on `x`, or nothing was recorded;
    /// and what the recorded ops return.
    pub fn backward(self, y: &Tensor, dy: Tensor, x: &Tensor) -> Result<Tensor> {
        Ok(self.backward_all(y, dy, &[x])?.remove(0))
    }

    /// The gradients of several inputs.
    ///
    /// # Errors
    /// As [`Graph::backward`].
    pub fn backward_all(self, y: &Tensor, dy: Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let Some(tape) = self.tape else {
            return Err(Error::shape("backward", "tape", "a recording graph", "an inference graph"));
        };
        let Tape { accumulate, nodes, uses, masks, mut late } = tape.into_inner();
        if dy.shape() != y.shape() || dy.dtype() != y.dtype() || !dy.is_of(&self.device) {
            return Err(Error::shape("backward", "gradient of the output", format!("{y:?}"), format!("{dy:?}")));
        }
        let graph = Graph::inference(&self.device, self.precision);
        let mut grads = Grads { accumulate, values: HashMap::new(), left: uses, masks };
        // What came from outside does not know of the ReLU that made y.
        let unused = !grads.left.contains_key(&y.id());
        let dy = match if unused { grads.masks.remove(&y.id()) } else { None } {
            Some(keep) if has_rows_of(&keep, dy.shape()) => accumulate(&graph, &dy, None, Some(&keep))?,
            Some(keep) => {
                late.insert(y.id(), keep);
                dy
            }
            None => dy,
        };
        grads.values.insert(y.id(), dy);
        for node in nodes.into_iter().rev() {
            match grads.values.remove(&node.output.id()) {
                Some(dy) => {
                    // Whoever read the output under another shape made the gradient in that one.
                    let dy = like(dy, &node.output, node.name)?;
                    let dy = match late.remove(&node.output.id()) {
                        Some(keep) => accumulate(&graph, &dy, None, Some(&keep))?,
                        None => dy,
                    };
                    let _range = nvtx::range(nvtx::Kind::Op, node.name);
                    (node.backward)(&graph, &dy, &mut grads)?;
                }
                // Nothing the result depends on came through here.
                None => {
                    for input in node.inputs {
                        grads.skip(&graph, input)?;
                    }
                }
            }
        }
        let missing =
            |x: &Tensor| Error::shape("backward", "input", "a tensor the output depends on", format!("{x:?}"));
        inputs.iter().map(|x| grads.values.get(&x.id()).cloned().ok_or_else(|| missing(x))).collect()
    }
}

/// Rows and bytes a row of a mask over an activation, as [`Graph::uninit_mask`] makes it.
pub fn mask_shape(shape: &[usize]) -> [usize; 2] {
    let c = shape.last().copied().unwrap_or(1);
    [shape.iter().product::<usize>() / c.max(1), c.div_ceil(16) * 2]
}

/// Whether a mask has the rows of an activation of this shape: the same ones, or in both no padding between them.
fn has_rows_of(bits: &Tensor, shape: &[usize]) -> bool {
    let c = shape.last().copied().unwrap_or(1);
    bits.shape() == mask_shape(shape)
        || c.is_multiple_of(16) && bits.len().checked_mul(8) == Some(shape.iter().product::<usize>())
}

/// A gradient in the shape of what it is the gradient of.
fn like(dy: Tensor, output: &Outline, op: &'static str) -> Result<Tensor> {
    if dy.dtype() != output.dtype() {
        let (want, found) = (output.dtype(), dy.dtype());
        return Err(Error::shape(op, "element type of the gradient", format!("{want:?}"), format!("{found:?}")));
    }
    if dy.shape() == output.shape() { Ok(dy) } else { dy.reshaped(output.shape()) }
}

/// Gradients on their way from the output to the input.
pub struct Grads {
    accumulate: Accumulate,
    values: HashMap<TensorId, Tensor>,
    /// Contributions still to come.
    left: HashMap<TensorId, u32>,
    masks: HashMap<TensorId, Tensor>,
}

/// What the kernel that computes a contribution has to fuse into it.
pub struct Slot {
    /// The sum of earlier contributions.
    pub residual: Option<Tensor>,
    /// The mask to apply, when this is the last contribution to the output of a ReLU.
    pub keep: Option<Tensor>,
}

impl Slot {
    /// Address of the earlier contributions, 0 if there are none.
    pub fn residual_address(&self) -> u64 {
        self.residual.as_ref().map_or(0, Tensor::address)
    }

    /// Address of the mask, 0 if there is none.
    pub fn keep_address(&self) -> u64 {
        self.keep.as_ref().map_or(0, Tensor::address)
    }
}

impl Grads {
    /// Claims the next contribution to the gradient of `x`; the caller fuses the slot into it and hands it to [`Grads::put`].
    pub fn slot(&mut self, x: impl Into<TensorId>) -> Slot {
        let id = x.into();
        let last = self.claim(id);
        Slot { residual: self.values.remove(&id), keep: if last { self.masks.remove(&id) } else { None } }
    }

    /// Stores what [`Grads::slot`] was claimed for.
    pub fn put(&mut self, x: impl Into<TensorId>, dx: Tensor) {
        self.values.insert(x.into(), dx);
    }

    /// Adds a finished contribution to the gradient of `x`.
    ///
    /// # Errors
    /// What the launch returns.
    pub fn add(&mut self, g: &Graph, x: impl Into<TensorId>, dx: Tensor) -> Result<()> {
        let x = x.into();
        let slot = self.slot(x);
        let dx = if slot.residual.is_none() && slot.keep.is_none() {
            dx
        } else {
            (self.accumulate)(g, &dx, slot.residual.as_ref(), slot.keep.as_ref())?
        };
        self.put(x, dx);
        Ok(())
    }

    fn claim(&mut self, x: TensorId) -> bool {
        let left = self.left.entry(x).or_insert(1);
        *left -= 1;
        *left == 0
    }

    fn skip(&mut self, g: &Graph, x: TensorId) -> Result<()> {
        if self.claim(x)
            && let Some(keep) = self.masks.remove(&x)
            && let Some(dx) = self.values.remove(&x)
        {
            self.values.insert(x, (self.accumulate)(g, &dx, None, Some(&keep))?);
        }
        Ok(())
    }
}
