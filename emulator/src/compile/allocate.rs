//! Gives virtual registers rows: linear scan over live intervals, so that a warp's registers stay in the first-level cache.
//!
//! Correct for one thread is correct for a warp: rows are per lane, and instructions write only the lanes that take part. That holds
//! only while a row keeps its width: lane l of a 64-bit value lies where lanes 2l and 2l + 1 of two 32-bit rows would, so pairs of
//! rows are reused by pairs alone.
//! Source: Poletto & Sarkar 1999, "Linear Scan Register Allocation".

use super::flow::Blocks;

/// Which virtual registers an instruction reads and writes.
#[derive(Default)]
pub struct Touches {
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    /// A guarded write leaves other lanes as they were.
    pub guarded: bool,
}

/// Where each virtual register lies; `None` for one that nothing touches.
pub struct Allocation {
    pub slot: Vec<Option<u16>>,
    /// Rows in use.
    pub rows: usize,
    /// Registers that may be read before they are written.
    pub undefined: Vec<u32>,
    /// Most rows live at once.
    pub pressure: usize,
}

/// Allocates registers of `width[v]` rows (0 leaves a register out) behind the first `reserved` rows.
pub fn allocate(blocks: &Blocks, touches: &[Touches], width: &[u8], reserved: usize) -> Allocation {
    let words = width.len().div_ceil(64);
    let set = |bits: &mut [u64], v: u32| bits[v as usize / 64] |= 1 << (v % 64);
    let has = |bits: &[u64], v: u32| bits[v as usize / 64] >> (v % 64) & 1 == 1;
    let n = blocks.count();
    let (mut uses, mut defines) = (vec![vec![0u64; words]; n], vec![vec![0u64; words]; n]);
    for b in 0..n {
        for t in &touches[blocks.first[b]..blocks.first[b + 1]] {
            for &v in &t.reads {
                if !has(&defines[b], v) {
                    set(&mut uses[b], v);
                }
            }
            for &v in &t.writes {
                if t.guarded && !has(&defines[b], v) {
                    set(&mut uses[b], v);
                }
                set(&mut defines[b], v);
            }
        }
    }
    let (live_in, live_out) = blocks.liveness(&uses, &defines, words);

    // Intervals of instruction numbers, ends included.
    let mut from = vec![usize::MAX; width.len()];
    let mut to = vec![0usize; width.len()];
    let mut extend = |v: usize, at: usize| {
        from[v] = from[v].min(at);
        to[v] = to[v].max(at);
    };
    for b in 0..n {
        let (first, last) = (blocks.first[b], blocks.first[b + 1] - 1);
        for w in 0..words {
            for (bits, at) in [(live_in[b][w], first), (live_out[b][w], last)] {
                let mut left = bits;
                while left != 0 {
                    extend(w * 64 + left.trailing_zeros() as usize, at);
                    left &= left - 1;
                }
            }
        }
        for (i, t) in touches[first..=last].iter().enumerate() {
            for &v in t.reads.iter().chain(&t.writes) {
                extend(v as usize, first + i);
            }
        }
    }

    let mut order: Vec<usize> = (0..width.len()).filter(|&v| width[v] > 0 && from[v] != usize::MAX).collect();
    order.sort_unstable_by_key(|&v| (from[v], v));
    let mut active: std::collections::BTreeSet<(usize, usize)> = Default::default();
    let mut slot = vec![None; width.len()];
    let (mut singles, mut pairs): (Vec<u16>, Vec<u16>) = (Vec::new(), Vec::new());
    let (mut rows, mut live, mut pressure) = (reserved, 0usize, 0usize);
    for v in order {
        while let Some(&(end, old)) = active.first() {
            if end >= from[v] {
                break;
            }
            active.pop_first();
            let at: u16 = slot[old].unwrap_or_default();
            if width[old] == 2 {
                pairs.push(at)
            } else {
                singles.push(at)
            }
            live -= width[old] as usize;
        }
        let mut fresh = |n: usize| {
            rows += n;
            u16::try_from(rows - n).unwrap_or(u16::MAX)
        };
        let at = if width[v] == 2 {
            pairs.pop().unwrap_or_else(|| fresh(2))
        } else {
            singles.pop().unwrap_or_else(|| fresh(1))
        };
        slot[v] = Some(at);
        active.insert((to[v], v));
        live += width[v] as usize;
        pressure = pressure.max(live);
    }
    let undefined =
        (0..width.len() as u32).filter(|&v| n > 0 && width[v as usize] > 0 && has(&live_in[0], v)).collect();
    Allocation { slot, rows, undefined, pressure }
}
