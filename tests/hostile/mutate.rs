//! Inputs made of the corpora by chance: bytes, numbers and pieces exchanged. It does not watch which code an input reaches, as the
//! fuzz targets of `fuzz/` do; it needs nothing but this test.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::corpora;
use super::targets::{TARGETS, run};

/// A small generator of its own, so that a round can be repeated (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "31",
    "32",
    "33",
    "255",
    "256",
    "65535",
    "65536",
    "1000000",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "0.5",
    "null",
];

/// A few changes of `input`, and pieces of `other`.
pub fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    // The header of a safetensors file is text behind its length: change the text, and the length with it.
    if let Some(length) = input.first_chunk::<8>().map(|l| u64::from_le_bytes(*l))
        && input.get(8) == Some(&b'{')
        && length < input.len() as u64 - 8
        && random.below(8) > 0
    {
        let (header, data) = input[8..].split_at(length as usize);
        let header = changed(header.to_vec(), b"{}", random);
        return [&(header.len() as u64).to_le_bytes()[..], &header, data].concat();
    }
    changed(input.to_vec(), other, random)
}

fn changed(mut bytes: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
    // A text that only differs in its numbers is read further than any other.
    let numbers_only = random.below(2) == 0;
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match if numbers_only { 9 } else { random.below(10) } {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 0xff, 0x7f, 0x80, b'"', b'}'][random.below(6)],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 if !other.is_empty() => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                bytes.splice(at..end, piece.iter().copied());
            }
            6 if end - at >= 4 => bytes[at..at + 4].copy_from_slice(&(random.next() as u32).to_le_bytes()),
            _ => {
                // A number in a text becomes another, a text another word.
                let digit = |b: &u8| b.is_ascii_digit();
                let numbers: Vec<usize> =
                    (0..bytes.len()).filter(|&i| digit(&bytes[i]) && (i == 0 || !digit(&bytes[i - 1]))).collect();
                if numbers.is_empty() {
                    continue;
                }
                let from = numbers[random.below(numbers.len())];
                let to = from + bytes[from..].iter().take_while(|b| digit(b)).count();
                bytes.splice(from..to, NUMBERS[random.below(NUMBERS.len())].bytes());
            }
        }
    }
    bytes
}

/// A few rounds of every target in every run of the tests; `HOSTILE_SECONDS` of each when asked for, and then `HOSTILE_SEED` of another
/// sequence. What is found lies in `target/hostile/`.
#[test]
fn inputs_made_by_chance_are_read_or_refused() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let seconds = number("HOSTILE_SECONDS");
    let only = std::env::var("HOSTILE_TARGET").ok();
    let findings = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hostile");
    let mut found: Vec<PathBuf> = Vec::new();
    for (name, target) in TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let inputs = corpora::of(name);
        let mut random = Random(number("HOSTILE_SEED").unwrap_or(1));
        let (begin, mut rounds) = (Instant::now(), 0u64);
        let goes_on = |rounds: u64| match seconds {
            Some(seconds) => begin.elapsed() < Duration::from_secs(seconds),
            None => rounds < 150 && begin.elapsed() < Duration::from_secs(4),
        };
        while goes_on(rounds) {
            let (a, b) = (random.below(inputs.len()), random.below(inputs.len()));
            let bytes = mutated(&inputs[a].1, &inputs[b].1, &mut random);
            let each = Instant::now();
            let whole = catch_unwind(AssertUnwindSafe(|| run(target, &bytes))).is_ok();
            if !whole || each.elapsed() > Duration::from_secs(20) {
                fs::create_dir_all(&findings).unwrap();
                let path = findings.join(format!("{name}-{rounds}"));
                fs::write(&path, &bytes).unwrap();
                found.push(path);
            }
            rounds += 1;
        }
        println!("{name}: {rounds} inputs in {:.1} s", begin.elapsed().as_secs_f64());
    }
    assert!(found.is_empty(), "panics or more than 20 s: {found:?}");
}
