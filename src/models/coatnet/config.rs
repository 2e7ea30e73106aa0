//! The shape of a CoAtNet.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// MBConv: the width inside, and by how much the squeeze is narrower.
pub(super) const EXPANSION: usize = 4;
pub(super) const SQUEEZE: usize = 4;
/// Width of the transformer's MLP.
pub(super) const MLP: usize = 4;
/// The shape of a network, as a checkpoint's metadata spells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// channels of the two convolutions of the stem
    pub stem: [usize; 2],
    /// channels and blocks of each stage
    pub dims: Vec<usize>,
    pub depths: Vec<usize>,
    /// `C` for a convolutional stage, `T` for a transformer
    pub types: String,
    pub head_dim: usize,
    /// hidden width of the position bias's MLP
    pub rel_pos_hidden: usize,
    /// side of the image it was trained on
    pub image: usize,
    pub classes: usize,
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |field: &str, problem: String| Err(Error::usage(format!("config `{field}`"), problem));
        let stages = self.dims.len();
        if stages == 0 || stages > 8 || self.depths.len() != stages || self.types.len() != stages {
            let found = format!("{:?}, {:?}, `{}`", self.dims, self.depths, self.types);
            return wrong("dims", format!("expected 1 to 8 stages in dims, depths and types alike, found {found}"));
        }
        if let Some(other) = self.types.chars().find(|t| !matches!(t, 'C' | 'T')) {
            return wrong("types", format!("expected C and T, found `{other}`"));
        }
        if self.stem.contains(&0) || self.dims.contains(&0) || self.depths.contains(&0) || self.classes == 0 {
            return wrong("dims", "expected widths, depths and classes of at least 1".into());
        }
        if self.rel_pos_hidden == 0 || self.head_dim == 0 {
            return wrong("head_dim", "expected head_dim and rel_pos_hidden of at least 1".into());
        }
        let multiple = self.multiple();
        if self.image == 0 || !self.image.is_multiple_of(multiple) {
            return wrong("image", format!("expected a multiple of {multiple}, found {}", self.image));
        }
        Ok(())
    }

    /// Height and width must be multiples of this.
    pub fn multiple(&self) -> usize {
        2 << self.dims.len()
    }
}
