//! A device and all that its clones share.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::cuda::CudaDevice;
use super::host::HostDevice;
use super::watch::Watch;

/// What runs the kernels.
pub(super) enum Backend {
    Host(HostDevice),
    Cuda(CudaDevice),
}

impl Backend {
    /// Gives memory back that the allocator got from this device and no buffer uses.
    pub(super) fn free(&self, at: u64) {
        match self {
            Backend::Host(host) => host.free(at),
            // SAFETY: `at` came from `alloc` and is no longer in use.
            Backend::Cuda(cuda) => unsafe { cuda.free(at) },
        }
    }
}

/// A handle to a device; clones share it.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Shared>);

/// Everything of a device.
pub(super) struct Shared {
    pub(super) backend: Backend,
    pub(super) pool: Mutex<Pool>,
    /// Multiplications and additions of tile products so far.
    pub(super) flops: AtomicU64,
    /// Bytes and calls of uploads, then of downloads.
    pub(super) traffic: [AtomicU64; 4],
    pub(super) watch: Watch,
    pub(super) capture: Mutex<Option<Capture>>,
    /// Where values lie that never change, by their bytes.
    pub(super) constants: Mutex<HashMap<Vec<u8>, u64>>,
}

/// Memory of a device that is not in use, and how much is.
#[derive(Default)]
pub(super) struct Pool {
    /// Free buffers by size.
    pub(super) free: HashMap<usize, Vec<u64>>,
    pub(super) live: usize,
    pub(super) cached: usize,
    pub(super) peak: usize,
}

impl Pool {
    /// Everything that is cached.
    pub(super) fn take(&mut self) -> Vec<u64> {
        self.cached = 0;
        std::mem::take(&mut self.free).into_values().flatten().collect()
    }
}

/// Memory of one graph, by size: free in its recording, of no use to anything else.
pub(super) struct Reserve {
    device: Device,
    free: Mutex<HashMap<usize, Vec<u64>>>,
}

impl Reserve {
    pub(super) fn new(device: &Device) -> Self {
        Reserve { device: device.clone(), free: Mutex::default() }
    }

    pub(super) fn take(&self, size: usize) -> Option<u64> {
        self.free.lock().expect("no panic while locked").get_mut(&size)?.pop()
    }

    pub(super) fn put(&self, size: usize, at: u64) {
        self.free.lock().expect("no panic while locked").entry(size).or_default().push(at);
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if let Ok(free) = self.free.get_mut() {
            for (size, all) in std::mem::take(free) {
                all.into_iter().for_each(|at| self.device.give_back(size, at));
            }
        }
    }
}

/// A recording under way.
pub(super) struct Capture {
    pub(super) reserve: Arc<Reserve>,
    /// Something was made aside: what was recorded before is gone.
    pub(super) broken: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let cached = self.pool.get_mut().map(|pool| pool.take());
        let constants = self.constants.get_mut().map(|constants| std::mem::take(constants).into_values());
        for at in cached.into_iter().flatten().chain(constants.into_iter().flatten()) {
            self.backend.free(at);
        }
    }
}
