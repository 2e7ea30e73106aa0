//! What happens to a finished sum, as `kernels/epilogue.cuh` does it.

use super::pointwise::Activation;

/// Bias, residual, activation and masks of one launch; addresses, 0 for none.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue {
    pub bias: u64,
    pub residual: u64,
    pub keep: u64,
    pub positive: u64,
    pub act: Activation,
}
