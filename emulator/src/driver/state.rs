//! What the driver knows: tables of handles, contexts, and what was found.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::failure::{Failure, Outcome, fail, failure, invalid};
use super::handles::{
    Capture, Context, Event, Function, Graph, GraphExec, Library, LibraryKernel, Link, Managed, Module, Pinned, Pool,
    Primary, Stream, StreamKind,
};
use super::mappings::VirtualMemory;
use super::table::Table;
use super::tally::Tally;
use super::texts;
use super::types::*;
use crate::count::LaunchCounts;
use crate::finding::Finding;
use crate::machine::{Machine, Options};

pub type Guard = MutexGuard<'static, Driver>;

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(Mutex::default);

/// The driver, initialised or not. Calls go through [`super::border::lock`].
pub fn locked() -> Guard {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver, unless another thread is in it; for the end of the process.
pub fn try_locked() -> Option<Guard> {
    match DRIVER.try_lock() {
        Ok(driver) => Some(driver),
        Err(TryLockError::Poisoned(driver)) => Some(driver.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

thread_local! {
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// This thread's stack of contexts; the last is current.
pub fn with_contexts<T>(body: impl FnOnce(&mut Vec<usize>) -> T) -> T {
    CURRENT.with_borrow_mut(body)
}

/// A number of this thread, from 1.
pub fn this_thread() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if THREAD.get() == 0 {
        THREAD.set(COUNT.fetch_add(1, Ordering::Relaxed) + 1);
    }
    THREAD.get()
}

#[derive(Default)]
pub struct Findings {
    printed: HashSet<String>,
    /// Not yet taken by `ptx_emulator_findings`.
    pub recent: Vec<Finding>,
}

impl Findings {
    pub fn record(&mut self, finding: &Finding) {
        let text = finding.to_string();
        if self.printed.insert(text.clone()) {
            texts::tell(&text);
            texts::note_finding(finding);
        }
        self.recent.push(finding.clone());
    }
}

pub struct Driver {
    /// A call panicked: the state is not to be trusted.
    pub panicked: bool,
    /// Given by `ptx_emulator_configure`; goes before the environment.
    pub configured: Vec<String>,
    /// Set by `cuInit`.
    pub options: Option<Options>,
    /// Of each device, there while it has a context.
    pub machines: BTreeMap<CUdevice, Machine>,
    /// Of each device.
    pub primary: BTreeMap<CUdevice, Primary>,
    pub contexts: Table<Context>,
    pub modules: Table<Module>,
    pub functions: Table<Function>,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub captures: Table<Capture>,
    pub graphs: Table<Graph>,
    /// The graph of each node.
    pub nodes: Table<usize>,
    pub execs: Table<GraphExec>,
    pub pools: Table<Pool>,
    pub links: Table<Link>,
    pub libraries: Table<Library>,
    /// Kernels of libraries.
    pub kernels: Table<LibraryKernel>,
    /// The device's own pool, and the one in use.
    pub default_pool: Option<usize>,
    pub device_pool: Option<usize>,
    /// The context of each device buffer, by its first address.
    pub buffers: BTreeMap<CUdeviceptr, usize>,
    /// By first address; also among the buffers.
    pub managed: BTreeMap<CUdeviceptr, Managed>,
    pub pinned: BTreeMap<usize, Pinned>,
    pub virtual_memory: VirtualMemory,
    /// First addresses of pinned memory that was freed and not handed out again.
    pub freed_pinned: BTreeSet<usize>,
    pub findings: Findings,
    /// Launches counted by machines that are gone, not yet taken by `ptx_emulator_profile`.
    pub profile: Vec<LaunchCounts>,
    pub tally: Tally,
    /// How long the host waited for work without having asked to.
    pub hidden: Duration,
}

// SAFETY: the machine's buffers are its own; the driver is only reached through its lock.
unsafe impl Send for Driver {}

impl Default for Driver {
    fn default() -> Self {
        Driver {
            panicked: false,
            configured: Vec::new(),
            options: None,
            machines: BTreeMap::new(),
            primary: BTreeMap::new(),
            contexts: Table::new(0xC0),
            modules: Table::new(0xC1),
            functions: Table::new(0xC2),
            streams: Table::new(0xC3),
            events: Table::new(0xC4),
            captures: Table::new(0xC5),
            graphs: Table::new(0xC6),
            nodes: Table::new(0xC7),
            execs: Table::new(0xC8),
            pools: Table::new(0xC9),
            links: Table::new(0xCA),
            libraries: Table::new(0xCB),
            kernels: Table::new(0xCC),
            default_pool: None,
            device_pool: None,
            buffers: BTreeMap::new(),
            managed: BTreeMap::new(),
            pinned: BTreeMap::new(),
            virtual_memory: VirtualMemory::default(),
            freed_pinned: BTreeSet::new(),
            findings: Findings::default(),
            profile: Vec::new(),
            tally: Tally::default(),
            hidden: Duration::ZERO,
        }
    }
}

impl Driver {
    /// The device that is emulated.
    pub fn device(&self) -> &'static crate::device::Device {
        self.options.as_ref().map_or(crate::device::Model::A100, |options| options.model).device()
    }

    /// This thread's context.
    pub fn current(&self) -> Outcome<usize> {
        let Some(context) = with_contexts(|stack| stack.last().copied()) else {
            return fail(ERROR_INVALID_CONTEXT, "this thread has no current context");
        };
        match self.contexts.get(context) {
            Some(_) => Ok(context),
            None => fail(ERROR_CONTEXT_IS_DESTROYED, "the current context was destroyed or released"),
        }
    }

    /// Refuses a context in which a kernel has failed.
    pub fn healthy(&self, context: usize) -> Outcome {
        match self.contexts.get(context).and_then(|context| context.failure.clone()) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// This thread's context, unless a kernel has failed in it.
    pub fn working(&self) -> Outcome<usize> {
        let context = self.current()?;
        self.healthy(context).map(|()| context)
    }

    /// How many devices are emulated.
    pub fn devices(&self) -> u32 {
        self.options.as_ref().map_or(1, |options| options.devices)
    }

    /// The device of a context; the first one of a context that there is not.
    pub fn device_of(&self, context: usize) -> CUdevice {
        self.contexts.get(context).map_or(0, |context| context.device)
    }

    /// The machine of this thread's context.
    pub fn machine(&mut self) -> &mut Machine {
        let context = with_contexts(|stack| stack.last().copied());
        let device = context.map_or(0, |context| self.device_of(context));
        let device = if self.machines.contains_key(&device) {
            device
        } else {
            self.machines.keys().next().copied().unwrap_or(0)
        };
        self.machines.get_mut(&device).expect("a machine as long as there is a context")
    }

    /// The machine of a context's device.
    pub fn machine_of(&mut self, context: usize) -> &mut Machine {
        let device = self.device_of(context);
        self.machines.get_mut(&device).expect("a machine as long as there is a context")
    }

    /// A machine goes with the last context of its device; its counters stay.
    pub fn drop_machine(&mut self, device: CUdevice) {
        if let Some(mut machine) = self.machines.remove(&device) {
            self.profile.extend(machine.take_profile());
        }
        if self.machines.is_empty() {
            self.virtual_memory = VirtualMemory::default();
        }
    }

    /// Refuses what is only emulated where there is one device.
    pub fn sole(&self, what: &str) -> Outcome {
        match self.devices() {
            1 => Ok(()),
            count => fail(ERROR_NOT_SUPPORTED, format!("{what} among {count} emulated devices")),
        }
    }

    /// The launches counted since the last call.
    pub fn take_profile(&mut self) -> Vec<LaunchCounts> {
        let mut launches = std::mem::take(&mut self.profile);
        launches.extend(self.machines.values_mut().flat_map(Machine::take_profile));
        launches
    }

    /// Records what a call of the host did wrong; that call fails.
    pub fn found(&mut self, finding: Finding) -> Failure {
        self.findings.record(&finding);
        failure(ERROR_INVALID_VALUE, finding.to_string())
    }

    /// Records what a kernel did wrong: its context has failed.
    pub fn fault(&mut self, context: usize, finding: &Finding) {
        self.findings.record(finding);
        let failure = failure(finding.kind.cuda_error(), finding.to_string());
        // The launch succeeds: the text must be there without a failing call.
        texts::note(&failure);
        if let Some(context) = self.contexts.get_mut(context) {
            context.failure.get_or_insert(failure);
        }
    }

    /// The entry of a stream handle, default streams included.
    pub fn stream(&mut self, handle: CUstream) -> Outcome<usize> {
        match handle as usize {
            0 | STREAM_LEGACY => {
                let context = self.current()?;
                self.contexts.get(context).map(|context| context.legacy).ok_or_else(|| invalid("stream"))
            }
            STREAM_PER_THREAD => {
                let (context, thread) = (self.current()?, this_thread());
                let found = self.contexts.get(context).and_then(|context| context.per_thread.get(&thread).copied());
                Ok(found.unwrap_or_else(|| {
                    let stream = self.streams.insert(Stream::new(context, StreamKind::PerThread));
                    if let Some(context) = self.contexts.get_mut(context) {
                        context.per_thread.insert(thread, stream);
                    }
                    stream
                }))
            }
            handle => match self.streams.get(handle) {
                Some(stream) if stream.kind == StreamKind::Created => Ok(handle),
                _ => Err(invalid("stream")),
            },
        }
    }

    pub fn function(&self, handle: CUfunction) -> Outcome<&Function> {
        self.functions.get(handle as usize).ok_or_else(|| invalid("function"))
    }
}
