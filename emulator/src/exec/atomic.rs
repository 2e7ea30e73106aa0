//! `atom` and `red`: lane after lane, in ascending order; blocks of such a kernel run one after another, so that results do not
//! depend on timing.

use super::elements::{get, put, read_elements, write_elements};
use super::{Cta, Outcome, Warp, addresses, global, lanes, shared};
use crate::address::{SHARED, SHARED_FIRST, WINDOW};
use crate::program::Ins;

/// What an atomic does; the number is `Operands::extra`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    AddInteger,
    AddF32,
    AddF64,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    /// `d = old >= b ? 0 : old + 1`
    Increment,
    /// `d = old == 0 || old > b ? b : old - 1`
    Decrement,
}

const ALL: [Operation; 14] = [
    Operation::AddInteger,
    Operation::AddF32,
    Operation::AddF64,
    Operation::And,
    Operation::Or,
    Operation::Xor,
    Operation::Exchange,
    Operation::CompareAndSwap,
    Operation::MinUnsigned,
    Operation::MaxUnsigned,
    Operation::MinSigned,
    Operation::MaxSigned,
    Operation::Increment,
    Operation::Decrement,
];

impl Operation {
    /// By the parts of the opcode that name it: "add" and "f32".
    pub fn named(name: &str, ty: &str) -> Option<Operation> {
        use Operation::*;
        let integer = matches!(ty, "u32" | "s32" | "u64" | "s64");
        let signed = matches!(ty, "s32" | "s64");
        let bits = matches!(ty, "b32" | "b64");
        Some(match name {
            "add" if ty == "f32" => AddF32,
            "add" if ty == "f64" => AddF64,
            "add" if integer => AddInteger,
            "and" if bits => And,
            "or" if bits => Or,
            "xor" if bits => Xor,
            "exch" if bits => Exchange,
            "cas" if bits || ty == "b16" => CompareAndSwap,
            "min" if signed => MinSigned,
            "max" if signed => MaxSigned,
            "min" if integer => MinUnsigned,
            "max" if integer => MaxUnsigned,
            "inc" if ty == "u32" => Increment,
            "dec" if ty == "u32" => Decrement,
            _ => return None,
        })
    }

    /// The new value.
    fn apply(self, old: u64, b: u64, c: u64, width: u8) -> u64 {
        use Operation::*;
        let signed = |v: u64| if width == 4 { i64::from(v as u32 as i32) } else { v as i64 };
        match self {
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
}

/// Slot 0 the address, slot 1 the destination (the sink for `red`), slots 2 and 3 the sources.
pub fn global(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    global_at(warp, cta, ins, mask, &a)
}

fn global_at(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = u64::from(ins.width);
    global::count(cta, ins, mask, a, bytes);
    let mut pointers = [std::ptr::null_mut::<u8>(); 32];
    let mut left = mask;
    while left != 0 {
        let (view, group) = global::find(warp, cta, ins, left, a, bytes, "atomic")?;
        let v = cta.shape.views[view];
        for l in lanes(group) {
            // SAFETY: `find` has checked the range.
            if cta.shape.checks && unsafe { !v.all_written((a[l] - v.base) as usize, bytes as usize) } {
                let what = format!("atomic on {bytes} bytes that nothing wrote");
                let mut f = warp.finding(cta, ins, crate::finding::Kind::UninitializedGlobal, l, what);
                global::locate(&mut f, a[l], v.name());
                return Err(f);
            }
            pointers[l] = v.data(a[l]);
        }
        left &= !group;
    }
    apply(warp, ins, mask, &pointers);
    Ok(())
}

pub fn shared(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    shared_at(warp, cta, ins, mask, &a)
}

fn shared_at(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width);
    shared::inside(warp, cta, ins, mask, a, bytes, "atomic")?;
    shared::count(cta, ins, mask, a, bytes);
    if cta.shape.checks {
        for l in lanes(mask) {
            let at = (a[l] - SHARED_FIRST) as usize;
            if let Err(c) = cta.shared_shadow.atomic(&cta.clock, at, bytes) {
                return Err(shared::report(warp, cta, ins, l, &format!("atomic on {bytes} bytes"), c));
            }
        }
    }
    let base = cta.shared();
    let pointers = std::array::from_fn(|l| base.wrapping_add(a[l].wrapping_sub(SHARED_FIRST) as usize));
    apply(warp, ins, mask, &pointers);
    Ok(())
}

/// Without a state space.
pub fn generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let mut a = addresses(&warp.registers, ins.operands.slot[0], ins);
    let mut inside = 0u32;
    for l in lanes(mask) {
        if a[l] >= SHARED && a[l] < SHARED + WINDOW {
            a[l] -= SHARED;
            inside |= 1 << l;
        }
    }
    if inside != 0 {
        shared_at(warp, cta, ins, inside, &a)?;
    }
    if mask & !inside != 0 {
        global_at(warp, cta, ins, mask & !inside, &a)?;
    }
    Ok(())
}

fn apply(warp: &mut Warp, ins: &Ins, mask: u32, at: &[*mut u8; 32]) {
    let operation = ALL[ins.operands.extra as usize];
    let cut = if ins.width == 8 { u64::MAX } else { (1 << (8 * ins.width)) - 1 };
    let mut before = [0u64; 32];
    // SAFETY: compiled instructions name rows of their warp, and the callers have checked the addresses.
    unsafe {
        let b = read_elements(&warp.registers, ins.operands.slot[2], ins.wide);
        let c = read_elements(&warp.registers, ins.operands.slot[3], ins.wide);
        for l in lanes(mask) {
            let old = get(at[l], ins.width);
            before[l] = old;
            put(at[l], ins.width, operation.apply(old, b[l] & cut, c[l] & cut, ins.width));
        }
        write_elements(&mut warp.registers, ins.operands.slot[1], mask, ins.wide, &before);
    }
}
