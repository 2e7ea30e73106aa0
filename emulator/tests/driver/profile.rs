//! Counters of launches, as a program that embeds the emulator takes them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::count::{Footprint, Touched};
use ptx_emulator::driver::copy::*;
use ptx_emulator::driver::stream::cuStreamSynchronize;
use ptx_emulator::driver::tally::Tally;
use ptx_emulator::driver::{context::*, types::*};
use ptx_emulator::ops::Class;

const COUNTING: &str = r#"{"model": "a100", "checks": true, "counters": true, "seed": 0, "threads": 1}"#;
const SILENT: &str = r#"{"model": "a100", "checks": true, "counters": false, "seed": 0, "threads": 1}"#;

#[test]
fn launches_are_counted_in_their_order() {
    let session = Session::with(COUNTING);
    profile();
    let module = session.module();
    let x = session.upload(&[0; 64]);
    let (value, n) = (1, 40);
    ok(launch(function_of(module, "fill"), 64, null_mut(), &mut arguments![x, value, n]));
    ok(launch_with(function_of(module, "reverse"), [1; 3], [64, 1, 1], 256, null_mut(), &mut arguments![x]));
    free(x);

    let launches = profile();
    let [fill, reverse] = &launches[..] else { panic!("{launches:?}") };
    assert_eq!((fill.kernel.as_str(), reverse.kernel.as_str()), ("fill", "reverse"));
    // Threads 40 to 63 leave: of the second warp, 8 lanes write 32 bytes, one sector; the first writes four.
    let t = &fill.total;
    assert_eq!((t.global_store_bytes, t.global_store_sectors, t.divergent_branches), (160, 5, 1));
    assert_eq!((t.global_load_bytes, t.global_load_sectors, t.shared_turns, t.flops), (0, 0, 0, 0));
    assert_eq!((fill.barriers, fill.classes[&Class::GlobalStore], fill.classes[&Class::Branch]), (0, 2, 4));
    // Each byte once, of a buffer of 256.
    let none = Touched::default();
    let written = Touched { bytes: 160, sectors: 5, buffers: 256 };
    assert_eq!(fill.footprint, Footprint { read: none, written });
    let whole = Touched { bytes: 256, sectors: 8, buffers: 256 };
    assert_eq!(reverse.footprint, Footprint { read: whole, written: whole });
    let store = fill.lines.values().filter(|line| line.global_store_bytes > 0).collect::<Vec<_>>();
    assert!(matches!(store[..], [line] if line.global_store_bytes == 160), "{:?}", fill.lines);

    assert_eq!((reverse.grid, reverse.block, reverse.shared_bytes), ([1; 3], [64, 1, 1], 256));
    let t = &reverse.total;
    assert_eq!((t.global_load_bytes, t.global_load_sectors), (256, 8));
    assert_eq!((t.global_store_bytes, t.global_store_sectors), (256, 8));
    // Each of the two warps stores once and loads once, backwards: one turn each.
    assert_eq!((t.shared_turns, t.shared_conflicts, reverse.barriers, t.divergent_branches), (4, 0, 1, 0));
    assert_eq!(t.threads, 32 * t.instructions, "all lanes take part");
    assert_eq!(t.instructions, reverse.classes.values().sum::<u64>());
    assert_eq!(t.instructions, reverse.lines.values().map(|line| line.instructions).sum::<u64>());
    assert!(reverse.registers > 0);

    assert!(profile().is_empty(), "each launch is handed over once");
}

#[test]
fn counts_outlive_their_context() {
    let session = Session::with(COUNTING);
    profile();
    let nothing = session.function("nothing");
    ok(launch(nothing, 32, null_mut(), &mut []));
    let mut other = null_mut();
    ok(unsafe { cuCtxCreate_v2(&mut other, 0, 0) });
    ok(launch(session.function("bump"), 1, null_mut(), &mut []));
    ok(unsafe { cuCtxDestroy_v2(other) });
    // The last context goes, and its memory and modules with it; the next one has a new machine.
    let mut next = null_mut();
    unsafe {
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuDevicePrimaryCtxRetain(&mut next, 0));
        ok(cuCtxSetCurrent(next));
    }
    ok(launch(session.function("bump"), 1, null_mut(), &mut []));
    let kernels: Vec<String> = profile().into_iter().map(|launch| launch.kernel).collect();
    assert_eq!(kernels, ["nothing", "bump", "bump"]);
}

#[test]
fn without_counters_there_are_none() {
    let session = Session::with(SILENT);
    profile();
    ok(launch(session.function("nothing"), 32, null_mut(), &mut []));
    fails(launch(session.function("nothing"), 2048, null_mut(), &mut []), ERROR_INVALID_VALUE, "2048");
    assert!(profile().is_empty());
}

#[test]
fn copies_launches_and_waits_are_counted_with_counters_or_without() {
    let session = Session::with(SILENT);
    let nothing = session.function("nothing");
    tally();
    let x = session.upload(&[0; 64]);
    let mut back = [0u8; 40];
    unsafe {
        ok(cuMemsetD8_v2(x, 1, 16));
        ok(launch(nothing, 32, null_mut(), &mut []));
        ok(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), x, 40));
        ok(cuMemcpyDtoD_v2(x + 128, x, 8));
        ok(cuCtxSynchronize());
        ok(cuStreamSynchronize(null_mut()));
    }
    free(x);
    let want = Tally {
        copies_to_device: 1,
        bytes_to_device: 256,
        copies_to_host: 1,
        bytes_to_host: 40,
        copies_within_device: 1,
        bytes_within_device: 8,
        fills: 1,
        kernels: 1,
        graph_launches: 0,
        // Two calls that wait, and the four that return when the work is done.
        synchronisations: 6,
    };
    assert_eq!(tally(), want);
    assert_eq!(tally(), Tally::default(), "they are handed over once");
}
