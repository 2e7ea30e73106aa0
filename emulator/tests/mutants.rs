//! A tensor-core kernel, whole and broken in one place at a time: the whole one is clean under every checker and schedule, and each
//! broken one is caught by the checker meant for it. Mutants are edits of the PTX that nvcc emitted, or wrong calls.

use ptx_emulator::finding::{Finding, Kind};
use ptx_emulator::machine::{Launch, LaunchError, Machine, Options};

const TILE: &str = include_str!("kernels/tile.ptx");
/// Rows, columns and depth: the last tile of rows is half empty.
const M: usize = 48;
const N: usize = 32;
const K: usize = 64;

/// Replaces the n-th occurrence (from 0) of a piece of the kernel, which must be there.
fn edit(ptx: &str, n: usize, from: &str, to: &str) -> String {
    let (at, _) = ptx.match_indices(from).nth(n).unwrap_or_else(|| panic!("`{from}` does not occur {} times", n + 1));
    format!("{}{to}{}", &ptx[..at], &ptx[at + from.len()..])
}

/// What the host does, with what a case changes about it.
struct Case {
    ptx: String,
    seed: u64,
    threads: usize,
    /// Row count that the kernel is told, blocks launched, bytes cut off the arguments.
    m: usize,
    extra_blocks: u32,
    cut: usize,
    lints: bool,
    /// Added to the address of x; an address in its place; not written or freed before the launch.
    offset: u64,
    host_pointer: bool,
    write_bias: bool,
    free_bias: bool,
}

impl Case {
    fn new(ptx: String) -> Self {
        Case {
            ptx,
            seed: 0,
            threads: 1,
            m: M,
            extra_blocks: 0,
            cut: 0,
            lints: false,
            offset: 0,
            host_pointer: false,
            write_bias: true,
            free_bias: false,
        }
    }

    /// y and the totals, or what was found.
    fn run(&self) -> Result<(Vec<f32>, Vec<f32>), Box<Finding>> {
        let Case { seed, threads, lints, .. } = *self;
        let options = Options { seed, threads, lints, ..Options::default() };
        let mut machine = Machine::new(options);
        let mut module = machine.load(&self.ptx).expect("the mutant parses");
        let kernel = module.kernel("tile").expect("the module has it").expect("the mutant compiles");
        let (x, w, bias) = inputs();
        let half =
            |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect() };
        let full = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let mut upload = |bytes: &[u8]| {
            let at = machine.allocate(bytes.len()).unwrap();
            machine.write(at, bytes).unwrap();
            at
        };
        let (dx, dw) = (upload(&half(&x)), upload(&half(&w)));
        let db = if self.write_bias { upload(&full(&bias)) } else { machine.allocate(4 * N).unwrap() };
        let (columns, blocks) = (N / 16, M.div_ceil(32) * N / 16);
        let dy = machine.allocate(4 * M * N).unwrap();
        let partial = machine.allocate(8 * blocks).unwrap();
        machine.fill(partial, &[0], 8 * blocks).unwrap();
        let total = machine.allocate(4 * blocks).unwrap();
        if self.free_bias {
            machine.free(db).unwrap();
        }
        let dx = if self.host_pointer { x.as_ptr() as u64 } else { dx + self.offset };
        let mut arguments: Vec<u8> = [dx, dw, db, dy, partial, total].iter().flat_map(|v| v.to_le_bytes()).collect();
        arguments.extend([self.m, N, K, columns].iter().flat_map(|&v| (v as i32).to_le_bytes()));
        arguments.truncate(arguments.len() - self.cut);
        let launch = Launch {
            grid: [blocks as u32 + self.extra_blocks, 1, 1],
            block: [64, 1, 1],
            shared_bytes: 0,
            shared_limit: 0,
            parameters: &arguments,
        };
        match machine.launch(&kernel, &launch) {
            Ok(()) => {}
            Err(LaunchError::Found(finding)) => return Err(finding),
            Err(LaunchError::Refused(code, why)) => panic!("refused with {code}: {why}"),
        }
        let mut download = |at: u64, n: usize| -> Result<Vec<f32>, Box<Finding>> {
            let mut bytes = vec![0; 4 * n];
            machine.read(at, &mut bytes)?;
            Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
        };
        Ok((download(dy, M * N)?, download(total, blocks)?))
    }
}

/// Small whole numbers, which bf16 holds, so that every sum is exact.
fn inputs() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let make = |n: usize, seed: u32| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as f32 % 9.0 - 4.0
        };
        (0..n).map(|_| next()).collect()
    };
    (make(M * K, 5), make(N * K, 3), make(N, 2))
}

