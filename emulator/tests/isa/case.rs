//! Reads and runs one case.

use std::path::Path;

use ptx_emulator::device::Model;
use ptx_emulator::machine::{Launch, LaunchError, Machine, Options};

/// How an entry runs and what it must do.
#[derive(Clone, Default)]
pub struct Case {
    file: String,
    text: String,
    name: String,
    block: u32,
    grid: u32,
    shared: u32,
    lints: bool,
    value: u64,
    input: Vec<u8>,
    /// Bytes at `out`, and where each number begins.
    output: Vec<u8>,
    starts: Vec<(usize, usize)>,
    finding: Option<(String, Vec<String>)>,
}

/// Bytes after the expected ones, which must stay as they were.
const CANARY: usize = 32;

pub fn cases_of(file: &Path) -> Vec<Case> {
    cases_in(file, &std::fs::read_to_string(file).expect("the file"))
}

pub fn cases_in(file: &Path, text: &str) -> Vec<Case> {
    let fresh = || Case {
        file: file.file_name().unwrap().to_string_lossy().into_owned(),
        text: text.into(),
        block: 1,
        grid: 1,
        ..Case::default()
    };
    let (mut cases, mut case) = (Vec::new(), fresh());
    for (n, line) in text.lines().enumerate() {
        let at = || format!("{}:{}", file.display(), n + 1);
        if let Some(rest) = line.strip_prefix("//:") {
            for word in rest.split_whitespace() {
                let (key, value) = word.split_once('=').unwrap_or((word, "1"));
                let number = whole(value).unwrap_or_else(|| panic!("{}: {word}", at()));
                match key {
                    "block" => case.block = number as u32,
                    "grid" => case.grid = number as u32,
                    "shared" => case.shared = number as u32,
                    "a" => case.value = number,
                    "lints" => case.lints = true,
                    _ => panic!("{}: unknown key {key}", at()),
                }
            }
        } else if let Some(rest) = line.strip_prefix("//<") {
            case.input.extend(numbers(rest, &at()).concat());
        } else if let Some(rest) = line.strip_prefix("//>") {
            for bytes in numbers(rest, &at()) {
                case.starts.push((case.output.len(), bytes.len()));
                case.output.extend(bytes);
            }
        } else if let Some(rest) = line.strip_prefix("//!") {
            let (kind, texts) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
            let texts = texts.split(';').map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect();
            case.finding = Some((kind.into(), texts));
        } else if let Some(rest) = line.strip_prefix(".visible .entry ") {
            case.name = rest.split('(').next().unwrap().trim().into();
            cases.push(std::mem::replace(&mut case, fresh()));
        }
    }
    assert!(!cases.is_empty(), "{} has no case", file.display());
    cases
}

fn whole(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|v| v as u64))
}

/// The bytes of each number behind its type.
fn numbers(text: &str, at: &str) -> Vec<Vec<u8>> {
    let mut words = text.split_whitespace();
    let ty = words.next().unwrap_or_else(|| panic!("{at}: expected a type"));
    let bytes = match ty {
        "u8" | "s8" => 1,
        "u16" | "s16" => 2,
        "u32" | "s32" | "f32" => 4,
        "u64" | "s64" | "f64" => 8,
        _ => panic!("{at}: unknown type {ty}"),
    };
    let one = |word: &str| -> Vec<u8> {
        let bits = match (ty, word.starts_with("0x")) {
            ("f32", false) => word.parse::<f32>().ok().map(|v| u64::from(v.to_bits())),
            ("f64", false) => word.parse::<f64>().ok().map(f64::to_bits),
            _ => whole(word),
        };
        bits.unwrap_or_else(|| panic!("{at}: {word}")).to_le_bytes()[..bytes].to_vec()
    };
    words
        .flat_map(|word| match word.split_once('*') {
            Some((n, word)) => vec![one(word); n.parse().unwrap_or_else(|_| panic!("{at}: {n}"))],
            None => vec![one(word)],
        })
        .collect()
}

impl Case {
    pub fn expects_nothing(&self) -> bool {
        self.output.is_empty() && self.finding.is_none()
    }

    /// # Errors
    /// What differs, in a line.
    pub fn run(&self) -> Result<(), String> {
        for (seed, threads) in [(0, 1), (0, 2), (3, 1), (4, 2)] {
            self.run_once(seed, threads)
                .map_err(|why| format!("{}: {}, seed {seed}, {threads} threads: {why}", self.file, self.name))?;
        }
        Ok(())
    }

    fn run_once(&self, seed: u64, threads: usize) -> Result<(), String> {
        let options = Options { model: Model::H100, seed, threads, lints: self.lints, ..Options::default() };
        let mut machine = Machine::new(options);
        let mut module = machine.load(&self.text).map_err(|e| e.to_string())?;
        let kernel = module.kernel(&self.name).ok_or("no such kernel")?.map_err(|e| e.to_string())?;
        let size = self.output.len() + CANARY;
        let out = machine.allocate(size).ok_or("no memory")?;
        machine.fill(out, &[0], size).map_err(|f| f.to_string())?;
        let mut a = self.value;
        if !self.input.is_empty() {
            a = machine.allocate(self.input.len()).ok_or("no memory")?;
            machine.write(a, &self.input).map_err(|f| f.to_string())?;
        }
        let parameters = [out.to_le_bytes(), a.to_le_bytes()].concat();
        let launch = Launch {
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            shared_bytes: self.shared,
            shared_limit: self.shared,
            parameters: &parameters[..kernel.parameter_bytes],
        };
        match (machine.launch(&kernel, &launch), &self.finding) {
            (Ok(()), None) => {}
            (Ok(()), Some((kind, _))) => return Err(format!("nothing was found, expected {kind}")),
            (Err(LaunchError::Refused(code, why)), _) => return Err(format!("refused with {code}: {why}")),
            (Err(LaunchError::Found(f)), expected) => {
                let found = serde_json::to_value(f.kind).map_err(|e| e.to_string())?;
                let text = f.to_string();
                return match expected {
                    Some((kind, texts)) if found == kind.as_str() => match texts.iter().find(|t| !text.contains(*t)) {
                        Some(missing) => Err(format!("the report does not say `{missing}`: {text}")),
                        None => Ok(()),
                    },
                    _ => Err(text),
                };
            }
        }
        let mut bytes = vec![0; size];
        machine.read(out, &mut bytes).map_err(|f| f.to_string())?;
        let hex = |b: &[u8]| format!("0x{:x}", b.iter().rev().fold(0u64, |all, b| all << 8 | u64::from(*b)));
        for (n, &(at, size)) in self.starts.iter().enumerate() {
            let (found, expected) = (&bytes[at..at + size], &self.output[at..at + size]);
            if found != expected {
                return Err(format!("value {n} is {}, expected {}", hex(found), hex(expected)));
            }
        }
        if bytes[self.output.len()..].iter().any(|b| *b != 0) {
            return Err("it wrote behind what is expected".into());
        }
        Ok(())
    }
}
