//! `mma` and `movmatrix` against plain loops.

mod fragments;
mod model;

use ptx_emulator::ops::Arg;
use ptx_emulator::ops::matrix::select;
use ptx_emulator::registers::{ALL, Level, Operands, Registers, Row, ZERO};

use fragments::{Matrix, Random, SHAPES, Shape, Type, levels, multiply, recipe};
use model::model;

fn matrices(
    shape: &Shape,
    mut a: impl FnMut() -> u64,
    mut b: impl FnMut() -> u64,
    mut c: impl FnMut() -> u64,
) -> [Matrix; 3] {
    [
        Matrix::new(shape.m, shape.k, |_, _| a()),
        Matrix::new(shape.k, 8, |_, _| b()),
        Matrix::new(shape.m, 8, |_, _| c()),
    ]
}

#[test]
fn small_integers_are_exact() {
    let random = std::cell::RefCell::new(Random(1));
    for shape in SHAPES {
        let draw = |ty: Type| {
            let low = if ty == Type::U8 { 0 } else { -9 };
            ty.encode(random.borrow_mut().integer(low, 9) as f64)
        };
        for round in 0..20 {
            let [a, b, c] = matrices(shape, || draw(shape.a), || draw(shape.b), || draw(shape.c));
            let expected = Matrix::new(shape.m, 8, |row, column| {
                let products =
                    (0..shape.k).map(|k| shape.a.decode(a.at(row, k)) as i64 * shape.b.decode(b.at(k, column)) as i64);
                shape.c.encode((products.sum::<i64>() + shape.c.decode(c.at(row, column)) as i64) as f64)
            });
            for level in levels() {
                assert_eq!(
                    multiply(shape, &a, &b, &c, level, round % 2 == 1),
                    expected,
                    "{} {level:?}",
                    shape.opcode()
                );
            }
        }
    }
}

#[test]
fn random_products_lie_within_the_error_of_cut_sums() {
    let random = std::cell::RefCell::new(Random(2));
    for shape in SHAPES.iter().filter(|s| s.c != Type::S32) {
        let draw = |ty: Type| ty.encode(random.borrow_mut().unit());
        // One unit in the last place for each rounding of a partial sum; half of one when rounded to nearest.
        let (unit, roundings) = match shape.c {
            Type::F32 => (2f64.powi(-23), if shape.k > 8 || shape.a == Type::Tf32 { 2.0 } else { 1.0 }),
            Type::F16 => (2f64.powi(-11), 2.0),
            _ => (2f64.powi(-53), shape.k as f64),
        };
        for _ in 0..50 {
            let [a, b, c] = matrices(shape, || draw(shape.a), || draw(shape.b), || draw(shape.c));
            for level in levels() {
                let d = multiply(shape, &a, &b, &c, level, false);
                for (row, column) in (0..shape.m).flat_map(|row| (0..8).map(move |column| (row, column))) {
                    let mut sum = shape.c.decode(c.at(row, column));
                    let mut magnitude = sum.abs();
                    for k in 0..shape.k {
                        let product = shape.a.decode(a.at(row, k)) * shape.b.decode(b.at(k, column));
                        sum += product;
                        magnitude += product.abs();
                    }
                    let error = (shape.c.decode(d.at(row, column)) - sum).abs();
                    // f64 against f64: the reference errs as well.
                    let slack = shape.k as f64 * 2f64.powi(-52);
                    let bound = magnitude * (unit * roundings + slack);
                    assert!(error <= bound, "{}: {error:e} > {bound:e}", shape.opcode());
                }
            }
        }
    }
}

