//! The host device: runs the blocks of a grid on a thread pool.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use memmap2::{Advice, MmapMut};
use rayon::prelude::*;

use super::kernel::{KernelInfo, LEVELS};
use super::level;
use crate::{Error, Result};

const ALIGN: usize = 64;
/// From this size on memory comes straight from the system, in huge pages where it offers them.
const LARGE: usize = 1 << 20;
/// Scratch memory that stands for a block's shared memory. The gathered rows of a bf16 tile product need most.
pub(crate) const SCRATCH: usize = 4 << 20;
/// Bytes behind every buffer that nothing may touch, checked in debug builds.
const CANARY: usize = if cfg!(debug_assertions) { 64 } else { 0 };
const CANARY_BYTE: u8 = 0xa5;

enum Memory {
    Small(Layout),
    Large(#[allow(dead_code, reason = "owns the mapping")] MmapMut),
}

/// The CPU, through kernels built for it, or for its level of processor, at compile time.
pub struct HostDevice {
    /// Which of [`LEVELS`] runs.
    level: usize,
    live: Mutex<HashMap<u64, (Memory, usize)>>,
    threads: usize,
}

thread_local! {
    static ARENA: RefCell<Option<Arena>> = const { RefCell::new(None) };
}

/// The scratch memory of a thread. It lies in huge pages where the system offers them: kernels keep dozens of streams in it.
struct Arena {
    map: MmapMut,
    /// Bytes in front of the first huge page.
    skip: usize,
}

impl Arena {
    const HUGE: usize = 2 << 20;

    fn new() -> std::io::Result<Arena> {
        let mut map = MmapMut::map_anon(SCRATCH + Self::HUGE)?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::HugePage);
        let skip = map.as_mut_ptr().align_offset(Self::HUGE);
        let mut arena = Arena { map, skip };
        arena.poison(SCRATCH);
        Ok(arena)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.map[self.skip..][..SCRATCH]
    }

    /// In debug builds: fills the beginning with a pattern that is NaN.
    fn poison(&mut self, bytes: usize) {
        if cfg!(debug_assertions) {
            self.bytes()[..bytes].fill(0xff);
        }
    }
}

impl HostDevice {
    /// Takes the highest level of processor that this one has, or what `RAMPART_HOST_LEVEL` says.
    ///
    /// # Errors
    /// [`Error::Device`] when this processor lacks an instruction set the binary was built for.
    pub fn open() -> Result<Self> {
        start_threads()?;
        let level = level::choose()?;
        Ok(HostDevice { level, live: Mutex::default(), threads: rayon::current_num_threads() })
    }

    pub fn name(&self) -> String {
        format!("host ({} threads, {})", self.threads, LEVELS[self.level].in_words())
    }

