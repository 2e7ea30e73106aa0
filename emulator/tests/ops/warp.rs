//! `shfl`, `vote`, `match`, `redux`, `elect` and `activemask` against plain loops over lanes, at every level.

use ptx_emulator::ops::warp::select;
use ptx_emulator::ops::{Arg, Class, Recipe};
use ptx_emulator::registers::{ALL, Level, NO_PREDICATE, Operands, Registers, Row};

/// Numbers of Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
    fn row(&mut self, mut f: impl FnMut(u32) -> u32) -> [u32; 32] {
        std::array::from_fn(|_| f(self.bits()))
    }
    /// Lanes that take part, never none; often all.
    fn mask(&mut self) -> u32 {
        match self.bits() % 4 {
            0 => ALL,
            1 => 1 << (self.bits() % 32),
            _ => self.bits().max(1),
        }
    }
}

fn levels() -> Vec<Level> {
    let best = Level::of_this_machine();
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= best).collect()
}

fn recipe(opcode: &str, operands: usize, level: Level) -> Recipe {
    let parts: Vec<&str> = opcode.split('.').collect();
    select(&parts, operands, &vec![0; operands], level).unwrap_or_else(|e| panic!("{opcode}: {e}")).expect(opcode)
}

/// What rows and predicates hold before lanes that take no part.
const OLD: u32 = 0xdead_beef;

/// Runs an instruction whose destinations are rows 0 and 1 (together 64 bits) and predicate 0; sources follow.
struct Case<'a> {
    opcode: &'a str,
    operands: usize,
    /// 32-bit rows, or pairs for 64 bits.
    sources: Vec<Vec<[u32; 32]>>,
    predicate: Option<(u32, bool)>,
    mask: u32,
    /// Whether the second destination of `d|p` is asked for.
    both: bool,
}

impl Case<'_> {
    /// Row 0 and predicate 0, the same at every level.
    fn run(&self) -> ([u32; 32], u32) {
        let results: Vec<_> = levels().into_iter().map(|level| self.run_at(level)).collect();
        assert!(results.iter().all(|r| *r == results[0]), "{}: levels differ", self.opcode);
        results[0]
    }

    fn run_at(&self, level: Level) -> ([u32; 32], u32) {
        let recipe = recipe(self.opcode, self.operands, level);
        assert_eq!((recipe.class, recipe.flops), (Class::Shuffle, 0));
        assert_eq!(recipe.warp_wide, self.opcode.contains(".sync"), "{}", self.opcode);
        let mut rows = vec![Row([OLD; 32]); 2];
        let (mut o, mut slots) = (Operands::default(), 0);
        if recipe.args[0] == Arg::To32 {
            slots = 1;
        }
        let mut sources = self.sources.iter();
        for arg in &recipe.args {
            if matches!(arg, Arg::From32 | Arg::From64) {
                o.slot[slots] = rows.len() as u16;
                slots += 1;
                let source = sources.next().expect(self.opcode);
                assert_eq!(source.len(), if *arg == Arg::From64 { 2 } else { 1 }, "{}", self.opcode);
                rows.extend(source.iter().map(|&r| Row(r)));
            }
        }
        assert!(sources.next().is_none(), "{}", self.opcode);
        let mut predicates = 0;
        for arg in &recipe.args {
            match arg {
                Arg::ToPredicate => (o.predicate[predicates], predicates) = (0, predicates + 1),
                Arg::ToPredicateToo => {
                    o.predicate[predicates] = if self.both { 0 } else { NO_PREDICATE };
                    predicates += 1;
                }
                Arg::FromPredicate => (o.predicate[predicates], predicates) = (1, predicates + 1),
                _ => {}
            }
        }
        let (p, negated) = self.predicate.unwrap_or((0, false));
        o.negated = negated.into();
        let sources = rows[2..].to_vec();
        let mut r = Registers { rows, predicates: vec![OLD, p] };
        // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
        unsafe { (recipe.exec)(&mut r, &o, self.mask) };
        assert_eq!(r.rows[2..], sources, "{}: a source changed", self.opcode);
        assert_eq!(r.predicates[1], p, "{}: a source changed", self.opcode);
        assert!((0..32).all(|l| self.mask >> l & 1 == 1 || r.rows[0].0[l] == OLD), "{}", self.opcode);
        assert_eq!((r.predicates[0] ^ OLD) & !self.mask, 0, "{}", self.opcode);
        (r.rows[0].0, r.predicates[0])
    }
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> + Clone {
    (0..32).filter(move |l| mask >> l & 1 == 1)
}

