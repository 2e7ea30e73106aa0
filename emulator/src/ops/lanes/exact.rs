//! `f64` arithmetic in the directed roundings, by integers: the exact result (or enough of it, with a sticky last bit) as
//! `significand * 2^exponent`, then one rounding. Cases that rounding does not touch (NaN, infinity, exact zeros) are left
//! to the processor.

use super::rounding::Mode;

/// `significand * 2^exponent`, the significand not 0.
#[derive(Clone, Copy)]
struct Parts {
    negative: bool,
    significand: u128,
    exponent: i32,
}

/// Exponent of the last bit of the smallest subnormal number.
const LAST: i32 = -1074;
/// The leading bit of significands that are to be added: one bit below the top is left for the carry.
const LEADING: u32 = 125;

impl Parts {
    fn new(x: f64) -> Parts {
        let bits = x.to_bits();
        let field = (bits >> 52 & 0x7ff) as i32;
        let fraction = u128::from(bits & ((1 << 52) - 1));
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        Parts { negative: bits >> 63 == 1, significand, exponent: LAST + field.max(1) - 1 }
    }

    fn times(self, other: Parts) -> Parts {
        Parts {
            negative: self.negative != other.negative,
            significand: self.significand * other.significand,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The same value with its leading bit at `LEADING`; significands here have at most 106 bits.
    fn normalised(self) -> Parts {
        let up = self.significand.leading_zeros() - (127 - LEADING);
        Parts { significand: self.significand << up, exponent: self.exponent - up as i32, ..self }
    }

    fn rounded(self, mode: Mode) -> f64 {
        let length = 128 - self.significand.leading_zeros() as i32;
        let last = (self.exponent + length - 53).max(LAST);
        let down = last - self.exponent;
        let (kept, rest, half) = if down <= 0 {
            (self.significand << -down, 0, 1)
        } else {
            // Beyond 126 bits nothing but stickiness is left.
            let far = (down - 126).max(0) as u32;
            let (significand, down) = (sticky_shift(self.significand, far), down as u32 - far);
            (significand >> down, significand & ((1 << down) - 1), 1 << (down - 1))
        };
        let up = match mode {
            Mode::Rn => rest > half || rest == half && kept & 1 == 1,
            Mode::Rz => false,
            Mode::Rm => self.negative && rest != 0,
            Mode::Rp => !self.negative && rest != 0,
        };
        // Below 2^52 the number is subnormal and its exponent field 0; a carry moves into the field by itself.
        let kept = kept as u64;
        let field = if kept >> 52 == 0 { 0 } else { (last - LAST + 1) as u64 };
        let magnitude = (field << 52) + (kept & !(u64::from(field > 0) << 52)) + u64::from(up);
        const INFINITY: u64 = 0x7ff << 52;
        let magnitude = if field >= 0x7ff || magnitude >= INFINITY {
            let away = match mode {
                Mode::Rn => true,
                Mode::Rz => false,
                Mode::Rm => self.negative,
                Mode::Rp => !self.negative,
            };
            if away { INFINITY } else { INFINITY - 1 }
        } else {
            magnitude
        };
        f64::from_bits(magnitude | u64::from(self.negative) << 63)
    }
}

/// Shifts down; bits that are lost leave the last bit set.
fn sticky_shift(x: u128, by: u32) -> u128 {
    match by {
        0 => x,
        1..128 => x >> by | u128::from(x << (128 - by) != 0),
        _ => u128::from(x != 0),
    }
}

/// `a * b + c`
pub fn fma(a: f64, b: f64, c: f64, mode: Mode) -> f64 {
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return a.mul_add(b, c);
    }
    let negative = a.is_sign_negative() != b.is_sign_negative();
    let zero = |negative| if negative { -0.0 } else { 0.0 };
    if a == 0.0 || b == 0.0 {
        if c != 0.0 {
            return c;
        }
        return zero(if negative == c.is_sign_negative() { negative } else { mode == Mode::Rm });
    }
    let product = Parts::new(a).times(Parts::new(b));
    if c == 0.0 {
        return product.rounded(mode);
    }
    let (mut x, mut y) = (product.normalised(), Parts::new(c).normalised());
    if (x.exponent, x.significand) < (y.exponent, y.significand) {
        (x, y) = (y, x);
    }
    let below = sticky_shift(y.significand, (x.exponent - y.exponent) as u32);
    let significand = if x.negative == y.negative { x.significand + below } else { x.significand - below };
    if significand == 0 {
        return zero(mode == Mode::Rm);
    }
    Parts { significand, ..x }.rounded(mode)
}

/// `a + b`
pub fn add(a: f64, b: f64, mode: Mode) -> f64 {
    fma(a, 1.0, b, mode)
}

/// `a * b`
pub fn mul(a: f64, b: f64, mode: Mode) -> f64 {
    let nearest = a * b;
    if !(a.is_finite() && b.is_finite()) || a == 0.0 || b == 0.0 {
        return nearest;
    }
    Parts::new(a).times(Parts::new(b)).rounded(mode)
}

/// `a / b`
pub fn div(a: f64, b: f64, mode: Mode) -> f64 {
    if !(a.is_finite() && b.is_finite()) || a == 0.0 || b == 0.0 {
        return a / b;
    }
    let (x, y) = (Parts::new(a).normalised(), Parts::new(b));
    let quotient = x.significand / y.significand;
    let rest = x.significand % y.significand;
    Parts {
        negative: x.negative != y.negative,
        significand: quotient | u128::from(rest != 0),
        exponent: x.exponent - y.exponent,
    }
    .rounded(mode)
}

/// The square root of `a`
pub fn sqrt(a: f64, mode: Mode) -> f64 {
    if !(a.is_finite() && a > 0.0) {
        return a.sqrt();
    }
    let x = Parts::new(a).normalised();
    let (significand, exponent) =
        if x.exponent % 2 == 0 { (x.significand, x.exponent) } else { (x.significand << 1, x.exponent - 1) };
    let root = significand.isqrt();
    let inexact = root * root != significand;
    Parts { negative: false, significand: root | u128::from(inexact), exponent: exponent / 2 }.rounded(mode)
}
