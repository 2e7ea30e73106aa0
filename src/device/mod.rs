//! Devices: where buffers live and kernels run.
//!
//! A [`Device`] is the host or a CUDA device behind one interface: allocate, copy, launch. Memory goes through a caching
//! allocator, since an attack asks for the same sizes again at every step.

mod capture;
mod cuda;
pub mod emulated;
mod host;
mod kernel;
pub mod level;
mod memory;
mod numa;
pub mod nvtx;
mod plan;
mod shared;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use capture::Captured;
pub use cuda::CudaDevice;
pub use host::{HostDevice, start_threads};
pub use kernel::*;
pub use memory::{Buffer, MemoryUse};
pub use plan::Plan;
pub use shared::Device;
pub use watch::Spent;

use shared::{Backend, Shared};

use crate::choice::choice;
use crate::{Error, Result};

choice! {
    /// Where the kernels run.
    DeviceChoice {
        /// CUDA when there is a driver and a GPU, else the host.
        Auto = "auto",
        Host = "host",
        Cuda = "cuda",
        /// The PTX emulator behind the stand-in driver.
        Emulated = "emulated",
    }
}

/// Which devices of a kind there are to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    #[default]
    First,
    /// By number, as the driver counts those that CUDA_VISIBLE_DEVICES leaves.
    These(Vec<u32>),
    All,
}

/// Devices as the command line says them: `host`, `cuda:1`, `cuda:0,cuda:2`, `cuda:all`, `emulated:2` for two emulated GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    pub kind: DeviceChoice,
    pub which: Which,
}

impl std::str::FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "expected auto, host, cuda, cuda:N (several with commas), cuda:all, emulated or emulated:N for N emulated GPUs, found `{text}`"
            )
        };
        let kind = |name: &str| <DeviceChoice as clap::ValueEnum>::from_str(name, false).map_err(|_| bad());
        if let Some(count) = text.strip_prefix("emulated:") {
            let count =
                count.parse::<u32>().ok().filter(|count| (1..=MOST_EMULATED).contains(count)).ok_or_else(bad)?;
            return Ok(Devices { kind: DeviceChoice::Emulated, which: Which::These((0..count).collect()) });
        }
        if text == "cuda:all" {
            return Ok(Devices { kind: DeviceChoice::Cuda, which: Which::All });
        }
        if !text.contains(':') {
            return Ok(Devices { kind: kind(text)?, which: Which::First });
        }
        let mut numbers: Vec<u32> = Vec::new();
        for part in text.split(',') {
            // `cuda:0,1` is meant as it reads.
            let number = part.strip_prefix("cuda:").or((!numbers.is_empty()).then_some(part)).ok_or_else(bad)?;
            let number = number.parse().map_err(|_| bad())?;
            if numbers.contains(&number) {
                return Err(format!("cuda:{number} is listed twice"));
            }
            numbers.push(number);
        }
        Ok(Devices { kind: DeviceChoice::Cuda, which: Which::These(numbers) })
    }
}

/// Emulated GPUs of one process at most.
const MOST_EMULATED: u32 = 16;

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DType {
    F32,
    BF16,
    /// Integers, bit masks.
    U8,
    I32,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 => 2,
            DType::U8 => 1,
        }
    }
}

/// What crossed between host and device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Traffic {
    pub uploaded: u64,
    pub uploads: u64,
    pub downloaded: u64,
    pub downloads: u64,
}

impl Device {
    /// The CPU.
    ///
    /// # Errors
    /// [`Error::Device`] when the binary was built for another processor.
    pub fn host() -> Result<Self> {
        Ok(Self::new(Backend::Host(HostDevice::open()?)))
    }

    /// The first NVIDIA GPU.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no driver or GPU.
    pub fn cuda() -> Result<Self> {
        Ok(Self::new(Backend::Cuda(CudaDevice::open(0)?)))
    }

    /// A GPU that `ptx-emulator` stands in for: the same PTX and the same code as [`Device::cuda`], executed and checked on the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] when the system cannot load it, or this process uses the real driver.
    pub fn emulated() -> Result<Self> {
        Ok(Self::new(Backend::Cuda(CudaDevice::open_emulated(0)?)))
    }

    /// `Auto` takes a GPU where there is one and this binary has code for it.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is not there.
    pub fn open(choice: DeviceChoice) -> Result<Self> {
        match choice {
            DeviceChoice::Host => Self::host(),
            DeviceChoice::Cuda => Self::cuda(),
            DeviceChoice::Auto => Self::cuda().or_else(|_| Self::host()),
            DeviceChoice::Emulated => Self::emulated(),
        }
    }