fn expected() -> Vec<f32> {
    let (x, w, bias) = inputs();
    let dot = |i: usize, j: usize| (0..K).map(|k| x[i * K + k] * w[j * K + k]).sum::<f32>();
    (0..M * N).map(|e| dot(e / N, e % N) + bias[e % N]).collect()
}

#[test]
fn the_whole_kernel_is_clean_and_right_in_every_schedule() {
    for (seed, threads) in [(0, 1), (0, 2), (1, 1), (2, 2), (3, 2)] {
        let case = Case { seed, threads, ..Case::new(TILE.into()) };
        let (y, totals) = case.run().unwrap_or_else(|f| panic!("seed {seed}: {f}"));
        assert!(y == expected(), "seed {seed}");
        for (b, total) in totals.iter().enumerate() {
            let (rows, columns) = (b / 2 * 32..(b / 2 * 32 + 32).min(M), b % 2 * 16..b % 2 * 16 + 16);
            let want: f32 = rows.flat_map(|r| columns.clone().map(move |c| r * N + c)).map(|e| y[e]).sum();
            assert_eq!(*total, want, "total of block {b}");
        }
    }
}

/// Runs a mutant in several schedules; every one must be caught, as `kind`, with the place named.
#[track_caller]
fn caught(case: Case, kind: Kind) -> Box<Finding> {
    let mut last = None;
    for (seed, threads) in [(0, 1), (0, 2), (5, 1), (6, 2)] {
        let finding = Case { seed, threads, ..Case { ptx: case.ptx.clone(), ..case } }
            .run()
            .expect_err("a mutant must be caught");
        assert_eq!(finding.kind, kind, "seed {seed}, {threads} threads: {finding}");
        assert_eq!(finding.kernel.as_deref(), Some("tile"), "{finding}");
        last = Some(finding);
    }
    last.unwrap()
}

#[track_caller]
fn caught_in(ptx: String, kind: Kind) -> Box<Finding> {
    let finding = caught(Case::new(ptx), kind);
    let (file, line) = finding.source.clone().unwrap();
    assert!(file == "tile.cu" && (25..86).contains(&line), "{finding}");
    assert!(finding.block.is_some() && finding.thread.is_some(), "{finding}");
    finding
}

#[test]
fn a_missing_barrier_is_a_race_in_shared_memory() {
    caught_in(edit(TILE, 0, "bar.sync \t0;", ""), Kind::SharedRace);
}

#[test]
fn a_buffer_reused_before_its_readers_are_done_is_a_race() {
    // The barrier moves behind the copies into the stage that the last turn read.
    let without = edit(TILE, 0, "bar.sync \t0;", "");
    let moved = edit(&without, 1, "cp.async.commit_group;", "cp.async.commit_group;\n\tbar.sync 0;");
    caught_in(moved, Kind::SharedRace);
}

#[test]
fn a_missing_wait_is_noticed() {
    let f = caught_in(edit(TILE, 0, "cp.async.wait_group 0;", ""), Kind::MissingCopyWait);
    assert!(f.what.contains("tile.cu:26"), "names where the copy began: {f}");
}

#[test]
fn a_wait_for_too_few_groups_is_noticed() {
    caught_in(edit(TILE, 0, "cp.async.wait_group 0;", "cp.async.wait_group 1;"), Kind::MissingCopyWait);
}

#[test]
fn a_missing_commit_is_noticed() {
    // The group that the wait counts is closed before the copies are in it.
    caught_in(edit(TILE, 1, "cp.async.commit_group;", ""), Kind::MissingCopyWait);
}

#[test]
fn a_missing_warp_barrier_is_a_race() {
    caught_in(edit(TILE, 0, "bar.warp.sync \t-1;", ""), Kind::SharedRace);
}

#[test]
fn swapped_fragment_registers_give_other_numbers() {
    let ptx = edit(TILE, 0, "{%r99, %r100, %r101, %r102}, {%r104", "{%r99, %r101, %r100, %r102}, {%r104");
    let (y, _) = Case::new(ptx).run().unwrap_or_else(|f| panic!("{f}"));
    assert!(y != expected());
}

#[test]
fn a_bound_that_is_off_by_one_leaves_the_buffer() {
    // Row m as well: behind the end of y.
    let f = caught_in(
        TILE.replace("setp.ge.s32 \t%p10", "setp.gt.s32 \t%p10").replace("setp.ge.s32 \t%p9", "setp.gt.s32 \t%p9"),
        Kind::OutOfBounds,
    );
    let b = f.buffer.unwrap();
    assert_eq!((b.bytes, f.address), ((4 * M * N) as u64, Some(b.base + b.bytes)), "{f}");
}

#[test]
fn an_epilogue_that_trusts_the_row_count_leaves_the_buffer() {
    caught(Case { m: M + 16, ..Case::new(TILE.into()) }, Kind::OutOfBounds);
}

