//! Matrices, the places of their elements, and one instruction run on them. The places are written down from the PTX ISA, shape by
//! shape, so that they share nothing with the layout that the crate computes with.

use half::{bf16, f16};
use ptx_emulator::ops::matrix::select;
use ptx_emulator::ops::{Arg, Class, Recipe};
use ptx_emulator::registers::{ALL, Level, Operands, Registers, Row, ZERO};

/// Numbers of Marsaglia's xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Between -1 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn integer(&mut self, from: i64, to: i64) -> i64 {
        from + (self.bits() >> 16) as i64 % (to - from + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bf16,
    F16,
    Tf32,
    F32,
    F64,
    S8,
    U8,
    S32,
}

impl Type {
    pub fn bits(self) -> usize {
        match self {
            Type::S8 | Type::U8 => 8,
            Type::Bf16 | Type::F16 => 16,
            Type::Tf32 | Type::F32 | Type::S32 => 32,
            Type::F64 => 64,
        }
    }
    /// The nearest element.
    pub fn encode(self, x: f64) -> u64 {
        match self {
            Type::Bf16 => u64::from(bf16::from_f64(x).to_bits()),
            Type::F16 => u64::from(f16::from_f64(x).to_bits()),
            Type::Tf32 => u64::from((x as f32).to_bits() & !0x1fff),
            Type::F32 => u64::from((x as f32).to_bits()),
            Type::F64 => x.to_bits(),
            Type::S8 => u64::from(x as i8 as u8),
            Type::U8 => u64::from(x as u8),
            Type::S32 => u64::from(x as i32 as u32),
        }
    }
    pub fn decode(self, bits: u64) -> f64 {
        match self {
            Type::Bf16 => f64::from(bf16::from_bits(bits as u16)),
            Type::F16 => f64::from(f16::from_bits(bits as u16)),
            Type::Tf32 | Type::F32 => f64::from(f32::from_bits(bits as u32)),
            Type::F64 => f64::from_bits(bits),
            Type::S8 => f64::from(bits as i8),
            Type::U8 => f64::from(bits as u8),
            Type::S32 => f64::from(bits as i32),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub m: usize,
    pub k: usize,
    pub a: Type,
    pub b: Type,
    /// C and D.
    pub c: Type,
    pub suffix: &'static str,
}

/// Every shape; n is 8.
pub const SHAPES: &[Shape] = &[
    Shape { m: 16, k: 16, a: Type::Bf16, b: Type::Bf16, c: Type::F32, suffix: "f32.bf16.bf16.f32" },
    Shape { m: 16, k: 8, a: Type::Bf16, b: Type::Bf16, c: Type::F32, suffix: "f32.bf16.bf16.f32" },
    Shape { m: 16, k: 16, a: Type::F16, b: Type::F16, c: Type::F32, suffix: "f32.f16.f16.f32" },
    Shape { m: 16, k: 8, a: Type::F16, b: Type::F16, c: Type::F32, suffix: "f32.f16.f16.f32" },
    Shape { m: 16, k: 16, a: Type::F16, b: Type::F16, c: Type::F16, suffix: "f16.f16.f16.f16" },
    Shape { m: 16, k: 8, a: Type::F16, b: Type::F16, c: Type::F16, suffix: "f16.f16.f16.f16" },
    Shape { m: 16, k: 8, a: Type::Tf32, b: Type::Tf32, c: Type::F32, suffix: "f32.tf32.tf32.f32" },
    Shape { m: 16, k: 4, a: Type::Tf32, b: Type::Tf32, c: Type::F32, suffix: "f32.tf32.tf32.f32" },
    Shape { m: 8, k: 4, a: Type::F64, b: Type::F64, c: Type::F64, suffix: "f64.f64.f64.f64" },
    Shape { m: 16, k: 4, a: Type::F64, b: Type::F64, c: Type::F64, suffix: "f64.f64.f64.f64" },
    Shape { m: 16, k: 8, a: Type::F64, b: Type::F64, c: Type::F64, suffix: "rn.f64.f64.f64.f64" },
    Shape { m: 16, k: 16, a: Type::S8, b: Type::S8, c: Type::S32, suffix: "s32.s8.s8.s32" },
    Shape { m: 16, k: 32, a: Type::S8, b: Type::U8, c: Type::S32, suffix: "s32.s8.u8.s32" },
    Shape { m: 16, k: 32, a: Type::U8, b: Type::S8, c: Type::S32, suffix: "satfinite.s32.u8.s8.s32" },
    Shape { m: 16, k: 16, a: Type::U8, b: Type::U8, c: Type::S32, suffix: "satfinite.s32.u8.u8.s32" },
    Shape { m: 8, k: 16, a: Type::S8, b: Type::S8, c: Type::S32, suffix: "s32.s8.s8.s32" },
];

impl Shape {
    /// Row and column of `ai`, 9.7.14.5.
    pub fn place_a(&self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        match (self.m, self.k, self.a.bits()) {
            (8, 4, 64) => (group, thread),
            (8, 16, 8) => (group, thread * 4 + i),
            (16, 4, 32 | 64) => (if i == 0 { group } else { group + 8 }, thread),
            (16, 8, 32 | 64) => {
                (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
            }
            (16, 8, 16) => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
            (16, 16, 16) => {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                (row, thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
            }
            (16, 16, 8) => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
            (16, 32, 8) => {
                let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
                (row, thread * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
            }
            _ => unreachable!(),
        }
    }
    /// Row and column of `bi`.
    pub fn place_b(&self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        let row = match (self.k, self.b.bits()) {
            (4, 32 | 64) => thread,
            (8, 32 | 64) => thread + if i == 0 { 0 } else { 4 },
            (8, 16) => thread * 2 + i,
            (16, 16) => thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 },
            (16, 8) => thread * 4 + i,
            (32, 8) => thread * 4 + (i & 3) + if i < 4 { 0 } else { 16 },
            _ => unreachable!(),
        };
        (row, group)
    }
    /// Row and column of `ci` and `di`.
    pub fn place_c(&self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
    }
    pub fn opcode(&self) -> String {
        format!("mma.sync.aligned.m{}n8k{}.row.col.{}", self.m, self.k, self.suffix)
    }
}

/// A matrix of bits, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub columns: usize,
    pub elements: Vec<u64>,
}

impl Matrix {
    pub fn new(rows: usize, columns: usize, mut f: impl FnMut(usize, usize) -> u64) -> Matrix {
        let elements = (0..rows * columns).map(|i| f(i / columns, i % columns)).collect();
        Matrix { columns, elements }
    }
    pub fn at(&self, row: usize, column: usize) -> u64 {
        self.elements[row * self.columns + column]
    }
}

type Place<'a> = &'a dyn Fn(usize, usize) -> (usize, usize);

/// Rows that hold a matrix, elements packed low to high.
fn fragments(x: &Matrix, bits: usize, place: Place) -> Vec<Row> {
    let elements = x.elements.len() / 32;
    let per = (32 / bits).max(1);
    let mut rows = Vec::new();
    for first in (0..elements).step_by(per) {
        let words: Vec<u64> = (0..32)
            .map(|lane| {
                (0..per).fold(0, |word, i| {
                    let (row, column) = place(lane, first + i);
                    word | x.at(row, column) << (bits * i)
                })
            })
            .collect();
        if bits == 64 {
            let halves: Vec<u32> = words.iter().flat_map(|&w| [w as u32, (w >> 32) as u32]).collect();
            rows.extend([0, 32].map(|at| Row(std::array::from_fn(|l| halves[at + l]))));
        } else {
            rows.push(Row(std::array::from_fn(|l| words[l] as u32)));
        }
    }
    rows
}

/// The matrix that rows hold.
fn gather(rows: &[Row], m: usize, bits: usize, place: Place) -> Matrix {
    let mut x = Matrix { columns: 8, elements: vec![0; m * 8] };
    let per = (32 / bits).max(1);
    for i in 0..m * 8 / 32 {
        for lane in 0..32 {
            let (row, column) = place(lane, i);
            x.elements[row * 8 + column] = if bits == 64 {
                let word = |at: usize| u64::from(rows[2 * i + at / 32].0[at % 32]);
                word(2 * lane) | word(2 * lane + 1) << 32
            } else {
                (u64::from(rows[i / per].0[lane]) >> (bits * (i % per))) & ((1u64 << bits) - 1)
            };
        }
    }
    x
}

pub fn recipe(opcode: &str, vectors: &[usize], level: Level) -> Recipe {
    let parts: Vec<&str> = opcode.split('.').collect();
    select(&parts, vectors.len(), vectors, level).unwrap_or_else(|e| panic!("{opcode}: {e}")).expect(opcode)
}

pub fn levels() -> Vec<Level> {
    let best = Level::of_this_machine();
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= best).collect()
}

/// D of one instruction. `in_place` writes it over C.
pub fn multiply(shape: &Shape, a: &Matrix, b: &Matrix, c: &Matrix, level: Level, in_place: bool) -> Matrix {
    let a = fragments(a, shape.a.bits(), &|l, i| shape.place_a(l, i));
    let b = fragments(b, shape.b.bits(), &|l, i| shape.place_b(l, i));
    let c = fragments(c, shape.c.bits(), &|l, i| shape.place_c(l, i));
    let wide = if shape.c == Type::F64 { 2 } else { 1 };
    let counts = [c.len(), a.len(), b.len(), c.len()].map(|n| n / wide);
    let recipe = recipe(&shape.opcode(), &counts, level);
    assert_eq!((recipe.class, recipe.warp_wide), (Class::Matrix, true));
    assert_eq!(recipe.flops as usize, 2 * shape.m * 8 * shape.k);
    let (to, from) = if wide == 2 { (Arg::To64, Arg::From64) } else { (Arg::To32, Arg::From32) };
    let expected: Vec<Arg> = (0..counts.iter().sum()).map(|n| if n < counts[0] { to } else { from }).collect();
    assert_eq!(recipe.args, expected);
    let mut rows = vec![ZERO; c.len()];
    for fragment in [&a, &b, &c] {
        rows.extend(fragment);
    }
    let mut o = Operands::default();
    for n in 0..recipe.args.len() {
        o.slot[n] = (n * wide) as u16;
    }
    let c_at = rows.len() - c.len();
    if in_place {
        for n in 0..counts[0] {
            o.slot[n] = (c_at + n * wide) as u16;
        }
    }
    let mut r = Registers { rows, predicates: vec![] };
    // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
    unsafe { (recipe.exec)(&mut r, &o, ALL) };
    let d_at = if in_place { c_at } else { 0 };
    gather(&r.rows[d_at..d_at + c.len()], shape.m, shape.c.bits(), &|l, i| shape.place_c(l, i))
}