    /// Every device that is asked for, at least one.
    ///
    /// # Errors
    /// [`Error::Device`] when one is not there.
    pub fn open_all(choice: DeviceChoice, which: &Which) -> Result<Vec<Self>> {
        let cuda = |number| CudaDevice::open(number).map(|device| Self::new(Backend::Cuda(device)));
        match (choice, which) {
            (DeviceChoice::Cuda, Which::These(numbers)) => numbers.iter().map(|&number| cuda(number)).collect(),
            (DeviceChoice::Cuda, Which::All) => {
                let first = CudaDevice::open(0)?;
                let others = (1..CudaDevice::count()?).map(cuda);
                std::iter::once(Ok(Self::new(Backend::Cuda(first)))).chain(others).collect()
            }
            (DeviceChoice::Emulated, Which::These(numbers)) => {
                emulated::offer(numbers.len() as u32);
                let open =
                    |&number: &u32| CudaDevice::open_emulated(number).map(|device| Self::new(Backend::Cuda(device)));
                numbers.iter().map(open).collect()
            }
            (choice, _) => Ok(vec![Self::open(choice)?]),
        }
    }

    fn new(backend: Backend) -> Self {
        Device(Arc::new(Shared {
            backend,
            pool: Mutex::default(),
            flops: AtomicU64::new(0),
            traffic: Default::default(),
            watch: Default::default(),
            capture: Mutex::default(),
            constants: Mutex::default(),
        }))
    }

    /// For people: kind, size and features.
    pub fn name(&self) -> String {
        match &self.0.backend {
            Backend::Host(host) => host.name(),
            Backend::Cuda(cuda) => cuda.name(),
        }
    }

    /// What the order of its sums depends on: the level of the host kernels with the instruction sets of a build for one machine, or the GPU.
    pub fn processor(&self) -> String {
        match &self.0.backend {
            Backend::Host(host) => level::described(host.level()),
            Backend::Cuda(cuda) if cuda.is_emulated() => String::new(),
            Backend::Cuda(cuda) => cuda.name(),
        }
    }

    /// Whether products of bf16 values are no faster here than of float32 ones: on a processor without matrix units.
    pub fn widens_bf16(&self) -> bool {
        match &self.0.backend {
            Backend::Host(host) => !level::multiplies_bf16(host.level()),
            Backend::Cuda(_) => false,
        }
    }

