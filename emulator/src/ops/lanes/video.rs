//! Scalar and SIMD video instructions (PTX ISA 9.0, 9.7.18 and 9.7.19): parts of 32-bit registers, extended, combined and merged.

use crate::ops::shapes::levels;
use crate::registers::{Exec, Level, Operands, Registers, Value};

/// What is done with two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Add,
    Sub,
    AbsDiff,
    Min,
    Max,
    ShiftLeft,
    ShiftRight,
    Average,
    MultiplyAdd,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

const KINDS: [Kind; 15] = [
    Kind::Add,
    Kind::Sub,
    Kind::AbsDiff,
    Kind::Min,
    Kind::Max,
    Kind::ShiftLeft,
    Kind::ShiftRight,
    Kind::Average,
    Kind::MultiplyAdd,
    Kind::Eq,
    Kind::Ne,
    Kind::Lt,
    Kind::Le,
    Kind::Gt,
    Kind::Ge,
];

/// What happens to the result and `c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Second {
    /// There is no `c`, or the result is put into a part of it.
    #[default]
    Merge,
    Add,
    Min,
    Max,
}

/// An instruction, packed into `Operands::extra`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Video {
    pub kind: Kind,
    /// Whether d, a and b are signed.
    pub signed: [bool; 3],
    pub saturate: bool,
    /// `.wrap` of a shift; otherwise it is `.clamp`.
    pub wrap: bool,
    /// Right shift of `vmad`: 0, 7 or 15; its addition of one (`.po`); whether the product or `c` is negated.
    pub scale: u8,
    pub plus_one: bool,
    pub negated: [bool; 2],
    /// Parts of d, a and b: 0 to 3 a byte, 4 and 5 a half, 6 all of it.
    pub part: [u8; 3],
    pub second: Second,
    /// Elements of a SIMD instruction that are written, 2 or 4 of them; 0 for a scalar one.
    pub lanes: u8,
    pub mask: u8,
}

impl Video {
    pub fn pack(&self) -> u32 {
        let bit = |b: bool, n: u32| u32::from(b) << n;
        let scale = match self.scale {
            7 => 1,
            15 => 2,
            _ => 0,
        };
        self.kind as u32
            | bit(self.signed[0], 4)
            | bit(self.signed[1], 5)
            | bit(self.signed[2], 6)
            | bit(self.saturate, 7)
            | bit(self.wrap, 8)
            | bit(self.plus_one, 9)
            | scale << 10
            | u32::from(self.part[0]) << 12
            | u32::from(self.part[1]) << 15
            | u32::from(self.part[2]) << 18
            | (self.second as u32) << 21
            | u32::from(self.lanes / 2) << 23
            | u32::from(self.mask) << 25
            | bit(self.negated[0], 29)
            | bit(self.negated[1], 30)
    }

    fn unpack(bits: u32) -> Video {
        let bit = |n: u32| bits >> n & 1 == 1;
        let field = |n: u32, size: u32| (bits >> n & ((1 << size) - 1)) as u8;
        Video {
            kind: KINDS[usize::from(field(0, 4)).min(KINDS.len() - 1)],
            signed: [bit(4), bit(5), bit(6)],
            saturate: bit(7),
            wrap: bit(8),
            plus_one: bit(9),
            scale: [0, 7, 15, 15][usize::from(field(10, 2))],
            part: [field(12, 3), field(15, 3), field(18, 3)],
            second: [Second::Merge, Second::Add, Second::Min, Second::Max][usize::from(field(21, 2))],
            lanes: 2 * field(23, 2),
            mask: field(25, 4),
            negated: [bit(29), bit(30)],
        }
    }

    fn f(&self, a: u32, b: u32, c: u32) -> u32 {
        match self.lanes {
            0 => self.scalar(a, b, c),
            lanes => self.simd(u32::from(lanes), a, b, c),
        }
    }

    fn scalar(&self, a: u32, b: u32, c: u32) -> u32 {
        let (ta, tb) = (extend(a, self.part[1], self.signed[1]), extend(b, self.part[2], self.signed[2]));
        if self.kind == Kind::MultiplyAdd {
            return self.multiply_add(ta, tb, c);
        }
        let (place, bits) = place(self.part[0]);
        let result = self.saturated(self.combine(ta, tb), bits);
        match self.second {
            Second::Merge if bits == 32 => result as u32,
            Second::Merge => {
                let keep = ((1u32 << bits) - 1) << place;
                c & !keep | (result as u32) << place & keep
            }
            Second::Add => (result as u32).wrapping_add(c),
            Second::Min => self.of_signed(result as u32, c, |x, y| x.min(y)),
            Second::Max => self.of_signed(result as u32, c, |x, y| x.max(y)),
        }
    }

