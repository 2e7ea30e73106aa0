//! What `atom` and `red` compute.

use crate::ptx::opcode::AtomicKind;

/// The new value. In global memory sums of f32 take and leave no subnormal numbers (PTX ISA 9.0, 9.7.13.5).
pub fn apply(kind: AtomicKind, old: u64, b: u64, c: u64, width: u8, global: bool) -> u64 {
    use AtomicKind::*;
    let signed = |v: u64| if width == 4 { i64::from(v as u32 as i32) } else { v as i64 };
    match kind {
        AddInteger => old.wrapping_add(b),
        AddF32 => {
            let flushed = |x: f32| if global && x.is_subnormal() { 0f32.copysign(x) } else { x };
            let sum = flushed(f32::from_bits(old as u32)) + flushed(f32::from_bits(b as u32));
            u64::from(if sum.is_nan() { 0x7fff_ffff } else { flushed(sum).to_bits() })
        }
        AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AddF16 => halves(old, b, |x, y| one_nan(wide16(x) + wide16(y), |s| half::f16::from_f64(s).to_bits())),
        AddBf16 => halves(old, b, |x, y| one_nan(wide_b16(x) + wide_b16(y), |s| half::bf16::from_f64(s).to_bits())),
        MinF16 => halves(old, b, |x, y| least(x, y, wide16(x), wide16(y), false)),
        MaxF16 => halves(old, b, |x, y| least(x, y, wide16(x), wide16(y), true)),
        MinBf16 => halves(old, b, |x, y| least(x, y, wide_b16(x), wide_b16(y), false)),
        MaxBf16 => halves(old, b, |x, y| least(x, y, wide_b16(x), wide_b16(y), true)),
        And => old & b,
        Or => old | b,
        Xor => old ^ b,
        Exchange => b,
        CompareAndSwap => {
            if old == b {
                c
            } else {
                old
            }
        }
        MinUnsigned => old.min(b),
        MaxUnsigned => old.max(b),
        MinSigned => signed(old).min(signed(b)) as u64,
        MaxSigned => signed(old).max(signed(b)) as u64,
        Increment => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Decrement => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

/// Both halves of 32 bits; of 16 bits the upper one is cut off by whoever stores the result.
fn halves(a: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    let one = |a: u64, b: u64| u64::from(f(a as u16, b as u16));
    one(a, b) | one(a >> 16, b >> 16) << 16
}

/// A NaN has one form.
fn one_nan(sum: f64, round: impl Fn(f64) -> u16) -> u16 {
    if sum.is_nan() { 0x7fff } else { round(sum) }
}

fn wide16(x: u16) -> f64 {
    half::f16::from_bits(x).to_f64()
}

fn wide_b16(x: u16) -> f64 {
    half::bf16::from_bits(x).to_f64()
}

/// The smaller or larger of two numbers; -0 is less than 0, and a NaN gives way to a number.
fn least(x: u16, y: u16, a: f64, b: f64, larger: bool) -> u16 {
    let x_wins = if a.is_nan() {
        false
    } else if b.is_nan() {
        true
    } else {
        (a.total_cmp(&b).is_lt()) != larger
    };
    match (a.is_nan() && b.is_nan(), x_wins) {
        (true, _) => 0x7fff,
        (_, true) => x,
        (_, false) => y,
    }
}
