//! Where the window of a convolution stands.

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

    /// Output length along one axis (0 vertical, 1 horizontal), or `None` when the window does not fit.
    pub fn out(&self, axis: usize, length: usize, window: usize) -> Option<usize> {
        let padded = length + self.padding[2 * axis] + self.padding[2 * axis + 1];
        padded.checked_sub(self.dilation[axis] * (window - 1) + 1).map(|d| d / self.stride[axis] + 1)
    }
}