#[test]
fn memory_that_no_copy_fills_is_uninitialised() {
    // The copy of w into the first stage never happens.
    caught_in(edit(TILE, 0, "setp.gt.s32 \t%p3, %r1, 31;", "setp.gt.s32 \t%p3, %r1, -1;"), Kind::UninitializedShared);
}

#[test]
fn a_host_pointer_is_told_from_a_device_pointer() {
    caught(Case { host_pointer: true, ..Case::new(TILE.into()) }, Kind::HostPointer);
}

#[test]
fn arguments_of_the_wrong_size_do_not_launch() {
    caught(Case { cut: 8, ..Case::new(TILE.into()) }, Kind::ArgumentSize);
}

#[test]
fn blocks_that_write_the_same_place_race() {
    // Every block takes itself for block 0.
    let f = caught_in(edit(TILE, 0, "mov.u32 \t%r43, %ctaid.x;", "mov.u32 \t%r43, 0;"), Kind::BlockRace);
    assert!(f.buffer.is_some() && f.what.contains("block"), "{f}");
}

#[test]
fn too_many_blocks_leave_the_buffers() {
    caught(Case { extra_blocks: 2, ..Case::new(TILE.into()) }, Kind::OutOfBounds);
}

#[test]
fn a_vector_access_at_a_crooked_address_is_misaligned() {
    caught(Case { offset: 8, ..Case::new(TILE.into()) }, Kind::Misaligned);
}

#[test]
fn a_barrier_that_half_a_warp_reaches_is_diverged() {
    let skip = "setp.lt.s32 %p3, %r1, 16;\n\t@%p3 bra $L__BB0_20;\n\tbar.sync \t0;";
    caught_in(edit(TILE, 1, "bar.sync \t0;", skip), Kind::DivergentBarrier);
}

#[test]
fn a_barrier_that_one_warp_skips_is_told_by_the_lints() {
    // Warps that have exited are legal; without them the barrier is complete.
    let skip = "setp.lt.s32 %p3, %r1, 32;\n\t@%p3 bra $L__BB0_20;\n\tbar.sync \t0;";
    let ptx = edit(TILE, 1, "bar.sync \t0;", skip);
    caught(Case { lints: true, ..Case::new(ptx.clone()) }, Kind::DivergentBarrier);
    // The kernel ends well, and nobody has written the totals.
    let f = Case::new(ptx).run().unwrap_err();
    assert!(f.kind == Kind::UninitializedGlobal && f.kernel.is_none(), "{f}");
}

#[test]
fn a_barrier_that_one_warp_waits_elsewhere_for_is_a_deadlock() {
    let skip = "setp.lt.s32 %p3, %r1, 32;\n\t@%p3 bar.sync 1;\n\t@%p3 bra $L__BB0_20;\n\tbar.sync \t0;";
    caught_in(edit(TILE, 1, "bar.sync \t0;", skip), Kind::Deadlock);
}

#[test]
fn a_shuffle_that_part_of_its_warp_reaches_is_diverged() {
    let skip = "setp.lt.s32 %p3, %r1, 16;\n\t@%p3 bra $L__BB0_20;\n\tmov.u32 \t%r147, -1;";
    let f = caught(Case::new(edit(TILE, 0, "mov.u32 \t%r147, -1;", skip)), Kind::DivergentBarrier);
    assert_eq!(f.inlined_at, Some(("tile.cu".into(), 80)), "{f}");
}

#[test]
fn global_memory_passed_on_without_a_barrier_is_a_race() {
    // Warp 1 writes what thread 0 reads; `sums` lies in shared memory and is passed on the same way.
    let only_global = edit(TILE, 0, "ld.shared.f32 \t%f94, [_ZZ4tileE4sums+4];", "mov.f32 %f94, 0f00000000;");
    let other = edit(&only_global, 0, "ld.global.f32 \t%f95, [%rd60];", "ld.global.f32 \t%f95, [%rd60+4];");
    caught_in(edit(&other, 1, "bar.sync \t0;", ""), Kind::GlobalRace);
}

#[test]
fn a_barrier_nobody_completes_is_a_deadlock() {
    let f = caught_in(edit(TILE, 1, "bar.sync \t0;", "bar.sync %r3, 64;"), Kind::Deadlock);
    assert!(f.what.contains("warp 0") && f.what.contains("warp 1"), "{f}");
}

#[test]
fn global_memory_that_nothing_wrote_is_uninitialised() {
    caught(Case { write_bias: false, ..Case::new(TILE.into()) }, Kind::UninitializedGlobal);
}

#[test]
fn a_freed_buffer_is_remembered() {
    let f = caught(Case { free_bias: true, ..Case::new(TILE.into()) }, Kind::UseAfterFree);
    assert!(f.buffer.unwrap().freed, "{f}");
}
