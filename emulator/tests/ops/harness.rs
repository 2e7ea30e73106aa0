//! Runs the recipe of an instruction at every level this machine has, under full and partial masks, on edge values and random
//! ones, and compares each lane with a value computed by the test.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod exact;

use ptx_emulator::ops::Arg;
use ptx_emulator::ops::select::select;
use ptx_emulator::registers::{ALL, Level, Operands, Registers, ZERO};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// A value of a kind: an integer of 8, 16, 32, 64 bits (`b h w l`), a shift count or position (`s`), a number (`e` f16, `g` bf16,
    /// `f` f32, `d` f64), a pair of them (`E G F`) or of 16-bit integers (`H`).
    pub fn value(&mut self, kind: char) -> u64 {
        match kind {
            'b' => self.integer(8),
            'h' => self.integer(16),
            'w' => self.integer(32),
            'l' => self.integer(64),
            's' => match self.below(8) {
                0 => self.bits() & 0xffff_ffff,
                1 => self.below(300),
                _ => self.below(70),
            },
            'e' => self.number(5, 10),
            'g' => self.number(8, 7),
            'f' => self.number(8, 23),
            'd' => self.number(11, 52),
            'E' => self.number(5, 10) | self.number(5, 10) << 16,
            'G' => self.number(8, 7) | self.number(8, 7) << 16,
            'H' => self.integer(16) | self.integer(16) << 16,
            'F' => self.number(8, 23) | self.number(8, 23) << 32,
            other => panic!("unknown kind {other}"),
        }
    }

    fn integer(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let v = match self.below(6) {
            0 => [0, 1, u64::MAX, mask >> 1, (mask >> 1) + 1, mask - 1][self.below(6) as usize],
            1 => self.below(10),
            2 => self.below(10).wrapping_neg(),
            3 => self.bits() >> self.below(64),
            _ => self.bits(),
        };
        v & mask
    }

    fn number(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let top = (1 << exponent_bits) - 1;
        let exponent = match self.below(8) {
            0 => [0, 1, top - 1, top][self.below(4) as usize],
            1 => self.below(top),
            // Around 1, where results are mostly finite.
            _ => (top / 2 + self.below(8) - 4).min(top),
        };
        let all = (1 << fraction_bits) - 1;
        let fraction = match self.below(4) {
            0 => [0, 0, 1, all, 1 << (fraction_bits - 1)][self.below(5) as usize],
            _ => self.bits() & all,
        };
        (self.bits() & 1) << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction
    }
}

/// What an instruction reads in one lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// Row sources, without the garbage above narrow ones.
    pub s: Vec<u64>,
    /// Source predicates, negation applied.
    pub p: Vec<bool>,
    pub carry: bool,
    pub immediate: u32,
}

/// What a destination row must hold.
pub enum Want {
    Is(u64),
    /// Anything that passes.
    Pass(Box<dyn Fn(u64) -> bool>),
    /// Nobody looks.
    Any,
}

/// What an instruction must write in one lane.
#[derive(Default)]
pub struct Out {
    pub d: Vec<Want>,
    pub p: Vec<bool>,
    /// `None`: left as it was.
    pub carry: Option<bool>,
}

pub fn is(d: u64) -> Out {
    Out { d: vec![Want::Is(d)], ..Out::default() }
}

pub fn predicates(p: &[bool]) -> Out {
    Out { p: p.to_vec(), ..Out::default() }
}

pub fn levels() -> Vec<Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|l| *l <= Level::of_this_machine()).collect()
}

/// Makes the row sources of one lane.
pub type Feed<'a> = dyn Fn(&mut Rng) -> Vec<u64> + 'a;

/// How a case is fed.
pub struct Case<'a> {
    pub opcode: &'a str,
    /// Operands as written.
    pub operands: usize,
    pub vectors: Vec<usize>,
    /// Kinds of the row sources.
    pub kinds: &'a str,
    pub warps: usize,
    pub immediates: Vec<u32>,
    /// Instead of the kinds.
    pub feed: Option<&'a Feed<'a>>,
}