#[test]
fn every_level_gives_the_bits_of_the_model() {
    let random = std::cell::RefCell::new(Random(3));
    // Plain values; values of all magnitudes; any bits at all, among them infinities and NaNs; sums near overflow.
    for kind in 0..5 {
        let draw = |ty: Type, product: bool| {
            let mut random = random.borrow_mut();
            let wild = (random.bits() >> 7) & if ty.bits() == 64 { !0 } else { (1 << ty.bits()) - 1 };
            match (kind, ty) {
                (_, Type::S8 | Type::U8) => wild,
                (0, Type::S32) => random.integer(-100_000, 100_000) as u64 & 0xffff_ffff,
                (_, Type::S32) => (random.integer(-500_000, 500_000) as u32 ^ 0x7fff_ffff).into(),
                (0, _) => ty.encode(random.unit()),
                (1, _) => {
                    let (low, high) = if ty == Type::F16 { (-25, 16) } else { (-140, 63) };
                    let power = 2f64.powi(random.integer(low, high) as i32);
                    ty.encode(random.unit() * power)
                }
                (2, _) if random.integer(0, 40) > 0 => ty.encode(random.unit() * 1e-3),
                (2 | 3, _) => wild,
                _ => {
                    let power = match (ty, product) {
                        (Type::F16, true) => 6,
                        (Type::F16, false) => 15,
                        (_, true) => 63,
                        (_, false) => 128,
                    };
                    let x = random.unit() * 2f64.powi(power);
                    ty.encode(if ty == Type::F32 { x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) } else { x })
                }
            }
        };
        for shape in SHAPES {
            for round in 0..100 {
                let [a, b, c] =
                    matrices(shape, || draw(shape.a, true), || draw(shape.b, true), || draw(shape.c, false));
                let expected = model(shape, &a, &b, &c);
                for level in levels() {
                    let d = multiply(shape, &a, &b, &c, level, round % 2 == 1);
                    for (i, (d, e)) in d.elements.iter().zip(&expected.elements).enumerate() {
                        assert_eq!(d, e, "{} {level:?} kind {kind}: {d:#x}, expected {e:#x} at {i}", shape.opcode());
                    }
                }
            }
        }
    }
}

/// D[0][0] where row 0 of A is `a`, column 0 of B is `b`, and all else is zero.
fn dot(shape: &Shape, a: &[f64], b: &[f64], c: f64, level: Level) -> f64 {
    let at = |x: &[f64], k: usize| x.get(k).copied().unwrap_or(0.0);
    let a = Matrix::new(shape.m, shape.k, |row, k| if row == 0 { shape.a.encode(at(a, k)) } else { 0 });
    let b = Matrix::new(shape.k, 8, |k, column| if column == 0 { shape.b.encode(at(b, k)) } else { 0 });
    let c = Matrix::new(shape.m, 8, |row, column| if row + column == 0 { shape.c.encode(c) } else { 0 });
    shape.c.decode(multiply(shape, &a, &b, &c, level, false).at(0, 0))
}

#[test]
fn sums_are_cut_block_by_block() {
    let half_unit = 2f64.powi(-24);
    for shape in SHAPES.iter().filter(|s| s.c == Type::F32) {
        // f16 has no 2^-24 · 1.5, but its square roots.
        let (small, root) = (2f64.powi(-12), 2f64.powi(-12));
        for level in levels() {
            let dot = |a: &[f64], b: &[f64], c: f64| dot(shape, a, b, c, level);
            // Three quarters of a unit: rounding to nearest would go up.
            assert_eq!(dot(&[1.5 * small], &[root], 1.0), 1.0);
            assert_eq!(dot(&[-1.5 * small], &[root], -1.0), -1.0);
            // Just below 1 by less than a unit: towards zero is down.
            assert_eq!(dot(&[-0.25 * small], &[root], 1.0), 1.0 - half_unit);
            assert_eq!(dot(&[0.25 * small], &[root], -1.0), -1.0 + half_unit);
            // Two halves of a unit count within a block and are lost in two.
            let block = if shape.a == Type::Tf32 { 4 } else { 8 };
            assert_eq!(dot(&[small, small], &[root, root], 1.0), 1.0 + 2.0 * half_unit);
            if shape.k > block {
                let mut a = vec![0.0; shape.k];
                (a[block - 1], a[block]) = (small, small);
                assert_eq!(dot(&a, &vec![root; shape.k], 1.0), 1.0);
            }
            // Products cancel exactly before the cut.
            assert_eq!(dot(&[200.0, -200.0, small], &[150.0, 150.0, root], 0.0), half_unit);
            // Subnormals.
            let tiny = f64::from(f32::from_bits(3));
            assert_eq!(dot(&[], &[], tiny), tiny);
        }
    }
}