/// Source lane and whether it is in range, as 9.7.9.6 writes it.
fn shuffle_source(mode: &str, lane: i64, b: u32, c: u32) -> (i64, bool) {
    let (bval, cval, mask) = (i64::from(b % 32), i64::from(c % 32), i64::from(c / 256 % 32));
    let max_lane = (lane & mask) | (cval & (31 - mask));
    let min_lane = lane & mask;
    let (j, p) = match mode {
        "up" => (lane - bval, lane - bval >= max_lane),
        "down" => (lane + bval, lane + bval <= max_lane),
        "bfly" => (lane ^ bval, lane ^ bval <= max_lane),
        _ => {
            let j = min_lane | (bval & (31 - mask));
            (j, j <= max_lane)
        }
    };
    (if p { j } else { lane }, p)
}

#[test]
fn shuffles() {
    let mut random = Random(1);
    for round in 0..2000 {
        let mode = ["up", "down", "bfly", "idx"][round % 4];
        let sync = round % 8 < 4;
        let mask = random.mask();
        let a = random.row(|x| x);
        let (b, c) = match random.bits() % 4 {
            // What the CUDA functions pass: a width that is a power of two.
            0 => {
                let segment = (32 - (1 << (random.bits() % 6))) << 8;
                let b = random.bits() % 32;
                ([b; 32], [segment | if mode == "up" { 0 } else { 31 }; 32])
            }
            1 => ([random.bits(); 32], [random.bits(); 32]),
            _ => (random.row(|x| x), random.row(|x| x)),
        };
        let mut sources = vec![vec![a], vec![b], vec![c]];
        if sync {
            sources.push(vec![[mask; 32]]);
        }
        let opcode = format!("shfl.{}{mode}.b32", if sync { "sync." } else { "" });
        let case = Case {
            opcode: &opcode,
            operands: 4 + usize::from(sync),
            sources,
            predicate: None,
            mask,
            both: round % 3 > 0,
        };
        let (d, p) = case.run();
        for l in lanes(mask) {
            let (j, valid) = shuffle_source(mode, l as i64, b[l], c[l]);
            let there = (0..32).contains(&j) && mask >> j & 1 == 1;
            assert_eq!(d[l], if there { a[j as usize] } else { a[l] }, "{opcode} lane {l}");
            let expected = if case.both { u32::from(valid) } else { OLD >> l & 1 };
            assert_eq!(p >> l & 1, expected, "{opcode} lane {l}");
        }
    }
}

#[test]
fn shuffles_of_a_whole_warp() {
    let a: [u32; 32] = std::array::from_fn(|l| 100 + l as u32);
    let run = |opcode: &str, b: u32, c: u32| {
        let sources = [a, [b; 32], [c; 32], [ALL; 32]].map(|row| vec![row]).to_vec();
        Case { opcode, operands: 5, sources, predicate: None, mask: ALL, both: true }.run()
    };
    // __shfl_down_sync(ALL, x, 16): the upper half keeps its own.
    let (d, p) = run("shfl.sync.down.b32", 16, 0x1f);
    assert!((0..16).all(|l| d[l] == 116 + l as u32) && (16..32).all(|l| d[l] == a[l]));
    assert_eq!(p, 0xffff);
    // __shfl_up_sync(ALL, x, 1)
    let (d, p) = run("shfl.sync.up.b32", 1, 0);
    assert!((1..32).all(|l| d[l] == 99 + l as u32) && d[0] == 100);
    assert_eq!(p, ALL << 1);
    // __shfl_xor_sync(ALL, x, 1)
    let (d, p) = run("shfl.sync.bfly.b32", 1, 0x1f);
    assert!((0..32).all(|l| d[l] == 100 + (l as u32 ^ 1)) && p == ALL);
    // __shfl_sync(ALL, x, 9, 8): lane 1 of each eight.
    let (d, p) = run("shfl.sync.idx.b32", 9, 0x181f);
    assert!((0..32).all(|l| d[l] == 101 + l as u32 / 8 * 8) && p == ALL);
}

/// Member masks of lanes that share an instruction: one for all, or two halves; and the lanes that each sees.
fn members(random: &mut Random, mask: u32) -> ([u32; 32], [u32; 32]) {
    let split = match random.bits() % 3 {
        0 => random.bits(),
        _ => ALL,
    };
    // Exited lanes may be named as well.
    let members = std::array::from_fn(|l| if split >> l & 1 == 1 { split } else { !split });
    (members, members.map(|m| m & mask))
}