impl<'a> Case<'a> {
    pub fn new(opcode: &'a str, operands: usize, kinds: &'a str) -> Case<'a> {
        Case { opcode, operands, vectors: vec![0; operands], kinds, warps: 12, immediates: vec![0], feed: None }
    }
}

/// `check` for plain instructions: `operands` counts destination and sources.
pub fn check(opcode: &str, kinds: &str, oracle: impl Fn(&Lane) -> Out) {
    check_case(&Case::new(opcode, kinds.len() + 1, kinds), oracle);
}

/// The same with predicates among the operands.
pub fn check_operands(opcode: &str, operands: usize, kinds: &str, oracle: impl Fn(&Lane) -> Out) {
    check_case(&Case::new(opcode, operands, kinds), oracle);
}

fn put(r: &mut Registers, slot: usize, wide: bool, lane: usize, v: u64) {
    if wide {
        // 64-bit lane l lies in words 2l and 2l + 1 of two rows.
        for (n, word) in [v as u32, (v >> 32) as u32].into_iter().enumerate() {
            let at = 2 * lane + n;
            r.rows[slot + at / 32].0[at % 32] = word;
        }
    } else {
        r.rows[slot].0[lane] = v as u32;
    }
}

fn get(r: &Registers, slot: usize, wide: bool, lane: usize) -> u64 {
    let word = |at: usize| u64::from(r.rows[slot + at / 32].0[at % 32]);
    if wide { word(2 * lane) | word(2 * lane + 1) << 32 } else { u64::from(r.rows[slot].0[lane]) }
}