#[test]
fn infinities_nans_and_overflow() {
    let inf = f64::INFINITY;
    for shape in SHAPES.iter().filter(|s| s.c == Type::F32) {
        for level in levels() {
            let dot = |a: &[f64], b: &[f64], c: f64| dot(shape, a, b, c, level);
            assert_eq!(dot(&[inf], &[2.0], 1.0), inf);
            assert_eq!(dot(&[inf], &[-2.0], 1.0), -inf);
            assert_eq!(dot(&[1.0], &[1.0], -inf), -inf);
            for (a, b, c) in [(inf, 0.0, 1.0), (inf, 1.0, -inf), (f64::NAN, 0.0, 0.0), (1.0, 1.0, f64::NAN)] {
                let d = dot(&[a], &[b], c);
                assert_eq!((d as f32).to_bits() & 0x7fff_ffff, 0x7fff_ffff, "{a} {b} {c}");
            }
            assert_eq!(dot(&[], &[], f64::from(f32::MAX)), f64::from(f32::MAX));
            if shape.a != Type::F16 {
                let (a, b) = (2f64.powi(64), 2f64.powi(63));
                // 2^128 overflows, and what comes afterwards in the same block may take it back.
                assert_eq!(dot(&[a, a], &[b, b], 0.0), inf);
                assert_eq!(dot(&[-a, -a], &[b, b], 0.0), -inf);
                assert_eq!(dot(&[a, a, -a], &[b, b, b], 0.0), 2f64.powi(127));
                // Between the largest f32 and 2^128.
                assert_eq!(dot(&[2f64.powi(63)], &[2f64.powi(40)], f64::from(f32::MAX)), f64::from(f32::MAX));
            }
        }
    }
}

#[test]
fn half_accumulators_round_to_nearest_even() {
    for shape in SHAPES.iter().filter(|s| s.c == Type::F16) {
        for level in levels() {
            let dot = |a: &[f64], b: &[f64], c: f64| dot(shape, a, b, c, level);
            let unit = 2f64.powi(-10);
            assert_eq!(dot(&[unit], &[0.5], 1.0), 1.0);
            assert_eq!(dot(&[unit], &[0.5], 1.0 + unit), 1.0 + 2.0 * unit);
            // A hair above the middle, far below what an f32 sum would keep.
            assert_eq!(dot(&[unit, 2f64.powi(-20)], &[0.5, 2f64.powi(-20)], 1.0), 1.0 + unit);
            assert_eq!(dot(&[16.0], &[1.0], 65504.0), f64::INFINITY);
            assert_eq!(dot(&[15.0], &[1.0], 65504.0), 65504.0);
            // An infinity in the first block stays one.
            let (a, b) = ([16.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -100.0], [1.0; 9]);
            assert_eq!(dot(&a[..shape.k.min(9)], &b, 65504.0), f64::INFINITY);
            assert_eq!(dot(&[2f64.powi(-12)], &[2f64.powi(-12)], 0.0), 2f64.powi(-24));
            assert_eq!(dot(&[2f64.powi(-13)], &[2f64.powi(-12)], 0.0), 0.0);
            assert!(dot(&[f64::INFINITY], &[0.0], 0.0).is_nan());
        }
    }
}

#[test]
fn tf32_ignores_the_low_13_bits() {
    let mut random = Random(4);
    for shape in SHAPES.iter().filter(|s| s.a == Type::Tf32) {
        let [a, b, c] = [(shape.m, shape.k), (shape.k, 8), (shape.m, 8)]
            .map(|(rows, columns)| Matrix::new(rows, columns, |_, _| Type::Tf32.encode(random.unit())));
        let dirty =
            |x: &Matrix| Matrix { columns: x.columns, elements: x.elements.iter().map(|e| e | 0x1fff).collect() };
        for level in levels() {
            let clean = multiply(shape, &a, &b, &c, level, false);
            assert_eq!(multiply(shape, &dirty(&a), &dirty(&b), &c, level, false), clean);
        }
    }
}

#[test]
fn satfinite_stops_where_others_wrap() {
    for shape in SHAPES.iter().filter(|s| s.c == Type::S32) {
        for level in levels() {
            let d = dot(shape, &[100.0], &[100.0], f64::from(i32::MAX), level);
            let finite = shape.suffix.starts_with("satfinite");
            assert_eq!(d, f64::from(if finite { i32::MAX } else { i32::MAX.wrapping_add(10_000) }));
        }
    }
}

#[test]
fn movmatrix_transposes() {
    let mut random = Random(5);
    for level in levels() {
        let recipe = recipe("movmatrix.sync.aligned.m8n8.trans.b16", &[0, 0], level);
        assert_eq!((&recipe.args[..], recipe.flops, recipe.warp_wide), (&[Arg::To32, Arg::From32][..], 0, true));
        let x: Vec<Vec<u32>> = (0..8).map(|_| (0..8).map(|_| random.bits() as u32 & 0xffff).collect()).collect();
        // Four lanes hold a row, two elements each.
        let a = Row(std::array::from_fn(|l| x[l / 4][l % 4 * 2] | x[l / 4][l % 4 * 2 + 1] << 16));
        let expected = Row(std::array::from_fn(|l| x[l % 4 * 2][l / 4] | x[l % 4 * 2 + 1][l / 4] << 16));
        let mut r = Registers { rows: vec![ZERO, a], predicates: vec![] };
        let mut o = Operands::default();
        o.slot[1] = 1;
        // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
        unsafe { (recipe.exec)(&mut r, &o, ALL) };
        assert_eq!(r.rows[0], expected);
    }
}