#[test]
fn votes() {
    let mut random = Random(2);
    for round in 0..2000 {
        let kind = ["all", "any", "uni", "ballot"][round % 4];
        let sync = round % 8 < 4;
        let mask = random.mask();
        let (names, mut seen) = members(&mut random, mask);
        if !sync {
            seen = [mask; 32];
        }
        let negated = random.bits() % 2 == 1;
        let p = match random.bits() % 4 {
            0 => ALL,
            1 => 0,
            2 => mask,
            _ => random.bits(),
        };
        let ty = if kind == "ballot" { "b32" } else { "pred" };
        let opcode = format!("vote.{}{kind}.{ty}", if sync { "sync." } else { "" });
        let sources = if sync { vec![vec![names]] } else { vec![] };
        let operands = 2 + usize::from(sync);
        let (d, q) =
            Case { opcode: &opcode, operands, sources, predicate: Some((p, negated)), mask, both: false }.run();
        for l in lanes(mask) {
            let yes = |other: usize| (p >> other & 1 == 1) != negated;
            let mut voters = lanes(seen[l]);
            let expected = match kind {
                "all" => voters.all(yes),
                "any" => voters.any(yes),
                "uni" => voters.clone().all(yes) || !voters.any(yes),
                _ => {
                    assert_eq!(d[l], voters.filter(|&v| yes(v)).map(|v| 1 << v).sum::<u32>(), "{opcode} lane {l}");
                    continue;
                }
            };
            assert_eq!(q >> l & 1 == 1, expected, "{opcode} lane {l}, {p:#x} of {:#x}", seen[l]);
        }
    }
}

#[test]
fn matches() {
    let mut random = Random(3);
    for round in 0..2000 {
        let (all, wide) = (round % 2 == 1, round % 4 > 1);
        let mask = random.mask();
        let (names, seen) = members(&mut random, mask);
        let few = 1 + random.bits() % 3;
        // The 64-bit values differ in either half.
        let value = random.row(|x| x % few);
        let rows = if wide {
            let words: Vec<u32> = value.iter().flat_map(|&v| [v % 2, v / 2 * 7]).collect();
            vec![std::array::from_fn(|i| words[i]), std::array::from_fn(|i| words[32 + i])]
        } else {
            vec![value]
        };
        let opcode = format!("match.{}.sync.{}", if all { "all" } else { "any" }, if wide { "b64" } else { "b32" });
        let both = all && round % 3 > 0;
        let sources = vec![rows, vec![names]];
        let (d, p) = Case { opcode: &opcode, operands: 3, sources, predicate: None, mask, both }.run();
        for l in lanes(mask) {
            let same: u32 = lanes(seen[l]).filter(|&o| value[o] == value[l]).map(|o| 1 << o).sum();
            let expected = if !all || same == seen[l] { same } else { 0 };
            assert_eq!(d[l], expected, "{opcode} lane {l}");
            if both {
                assert_eq!(p >> l & 1 == 1, same == seen[l], "{opcode} lane {l}");
            }
        }
    }
}

#[test]
fn reductions() {
    type Fold = fn(i64, i64) -> i64;
    let kinds: [(&str, bool, Fold); 9] = [
        ("add.u32", false, |a, b| a + b),
        ("add.s32", true, |a, b| a + b),
        ("min.u32", false, i64::min),
        ("max.u32", false, i64::max),
        ("min.s32", true, i64::min),
        ("max.s32", true, i64::max),
        ("and.b32", false, |a, b| a & b),
        ("or.b32", false, |a, b| a | b),
        ("xor.b32", false, |a, b| a ^ b),
    ];
    let mut random = Random(4);
    for round in 0..1800 {
        let (name, signed, fold) = kinds[round % 9];
        let mask = random.mask();
        let (names, seen) = members(&mut random, mask);
        let spread = random.bits().is_multiple_of(2);
        let a = random.row(|x| if spread { x } else { x | 0xffff_fff0 });
        let opcode = format!("redux.sync.{name}");
        let sources = vec![vec![a], vec![names]];
        let (d, _) = Case { opcode: &opcode, operands: 3, sources, predicate: None, mask, both: false }.run();
        for l in lanes(mask) {
            let value = |o: usize| if signed { i64::from(a[o] as i32) } else { i64::from(a[o]) };
            let expected = lanes(seen[l]).map(value).reduce(fold).unwrap_or(0);
            assert_eq!(d[l], expected as u32, "{opcode} lane {l}");
        }
    }
}