    /// The word that selects this device: `host`, `cuda` or `emulated`.
    pub fn kind(&self) -> &'static str {
        match &self.0.backend {
            Backend::Host(_) => "host",
            Backend::Cuda(cuda) if cuda.is_emulated() => "emulated",
            Backend::Cuda(_) => "cuda",
        }
    }

    /// The kind, and of several GPUs the number.
    fn label(&self) -> String {
        match &self.0.backend {
            Backend::Cuda(cuda) if cuda.number() > 0 => format!("{}:{}", self.kind(), cuda.number()),
            _ => self.kind().into(),
        }
    }

    /// Whether buffers go back to the device at once and have exactly the size asked for, so that the emulator's checks see each.
    fn is_checked(&self) -> bool {
        matches!(&self.0.backend, Backend::Cuda(cuda) if cuda.is_emulated())
    }

    /// What an op may ask before it cuts its work into blocks.
    pub fn plan(&self) -> Plan {
        match &self.0.backend {
            Backend::Host(host) => Plan::host(host.level()),
            Backend::Cuda(_) => Plan::CUDA,
        }
    }

    /// How many blocks run at once: threads on the host, multiprocessors on CUDA.
    pub fn parallelism(&self) -> usize {
        match &self.0.backend {
            Backend::Host(host) => host.threads(),
            Backend::Cuda(cuda) => cuda.limits().multiprocessors as usize,
        }
    }

    /// How many blocks of a launch from this thread would run at once: one where the threads have shared out the work already.
    pub(crate) fn concurrency(&self) -> usize {
        match &self.0.backend {
            Backend::Host(host) => host.concurrency(),
            Backend::Cuda(_) => self.parallelism(),
        }
    }

    /// Notes the work of a tile product of `m` rows, `n` columns and depth `k`, which is launched next, for benchmarks.
    pub(crate) fn count_product(&self, m: usize, n: usize, k: usize) {
        let flops = 2 * m as u64 * n as u64 * k as u64;
        watch::announce(flops);
        self.0.flops.fetch_add(flops, Ordering::Relaxed);
    }

    /// Floating-point operations of convolutions and matrix products since the last reset.
    pub fn flops(&self) -> f64 {
        self.0.flops.load(Ordering::Relaxed) as f64
    }

    pub fn reset_flops(&self) {
        self.0.flops.store(0, Ordering::Relaxed);
    }

    /// From here on, what every launch takes is added up by kernel, on the host.
    pub fn watch_launches(&self) {
        self.0.watch.start();
    }

    /// What launches took since [`Device::watch_launches`]; ends it.
    pub fn launches_watched(&self) -> HashMap<&'static str, Spent> {
        self.0.watch.stop()
    }

    fn crossed(&self, way: usize, bytes: usize) {
        self.0.traffic[way].fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.traffic[way + 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes and copies between host and device since the last call.
    pub fn take_traffic(&self) -> Traffic {
        let [uploaded, uploads, downloaded, downloads] =
            std::array::from_fn(|i| self.0.traffic[i].swap(0, Ordering::Relaxed));
        Traffic { uploaded, uploads, downloaded, downloads }
    }

    /// Copies host bytes to the start of `to`.
    ///
    /// # Errors
    /// [`Error::Limit`] when `to` is too small.
    pub fn upload(&self, to: &Buffer, from: &[u8]) -> Result<()> {
        fits("upload", self, to, 0, from.len())?;
        self.not_capturing("an upload", from.len())?;
        self.crossed(0, from.len());
        match &self.0.backend {
            Backend::Host(host) => host.upload(to.at, from),
            Backend::Cuda(cuda) => cuda.upload(to.at, from)?,
        }
        Ok(())
    }

    /// Copies bytes of `from` from `offset` on to host bytes, after everything launched before.
    ///
    /// # Errors
    /// [`Error::Limit`] when `from` is too small.
    pub fn download(&self, from: &Buffer, offset: usize, to: &mut [u8]) -> Result<()> {
        fits("download", self, from, offset, to.len())?;
        self.not_capturing("a download", to.len())?;
        self.crossed(2, to.len());
        match &self.0.backend {
            Backend::Host(host) => host.download(from.at + offset as u64, to),
            Backend::Cuda(cuda) => cuda.download(from.at + offset as u64, to)?,
        }
        Ok(())
    }

    /// Copies `bytes` bytes from one buffer into another, each from its offset on.
    ///
    /// # Errors
    /// [`Error::Limit`] when either is too small.
    pub fn copy(&self, to: (&Buffer, usize), from: (&Buffer, usize), bytes: usize) -> Result<()> {
        fits("copy", self, to.0, to.1, bytes)?;
        fits("copy", self, from.0, from.1, bytes)?;
        match &self.0.backend {
            Backend::Host(host) => host.copy(to.0.at + to.1 as u64, from.0.at + from.1 as u64, bytes),
            Backend::Cuda(cuda) => cuda.copy(to.0.at + to.1 as u64, from.0.at + from.1 as u64, bytes)?,
        }
        Ok(())
    }

    /// Sets the first `bytes` bytes of a buffer to 0.
    ///
    /// # Errors
    /// [`Error::Limit`] when the buffer is smaller.
    pub fn zero(&self, at: &Buffer, bytes: usize) -> Result<()> {
        fits("zero", self, at, 0, bytes)?;
        match &self.0.backend {
            Backend::Host(host) => host.zero(at.at, bytes),
            Backend::Cuda(cuda) => cuda.zero(at.at, bytes)?,
        }
        Ok(())
    }

    /// Runs `kernel` once per block of `grid`. The only way into a kernel.
    ///
    /// The caller promises that every address in `args` points to live device memory as large as the kernel's header says,
    /// and that outputs do not overlap inputs unless the header allows it. The ops in [`crate::ops`] check shapes to that end.
    ///
    /// # Errors
    /// [`Error::Limit`] for a grid or block that a GPU would refuse, on the host as well.
    pub fn launch<A: bytemuck::Pod>(&self, kernel: &'static Kernel<A>, grid: [usize; 3], args: &A) -> Result<()> {
        let info = kernel.info();
        let limit = |what, requested: usize, max: u64| match requested as u64 <= max {
            true => Ok(requested as u32),
            false => Err(Error::Limit { kernel: info.name.into(), what, requested: requested as u64, max }),
        };
        let grid = [
            limit("grid x", grid[0], (1 << 31) - 1)?,
            limit("grid y", grid[1], 65535)?,
            limit("grid z", grid[2], 65535)?,
        ];
        limit("threads per block", info.threads as usize, 1024)?;
        limit("shared memory bytes", info.shared as usize, 227 << 10)?;
        if grid.contains(&0) {
            return Ok(());
        }
        let _range = nvtx::range(nvtx::Kind::Op, info.name);
        match &self.0.backend {
            Backend::Host(host) => {
                let args = bytemuck::bytes_of(args);
                let bytes = || host.bytes_named(args);
                self.0.watch.launch(info.name, host.concurrency(), bytes, || host.launch(info, grid, args))?;
            }
            Backend::Cuda(_) if info.host_only => {
                return Err(Error::device(format!("{}: expected the host, found {}", info.name, self.kind())));
            }
            Backend::Cuda(cuda) => cuda.launch(info, grid, bytemuck::bytes_of(args))?,
        }
        Ok(())
    }

    /// Waits until everything launched so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] when a launch failed meanwhile.
    pub fn synchronize(&self) -> Result<()> {
        match &self.0.backend {
            Backend::Host(_) => Ok(()),
            Backend::Cuda(cuda) => {
                self.not_capturing("a wait", 0)?;
                cuda.synchronize()
            }
        }
    }
}

/// Whether bytes `offset..offset + bytes` are part of a buffer of this device.
fn fits(what: &'static str, device: &Device, buffer: &Buffer, offset: usize, bytes: usize) -> Result<()> {
    if !buffer.is_of(device) {
        let (found, expected) = (buffer.device.label(), device.label());
        return Err(Error::device(format!("{what}: expected memory of the device {expected}, found {found}'s")));
    }
    let requested = offset.saturating_add(bytes);
    if requested <= buffer.size {
        return Ok(());
    }
    Err(Error::Limit { kernel: "copy".into(), what, requested: requested as u64, max: buffer.size as u64 })
}
