//! What the launches of a stretch of work took, kernel by kernel.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The launches of one kernel, added up.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spent {
    pub launches: u64,
    /// Seconds, times the threads that a launch had.
    pub thread_seconds: f64,
    /// Of tile products; a convolution counts as if it were done directly.
    pub flops: f64,
    /// Of all buffers that a launch names, each once.
    pub bytes: f64,
}

#[derive(Default)]
pub(super) struct Watch {
    on: AtomicBool,
    spent: Mutex<HashMap<&'static str, Spent>>,
}

thread_local! {
    /// Operations that an op of this thread has announced since its last launch.
    static ANNOUNCED: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn announce(flops: u64) {
    ANNOUNCED.set(ANNOUNCED.get() + flops);
}

impl Watch {
    pub(super) fn start(&self) {
        self.spent.lock().expect("no panic while locked").clear();
        self.on.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) -> HashMap<&'static str, Spent> {
        self.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.spent.lock().expect("no panic while locked"))
    }

    /// Runs one launch, which has so many threads, and takes down what it took; `bytes` is only asked while somebody watches.
    pub(super) fn launch<R>(
        &self,
        kernel: &'static str,
        threads: usize,
        bytes: impl FnOnce() -> usize,
        f: impl FnOnce() -> R,
    ) -> R {
        let flops = ANNOUNCED.take();
        if !self.on.load(Ordering::Relaxed) {
            return f();
        }
        let bytes = bytes();
        let start = Instant::now();
        let result = f();
        let seconds = start.elapsed().as_secs_f64() * threads as f64;
        let mut spent = self.spent.lock().expect("no panic while locked");
        let sum = spent.entry(kernel).or_default();
        sum.launches += 1;
        sum.thread_seconds += seconds;
        sum.flops += flops as f64;
        sum.bytes += bytes as f64;
        result
    }
}
