//! Rounding by its definition: exact values are integers of 4608 bits times a power of two, and the result is found by a search
//! through the bit patterns of the format, which are in the order of their values.

use std::cmp::Ordering;

/// Words of an exact number, and the exponent of its last bit.
const WORDS: usize = 72;
const LAST: i32 = -2240;

/// A magnitude.
#[derive(Clone, PartialEq, Eq)]
struct Big([u64; WORDS]);

impl Big {
    /// `v * 2^exponent`
    fn new(v: u128, exponent: i32) -> Big {
        let mut b = Big([0; WORDS]);
        let at = usize::try_from(exponent - LAST).expect("exponent too small");
        for (n, part) in [v as u64, (v >> 64) as u64].into_iter().enumerate() {
            let (word, bit) = (at / 64 + n, at % 64);
            b.0[word] |= part << bit;
            if bit > 0 && part >> (64 - bit) != 0 {
                b.0[word + 1] |= part >> (64 - bit);
            }
        }
        b
    }

    fn plus(&self, other: &Big) -> Big {
        let (mut sum, mut carry) = (self.clone(), false);
        for (a, b) in sum.0.iter_mut().zip(other.0) {
            let (s, first) = a.overflowing_add(b);
            let (s, second) = s.overflowing_add(u64::from(carry));
            (*a, carry) = (s, first | second);
        }
        sum
    }

    /// The smaller must be the other.
    fn minus(&self, other: &Big) -> Big {
        let (mut difference, mut borrow) = (self.clone(), false);
        for (a, b) in difference.0.iter_mut().zip(other.0) {
            let (d, first) = a.overflowing_sub(b);
            let (d, second) = d.overflowing_sub(u64::from(borrow));
            (*a, borrow) = (d, first | second);
        }
        difference
    }

    fn cmp(&self, other: &Big) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }
}

/// A binary format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    pub exponent_bits: u32,
    pub fraction_bits: u32,
    /// The bits of the NaN that results are.
    pub nan: u64,
}

pub const F16: Format = Format { exponent_bits: 5, fraction_bits: 10, nan: 0x7fff };
pub const BF16: Format = Format { exponent_bits: 8, fraction_bits: 7, nan: 0x7fff };
pub const F32: Format = Format { exponent_bits: 8, fraction_bits: 23, nan: 0x7fff_ffff };
pub const F64: Format = Format { exponent_bits: 11, fraction_bits: 52, nan: 0x7fff_ffff_ffff_ffff };
/// tf32 as 19 bits.
pub const TF32: Format = Format { exponent_bits: 8, fraction_bits: 10, nan: 0x3_ffff };

pub fn format(name: &str) -> Format {
    match name {
        "f16" => F16,
        "bf16" => BF16,
        "f32" => F32,
        "f64" => F64,
        other => panic!("no format {other}"),
    }
}

/// Rounding modes, by their PTX names: `rn rz rm rp`, and `rna`.
pub type Mode<'a> = &'a str;

