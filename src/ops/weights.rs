//! Weights in the order the tile product reads (`pack_weights` in `kernels/conv.cu`), and how a product is cut into tiles.

use crate::device::{
    DType, Device, PACK_WEIGHTS_BF16, PACK_WEIGHTS_F32, PackArgs, TURN_WEIGHTS_BF16, TURN_WEIGHTS_F32, TurnArgs,
};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The longest run of channels a tile product reads at one tap.
pub(super) const MAX_CHANNELS: usize = 65536;

/// Packed weights of one product per group: `o` columns, `taps` x `c` deep.
#[derive(Clone)]
pub struct Packed {
    pub(crate) data: Tensor,
    /// Elements from one group to the next.
    pub(crate) group: usize,
    pub(crate) o: usize,
    groups: usize,
    taps: usize,
    c: usize,
    c_pad: usize,
    panel: usize,
    /// Of the activations that they are packed for.
    dtype: DType,
}

/// Taps along one axis that an input gradient reads, as an arithmetic sequence of the forward pass's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub first: usize,
    pub step: isize,
    pub count: usize,
}

/// How the host cuts a product of `m` rows; on CUDA the kernel's shape decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub m_tile: usize,
    pub n_tile: usize,
    /// Blocks along x.
    pub count: usize,
}

/// Rows and columns of the two CUDA tile shapes, `conv_*` and `*_small`.
const LARGE: usize = 128;
const SMALL: usize = 64;

impl Packed {
    /// Packs `(groups, o, taps, c)` float32 values that are already on the device.
    ///
    /// # Errors
    /// [`Error::Limit`] for runs of more than 65,536 channels.
    pub(crate) fn pack(device: &Device, p: Precision, src: &Tensor, [groups, o, taps, c]: [usize; 4]) -> Result<Self> {
        let packed = Self::uninit(device, p, [groups, o, taps, c])?;
        let args = packed.args(src.address());
        let kernel = if p.dtype() == DType::BF16 { &PACK_WEIGHTS_BF16 } else { &PACK_WEIGHTS_F32 };
        device.launch(kernel, [o.next_multiple_of(packed.panel), groups, 1], &args)?;
        Ok(packed)
    }

    /// The weights of an input gradient: outputs and inputs change places, and of the taps, in rows of `s`, only some are read.
    ///
    /// # Errors
    /// As [`Packed::pack`].
    pub(crate) fn turned(&self, device: &Device, p: Precision, s: usize, [rows, cols]: [Sequence; 2]) -> Result<Self> {
        let turned = Self::uninit(device, p, [self.groups, self.c, rows.count * cols.count, self.o])?;
        let args = TurnArgs {
            from: self.args(0),
            to: turned.args(0),
            s: s as i32,
            cols: cols.count as i32,
            row0: rows.first as i32,
            row_step: rows.step as i32,
            col0: cols.first as i32,
            col_step: cols.step as i32,
        };
        let kernel = if p.dtype() == DType::BF16 { &TURN_WEIGHTS_BF16 } else { &TURN_WEIGHTS_F32 };
        device.launch(kernel, [self.c.next_multiple_of(turned.panel), self.groups, 1], &args)?;
        Ok(turned)
    }

    /// Whether a product of `m` rows in this graph can read them.
    ///
    /// # Errors
    /// [`Error::Shape`] for weights that were packed for another precision, [`Error::Device`] for another device,
    /// [`Error::Limit`] for more rows than a kernel counts.
    pub(crate) fn fits(&self, g: &Graph, m: usize) -> Result<()> {
        if self.dtype != g.dtype() {
            let (found, want) = (format!("{:?}", self.dtype), format!("{:?}", g.dtype()));
            return Err(Error::shape("product", "weights packed for", want, found));
        }
        if !self.data.is_of(g.device()) {
            return Err(Error::device(format!("product: expected weights on the device {}", g.device().kind())));
        }
        if m > i32::MAX as usize {
            return Err(Error::Limit {
                kernel: "product".into(),
                what: "rows",
                requested: m as u64,
                max: i32::MAX as u64,
            });
        }
        Ok(())
    }

    /// Columns of a panel.
    pub(crate) fn panel(&self) -> usize {
        self.panel
    }

