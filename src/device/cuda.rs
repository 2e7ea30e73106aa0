//! The CUDA device, a GPU or the emulated one: one context, one stream, pinned staging, kernels from the images that `build.rs`
//! embedded.
//!
//! cudarc loads the driver when it is first called and panics where the library or a function is missing, so
//! [`CudaDevice::open`] looks for everything used here before the first call. Everything runs in the order of the calls.

mod graph;

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::Mutex;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::emulated;
use super::kernel::{IMAGES, Image, KERNELS, KernelInfo};
use super::numa::Near;
use crate::{Error, Result};

pub use graph::Recorded;

/// Every driver function called here, in drivers since CUDA 11.4.
#[rustfmt::skip]
const FUNCTIONS: [&str; 38] = [
    "cuInit", "cuGetErrorString", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2", "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxSetCurrent", "cuStreamCreate",
    "cuStreamSynchronize", "cuStreamDestroy_v2", "cuEventCreate", "cuEventRecord", "cuEventSynchronize", "cuEventDestroy_v2",
    "cuMemAlloc_v2", "cuMemFree_v2", "cuMemGetInfo_v2", "cuMemHostAlloc", "cuMemFreeHost", "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async", "cuModuleLoadData", "cuModuleUnload",
    "cuModuleGetFunction", "cuFuncSetAttribute", "cuLaunchKernel", "cuStreamBeginCapture_v2", "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuGraphDestroy", "cuGraphExecDestroy",
];

/// Bytes of one half of the pinned staging buffer: large enough to hide the latency of a copy.
const HALF: usize = 4 << 20;
/// Dynamic shared memory that a kernel may use without asking.
const SHARED_UNASKED: u32 = 48 << 10;
/// From this much shared memory on, several blocks per multiprocessor need more of it than the driver sets aside by itself.
const SHARED_MANY: u32 = 16 << 10;
/// The most that a kernel's argument struct may take.
const ARGS: usize = 4096;
/// The oldest generation with the instructions in `kernels/ptx.cuh`.
const OLDEST: (u32, u32) = (8, 0);

/// What a device offers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads per block.
    pub threads: u32,
    /// Dynamic shared memory per block, bytes.
    pub shared_bytes: u32,
    /// Blocks per grid.
    pub grid: [u32; 3],
    /// Memory of the device, bytes, and what was free of it when the device was opened.
    pub memory: usize,
    pub memory_free: usize,
    pub multiprocessors: u32,
    /// Major, minor.
    pub compute_capability: (u32, u32),
}

/// A CUDA device and everything loaded onto it.
pub struct CudaDevice {
    emulated: bool,
    /// As the driver counts them.
    number: u32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    name: String,
    limits: Limits,
    loaded: Mutex<Loaded>,
    staging: Mutex<Staging>,
}

// SAFETY: driver handles may be used from any thread that has made the context current, as `bind` does before every use.
unsafe impl Send for CudaDevice {}
// SAFETY: as above; what changes is behind mutexes.
unsafe impl Sync for CudaDevice {}

/// Modules by source file, functions by kernel index; each is loaded when first needed.
struct Loaded {
    modules: HashMap<&'static str, sys::CUmodule>,
    functions: Vec<Option<sys::CUfunction>>,
    /// While a stream captures, when nothing is loaded: the kernels that would have to be.
    lacking: Option<Vec<&'static KernelInfo>>,
}

/// Two halves of pinned memory, used in turn; an event says when the copy from or to a half is done.
struct Staging {
    half: [*mut u8; 2],
    done: [sys::CUevent; 2],
    next: usize,
}