impl Format {
    pub fn sign_bit(self) -> u64 {
        1 << (self.exponent_bits + self.fraction_bits)
    }
    pub fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits
    }
    pub fn negative(self, bits: u64) -> bool {
        bits & self.sign_bit() != 0
    }
    pub fn magnitude(self, bits: u64) -> u64 {
        bits & (self.sign_bit() - 1)
    }
    pub fn is_nan(self, bits: u64) -> bool {
        self.magnitude(bits) > self.infinity()
    }
    pub fn is_infinite(self, bits: u64) -> bool {
        self.magnitude(bits) == self.infinity()
    }
    pub fn is_zero(self, bits: u64) -> bool {
        self.magnitude(bits) == 0
    }
    pub fn is_subnormal(self, bits: u64) -> bool {
        !self.is_zero(bits) && self.magnitude(bits) >> self.fraction_bits == 0
    }
    pub fn flush(self, bits: u64) -> u64 {
        if self.is_subnormal(bits) { bits & self.sign_bit() } else { bits }
    }
    fn signed(self, negative: bool, magnitude: u64) -> u64 {
        if negative { magnitude | self.sign_bit() } else { magnitude }
    }
    /// The bits of 1.
    pub fn one(self) -> u64 {
        ((1 << (self.exponent_bits - 1)) - 1) << self.fraction_bits
    }

    /// Significand and exponent of a finite magnitude.
    pub fn parts(self, bits: u64) -> (u128, i32) {
        let m = self.magnitude(bits);
        let field = (m >> self.fraction_bits) as i32;
        let fraction = u128::from(m & ((1 << self.fraction_bits) - 1));
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let exponent = field.max(1) - bias - self.fraction_bits as i32;
        (if field == 0 { fraction } else { fraction | 1 << self.fraction_bits }, exponent)
    }

    /// The bits of the number nearest by `mode` to a value, of which `compare(v, e)` tells whether `v * 2^e` is below, at or above.
    fn round(self, negative: bool, mode: Mode, compare: impl Fn(u128, i32) -> Ordering) -> u64 {
        // The largest pattern whose value is not above; infinity counts as the number it would be.
        let (mut low, mut high) = (0, self.infinity() + 1);
        let value = |m: u64| -> (u128, i32) {
            if m < self.infinity() {
                return self.parts(m);
            }
            let (v, e) = self.parts(self.infinity() - 1);
            (v + 1, e)
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let (v, e) = value(middle);
            if compare(v, e) == Ordering::Greater { high = middle } else { low = middle }
        }
        let (v, e) = value(low);
        let beyond = low == self.infinity();
        let away = match mode {
            _ if compare(v, e) == Ordering::Equal && !beyond => false,
            _ if beyond => false,
            "rz" => false,
            "rm" => negative,
            "rp" => !negative,
            _ => match compare(2 * v + 1, e - 1) {
                Ordering::Less => true,
                Ordering::Equal => mode == "rna" || low & 1 == 1,
                Ordering::Greater => false,
            },
        };
        let outward = match mode {
            "rz" => false,
            "rm" => negative,
            "rp" => !negative,
            _ => true,
        };
        let magnitude = if beyond && !outward { self.infinity() - 1 } else { low + u64::from(away) };
        self.signed(negative, magnitude)
    }

    /// An integer times a power of two.
    pub fn of(self, negative: bool, v: u128, exponent: i32, mode: Mode) -> u64 {
        if v == 0 {
            return self.signed(negative, 0);
        }
        let exact = Big::new(v, exponent);
        self.round(negative, mode, |v, e| Big::new(v, e).cmp(&exact))
    }

    /// A number of another format.
    pub fn from(self, other: Format, bits: u64, mode: Mode) -> u64 {
        let negative = other.negative(bits);
        if other.is_nan(bits) {
            return self.nan;
        }
        if other.is_infinite(bits) {
            return self.signed(negative, self.infinity());
        }
        let (v, e) = other.parts(bits);
        self.of(negative, v, e, mode)
    }

    /// `a * b + c`
    pub fn fma(self, a: u64, b: u64, c: u64, mode: Mode) -> u64 {
        self.product_sum(self, a, b, c, mode)
    }

    /// The same, with factors of another format.
    pub fn product_sum(self, other: Format, a: u64, b: u64, c: u64, mode: Mode) -> u64 {
        let sign = other.negative(a) != other.negative(b);
        let infinite = other.is_infinite(a) || other.is_infinite(b);
        let invalid = infinite && (other.is_zero(a) || other.is_zero(b));
        if other.is_nan(a) || other.is_nan(b) || self.is_nan(c) || invalid {
            return self.nan;
        }
        if infinite && self.is_infinite(c) && self.negative(c) != sign {
            return self.nan;
        }
        if infinite || self.is_infinite(c) {
            return self.signed(if infinite { sign } else { self.negative(c) }, self.infinity());
        }
        let ((va, ea), (vb, eb), (vc, ec)) = (other.parts(a), other.parts(b), self.parts(c));
        let (product, addend) = (Big::new(va * vb, ea + eb), Big::new(vc, ec));
        let (exact, negative) = match (sign == self.negative(c), product.cmp(&addend)) {
            (true, _) => (product.plus(&addend), sign),
            (false, Ordering::Less) => (addend.minus(&product), !sign),
            (false, Ordering::Greater) => (product.minus(&addend), sign),
            (false, Ordering::Equal) => (Big::new(0, 0), mode == "rm"),
        };
        if exact.is_zero() {
            return self.signed(negative, 0);
        }
        self.round(negative, mode, |v, e| Big::new(v, e).cmp(&exact))
    }

    pub fn add(self, a: u64, b: u64, mode: Mode) -> u64 {
        self.fma(a, self.one(), b, mode)
    }

    pub fn mul(self, a: u64, b: u64, mode: Mode) -> u64 {
        // Adding a zero of the product's sign changes nothing.
        let zero = self.signed(self.negative(a) != self.negative(b), 0);
        self.fma(a, b, zero, mode)
    }

    pub fn div(self, a: u64, b: u64, mode: Mode) -> u64 {
        let negative = self.negative(a) != self.negative(b);
        let (ia, ib) = (self.is_infinite(a), self.is_infinite(b));
        let (za, zb) = (self.is_zero(a), self.is_zero(b));
        if self.is_nan(a) || self.is_nan(b) || ia && ib || za && zb {
            return self.nan;
        }
        if ia || zb {
            return self.signed(negative, self.infinity());
        }
        if ib || za {
            return self.signed(negative, 0);
        }
        let ((va, ea), (vb, eb)) = (self.parts(a), self.parts(b));
        let dividend = Big::new(va, ea);
        self.round(negative, mode, |v, e| Big::new(v * vb, e + eb).cmp(&dividend))
    }

    pub fn sqrt(self, a: u64, mode: Mode) -> u64 {
        if self.is_nan(a) || self.negative(a) && !self.is_zero(a) {
            return self.nan;
        }
        if self.is_infinite(a) || self.is_zero(a) {
            return a;
        }
        let (va, ea) = self.parts(a);
        let square = Big::new(va, ea);
        self.round(false, mode, |v, e| Big::new(v * v, 2 * e).cmp(&square))
    }

    /// The value; every format here fits in `f64`.
    pub fn value(self, bits: u64) -> f64 {
        if self == F64 {
            return f64::from_bits(bits);
        }
        let magnitude = match bits {
            _ if self.is_nan(bits) => return f64::NAN,
            _ if self.is_infinite(bits) => f64::INFINITY,
            _ => {
                let (v, e) = self.parts(bits);
                v as f64 * 2f64.powi(e)
            }
        };
        if self.negative(bits) { -magnitude } else { magnitude }
    }

    pub fn saturate(self, bits: u64) -> u64 {
        match self.value(bits) {
            x if x >= 1.0 => self.one(),
            x if x > 0.0 => bits,
            _ => 0,
        }
    }

    pub fn relu(self, bits: u64) -> u64 {
        if self.is_nan(bits) || !self.negative(bits) { bits } else { 0 }
    }
}
