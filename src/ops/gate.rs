//! A gate per image and channel: `kernels/gate.cu`.

use super::pointwise::Activation;
use crate::device::{DType, GATE_BF16, GATE_F32, GATE_GRAD_BF16, GATE_GRAD_F32, GateArgs, GateGradArgs};
use crate::tape::{Graph, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// `y[n, p, c] = act(x[n, p, c]) * g[n, c]`.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, H, W, C)` |
/// | `g` | `(N, C)` |
/// | ret | `(N, H, W, C)` |
///
/// Keeps both operands by reference.
///
/// # Errors
/// [`Error::Shape`] when the gate is of other images or channels.
pub fn gate(g: &Graph, x: &Tensor, gates: &Tensor, act: Activation) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("gate", x)?;
    g.takes("gate", "gates", gates)?;
    if gates.shape() != [n, c] {
        return Err(Error::shape("gate", "gates", format!("{:?}", [n, c]), format!("{:?}", gates.shape())));
    }
    let y = scaled(g, x, None, gates, act, &Slot { residual: None, keep: None })?;
    let (x_in, gates_in) = (x.clone(), gates.clone());
    g.record("gate gradient", &[x, gates], &y, move |g, dy, grads| {
        let dgates = g.uninit(&[n, c])?;
        // On CUDA 128 channels are 16 runs, so that 16 threads share the pixels of each.
        let per_block = g.device().plan().channels(c, 128);
        let args = GateGradArgs {
            x: x_in.address(),
            dy: dy.address(),
            dgate: dgates.address(),
            pixels: (h * w) as i32,
            c: c as i32,
            per_block: per_block as i32,
            act: act as i32,
        };
        let kernel = if g.dtype() == DType::BF16 { &GATE_GRAD_BF16 } else { &GATE_GRAD_F32 };
        g.launch(kernel, [c.div_ceil(per_block), n, 1], &args)?;
        grads.add(g, &gates_in, dgates)?;
        let slot = grads.slot(&x_in);
        let dx = scaled(g, &x_in, Some(dy), &gates_in, act, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

fn scaled(g: &Graph, x: &Tensor, dy: Option<&Tensor>, gates: &Tensor, act: Activation, slot: &Slot) -> Result<Tensor> {
    let [n, h, w, c] = x.dims4("gate")?;
    let (pixels, per_block) = (h * w, super::pointwise::rows_per_block(c));
    let y = g.uninit(x.shape())?;
    let args = GateArgs {
        x: x.address(),
        dy: dy.map_or(0, Tensor::address),
        gate: gates.address(),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        y: y.address(),
        pixels: pixels as i32,
        c: c as i32,
        per_block: per_block as i32,
        act: act as i32,
    };
    let kernel = if g.dtype() == DType::BF16 { &GATE_BF16 } else { &GATE_F32 };
    g.launch(kernel, [pixels.div_ceil(per_block), n, 1], &args)?;
    Ok(y)
}
