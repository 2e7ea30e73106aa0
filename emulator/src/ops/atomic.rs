//! What `atom` and `red` compute.

/// What an atomic does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub fn apply(self, old: u64, b: u64, c: u64, width: u8) -> u64 {
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