    /// Which of [`LEVELS`] runs.
    pub(super) fn level(&self) -> usize {
        self.level
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Result<u64> {
        let refused = || Error::device(format!("host: out of memory: {bytes} bytes were refused"));
        let size = bytes.checked_add(CANARY).ok_or_else(refused)?;
        let (memory, at) = if size >= LARGE {
            let mut map = MmapMut::map_anon(size).map_err(|_| refused())?;
            #[cfg(target_os = "linux")]
            let _ = map.advise(Advice::HugePage);
            let at = map.as_mut_ptr();
            (Memory::Large(map), at)
        } else {
            let layout = Layout::from_size_align(size.max(1), ALIGN).map_err(|_| refused())?;
            // SAFETY: the layout is of at least one byte.
            (Memory::Small(layout), unsafe { alloc(layout) })
        };
        if at.is_null() {
            return Err(refused());
        }
        // SAFETY: `bytes + CANARY` bytes are there.
        unsafe { at.add(bytes).write_bytes(CANARY_BYTE, CANARY) };
        self.live.lock().expect("no panic while locked").insert(at as u64, (memory, bytes));
        Ok(at as u64)
    }

    /// # Panics
    /// In debug builds, when something was written behind the buffer.
    pub(crate) fn free(&self, at: u64) {
        let entry = self.live.lock().expect("no panic while locked").remove(&at);
        let Some((memory, bytes)) = entry else { return };
        self.check(at, bytes);
        if let Memory::Small(layout) = memory {
            // SAFETY: `alloc` made it with this layout, and the entry is gone: nobody frees it twice.
            unsafe { dealloc(at as *mut u8, layout) };
        }
    }

    /// In debug builds: the canary behind a buffer is intact.
    pub(crate) fn check(&self, at: u64, bytes: usize) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            // SAFETY: `alloc` put the canary there, behind the bytes of the buffer, and initialised it.
            let tail = unsafe { std::slice::from_raw_parts((at as *const u8).add(bytes), CANARY) };
            assert!(tail.iter().all(|&b| b == CANARY_BYTE), "a kernel wrote behind a buffer of {bytes} bytes");
        }
    }

    /// In debug builds: fills with a pattern that is NaN as float32 and as bfloat16, so that unwritten values show.
    pub(crate) fn poison(&self, at: u64, bytes: usize) {
        if cfg!(debug_assertions) {
            // SAFETY: `at` came from `alloc` with as many bytes.
            unsafe { (at as *mut u8).write_bytes(0xff, bytes) };
        }
    }

    pub(crate) fn upload(&self, to: u64, from: &[u8]) {
        // SAFETY: `Device` compared the lengths and handed in a live buffer of this device; a slice of Rust's lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
    }

    pub(crate) fn download(&self, from: u64, to: &mut [u8]) {
        // SAFETY: as for an upload.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
    }

    pub(crate) fn zero(&self, at: u64, bytes: usize) {
        // SAFETY: `Device` compared the length with that of the live buffer.
        unsafe { (at as *mut u8).write_bytes(0, bytes) };
    }

    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) {
        // SAFETY: `Device` compared the length with both live buffers; parts of one buffer may overlap.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
    }

    /// Bytes of the buffers into which the words of `args` point, each buffer once.
    pub(super) fn bytes_named(&self, args: &[u8]) -> usize {
        let words: Vec<u64> =
            args.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("chunks of 8 bytes"))).collect();
        let live = self.live.lock().expect("no panic while locked");
        let named = |&(at, size): &(u64, usize)| words.iter().any(|w| (at..at + size as u64).contains(w));
        live.iter().map(|(&at, &(_, size))| (at, size)).filter(named).map(|(_, size)| size).sum()
    }

    /// How many blocks of a launch from here would run at once.
    pub(crate) fn concurrency(&self) -> usize {
        // On a thread of the pool the caller has already shared out the work.
        if rayon::current_thread_index().is_some() { 1 } else { self.threads }
    }

    /// Spreads the grid over the pool in contiguous ranges, several per thread so that uneven ones balance.
    ///
    /// # Errors
    /// [`Error::Device`] when the system has no memory for a thread's scratch.
    pub(crate) fn launch(&self, kernel: &'static KernelInfo, grid: [u32; 3], args: &[u8]) -> Result<()> {
        let blocks: u64 = grid.iter().map(|&n| u64::from(n)).product();
        let run = |first, last| {
            ARENA.with_borrow_mut(|arena| {
                let arena = match arena {
                    Some(arena) => arena,
                    None => arena.insert(Arena::new().map_err(|_| Error::device("host: out of memory: no scratch"))?),
                };
                arena.poison(64 << 10);
                // SAFETY: the op has built these arguments for this kernel from live tensors, the range lies in the grid, the arena is as
                // large as a block's shared memory may be, and the processor has what the level needs.
                unsafe { (kernel.host[self.level])(args.as_ptr(), &grid, first, last, arena.bytes().as_mut_ptr()) };
                Ok(())
            })
        };
        let ranges = blocks.min(self.threads as u64 * 4);
        if self.concurrency() == 1 || ranges <= 1 {
            run(0, blocks)
        } else {
            (0..ranges).into_par_iter().try_for_each(|i| run(blocks * i / ranges, blocks * (i + 1) / ranges))
        }
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        let left: Vec<u64> = self.live.lock().map(|l| l.keys().copied().collect()).unwrap_or_default();
        for at in left {
            self.free(at);
        }
    }
}

/// Threads that may be asked for, more than any machine has processors: the system would give out ten thousands, one after the other.
const MOST_THREADS: usize = 1024;

/// Starts the threads that work is spread over, once.
///
/// # Errors
/// [`Error::Usage`] for more than 1024 threads; [`Error::Device`] when the system refuses them: left to itself, the pool would panic where it is first used.
pub fn start_threads() -> Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    const ASKED: &str = "RAYON_NUM_THREADS";
    let asked = std::env::var(ASKED).ok().and_then(|text| text.trim().parse::<usize>().ok());
    if let Some(asked) = asked.filter(|&asked| asked > MOST_THREADS) {
        return Err(Error::usage(ASKED, format!("expected at most {MOST_THREADS} threads, found {asked}")));
    }
    let start = || match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a cause, somebody else started the pool.
        Err(e) if std::error::Error::source(&e).is_some() => Err(e.to_string()),
        _ => Ok(()),
    };
    STARTED.get_or_init(start).clone().map_err(|e| {
        let way_out =
            "RAYON_NUM_THREADS asks for fewer, `ulimit -u` shows how many processes and threads may be started";
        Error::device(format!("the system refuses the threads that work is spread over: {e}; {way_out}"))
    })
}