#[test]
fn what_is_unknown_is_named() {
    let select = |opcode: &str, vectors: &[usize]| {
        let parts: Vec<&str> = opcode.split('.').collect();
        select(&parts, vectors.len(), vectors, Level::Portable).map(|r| r.is_some())
    };
    assert_eq!(select("add.s32", &[0, 0, 0]), Ok(false));
    let bf16 = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
    assert_eq!(select(bf16, &[4, 4, 2, 4]), Ok(true));
    assert_eq!(select("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", &[2, 1, 1, 2]), Ok(true));
    for (opcode, vectors, named) in [
        (bf16, &[4, 4, 4, 4][..], "b: expected 2 registers, found 4"),
        (bf16, &[4, 4, 2], "expected 4 operands, found 3"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32", &[8, 2, 2, 8], "m8n8k4"),
        ("mma.sync.aligned.m16n8k16.col.row.f32.bf16.bf16.f32", &[4, 4, 2, 4], ".col.row"),
        ("mma.sync.aligned.m16n8k32.row.col.f32.e2m1.e2m1.f32", &[4, 4, 2, 4], "e2m1"),
        ("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f32", &[2, 4, 2, 4], "f16.f16.f16.f32"),
        ("mma.sync.aligned.m8n8k4.row.col.rz.f64.f64.f64.f64", &[2, 1, 1, 2], ".rz."),
        ("mma.sync.aligned.m16n8k16.row.col.satfinite.f32.bf16.bf16.f32", &[4, 4, 2, 4], "satfinite"),
        ("mma.sync.aligned.m16n8k16.row.col.s32.s4.s4.s32", &[4, 2, 1, 4], "s4"),
        ("mma.sync.aligned.wide.row.col.f32.bf16.bf16.f32", &[4, 4, 2, 4], "wide"),
        ("mma.sp.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", &[4, 2, 2, 4], "mma.sync.aligned"),
        ("movmatrix.sync.aligned.m8n8.b16", &[0, 0], "trans"),
    ] {
        let error = select(opcode, vectors).expect_err(opcode);
        assert!(error.contains(named), "{opcode}: {error}");
    }
}

/// Nanoseconds of one instruction: `cargo test --release -p ptx-emulator --test matrix -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random(6);
    for shape in SHAPES {
        for level in levels() {
            let wide = if shape.c == Type::F64 { 2 } else { 1 };
            let registers = |elements: usize, ty: Type| elements * ty.bits() / 32 / 32 / wide;
            let [d, a, b] = [
                registers(shape.m * 8, shape.c),
                registers(shape.m * shape.k, shape.a),
                registers(shape.k * 8, shape.b),
            ];
            let recipe = recipe(&shape.opcode(), &[d, a, b, d], level);
            // Eight independent accumulators over the same A and B, written in place.
            let mut rows = vec![ZERO; 8 * d * wide];
            rows.extend((0..(a + b) * wide).map(|_| {
                Row(std::array::from_fn(|_| match shape.a {
                    Type::Bf16 | Type::F16 => {
                        (0..2).fold(0, |w, i| w | (shape.a.encode(random.unit()) as u32) << (16 * i))
                    }
                    Type::Tf32 => shape.a.encode(random.unit()) as u32,
                    _ => random.bits() as u32 & 0x3f3f_3f3f,
                }))
            }));
            let operands: Vec<Operands> = (0..8)
                .map(|n| {
                    let mut o = Operands::default();
                    for i in 0..d {
                        o.slot[i] = ((n * d + i) * wide) as u16;
                        o.slot[d + a + b + i] = o.slot[i];
                    }
                    for i in 0..a + b {
                        o.slot[d + i] = ((8 * d + i) * wide) as u16;
                    }
                    o
                })
                .collect();
            let mut r = Registers { rows, predicates: vec![] };
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let start = std::time::Instant::now();
                for _ in 0..500 {
                    for o in &operands {
                        // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
                        unsafe { (recipe.exec)(std::hint::black_box(&mut r), o, ALL) };
                    }
                }
                best = best.min(start.elapsed().as_secs_f64() / 4000.0);
            }
            let rate = f64::from(recipe.flops) / best / 1e9;
            println!("{} {level:?}: {:.1} ns, {rate:.1} GFLOP/s", shape.opcode(), best * 1e9);
        }
    }
}
