//! 3x3 convolutions with stride 1 in a quarter of the multiplications: `kernels/winograd.cpp`, on the host, in float32.

use super::weights::Packed;
use crate::Result;
use crate::device::{ConvArgs, DType, Divisor, WINOGRAD_F32, WinogradArgs};
use crate::tape::Graph;

/// Side of a tile of outputs.
const TILE: usize = 4;
/// Tiles of a block: more would transform the weights less often, but leave the second cache.
const BLOCK: usize = 96;
/// Tiles below which it is cheaper to share columns out among threads than tiles, each of which transforms the weights again.
const LEAST: usize = 24;
/// Tiles that the scratch of a block must hold: with so many channels that it does not, transforms would take most of the time.
const FEWEST: usize = 12;

/// Whether it is worth it for a convolution of `points` outputs an image, from `c` to `o` channels.
///
/// The rule knows nothing of the batch, so that a result depends on its image alone. It compares what an image takes, in
/// multiply-adds: directly 9 c o for a point, and as many as [`STORE`] for each value of it; here 36 c o for a tile and a fifth more
/// for products in chunks, [`TRANSFORM`] for each channel and each column of a tile, and what [`WEIGHTS`] tiles take to transform
/// the weights, of which a batch of [`BATCH`] bears its part. docs/performance.md has the times that these numbers were fitted to.
fn pays([p, q]: [usize; 2], c: usize, o: usize) -> bool {
    const STORE: usize = 32;
    const TRANSFORM: usize = 900;
    const WEIGHTS: usize = 8;
    const BATCH: usize = 8;
    let tiles = p.div_ceil(TILE) * q.div_ceil(TILE);
    let tile = 36 * 6 * c * o / 5 + TRANSFORM * (c + o);
    tiles * tile + WEIGHTS * 36 * c * o / BATCH < p * q * o * (9 * c + STORE)
}

/// Whether [`run`] does what `args` ask of `conv_f32`, faster.
pub(super) fn serves(g: &Graph, a: &ConvArgs, packed: &Packed) -> bool {
    let plain = [a.r, a.s, a.stride_h, a.stride_w, a.dil_h, a.dil_w, a.groups] == [3, 3, 1, 1, 1, 1, 1];
    let most = g.device().plan().winograd_tiles(a.c as usize, packed.panel());
    plain && g.dtype() == DType::F32 && most >= FEWEST && pays(points(a), a.c as usize, a.o as usize)
}

/// Outputs that a launch computes in an image, down and across.
fn points(a: &ConvArgs) -> [usize; 2] {
    [(a.pq.value / a.q.value) as usize, a.q.value as usize]
}

/// What `conv_f32` would do with these arguments, which [`serves`] agreed to.
pub(super) fn run(g: &Graph, conv: ConvArgs, packed: &Packed) -> Result<()> {
    let [p, q] = points(&conv);
    let (per_row, per_image) = (q.div_ceil(TILE), p.div_ceil(TILE) * q.div_ceil(TILE));
    let tiles = conv.m as usize / (p * q) * per_image;
    let panels = packed.o.div_ceil(packed.panel());
    let plan = g.device().plan();
    let most = plan.winograd_tiles(conv.c as usize, packed.panel()).min(BLOCK);
    let step = plan.tile(g.dtype(), packed.o).map_or(1, |tile| tile.rows as usize);
    let (block, block_panels) = cut([tiles, most, step], panels, g.device().concurrency());
    let args = WinogradArgs {
        conv,
        per_image: Divisor::new(per_image),
        per_row: Divisor::new(per_row),
        tiles: tiles as i32,
        block: block as i32,
        panels: panels as i32,
        block_panels: block_panels as i32,
        panel: packed.panel() as i32,
        c_pad: packed.c_pad() as i32,
    };
    g.launch(&WINOGRAD_F32, [tiles.div_ceil(block), panels.div_ceil(block_panels), 1], &args)
}

/// Tiles, `step` of them at once, and panels of a block, so that every thread gets as much: tiles are shared out first, then panels.
fn cut([tiles, most, step]: [usize; 3], panels: usize, threads: usize) -> (usize, usize) {
    let least = tiles.div_ceil(most);
    let blocks = least.next_multiple_of(threads).min(tiles.div_ceil(LEAST)).max(least);
    let block = tiles.div_ceil(blocks).next_multiple_of(step).min(most);
    let splits = threads.div_ceil(tiles.div_ceil(block)).min(panels);
    (block, panels.div_ceil(splits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_get_equal_shares() {
        // (tiles, most, panels, threads) -> (tiles, panels) of a block
        for (tiles, most, panels, threads, want) in [
            (512, 96, 8, 2, (90, 8)),
            (128, 96, 16, 2, (66, 16)),
            (32, 96, 16, 2, (18, 16)),
            (8, 96, 16, 2, (12, 8)),
            (1, 24, 1, 16, (6, 1)),
            (40, 24, 3, 16, (24, 1)),
        ] {
            assert_eq!(cut([tiles, most, 6], panels, threads), want, "{tiles} {most} {panels} {threads}");
        }
    }

    #[test]
    fn few_channels_and_small_images_stay_direct() {
        assert!(pays([32, 32], 16, 16) && pays([7, 7], 512, 512) && pays([4, 4], 512, 512));
        assert!(!pays([32, 32], 3, 64) && !pays([32, 32], 8, 8) && !pays([2, 2], 256, 256) && !pays([1, 300], 64, 64));
    }
}
