//! Where the window of a convolution stands.

use crate::{Error, Result};

/// The largest stride, of which the gradient takes a launch for each residue, and the largest dilation.
const STRIDE: usize = 128;
const DILATION: usize = 4096;
/// The widest padding of a side: far more than any window reaches.
const PADDING: usize = 1 << 16;

/// The window of a convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub stride: [usize; 2],
    /// top, bottom, left, right
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 }
    }
}

impl Window {
    /// The same stride and padding on both axes.
    pub fn square(stride: usize, padding: usize) -> Self {
        Window { stride: [stride; 2], padding: [padding; 4], ..Self::default() }
    }

    /// # Errors
    /// [`Error::Shape`] for numbers that no kernel is made for.
    pub(super) fn check(&self) -> Result<()> {
        let [top, bottom, left, right] = self.padding;
        for (what, values, least, most) in [
            ("stride", &self.stride[..], 1, STRIDE),
            ("dilation", &self.dilation[..], 1, DILATION),
            ("padding", &[top, bottom, left, right][..], 0, PADDING),
        ] {
            if let Some(found) = values.iter().find(|v| !(least..=most).contains(*v)) {
                return Err(Error::shape("conv2d", what, format!("{least} to {most}"), found));
            }
        }
        Ok(())
    }

    /// Output length along one axis (0 vertical, 1 horizontal), or `None` when the window does not fit.
    pub fn out(&self, axis: usize, length: usize, window: usize) -> Option<usize> {
        let padded = length.checked_add(self.padding[2 * axis])?.checked_add(self.padding[2 * axis + 1])?;
        let reach = self.dilation[axis].checked_mul(window.checked_sub(1)?)?.checked_add(1)?;
        padded.checked_sub(reach)?.checked_div(self.stride[axis])?.checked_add(1)
    }
}
