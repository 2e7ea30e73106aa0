//! How fast kernels run, checks off and on, on one thread and on all: medians over several launches, results checked first.
//!
//!     cargo run --release -p ptx-emulator --example throughput                 # both kernels below
//!     cargo run --release -p ptx-emulator --example throughput -- mma          # bf16 on mma.sync, tiled as for a GPU
//!     cargo run --release -p ptx-emulator --example throughput -- gemm [PTX]   # float32, one thread per element
//!
//! `gemm` takes any PTX whose first entry is `(const float* a, const float* b, float* c, size_t m, size_t k, size_t n)`, rows
//! along x and columns along y, so that another emulator can be timed on the very same file.

use std::process::ExitCode;
use std::time::Instant;

use ptx_emulator::machine::{Launch, LaunchError, Machine, Options};

const MMA: &str = include_str!("../tests/kernels/gemm_bf16.ptx");
const GEMM: &str = include_str!("../tests/kernels/gemm.ptx");
/// Launches of which the median is told, after one that warms up.
const RUNS: usize = 9;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match asked[..] {
        [] => mma().and_then(|()| gemm("gemm.ptx", GEMM)),
        ["mma"] => mma(),
        ["gemm"] => gemm("gemm.ptx", GEMM),
        ["gemm", path] => {
            std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}")).and_then(|ptx| gemm(path, &ptx))
        }
        _ => {
            eprintln!("usage: throughput [mma | gemm [PTX]]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// y = x * w^T of 512 x 512 x 512 in bf16: sixteen blocks of 128 x 128.
fn mma() -> Result<(), String> {
    let [m, n, k] = [512usize; 3];
    println!("bf16 mma.sync, {m} x {n} x {k}, blocks of 128 x 128 x 32 in 3 stages");
    let (x, w) = (small_numbers(m * k, 5), small_numbers(n * k, 3));
    let half = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect() };
    measure(Work {
        ptx: MMA,
        inputs: [half(&x), half(&w)],
        sizes: [m, n, k].iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        grid: [(m / 128) as u32, (n / 128) as u32, 1],
        block: [128, 1, 1],
        expected: product(m, n, k, |i, p| x[i * k + p], |p, j| w[j * k + p]),
        operations: 2.0 * (m * n * k) as f64,
    })
}

/// c = a * b of 128 x 128 x 128 in float32: blocks of 16 x 16.
fn gemm(name: &str, ptx: &str) -> Result<(), String> {
    let [m, n, k] = [128usize; 3];
    println!("float32 {name}, {m} x {n} x {k}, blocks of 16 x 16");
    let (a, b) = (small_numbers(m * k, 5), small_numbers(k * n, 3));
    let bytes = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| v.to_le_bytes()).collect() };
    measure(Work {
        ptx,
        inputs: [bytes(&a), bytes(&b)],
        sizes: [m, k, n].iter().flat_map(|&v| (v as u64).to_le_bytes()).collect(),
        grid: [(m / 16) as u32, (n / 16) as u32, 1],
        block: [16, 16, 1],
        expected: product(m, n, k, |i, p| a[i * k + p], |p, j| b[p * n + j]),
        operations: 2.0 * (m * n * k) as f64,
    })
}

/// Small whole numbers, which bf16 holds, so that every sum is exact.
fn small_numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 % 9.0 - 4.0
    };
    (0..n).map(|_| next()).collect()
}

fn product(m: usize, n: usize, k: usize, a: impl Fn(usize, usize) -> f32, b: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let element = |e: usize| (0..k).map(|p| a(e / n, p) * b(p, e % n)).sum();
    (0..m * n).map(element).collect()
}

/// A launch whose arguments are two inputs, the output, and sizes.
struct Work<'a> {
    ptx: &'a str,
    inputs: [Vec<u8>; 2],
    sizes: Vec<u8>,
    grid: [u32; 3],
    block: [u32; 3],
    expected: Vec<f32>,
    /// Multiplications and additions.
    operations: f64,
}

fn measure(work: Work) -> Result<(), String> {
    let all = std::thread::available_parallelism().map_or(1, |n| n.get());
    println!("  checks  threads   median ms      min      max   GFLOP/s  per thread");
    for checks in [false, true] {
        let mut counts = vec![1, all];
        counts.dedup();
        for threads in counts {
            let seconds = time(&work, Options { checks, threads, ..Options::default() })?;
            let (median, min, max) = (seconds[RUNS / 2], seconds[0], seconds[RUNS - 1]);
            let rate = work.operations / median / 1e9;
            println!(
                "  {:<6} {threads:>8} {:>11.3} {:>8.3} {:>8.3} {rate:>9.3} {:>11.3}",
                if checks { "on" } else { "off" },
                median * 1e3,
                min * 1e3,
                max * 1e3,
                rate / threads as f64
            );
        }
    }
    Ok(())
}

/// Seconds of each launch, ascending, once the output is what is expected.
fn time(work: &Work, options: Options) -> Result<Vec<f64>, String> {
    let mut machine = Machine::new(options);
    let mut module = machine.load(work.ptx).map_err(|e| e.to_string())?;
    let name = module.kernel_names().into_iter().next().ok_or("the PTX has no entry")?;
    let kernel = module.kernel(&name).ok_or("the entry is lost")?.map_err(|e| e.to_string())?;
    let mut arguments = Vec::new();
    for input in &work.inputs {
        let at = machine.allocate(input.len()).ok_or("no memory for an input")?;
        machine.write(at, input).map_err(|f| f.to_string())?;
        arguments.extend(at.to_le_bytes());
    }
    let out = machine.allocate(4 * work.expected.len()).ok_or("no memory for the output")?;
    arguments.extend(out.to_le_bytes());
    arguments.extend(&work.sizes);
    // A struct ends at a multiple of its alignment.
    arguments.resize(arguments.len().next_multiple_of(8), 0);
    let launch =
        Launch { grid: work.grid, block: work.block, shared_bytes: 0, shared_limit: 0, parameters: &arguments };
    let mut run = || match machine.launch(&kernel, &launch) {
        Ok(()) => Ok(()),
        Err(LaunchError::Refused(code, why)) => Err(format!("error {code}: {why}")),
        Err(LaunchError::Found(finding)) => Err(finding.to_string()),
    };
    run()?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let mut bytes = vec![0; 4 * work.expected.len()];
    machine.read(out, &mut bytes).map_err(|f| f.to_string())?;
    let found = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match found.zip(&work.expected).position(|(f, &e)| f != e || f.is_nan()) {
        None => Ok(seconds),
        Some(at) => Err(format!("element {at} of the result is wrong")),
    }
}