#[test]
fn elections_and_active_lanes() {
    let mut random = Random(5);
    for _ in 0..300 {
        let mask = random.mask();
        let (names, seen) = members(&mut random, mask);
        let sources = vec![vec![names]];
        let case = Case { opcode: "elect.sync", operands: 2, sources, predicate: None, mask, both: true };
        let (d, p) = case.run();
        for l in lanes(mask) {
            let leader = lanes(seen[l]).next().unwrap();
            assert_eq!((d[l] as usize, p >> l & 1 == 1), (leader, leader == l));
        }
        let case = Case { opcode: "activemask.b32", operands: 1, sources: vec![], predicate: None, mask, both: false };
        let (d, _) = case.run();
        assert!(lanes(mask).all(|l| d[l] == mask));
    }
}

#[test]
fn operands_are_in_the_order_of_the_text() {
    use Arg::*;
    let args = |opcode, operands| recipe(opcode, operands, Level::Portable).args;
    assert_eq!(args("shfl.sync.bfly.b32", 5), [To32, ToPredicateToo, From32, From32, From32, From32]);
    assert_eq!(args("shfl.idx.b32", 4), [To32, ToPredicateToo, From32, From32, From32]);
    assert_eq!(args("vote.sync.any.pred", 3), [ToPredicate, FromPredicate, From32]);
    assert_eq!(args("vote.sync.ballot.b32", 3), [To32, FromPredicate, From32]);
    assert_eq!(args("match.all.sync.b64", 3), [To32, ToPredicateToo, From64, From32]);
    assert_eq!(args("match.any.sync.b32", 3), [To32, From32, From32]);
    assert_eq!(args("redux.sync.add.s32", 3), [To32, From32, From32]);
    assert_eq!(args("elect.sync", 2), [To32, ToPredicateToo, From32]);
    assert_eq!(args("activemask.b32", 1), [To32]);
}

#[test]
fn what_is_unknown_is_named() {
    let select = |opcode: &str, operands| {
        let parts: Vec<&str> = opcode.split('.').collect();
        select(&parts, operands, &[], Level::Portable).map(|r| r.is_some())
    };
    assert_eq!(select("add.s32", 3), Ok(false));
    assert_eq!(select("bar.warp.sync", 1), Ok(false));
    for (opcode, operands, named) in [
        ("shfl.sync.left.b32", 5, "left"),
        ("shfl.sync.up.b64", 5, "b64"),
        ("shfl.left.b32", 4, "left"),
        ("shfl.sync.up.b32", 4, "expected 5 operands, found 4"),
        ("shfl.up.b32", 5, "expected 4 operands, found 5"),
        ("vote.sync.most.pred", 3, "most"),
        ("vote.sync.all.b32", 3, "all.b32"),
        ("match.any.b32", 2, "any.b32"),
        ("match.some.sync.b32", 3, "some"),
        ("redux.sync.min.f32", 3, ".f32 is of sm_100a"),
        ("redux.sync.and.u32", 3, "and.u32"),
        ("redux.sync.min.abs.f32", 3, ".f32 is of sm_100a"),
        ("elect", 2, "unknown"),
        ("activemask.b64", 1, "b64"),
    ] {
        let error = select(opcode, operands).expect_err(opcode);
        assert!(error.contains(named), "{opcode}: {error}");
    }
}

/// Nanoseconds of one shuffle: `cargo test --release -p ptx-emulator --test warp -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random(6);
    for (opcode, operands) in [("shfl.sync.bfly.b32", 5), ("vote.sync.ballot.b32", 3), ("redux.sync.add.s32", 3)] {
        for level in levels() {
            let recipe = recipe(opcode, operands, level);
            let rows = [random.row(|x| x), [1; 32], [31; 32], [ALL; 32]].map(Row).to_vec();
            let o = match operands {
                5 => Operands { slot: std::array::from_fn(|n| n.saturating_sub(1) as u16), ..Operands::default() },
                _ => Operands { slot: std::array::from_fn(|n| [0, 0, 3][n.min(2)]), ..Operands::default() },
            };
            let mut o = o;
            o.predicate = [1, 0, 0, 0];
            if operands == 3 && opcode.starts_with("vote") {
                o.slot[1] = 3;
            }
            let mut r = Registers { rows, predicates: vec![0, 0x1234_5678] };
            let start = std::time::Instant::now();
            for _ in 0..1_000_000 {
                // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
                unsafe { (recipe.exec)(std::hint::black_box(&mut r), &o, ALL) };
            }
            println!("{opcode} {level:?}: {:.1} ns", start.elapsed().as_secs_f64() * 1e3);
        }
    }
}
