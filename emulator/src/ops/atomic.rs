//! What `atom` and `red` compute.

use crate::ptx::opcode::AtomicKind;

/// The new value.
pub fn apply(kind: AtomicKind, old: u64, b: u64, c: u64, width: u8) -> u64 {
    use AtomicKind::*;
    let signed = |v: u64| if width == 4 { i64::from(v as u32 as i32) } else { v as i64 };
    match kind {
        AddInteger => old.wrapping_add(b),
        AddF32 => u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits()),
        AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
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
