//! What the handles of the driver stand for.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Instant;

use super::failure::Failure;
use super::pending::Pending;
use super::types::CUdevice;
use super::work::Work;
use crate::machine::{self, Kernel};

pub struct Context {
    pub device: CUdevice,
    pub flags: u32,
    /// By `CUlimit`, 0 to 6.
    pub limits: [usize; 7],
    pub cache_config: i32,
    /// The error that every call returns since a kernel failed.
    pub failure: Option<Failure>,
    /// The null stream.
    pub legacy: usize,
    /// `CU_STREAM_PER_THREAD`, by thread.
    pub per_thread: HashMap<u64, usize>,
}

pub struct Module {
    pub context: usize,
    pub module: machine::Module,
    /// `.target`, ten times a compute capability.
    pub target: u32,
}

pub struct Function {
    pub context: usize,
    pub module: usize,
    pub kernel: Arc<Kernel>,
    pub name: CString,
    /// `MAX_DYNAMIC_SHARED_SIZE_BYTES` once set, else 0.
    pub shared_limit: u32,
    /// Preferred carveout, percent, or -1.
    pub carveout: i32,
}

pub struct Stream {
    pub context: usize,
    pub flags: u32,
    pub priority: i32,
    pub capture: Option<usize>,
    pub kind: StreamKind,
    /// When its work so far is done.
    pub ready: Option<Instant>,
    /// Functions of the host that it is behind.
    pub pending: Vec<Arc<Pending>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Legacy,
    PerThread,
    Created,
}

pub struct Event {
    pub context: usize,
    pub flags: u32,
    pub recorded: Recorded,
}

#[derive(Clone)]
pub enum Recorded {
    Never,
    At(Instant),
    /// Behind functions of the host that ran then.
    Behind(Vec<Arc<Pending>>),
    /// In a capture: its handle, and the operations of each stream that come before.
    Captured(usize, HashMap<usize, u64>),
}

#[derive(Default)]
pub struct Graph {
    pub context: usize,
    /// In the order of recording, with the handles of the nodes.
    pub nodes: Vec<(usize, Arc<Work>)>,
}

pub struct GraphExec {
    pub context: usize,
    pub nodes: Vec<Arc<Work>>,
}

/// A pool of stream-ordered memory: its `CUmemPool_attribute`s 1 to 4.
pub struct Pool {
    pub settings: [u64; 4],
}

/// The primary context of a device.
#[derive(Default)]
pub struct Primary {
    pub context: Option<usize>,
    pub retained: u32,
    pub flags: u32,
}

/// Of a stream: how many operations of every stream come before its next one.
pub type Clock = HashMap<usize, u64>;

/// `CUstreamCaptureMode`: which threads may not make calls that could disturb the capture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

pub struct Capture {
    pub context: usize,
    /// The stream it began in.
    pub origin: usize,
    pub mode: Mode,
    pub thread: u64,
    /// An illegal call was made: it can only be ended.
    pub invalid: bool,
    pub work: Vec<Arc<Work>>,
    pub clocks: HashMap<usize, Clock>,
}

/// Page-locked memory of the host.
pub struct Pinned {
    pub context: usize,
    pub bytes: usize,
    /// `None` for memory of the program that was registered.
    pub layout: Option<Layout>,
    /// `CU_MEMHOSTALLOC_*`
    pub flags: u32,
    /// Kernels reach it.
    pub mapped: bool,
}

/// Memory that host and device share.
pub struct Managed {
    pub bytes: usize,
    pub layout: Layout,
}

impl Stream {
    pub fn new(context: usize, kind: StreamKind) -> Self {
        Stream { context, flags: 0, priority: 0, capture: None, kind, ready: None, pending: Vec::new() }
    }
}

/// A module that belongs to no context.
pub struct Library {
    pub ptx: String,
    /// Its kernels.
    pub names: Vec<String>,
    /// The module in each context.
    pub modules: HashMap<usize, usize>,
}

/// An entry of a library.
pub struct LibraryKernel {
    pub library: usize,
    pub name: CString,
}

/// What has been given to link, and the result, whose bytes the caller reads until the state is destroyed.
#[derive(Default)]
pub struct Link {
    pub parts: Vec<String>,
    pub image: Option<Box<[u8]>>,
}
