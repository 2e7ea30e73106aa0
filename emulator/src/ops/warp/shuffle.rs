//! `shfl`: each lane takes a register of another (PTX ISA 9.0, 9.7.9.5 and 9.7.9.6).

use super::members::{bits, write_predicate};
use crate::ops::shapes::levels;
use crate::registers::{Exec, Level, Operands, Registers, Value};

/// Where a lane takes its value from.
pub(super) trait Mode {
    /// The source lane and whether it is in range, by the lane, `b` (5 bits), the bounds of its segment, and the segment mask.
    fn source(lane: i32, b: i32, min: i32, max: i32, segment: i32) -> (i32, bool);
}

pub(super) struct Up;
pub(super) struct Down;
pub(super) struct Butterfly;
pub(super) struct Index;

impl Mode for Up {
    #[inline(always)]
    fn source(lane: i32, b: i32, _: i32, max: i32, _: i32) -> (i32, bool) {
        // The clamp of this mode is a lower bound.
        (lane - b, lane - b >= max)
    }
}

impl Mode for Down {
    #[inline(always)]
    fn source(lane: i32, b: i32, _: i32, max: i32, _: i32) -> (i32, bool) {
        (lane + b, lane + b <= max)
    }
}

impl Mode for Butterfly {
    #[inline(always)]
    fn source(lane: i32, b: i32, _: i32, max: i32, _: i32) -> (i32, bool) {
        (lane ^ b, lane ^ b <= max)
    }
}

impl Mode for Index {
    #[inline(always)]
    fn source(_: i32, b: i32, min: i32, max: i32, segment: i32) -> (i32, bool) {
        let lane = min | b & !segment;
        (lane, lane <= max)
    }
}

pub(super) fn select(mode: &str, level: Level) -> Option<Exec> {
    Some(match mode {
        "up" => shuffle::<Up>(level),
        "down" => shuffle::<Down>(level),
        "bfly" => shuffle::<Butterfly>(level),
        "idx" => shuffle::<Index>(level),
        _ => return None,
    })
}

/// The modes as `Operands::extra` numbers them.
pub(super) const MODES: [&str; 5] = ["", "up", "down", "bfly", "idx"];

/// The lane that a lane takes its value from in a mode of [`MODES`], if that is in range.
pub(super) fn source(mode: u32, lane: usize, b: u32, c: u32) -> Option<usize> {
    let (clamp, segment) = ((c & 31) as i32, (c >> 8 & 31) as i32);
    let min = lane as i32 & segment;
    let (lane, b, max) = (lane as i32, (b & 31) as i32, min | clamp & !segment);
    let (from, valid) = match *MODES.get(mode as usize)? {
        "up" => Up::source(lane, b, min, max, segment),
        "down" => Down::source(lane, b, min, max, segment),
        "bfly" => Butterfly::source(lane, b, min, max, segment),
        "idx" => Index::source(lane, b, min, max, segment),
        _ => return None,
    };
    (valid && (0..32).contains(&from)).then_some(from as usize)
}

/// Rows d, a, b, c; predicate p. A lane whose source takes no part, which leaves its value undefined, keeps its own.
fn shuffle<M: Mode>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<M: Mode>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 1 to 3 are rows of 32 bits.
        let [a, b, c] = unsafe { [1, 2, 3].map(|n| u32::read(r, o.slot[n])) };
        let (mut from, mut in_range) = ([0u32; 32], [false; 32]);
        for l in 0..32 {
            let (clamp, segment) = ((c[l] & 31) as i32, (c[l] >> 8 & 31) as i32);
            let min = l as i32 & segment;
            let (source, valid) = M::source(l as i32, (b[l] & 31) as i32, min, min | clamp & !segment, segment);
            in_range[l] = valid;
            from[l] = if valid && mask >> (source & 31) & 1 == 1 { source as u32 & 31 } else { l as u32 };
        }
        let d = from.map(|l| a[l as usize & 31]);
        // SAFETY: and that slot 0 is one; predicate 0 may be missing.
        unsafe {
            u32::write(r, o.slot[0], mask, d);
            write_predicate(r, o.predicate[0], mask, bits(|l| in_range[l]));
        }
    }
    levels!(level, [M: Mode], body::<M>)
}
