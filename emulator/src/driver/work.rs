//! What is submitted to a stream.

use std::sync::Arc;

use crate::machine::{Kernel, Launch};

pub enum Work {
    Launch(KernelLaunch),
    Copy(Copy),
    Fill(Fill),
    /// A function of the host, with its argument.
    Host(unsafe extern "C" fn(*mut std::ffi::c_void), usize),
    /// Records an event when a graph runs (`CU_EVENT_RECORD_EXTERNAL`).
    Record(usize),
    /// Nothing: a node between others.
    Empty,
    /// Waits for an event when a graph runs (`CU_EVENT_WAIT_EXTERNAL`): it has passed, work runs in order.
    Wait,
}

/// A launch with its arguments, copied.
pub struct KernelLaunch {
    /// The function's handle: its module must still be loaded when a graph runs.
    pub function: usize,
    pub kernel: Arc<Kernel>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub shared_limit: u32,
    pub parameters: Vec<u8>,
}

/// Which sides of a copy are device memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
    HostToHost,
}

#[derive(Clone, Copy)]
pub struct Copy {
    pub to: u64,
    pub from: u64,
    pub bytes: usize,
    pub direction: Direction,
}

#[derive(Clone, Copy)]
pub struct Fill {
    pub to: u64,
    /// The first `width` bytes, repeated `count` times.
    pub pattern: [u8; 4],
    pub width: usize,
    pub count: usize,
}

impl KernelLaunch {
    pub fn as_launch(&self) -> Launch<'_> {
        Launch {
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            shared_limit: self.shared_limit,
            parameters: &self.parameters,
        }
    }
}
