//! `mma` and `movmatrix`: products of small matrices whose elements lie spread over the registers of a warp (PTX ISA 9.0, 9.7.14).
//!
//! D = A·B + C with A of m×k, B of k×n, C and D of m×n elements. Lane `l` is member `t = l % 4` of group `g = l / 4`. A register
//! holds P elements of a multiplicand (4 of s8/u8/e4m3/e5m2, 2 of f16/bf16, 1 of tf32/f64), and all shapes share one layout:
//!
//! | matrix | register          | row             | column             |
//! |--------|-------------------|-----------------|--------------------|
//! | A      | `q·(m/8) + band`  | `g + 8·band`    | `4P·q + P·t + i`   |
//! | B      | `q`               | `4P·q + P·t + i`| `g`                |
//! | C, D   | `2·band + i`      | `g + 8·band`    | `2t + i`           |
//!
//! where `i` counts the elements of one register (of C and D: registers; with f16 both lie in one register). `q` numbers the
//! blocks of 4P values of k: all that one register of A and B reaches.
//!
//! # Rounding
//! PTX leaves order and rounding open ("at least single precision"). This follows what has been measured on an A100 (Fasi, Higham,
//! Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021; Xie et al., "MMA-Sim",
//! arXiv 2511.10909): products are exact; one block (8 products of f16 and bf16, 4 of tf32) and the accumulator are summed, and
//! the sum is cut to f32 (rounded towards zero), or with f16 accumulators rounded to the nearest f16; the next block starts from
//! there. Of 8-bit floats a block is 16 products. Subnormals count. A sum of 2^128 or more is an infinity, NaNs come out as 0x7fffffff (f16: 0x7fff). The sum within a block
//! is formed in f64 in the order of k; hardware cuts each term some 24 bits below the largest, so that it may differ by a few units
//! in the last place. tf32 operands lose their low 13 bits. f64 products are a chain of fused multiply-adds in the order of k.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod formats;
mod product;

use self::formats::{Accumulator, Bf16, Double, Format, Half, S8, S32, S32Finite, Single, Tf32, ToHalf, U8};
use self::product::{Blocks, Shape, product, transpose};
use super::lanes::fp8::{E4m3, E5m2};
use super::{Arg, Class, Recipe};
use crate::registers::{Exec, Level};

/// How an `mma` runs, and the registers of D (and C), A and B.
struct Mma {
    exec: Exec,
    d: usize,
    a: usize,
    b: usize,
}

/// Finds `mma` and `movmatrix`; see [`super::Select`].
///
/// # Errors
/// Names the shape, type or modifier that is unknown.
pub fn select(opcode: &[&str], operands: usize, vectors: &[usize], level: Level) -> Result<Option<Recipe>, String> {
    match opcode {
        ["movmatrix", "sync", "aligned", "m8n8", "trans", "b16"] => {
            Ok(Some(recipe(transpose(level), vec![Arg::To32, Arg::From32], 0)))
        }
        ["movmatrix", ..] => Err("expected movmatrix.sync.aligned.m8n8.trans.b16".into()),
        ["mma", "sync", "aligned", shape, "row", "col", types @ ..] => {
            let (m, n, k) = dimensions(shape).ok_or_else(|| format!("unknown shape .{shape}"))?;
            let wide = types.last() == Some(&"f64");
            let mma = choose((m, n, k), types, level)?;
            check_vectors(operands, vectors, &mma)?;
            let (to, from) = if wide { (Arg::To64, Arg::From64) } else { (Arg::To32, Arg::From32) };
            let mut args = vec![to; mma.d];
            args.resize(mma.d + mma.a + mma.b + mma.d, from);
            Ok(Some(recipe(mma.exec, args, (2 * m * n * k) as u32)))
        }
        ["mma", "sync", "aligned", _, a, b, ..] => Err(format!("expected .row.col after the shape, found .{a}.{b}")),
        ["mma", ..] => Err("expected mma.sync.aligned.SHAPE.row.col and four types".into()),
        _ => Ok(None),
    }
}

fn recipe(exec: Exec, args: Vec<Arg>, flops: u32) -> Recipe {
    Recipe { exec, args, extra: 0, class: Class::Matrix, flops, warp_wide: true }
}

