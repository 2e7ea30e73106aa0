//! What the documentation of the crate says that a product is, element by element.

use half::f16;

use super::fragments::{Matrix, Shape, Type};

/// The f32 next to `x` on the side of zero: found by stepping, not by bits.
fn cut(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 2f64.powi(128) {
        return f64::from(x as f32);
    }
    let mut y = (x.abs() as f32).min(f32::MAX);
    while f64::from(y) > x.abs() {
        y = y.next_down();
    }
    f64::from(y).copysign(x)
}

/// The f16 nearest to `x`, of all of them.
fn nearest_half(x: f64) -> f64 {
    if x.is_nan() || x.is_infinite() {
        return x;
    }
    let value = |bits: u16| if bits == 0x7c00 { 65536.0 } else { f64::from(f16::from_bits(bits)) };
    let (mut low, mut high) = (0u16, 0x7c00u16);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if value(middle) <= x.abs() { low = middle } else { high = middle }
    }
    let (below, above) = (x.abs() - value(low), value(high) - x.abs());
    let bits = if below < above || below == above && low % 2 == 0 { low } else { high };
    f64::from(f16::from_bits(bits)).copysign(x)
}

/// D
pub fn model(shape: &Shape, a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let block = match shape.a {
        Type::Tf32 => 4,
        Type::Bf16 | Type::F16 => 8,
        _ => shape.k,
    };
    Matrix::new(shape.m, 8, |row, column| {
        let element_a = |k| shape.a.decode(a.at(row, k) & if shape.a == Type::Tf32 { !0x1fff } else { !0 });
        let element_b = |k| shape.b.decode(b.at(k, column) & if shape.b == Type::Tf32 { !0x1fff } else { !0 });
        if shape.c == Type::S32 {
            let sum: i64 = (0..shape.k).map(|k| element_a(k) as i64 * element_b(k) as i64).sum();
            let sum = sum + i64::from(c.at(row, column) as i32);
            let finite = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            return u64::from(if shape.suffix.starts_with("satfinite") { finite } else { sum } as u32);
        }
        let mut sum = shape.c.decode(c.at(row, column));
        for k in 0..shape.k {
            sum = if shape.c == Type::F64 {
                element_a(k).mul_add(element_b(k), sum)
            } else {
                sum + element_a(k) * element_b(k)
            };
            if (k + 1) % block == 0 {
                sum = match shape.c {
                    Type::F32 => cut(sum),
                    Type::F16 => nearest_half(sum),
                    _ => sum,
                };
            }
        }
        match shape.c {
            Type::F32 if sum.is_nan() => 0x7fff_ffff,
            Type::F16 if sum.is_nan() => 0x7fff,
            Type::F64 if sum.is_nan() => 0x7fff_ffff_ffff_ffff,
            _ => shape.c.encode(sum),
        }
    })
}
