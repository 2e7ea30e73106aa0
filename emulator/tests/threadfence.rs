//! The reduction over blocks of the CUDA programming guide, "Memory Fence Functions": clean under every checker and schedule as it is,
//! and caught without its fence, or with one that reaches too few.

use ptx_emulator::finding::{Finding, Kind};
use ptx_emulator::machine::{Launch, LaunchError, Machine, Options};

const PTX: &str = include_str!("kernels/threadfence.ptx");
const SCHEDULES: [(u64, usize); 5] = [(0, 1), (0, 2), (1, 1), (2, 2), (3, 2)];
const N: usize = 5000;
const BLOCKS: u32 = 7;

fn edit(from: &str, to: &str) -> String {
    assert_eq!(PTX.matches(from).count(), 1, "{from}");
    PTX.replace(from, to)
}

/// The sum of 0 to n - 1, twice: the counter must start again.
fn run(ptx: &str, seed: u64, threads: usize) -> Result<f32, Box<Finding>> {
    let mut machine = Machine::new(Options { seed, threads, ..Options::default() });
    let mut module = machine.load(ptx).expect("it parses");
    let kernel = module.kernel("sum").expect("it is there").expect("it compiles");
    let array: Vec<u8> = (0..N).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let from = machine.allocate(array.len()).unwrap();
    machine.write(from, &array).unwrap();
    let result = machine.allocate(4 * BLOCKS as usize).unwrap();
    let total = machine.allocate(4).unwrap();
    let parameters =
        [&from.to_le_bytes()[..], &(N as u64).to_le_bytes(), &result.to_le_bytes(), &total.to_le_bytes()].concat();
    let launch =
        Launch { grid: [BLOCKS, 1, 1], block: [128, 1, 1], shared_bytes: 0, shared_limit: 0, parameters: &parameters };
    let mut bytes = [0; 4];
    for _ in 0..2 {
        match machine.launch(&kernel, &launch) {
            Ok(()) => {}
            Err(LaunchError::Found(f)) => return Err(f),
            Err(LaunchError::Refused(code, why)) => panic!("refused with {code}: {why}"),
        }
        machine.read(total, &mut bytes)?;
        assert_eq!(f32::from_le_bytes(bytes), (N * (N - 1) / 2) as f32, "seed {seed}");
        machine.fill(total, &[0], 4)?;
    }
    Ok(f32::from_le_bytes(bytes))
}

#[test]
fn it_passes_in_every_schedule() {
    for (seed, threads) in SCHEDULES {
        run(PTX, seed, threads).unwrap_or_else(|f| panic!("seed {seed}: {f}"));
    }
}

/// Both lines are named: where a block's sum is read, and where it was written.
fn caught(ptx: &str) {
    for (seed, threads) in SCHEDULES {
        let f = run(ptx, seed, threads).expect_err("the sums of other blocks are read unordered");
        assert_eq!(f.kind, Kind::BlockRace, "{f}");
        assert_eq!(f.source, Some(("threadfence.cu".into(), line("mine += result[i]"))), "{f}");
        let wrote = format!("threadfence.cu:{}", line("result[blockIdx.x] ="));
        assert!(f.what.contains(&wrote), "{f}");
    }
}

fn line(text: &str) -> u32 {
    let at = include_str!("kernels/threadfence.cu").lines().position(|l| l.contains(text));
    at.unwrap_or_else(|| panic!("{text}")) as u32 + 1
}

#[test]
fn without_its_fence_it_is_caught() {
    caught(&edit("membar.gl;", ""));
}

#[test]
fn a_fence_for_the_block_alone_is_caught() {
    caught(&edit("membar.gl;", "membar.cta;"));
}

#[test]
fn a_fence_behind_the_atomic_is_caught() {
    let text = edit("membar.gl;", "");
    let at = text.find("atom.global.inc.u32").expect("the atomic");
    let end = at + text[at..].find(';').expect("its end") + 1;
    caught(&format!("{}\n\tmembar.gl;{}", &text[..end], &text[end..]));
}