/// `m16n8k8` is (16, 8, 8).
fn dimensions(shape: &str) -> Option<(usize, usize, usize)> {
    let (m, rest) = shape.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

/// The operands D, A, B and C must be vectors of the shape's lengths; a single register may stand without braces.
fn check_vectors(operands: usize, vectors: &[usize], mma: &Mma) -> Result<(), String> {
    if operands != 4 {
        return Err(format!("expected 4 operands, found {operands}"));
    }
    for ((&expected, name), n) in [mma.d, mma.a, mma.b, mma.d].iter().zip(["d", "a", "b", "c"]).zip(0..) {
        let found = vectors.get(n).copied().unwrap_or(0).max(1);
        if found != expected {
            return Err(format!("{name}: expected {expected} registers, found {found}"));
        }
    }
    Ok(())
}

/// Picks the function by shape and types.
fn choose(shape: (usize, usize, usize), types: &[&str], level: Level) -> Result<Mma, String> {
    use Blocks as B;
    let unknown = || format!("unknown shape m{}n{}k{} for .{}", shape.0, shape.1, shape.2, types.join("."));
    match types {
        ["f32", "bf16", "bf16", "f32"] => match shape {
            (16, 8, 8) => Ok(floats::<Bf16, B<2, 1>>(level)),
            (16, 8, 16) => Ok(floats::<Bf16, B<2, 2>>(level)),
            _ => Err(unknown()),
        },
        ["f32", "f16", "f16", "f32"] => match shape {
            (16, 8, 8) => Ok(floats::<Half, B<2, 1>>(level)),
            (16, 8, 16) => Ok(floats::<Half, B<2, 2>>(level)),
            _ => Err(unknown()),
        },
        ["f32", "tf32", "tf32", "f32"] => match shape {
            (16, 8, 4) => Ok(floats::<Tf32, B<2, 1>>(level)),
            (16, 8, 8) => Ok(floats::<Tf32, B<2, 2>>(level)),
            _ => Err(unknown()),
        },
        ["f16", "f16", "f16", "f16"] => match shape {
            (16, 8, 8) => Ok(any::<Half, Half, ToHalf, B<2, 1>>(level)),
            (16, 8, 16) => Ok(any::<Half, Half, ToHalf, B<2, 2>>(level)),
            _ => Err(unknown()),
        },
        ["f64", "f64", "f64", "f64"] | ["rn", "f64", "f64", "f64", "f64"] => match shape {
            (8, 8, 4) => Ok(any::<Double, Double, Double, B<1, 1>>(level)),
            (16, 8, 4) => Ok(any::<Double, Double, Double, B<2, 1>>(level)),
            (16, 8, 8) => Ok(any::<Double, Double, Double, B<2, 2>>(level)),
            _ => Err(unknown()),
        },
        ["f32", a @ ("e4m3" | "e5m2"), b @ ("e4m3" | "e5m2"), "f32"]
        | ["kind::f8f6f4", "f32", a @ ("e4m3" | "e5m2"), b @ ("e4m3" | "e5m2"), "f32"] => {
            eights::<Single>(shape, a, b, level).ok_or_else(unknown)
        }
        ["f16", a @ ("e4m3" | "e5m2"), b @ ("e4m3" | "e5m2"), "f16"]
        | ["kind::f8f6f4", "f16", a @ ("e4m3" | "e5m2"), b @ ("e4m3" | "e5m2"), "f16"] => {
            eights::<ToHalf>(shape, a, b, level).ok_or_else(unknown)
        }
        ["s32", a, b, "s32"] => integers::<S32>(shape, a, b, level).ok_or_else(unknown),
        ["satfinite", "s32", a, b, "s32"] => integers::<S32Finite>(shape, a, b, level).ok_or_else(unknown),
        _ => Err(format!("unknown types or modifiers .{}", types.join("."))),
    }
}

fn integers<C: Accumulator>(shape: (usize, usize, usize), a: &str, b: &str, level: Level) -> Option<Mma> {
    fn shaped<A: Format, B: Format, C: Accumulator>(shape: (usize, usize, usize), level: Level) -> Option<Mma> {
        match shape {
            (8, 8, 16) => Some(any::<A, B, C, Blocks<1, 1>>(level)),
            (16, 8, 16) => Some(any::<A, B, C, Blocks<2, 1>>(level)),
            (16, 8, 32) => Some(any::<A, B, C, Blocks<2, 2>>(level)),
            _ => None,
        }
    }
    match (a, b) {
        ("s8", "s8") => shaped::<S8, S8, C>(shape, level),
        ("s8", "u8") => shaped::<S8, U8, C>(shape, level),
        ("u8", "s8") => shaped::<U8, S8, C>(shape, level),
        ("u8", "u8") => shaped::<U8, U8, C>(shape, level),
        _ => None,
    }
}

/// 8-bit floats: registers as those of 8-bit integers.
fn eights<C: Accumulator>(shape: (usize, usize, usize), a: &str, b: &str, level: Level) -> Option<Mma> {
    fn shaped<A: Format, B: Format, C: Accumulator>(shape: (usize, usize, usize), level: Level) -> Option<Mma> {
        match shape {
            (16, 8, 16) => Some(any::<A, B, C, Blocks<2, 1>>(level)),
            (16, 8, 32) => Some(any::<A, B, C, Blocks<2, 2>>(level)),
            _ => None,
        }
    }
    match (a, b) {
        ("e4m3", "e4m3") => shaped::<E4m3, E4m3, C>(shape, level),
        ("e4m3", _) => shaped::<E4m3, E5m2, C>(shape, level),
        (_, "e4m3") => shaped::<E5m2, E4m3, C>(shape, level),
        _ => shaped::<E5m2, E5m2, C>(shape, level),
    }
}

/// f32 accumulators.
#[cfg(target_arch = "x86_64")]
fn floats<F: avx512::Unpack, S: Shape>(level: Level) -> Mma {
    let mut mma = any::<F, F, Single, S>(level);
    if level == Level::Avx512 {
        mma.exec = avx512::product::<F, S>;
    }
    mma
}

/// f32 accumulators.
#[cfg(not(target_arch = "x86_64"))]
fn floats<F: Format, S: Shape>(level: Level) -> Mma {
    any::<F, F, Single, S>(level)
}

fn any<A: Format, B: Format, C: Accumulator, S: Shape>(level: Level) -> Mma {
    Mma { exec: product::<A, B, C, S>(level), d: C::PER_BAND * S::BANDS, a: S::BANDS * S::BLOCKS, b: S::BLOCKS }
}
