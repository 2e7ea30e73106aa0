//! What was never freed is reported when its context goes, and when the process ends.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::process::Command;
use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{context::*, memory::*, pinned::*, types::*};
use ptx_emulator::finding::Kind;

#[test]
fn release_reports_buffers_and_pinned_memory() {
    let session = Session::new();
    let kept = allocate(48);
    free(allocate(64));
    session.module(); // variables of a module are its own
    let mut pinned = null_mut();
    ok(unsafe { cuMemHostAlloc(&mut pinned, 4096, 0) });
    assert!(findings().is_empty());
    drop(session);
    let leaks = findings();
    assert_eq!(leaks.iter().map(|leak| leak.kind).collect::<Vec<_>>(), [Kind::Leak; 2]);
    let buffer = leaks[0].buffer.unwrap();
    assert_eq!((buffer.base, buffer.bytes), (kept, 48));
    assert_eq!(leaks[1].address, Some(pinned as u64));
    assert!(leaks[1].what.contains("4096 bytes of pinned"));
    // The memory itself is still the program's to touch.
    unsafe { pinned.cast::<u8>().write_bytes(0, 4096) };
}

#[test]
fn each_context_reports_its_own() {
    let _session = Session::new();
    let ours = allocate(16);
    let mut other = null_mut();
    ok(unsafe { cuCtxCreate_v2(&mut other, 0, 0) });
    let theirs = allocate(32);
    ok(unsafe { cuCtxDestroy_v2(other) });
    let leaks = findings();
    assert_eq!(leaks.len(), 1);
    assert_eq!(leaks[0].buffer.unwrap().base, theirs);
    // It was freed with its context.
    fails(unsafe { cuMemFree_v2(theirs) }, ERROR_INVALID_VALUE, "double free");
    free(ours);
}

#[test]
fn a_clean_program_reports_nothing() {
    let session = Session::new();
    free(allocate(16));
    drop(session);
    assert!(findings().is_empty());
}

/// Runs in a process of its own when asked by the test below.
#[test]
#[ignore = "leaves its context behind; run by the_end_of_the_process_reports"]
fn forgets_a_buffer() {
    let session = Session::new();
    allocate(123);
    std::mem::forget(session);
}

#[test]
fn the_end_of_the_process_reports() {
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args(["--ignored", "--exact", "leaks::forgets_a_buffer"]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let leaks: Vec<&str> = said.lines().filter(|line| line.starts_with("emulator: leak")).collect();
    assert_eq!(leaks.len(), 1, "{said}");
    assert!(leaks[0].contains("123 bytes"), "{said}");
}