    fn of_signed(&self, x: u32, y: u32, f: impl Fn(i64, i64) -> i64) -> u32 {
        f(extend(x, 6, self.signed[0]), extend(y, 6, self.signed[0])) as u32
    }

    fn multiply_add(&self, a: i64, b: i64, c: u32) -> u32 {
        let [minus_product, minus_c] = self.negated;
        let signed = self.signed[1] || self.signed[2] || minus_product || minus_c;
        let of = |x: i128, minus: bool| if minus { -x } else { x };
        let (product, c) = (i128::from(a) * i128::from(b), i128::from(extend(c, 6, signed)));
        let sum = (of(product, minus_product) + of(c, minus_c) + i128::from(self.plus_one)) >> self.scale;
        let (low, high) = limits(32, signed);
        (if self.saturate { sum.clamp(low.into(), high.into()) } else { sum }) as u32
    }

    fn simd(&self, lanes: u32, a: u32, b: u32, c: u32) -> u32 {
        let bits = 32 / lanes;
        let first = if lanes == 4 { 0 } else { 4 };
        let (mut merged, mut sum) = (c, c);
        for n in (0..lanes).filter(|n| self.mask >> n & 1 == 1) {
            let part = first + n as u8;
            let (ta, tb) = (extend(a, part, self.signed[1]), extend(b, part, self.signed[2]));
            let result = self.saturated(self.combine(ta, tb), bits);
            let keep = ((1u32 << bits) - 1) << (n * bits);
            merged = merged & !keep | (result as u32) << (n * bits) & keep;
            sum = sum.wrapping_add(result as u32);
        }
        if self.second == Second::Add { sum } else { merged }
    }

    fn combine(&self, a: i64, b: i64) -> i64 {
        // Values of 32 bits: 63 shifts all of them out.
        let by = if self.wrap { b & 31 } else { b.clamp(0, 32) };
        match self.kind {
            Kind::Add => a + b,
            Kind::Sub => a - b,
            Kind::AbsDiff => (a - b).abs(),
            Kind::Min => a.min(b),
            Kind::Max => a.max(b),
            Kind::ShiftLeft => a << by,
            Kind::ShiftRight => a >> by,
            Kind::Average => (a + b + i64::from(a + b >= 0)) >> 1,
            Kind::MultiplyAdd => a.wrapping_mul(b),
            Kind::Eq => i64::from(a == b),
            Kind::Ne => i64::from(a != b),
            Kind::Lt => i64::from(a < b),
            Kind::Le => i64::from(a <= b),
            Kind::Gt => i64::from(a > b),
            Kind::Ge => i64::from(a >= b),
        }
    }

    fn saturated(&self, x: i64, bits: u32) -> i64 {
        let (low, high) = limits(bits, self.signed[0]);
        if self.saturate { x.clamp(low, high) } else { x }
    }
}

fn limits(bits: u32, signed: bool) -> (i64, i64) {
    if signed { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// First bit and number of bits of a part.
fn place(part: u8) -> (u32, u32) {
    match part {
        0..=3 => (8 * u32::from(part), 8),
        4 | 5 => (16 * u32::from(part - 4), 16),
        _ => (0, 32),
    }
}

fn extend(x: u32, part: u8, signed: bool) -> i64 {
    let (first, bits) = place(part);
    let unused = 64 - bits;
    let raised = u64::from(x >> first) << unused;
    if signed { raised as i64 >> unused } else { (raised >> unused) as i64 }
}

/// Rows d, a, b, c.
pub fn video(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 to 3 are rows of 32 bits.
        unsafe {
            let [a, b, c] = [1, 2, 3].map(|n| u32::read(r, o.slot[n]));
            let how = Video::unpack(o.extra);
            u32::write(r, o.slot[0], mask, std::array::from_fn(|l| how.f(a[l], b[l], c[l])));
        }
    }
    levels!(level, [], body)
}