impl CudaDevice {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no driver, no device, or no kernel for it in this binary.
    pub fn open(number: u32) -> Result<Self> {
        // SAFETY: loads the library if it is there; driver libraries have no unsound initialisers that we know of.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::device("no CUDA driver on this machine (libcuda not found); use --device host"));
        }
        emulated::choose_real()?;
        Self::numbered(number, false)
    }

    /// Opens an emulated GPU by its number.
    ///
    /// # Errors
    /// [`Error::Device`] when the stand-in driver cannot be loaded, or this process uses a real one.
    pub fn open_emulated(number: u32) -> Result<Self> {
        emulated::choose_emulated()?;
        Self::numbered(number, true)
    }

    /// How many devices the driver sees, of those that CUDA_VISIBLE_DEVICES leaves. One has been opened before.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not say.
    pub fn count() -> Result<u32> {
        let count = result::device::get_count().map_err(|e| failed("counting devices", e))?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// A device of whichever driver is loaded.
    fn numbered(number: u32, emulated: bool) -> Result<Self> {
        if let Some(missing) = FUNCTIONS.into_iter().find(|f| !has(f)) {
            return Err(Error::device(format!("the CUDA driver lacks {missing}; update it, or use --device host")));
        }
        result::init().map_err(|e| failed("the driver cannot start", e))?;
        let count = Self::count()?;
        if count == 0 {
            return Err(Error::device(
                "the CUDA driver sees no device (CUDA_VISIBLE_DEVICES may hide it); use --device host",
            ));
        }
        if number >= count {
            return Err(Error::device(format!(
                "cuda:{number}: the CUDA driver sees {count}, cuda:0 to cuda:{} (CUDA_VISIBLE_DEVICES may hide others)",
                count - 1
            )));
        }
        let device = result::device::get(number as c_int).map_err(|e| failed(&format!("device {number}"), e))?;
        let name = result::device::get_name(device).map_err(|e| failed(&format!("the name of device {number}"), e))?;
        let compute_capability = (
            attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if compute_capability < OLDEST {
            let ((major, minor), (least, _)) = (compute_capability, OLDEST);
            return Err(Error::device(format!(
                "{name} has compute capability {major}.{minor}; the kernels need {least}.0 or later (Ampere); use --device host"
            )));
        }

        // SAFETY: `device` is a valid ordinal; the context is released once, in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("creating a context", e))?;
        let mut opened = CudaDevice {
            emulated,
            number,
            device,
            context,
            stream: ptr::null_mut(),
            name,
            limits: Limits {
                threads: 0,
                shared_bytes: 0,
                grid: [0; 3],
                memory: 0,
                memory_free: 0,
                multiprocessors: 0,
                compute_capability,
            },
            loaded: Mutex::new(Loaded { modules: HashMap::new(), functions: vec![None; KERNELS.len()], lacking: None }),
            staging: Mutex::new(Staging { half: [ptr::null_mut(); 2], done: [ptr::null_mut(); 2], next: 0 }),
        };
        // From here on `drop` takes back whatever was made.
        opened.prepare()?;
        Ok(opened)
    }

    fn prepare(&mut self) -> Result<()> {
        use sys::CUdevice_attribute as A;
        self.bind()?;
        let number = |what| attribute(self.device, what);
        self.limits.threads = number(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        self.limits.shared_bytes = number(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        self.limits.grid = [
            number(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
            number(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
            number(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
        ];
        self.limits.multiprocessors = number(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device is valid.
        self.limits.memory = unsafe { result::device::total_mem(self.device) }.map_err(|e| failed("memory size", e))?;
        self.limits.memory_free = result::mem_get_info().map_err(|e| failed("free memory", e))?.0;

        self.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| failed("creating a stream", e))?;
        let bus = if self.emulated { None } else { self.bus() };
        let _near = Near::to(bus.as_deref());
        let staging = self.staging.get_mut().expect("no panic while locked");
        for i in 0..2 {
            // SAFETY: the pinned memory is freed once, in `drop`.
            let half = unsafe { result::malloc_host(HALF, 0) }.map_err(|e| failed("pinned memory", e))?;
            staging.half[i] = half.cast();
            staging.done[i] = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(|e| failed("creating an event", e))?;
        }
        Ok(())
    }

    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Where it is plugged in, as `0000:3b:00.0`.
    fn bus(&self) -> Option<String> {
        let mut text = [0_u8; 32];
        // SAFETY: the buffer holds as many bytes as is said, and the device is valid.
        let found = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as c_int, self.device) };
        found.result().ok()?;
        CStr::from_bytes_until_nul(&text).ok()?.to_str().ok().map(str::to_owned)
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn is_emulated(&self) -> bool {
        self.emulated
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Device memory, not initialised.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has no more.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the caller gives the address back through `free`.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| {
            let free = result::mem_get_info().map_or(0, |(free, _)| free);
            failed(&format!("{bytes} bytes of device memory were refused ({} MiB are free)", free >> 20), e)
        })
    }

    /// # Safety
    /// `at` came from [`CudaDevice::alloc`] of this device, is freed once and not used afterwards.
    pub unsafe fn free(&self, at: u64) {
        if self.bind().is_ok() {
            // A failure here was reported where it arose: the driver repeats earlier errors.
            // SAFETY: as the caller promises.
            let _ = unsafe { result::free_sync(at) };
        }
    }

    /// Copies host bytes to the device. `from` may be reused at once.
    ///
    /// # Errors
    /// [`Error::Device`] when the copy, or anything launched before, failed.
    pub fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        self.bind()?;
        let mut staging = self.staging.lock().expect("no panic while locked");
        for (i, part) in from.chunks(HALF).enumerate() {
            let half = staging.turn();
            let pinned = staging.settled(half, part.len())?;
            pinned.copy_from_slice(part);
            // SAFETY: the pinned bytes stay as they are until the event says that the copy is done.
            let copied = unsafe { result::memcpy_htod_async(to + (i * HALF) as u64, pinned, self.stream) };
            copied
                // SAFETY: event and stream are this device's own.
                .and_then(|()| unsafe { result::event::record(staging.done[half], self.stream) })
                .map_err(|e| failed("copying to the device", e))?;
        }
        Ok(())
    }

    /// Copies device memory to host bytes, after everything launched before.
    ///
    /// # Errors
    /// [`Error::Device`] when the copy, or anything launched before, failed.
    pub fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.bind()?;
        let mut staging = self.staging.lock().expect("no panic while locked");
        let bytes = to.len();
        let mut taken = None; // the half that waits to be taken out, and its first byte
        for start in (0..bytes).step_by(HALF) {
            let half = staging.turn();
            let part = HALF.min(bytes - start);
            // SAFETY: whatever used this half before is done, or comes before this copy in the stream; nobody reads it until
            // the event says that the copy is done.
            unsafe {
                let pinned = std::slice::from_raw_parts_mut(staging.half[half], part);
                result::memcpy_dtoh_async(pinned, from + start as u64, self.stream)
                    .and_then(|()| result::event::record(staging.done[half], self.stream))
            }
            .map_err(|e| failed("copying from the device", e))?;
            if let Some((half, start)) = taken.replace((half, start)) {
                to[start..start + HALF].copy_from_slice(staging.settled(half, HALF)?);
            }
        }
        if let Some((half, start)) = taken {
            to[start..].copy_from_slice(staging.settled(half, bytes - start)?);
        }
        Ok(())
    }

    /// Sets bytes to 0.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed.
    pub fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller owns `bytes` bytes from `at` on.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream) }.map_err(|e| failed("clearing memory", e))
    }

    /// Copies within the device; the ranges do not overlap.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller owns both ranges.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(|e| failed("copying within the device", e))
    }

    /// Starts a kernel. `args` are the bytes of its argument struct; addresses in it are device addresses.
    ///
    /// # Errors
    /// [`Error::Limit`] for a grid or block this device refuses, [`Error::Device`] when the kernel cannot be loaded or started.
    pub fn launch(&self, kernel: &'static KernelInfo, grid: [u32; 3], args: &[u8]) -> Result<()> {
        let limit = |what, requested: u64, max: u64| match requested <= max {
            true => Ok(()),
            false => Err(Error::Limit { kernel: kernel.name.into(), what, requested, max }),
        };
        for (what, requested, max) in [
            ("grid x", grid[0], self.limits.grid[0]),
            ("grid y", grid[1], self.limits.grid[1]),
            ("grid z", grid[2], self.limits.grid[2]),
        ] {
            limit(what, requested.into(), max.into())?;
        }
        limit("threads per block", kernel.threads.into(), self.limits.threads.into())?;
        limit("shared memory bytes", kernel.shared.into(), self.limits.shared_bytes.into())?;
        limit("argument bytes", args.len() as u64, ARGS as u64)?;

        self.bind()?;
        let Some(function) = self.function(kernel)? else { return Ok(()) };
        // The arguments with their size, which the driver compares with what the kernel takes.
        let mut bytes = args.len();
        let mut extra: [*mut c_void; 5] = [
            sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as *mut c_void,
            args.as_ptr().cast_mut().cast(),
            sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as *mut c_void,
            (&raw mut bytes).cast(),
            sys::CU_LAUNCH_PARAM_END_AS_INT as *mut c_void,
        ];
        let [x, y, z] = grid;
        // SAFETY: the kernel takes one struct, mirrored by `args` (checked by a test), which the driver copies during the call;
        // that its addresses are right is the promise made to `Device::launch`.
        unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                kernel.threads,
                1,
                1,
                kernel.shared,
                self.stream,
                ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        }
        .result()
        .map_err(|e| failed(&format!("starting {}", kernel.name), e))
    }

    /// Waits until everything launched so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed.
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("a kernel or copy failed", e))
    }

    /// Makes the context current in the calling thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("using the context", e))
    }

    /// The loaded kernel; the first use of a source file loads its image. None where a stream captures and it would have to be loaded.
    fn function(&self, kernel: &'static KernelInfo) -> Result<Option<sys::CUfunction>> {
        let mut loaded = self.loaded.lock().expect("no panic while locked");
        if let Some(function) = loaded.functions[kernel.index] {
            return Ok(Some(function));
        }
        if let Some(lacking) = &mut loaded.lacking {
            lacking.push(kernel);
            return Ok(None);
        }
        let module = match loaded.modules.get(kernel.file) {
            Some(module) => *module,
            None => {
                let image = IMAGES.iter().find(|image| image.file == kernel.file);
                let image = image
                    .ok_or_else(|| Error::device(format!("this binary has no CUDA image of {}.cu", kernel.file)))?;
                image.current()?;
                let image = code(image, self.emulated)?;
                // SAFETY: a complete fatbin, as nvcc wrote it, or PTX that ends in NUL; the driver copies what it needs.
                let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
                    .map_err(|e| failed(&format!("loading {}.cu for {}", kernel.file, self.name), e))?;
                loaded.modules.insert(kernel.file, module);
                module
            }
        };
        let name = CString::new(kernel.name).expect("identifiers have no NUL");
        // SAFETY: the module is loaded until `drop`.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(|e| failed(&format!("looking up {}", kernel.name), e))?;
        use sys::CUfunction_attribute as A;
        if kernel.shared > SHARED_UNASKED {
            let what = A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is valid.
            unsafe { result::function::set_function_attribute(function, what, kernel.shared as c_int) }
                .map_err(|e| failed(&format!("shared memory of {}", kernel.name), e))?;
        }
        if kernel.shared >= SHARED_MANY {
            let what = A::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            // A hint, in percent: refusing it changes speed only.
            // SAFETY: the function is valid.
            let _ = unsafe { result::function::set_function_attribute(function, what, 100) };
        }
        loaded.functions[kernel.index] = Some(function);
        Ok(Some(function))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        // Failures here repeat earlier ones. What lies behind a poisoned lock is left alone: its state is unknown.
        // SAFETY: everything was made by `open`, is released once, and nothing is under way after the synchronisation.
        unsafe {
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
            }
            if let Ok(loaded) = self.loaded.get_mut() {
                for module in loaded.modules.values() {
                    let _ = result::module::unload(*module);
                }
            }
            if let Ok(staging) = self.staging.get_mut() {
                for half in staging.half.into_iter().filter(|p| !p.is_null()) {
                    let _ = result::free_host(half.cast());
                }
                for event in staging.done.into_iter().filter(|e| !e.is_null()) {
                    let _ = result::event::destroy(event);
                }
            }
            if !self.stream.is_null() {
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Staging {
    /// The half whose turn it is.
    fn turn(&mut self) -> usize {
        self.next ^= 1;
        self.next ^ 1
    }

    /// The first bytes of a half, once the copy that used it last is done.
    fn settled(&mut self, half: usize, bytes: usize) -> Result<&mut [u8]> {
        // SAFETY: the event and the memory live until `drop`; after the wait no copy touches this half.
        unsafe {
            result::event::synchronize(self.done[half]).map_err(|e| failed("a kernel or copy failed", e))?;
            Ok(std::slice::from_raw_parts_mut(self.half[half], bytes))
        }
    }
}

/// Whether the driver exports a function.
fn has(function: &str) -> bool {
    // SAFETY: the library is there, and the symbol is looked up but not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(function.as_bytes()).is_ok() }
}

fn attribute(device: sys::CUdevice, what: sys::CUdevice_attribute) -> Result<u32> {
    // SAFETY: the device is valid.
    let value =
        unsafe { result::device::get_attribute(device, what) }.map_err(|e| failed("reading device limits", e))?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Machine code where there is some; otherwise, and for the emulator, PTX, which the driver compiles. At an address that suits the
/// headers of a fatbin, and with zeros behind.
fn code(image: &Image, emulated: bool) -> Result<Vec<u64>> {
    match image.fatbin.filter(|_| !emulated) {
        Some(fatbin) => Ok(words(fatbin)),
        None => Ok(words(image.ptx_text()?.as_bytes())),
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(bytes)
    };
    bytes.chunks(8).map(word).chain([0]).collect()
}

fn failed(what: &str, error: DriverError) -> Error {
    let text = match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    Error::Device { problem: format!("CUDA: {what}: {text}"), source: Some(Box::new(error)) }
}