    /// Channels of a panel, those that pad it included.
    pub(crate) fn c_pad(&self) -> usize {
        self.c_pad
    }

    fn args(&self, src: u64) -> PackArgs {
        PackArgs {
            src,
            dst: self.data.address(),
            groups: self.groups as i32,
            o: self.o as i32,
            taps: self.taps as i32,
            c: self.c as i32,
            n_tile: self.panel as i32,
            c_pad: self.c_pad as i32,
        }
    }

    fn uninit(device: &Device, p: Precision, [groups, o, taps, c]: [usize; 4]) -> Result<Self> {
        if c > MAX_CHANNELS {
            return Err(Error::Limit {
                kernel: "pack_weights".into(),
                what: "channels per group",
                requested: c as u64,
                max: MAX_CHANNELS as u64,
            });
        }
        let dtype = p.dtype();
        let (panel, c_align, stored) = if let Some(t) = device.plan().tile(dtype, o) {
            let stored = if t.element_bytes == 2 { DType::BF16 } else { DType::F32 };
            (t.panel as usize, t.c_align as usize, stored)
        } else {
            // As `Packed` in kernels/tile_copy.cuh reads them: 64 columns, 64 bytes of channels.
            (64, 64 / dtype.size(), dtype)
        };
        let (columns, c_pad) = (o.next_multiple_of(panel), c.next_multiple_of(c_align));
        let group = columns * taps * c_pad;
        if group > i32::MAX as usize {
            return Err(Error::Limit {
                kernel: "pack_weights".into(),
                what: "weights per group",
                requested: group as u64,
                max: i32::MAX as u64,
            });
        }
        let data = Tensor::uninit(device, &[groups, group], stored)?;
        Ok(Packed { data, group, o, groups, taps, c, c_pad, panel, dtype })
    }

    /// Cuts `m` rows into tiles so that every processor gets several.
    pub(crate) fn tiles(&self, device: &Device, dtype: DType, m: usize, groups: usize) -> Tiles {
        let Some(tile) = device.plan().tile(dtype, self.o) else {
            let side = if self.large(device, m, groups) { LARGE } else { SMALL };
            return Tiles { m_tile: side, n_tile: side, count: m.div_ceil(side) * self.o.div_ceil(side) };
        };
        /// Rows of one block should stay in the second-level cache beside a panel of weights.
        const CACHE: usize = 1536 << 10;
        /// Blocks per thread below which uneven ones no longer balance.
        const BALANCE: usize = 6;
        let (step, panel) = (tile.rows as usize, tile.panel as usize);
        // bf16 on AMX gathers every tap of its rows, float32 reads rows in place.
        let row = if tile.element_bytes == 2 { 2 * self.taps * self.c_pad } else { 4 * self.c_pad };
        let mut m_tile = (CACHE / row.max(1) / step * step).clamp(step, 384 / step * step);
        let wanted = BALANCE * device.parallelism();
        let blocks = |m_tile: usize, n_tile: usize| m.div_ceil(m_tile) * self.o.div_ceil(n_tile) * groups;
        while m_tile > 4 * step && blocks(m_tile, self.o) < wanted {
            m_tile -= step;
        }
        let mut n_tile = self.o.next_multiple_of(panel);
        while n_tile > panel && blocks(m_tile, n_tile) < wanted {
            n_tile = (n_tile / 2).next_multiple_of(panel);
        }
        Tiles { m_tile, n_tile, count: m.div_ceil(m_tile) * self.o.div_ceil(n_tile) }
    }

    /// The same for kernels that have only the small CUDA tile.
    pub(crate) fn tiles_small(&self, device: &Device, dtype: DType, m: usize, groups: usize) -> Tiles {
        if device.plan().serial {
            return self.tiles(device, dtype, m, groups);
        }
        Tiles { m_tile: SMALL, n_tile: SMALL, count: m.div_ceil(SMALL) * self.o.div_ceil(SMALL) }
    }

    /// Whether CUDA's large tile gives every multiprocessor work.
    pub(crate) fn large(&self, device: &Device, m: usize, groups: usize) -> bool {
        self.o > SMALL && m.div_ceil(LARGE) * self.o.div_ceil(LARGE) * groups >= device.parallelism()
    }
}