/// Runs a case and panics where a lane differs.
pub fn check_case(case: &Case, oracle: impl Fn(&Lane) -> Out) {
    let parts: Vec<&str> = case.opcode.split('.').collect();
    let mut rng = Rng(parts.iter().flat_map(|p| p.bytes()).fold(7, |h, b| h * 31 % 1_000_003 + u64::from(b)));
    for n in 0..case.warps {
        let immediate = case.immediates[n % case.immediates.len()];
        let mut lanes = vec![Lane { immediate, ..Lane::default() }; 32];
        let (mut before, mut o) = (Registers { rows: vec![ZERO; 40], predicates: vec![0; 8] }, Operands::default());
        for (l, lane) in lanes.iter_mut().enumerate() {
            lane.s = case.kinds.chars().map(|k| rng.value(k)).collect();
            // Now and then all operands are the same.
            if rng.below(8) == 0 && !lane.s.is_empty() && case.kinds.chars().all(|k| case.kinds.starts_with(k)) {
                let first = lane.s[0];
                lane.s.iter_mut().for_each(|v| *v = first);
            }
            if let Some(feed) = case.feed {
                lane.s = feed(&mut rng);
            }
            lane.carry = rng.below(2) == 1;
            before.predicates[0] |= u32::from(lane.carry) << l;
        }
        for row in &mut before.rows {
            row.0.iter_mut().for_each(|v| *v = rng.bits() as u32);
        }
        for p in &mut before.predicates[1..] {
            *p = rng.bits() as u32;
        }
        let mut wants: Vec<Out> = Vec::new();
        for level in levels() {
            let recipe = select(&parts, case.operands, &case.vectors, level)
                .unwrap_or_else(|e| panic!("{}: {e}", case.opcode))
                .unwrap_or_else(|| panic!("{} is not known", case.opcode));
            // Rows from 2 on, two each; predicates from 1 on.
            let (mut rows, mut sources, mut predicates, mut negatable) = (0, 0, 0, 0);
            let mut destinations = Vec::new();
            o.extra = recipe.extra;
            let mut read = vec![Vec::new(); 32];
            for arg in &recipe.args {
                match arg {
                    Arg::To32 | Arg::To64 => {
                        o.slot[rows] = (2 + 2 * rows) as u16;
                        destinations.push((o.slot[rows] as usize, *arg == Arg::To64));
                        rows += 1;
                    }
                    Arg::From32 | Arg::From64 | Arg::From16 => {
                        o.slot[rows] = (2 + 2 * rows) as u16;
                        let kind = case.kinds.chars().nth(sources).unwrap_or_else(|| panic!("{}: kinds", case.opcode));
                        for (l, lane) in lanes.iter().enumerate() {
                            let garbage = match kind {
                                'b' => rng.bits() << 8,
                                'h' | 'e' | 'g' => rng.bits() << 16,
                                _ => 0,
                            };
                            let wide = *arg == Arg::From64;
                            put(&mut before, 2 + 2 * rows, wide, l, lane.s[sources] | garbage);
                        }
                        rows += 1;
                        sources += 1;
                    }
                    Arg::ToPredicate | Arg::ToPredicateToo => {
                        o.predicate[predicates] = (1 + predicates) as u16;
                        predicates += 1;
                    }
                    Arg::FromPredicate => {
                        o.predicate[predicates] = (1 + predicates) as u16;
                        let negated = n >> negatable & 1 == 1;
                        o.negated = o.negated & !(1 << negatable) | u16::from(negated) << negatable;
                        for (l, read) in read.iter_mut().enumerate() {
                            read.push((before.predicates[1 + predicates] >> l & 1 == 1) != negated);
                        }
                        predicates += 1;
                        negatable += 1;
                    }
                    Arg::Immediate => o.extra = case.immediates[n % case.immediates.len()],
                }
            }
            assert_eq!(sources, case.kinds.len(), "{}: row sources", case.opcode);
            if wants.is_empty() {
                for (lane, read) in lanes.iter_mut().zip(read) {
                    lane.p = read;
                    wants.push(oracle(lane));
                }
            }
            for mask in [ALL, 0x8000_0001, 0x0ff0_aaaa, rng.bits() as u32 | 2] {
                let mut after = Registers { rows: before.rows.clone(), predicates: before.predicates.clone() };
                // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
                unsafe { (recipe.exec)(&mut after, &o, mask) };
                for l in 0..32 {
                    let on = mask >> l & 1 == 1;
                    let place = || format!("{} at {level:?}, mask {mask:#x}, lane {l}, {:x?}", case.opcode, lanes[l]);
                    for (i, &(slot, wide)) in destinations.iter().enumerate() {
                        let (was, got) = (get(&before, slot, wide, l), get(&after, slot, wide, l));
                        match &wants[l].d[i] {
                            _ if !on => assert_eq!(got, was, "{}: an inactive lane was written", place()),
                            Want::Is(want) => assert!(got == *want, "{}: got {got:#x}, want {want:#x}", place()),
                            Want::Pass(f) => assert!(f(got), "{}: got {got:#x}", place()),
                            Want::Any => {}
                        }
                    }
                    let bit = |r: &Registers, p: usize| r.predicates[p] >> l & 1 == 1;
                    for p in 1..8 {
                        let written = on && p <= wants[l].p.len();
                        let want = if written { wants[l].p[p - 1] } else { bit(&before, p) };
                        assert_eq!(bit(&after, p), want, "{}: predicate {p}", place());
                    }
                    let want = wants[l].carry.filter(|_| on).unwrap_or_else(|| bit(&before, 0));
                    assert_eq!(bit(&after, 0), want, "{}: carry", place());
                }
                // Everything else is as before.
                for (n, (was, is)) in before.rows.iter().zip(&after.rows).enumerate() {
                    let ours = destinations.iter().any(|&(s, wide)| n == s || wide && n == s + 1);
                    assert!(ours || was == is, "{}: row {n} was written", case.opcode);
                }
            }
        }
    }
}

/// The error of an opcode that must be refused.
pub fn refused(opcode: &str, operands: usize) -> String {
    let parts: Vec<&str> = opcode.split('.').collect();
    match select(&parts, operands, &vec![0; operands], Level::Portable) {
        Err(e) => e,
        Ok(Some(_)) => panic!("{opcode} was accepted"),
        Ok(None) => panic!("{opcode} belongs elsewhere"),
    }
}
