//! Memory of a device: buffers, the cache they return to, constants that stay.

use std::sync::Arc;

use super::shared::{Backend, Device, Reserve};
use crate::Result;

/// Memory use of a device, bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUse {
    /// In buffers that exist now, but for constants.
    pub live: usize,
    /// The most that was ever live at once.
    pub peak: usize,
}

/// Device memory that returns to where it came from when dropped.
pub struct Buffer {
    pub(super) device: Device,
    pub(super) at: u64,
    pub(super) size: usize,
    home: Home,
}

/// Where memory comes from.
enum Home {
    /// The allocator's cache.
    Pool,
    /// Of a graph that was being recorded.
    Graph(Arc<Reserve>),
    /// A constant: it stays.
    Device,
}

impl Buffer {
    /// Address on the device; not a host address in general.
    pub fn address(&self) -> u64 {
        self.at
    }

    /// Usable bytes: what was asked for, rounded up except on the emulated GPU.
    pub fn bytes(&self) -> usize {
        self.size
    }

    /// Whether its address means something to `device`.
    pub fn is_of(&self, device: &Device) -> bool {
        match (&self.device.0.backend, &device.0.backend) {
            (Backend::Cuda(own), Backend::Cuda(other)) => {
                own.is_emulated() == other.is_emulated() && own.number() == other.number()
            }
            (Backend::Host(_), Backend::Host(_)) => true,
            _ => false,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Home::Device = self.home {
            return;
        }
        self.device.0.pool.lock().expect("no panic while locked").live -= self.size;
        match &self.home {
            Home::Graph(reserve) => reserve.put(self.size, self.at),
            _ => self.device.give_back(self.size, self.at),
        }
    }
}

/// Sizes are rounded up to one of eight steps per power of two, so that nearly equal requests share buffers.
fn round_up(bytes: usize) -> usize {
    let bytes = bytes.max(256);
    let step = (bytes.next_power_of_two() / 16).max(256);
    bytes.next_multiple_of(step)
}

impl Device {
    /// Memory for at least `bytes` bytes, not initialised.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device has no more.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let size = if self.is_checked() { bytes.max(1) } else { round_up(bytes) };
        let reserve = self.0.capture.lock().expect("no panic while locked").as_ref().map(|c| c.reserve.clone());
        let cached = reserve.as_ref().and_then(|reserve| reserve.take(size)).or_else(|| {
            let mut pool = self.0.pool.lock().expect("no panic while locked");
            let at = pool.free.get_mut(&size).and_then(Vec::pop);
            if at.is_some() {
                pool.cached -= size;
            }
            at
        });
        let at = match cached {
            Some(at) => at,
            None => self.raw_alloc(size).or_else(|_| {
                self.trim();
                self.raw_alloc(size)
            })?,
        };
        if let Backend::Host(host) = &self.0.backend {
            host.poison(at, size);
        }
        let mut pool = self.0.pool.lock().expect("no panic while locked");
        pool.live += size;
        pool.peak = pool.peak.max(pool.live);
        drop(pool);
        Ok(Buffer { device: self.clone(), at, size, home: reserve.map_or(Home::Pool, Home::Graph) })
    }

    /// Takes back memory that no buffer and no graph uses.
    pub(super) fn give_back(&self, size: usize, at: u64) {
        if self.is_checked() {
            self.0.backend.free(at);
            return;
        }
        let mut pool = self.0.pool.lock().expect("no panic while locked");
        pool.cached += size;
        pool.free.entry(size).or_default().push(at);
        drop(pool);
        if let Backend::Host(host) = &self.0.backend {
            host.check(at, size);
        }
    }

    /// Memory with these bytes, which are uploaded once and kept until the device is closed: for the few small values that ops bring along.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device has no more memory, or something launched before failed.
    pub fn constant(&self, bytes: &[u8]) -> Result<Buffer> {
        let mut constants = self.0.constants.lock().expect("no panic while locked");
        if let Some(&at) = constants.get(bytes) {
            return Ok(Buffer { device: self.clone(), at, size: bytes.len(), home: Home::Device });
        }
        let mut buffer = self.aside(|| {
            let buffer = self.alloc(bytes.len())?;
            self.upload(&buffer, bytes)?;
            Ok(buffer)
        })?;
        self.0.pool.lock().expect("no panic while locked").live -= buffer.size;
        buffer.home = Home::Device;
        constants.insert(bytes.to_vec(), buffer.at);
        Ok(buffer)
    }

    fn raw_alloc(&self, size: usize) -> Result<u64> {
        match &self.0.backend {
            Backend::Host(host) => host.alloc(size),
            Backend::Cuda(cuda) => cuda.alloc(size),
        }
    }

    /// Gives cached memory back to the system.
    pub fn trim(&self) {
        let cached = self.0.pool.lock().expect("no panic while locked").take();
        for at in cached {
            self.0.backend.free(at);
        }
    }

    pub fn memory(&self) -> MemoryUse {
        let pool = self.0.pool.lock().expect("no panic while locked");
        MemoryUse { live: pool.live, peak: pool.peak }
    }

    /// Restarts [`MemoryUse::peak`] from what is live now.
    pub fn reset_peak(&self) {
        let mut pool = self.0.pool.lock().expect("no panic while locked");
        pool.peak = pool.live;
    }
}
