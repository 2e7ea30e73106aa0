//! What a program asked of the driver: copies, launches, waits. On a real device each costs a trip over the bus or a stall.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::work::{Direction, Work};

/// Counts since they were last taken. Work of a replayed graph is counted where it runs, each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub copies_to_device: u64,
    pub bytes_to_device: u64,
    pub copies_to_host: u64,
    pub bytes_to_host: u64,
    pub copies_within_device: u64,
    pub bytes_within_device: u64,
    pub fills: u64,
    pub kernels: u64,
    pub graph_launches: u64,
    /// Calls that wait for a stream, an event or the context, and copies that return when they are done.
    pub synchronisations: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} kernels, {} graph launches, {} copies of {} bytes to the device, {} of {} bytes to the host, {} of {} bytes within it, \
             {} fills, {} synchronisations",
            self.kernels,
            self.graph_launches,
            self.copies_to_device,
            self.bytes_to_device,
            self.copies_to_host,
            self.bytes_to_host,
            self.copies_within_device,
            self.bytes_within_device,
            self.fills,
            self.synchronisations,
        )
    }
}

impl Tally {
    pub(super) fn add(&mut self, work: &Work) {
        match work {
            Work::Launch(_) => self.kernels += 1,
            Work::Fill(_) => self.fills += 1,
            Work::Copy(copy) => {
                let (copies, bytes) = match copy.direction {
                    Direction::HostToDevice => (&mut self.copies_to_device, &mut self.bytes_to_device),
                    Direction::DeviceToHost => (&mut self.copies_to_host, &mut self.bytes_to_host),
                    Direction::DeviceToDevice => (&mut self.copies_within_device, &mut self.bytes_within_device),
                    Direction::HostToHost => return,
                };
                *copies += 1;
                *bytes += copy.bytes as u64;
            }
            Work::Host(..) | Work::Record(_) | Work::Wait | Work::Empty => {}
        }
    }
}
