//! Work of streams: run at once, or recorded while the stream captures.

use std::sync::Arc;

use super::failure::{Outcome, fail, invalid};
use super::handles::Recorded;
use super::progress::{call_host, unblocked};
use super::state::{Driver, Guard};
use super::types::*;
use super::work::{Copy, Direction, KernelLaunch, Work};
use crate::finding::{Finding, Kind};
use crate::machine::{LaunchError, Machine};

/// Runs work in a stream, or records it.
pub fn submit(driver: Guard, stream: CUstream, work: Work, call: &str) -> Outcome {
    submit_all(driver, stream, vec![Arc::new(work)], call)
}

pub fn submit_all(mut driver: Guard, stream: CUstream, work: Vec<Arc<Work>>, call: &str) -> Outcome {
    let stream = driver.stream(stream)?;
    let context = driver.context_of(stream)?;
    driver.healthy(context)?;
    driver.no_implicit_dependency(stream, call)?;
    match driver.capture_of(stream) {
        Some(capture) => {
            for work in &work {
                if let Work::Launch(launch) = &**work {
                    driver.permit(launch)?;
                }
            }
            driver.record(capture, stream, work)
        }
        None => run(driver, context, stream, &work).map(drop),
    }
}

/// Runs work in order. Functions of the host run without the lock. What follows a kernel that fails is not run; the call that
/// submitted it succeeds, later ones fail.
pub fn run(mut driver: Guard, context: usize, stream: usize, work: &[Arc<Work>]) -> Outcome<Guard> {
    for work in work {
        driver = unblocked(driver, stream)?;
        if driver.healthy(context).is_err() {
            return Ok(driver);
        }
        if let Work::Host(function, argument) = **work {
            // SAFETY: the program gave the function together with its argument.
            driver = call_host(driver, stream, move || unsafe { function(argument as *mut std::ffi::c_void) })?;
        } else {
            driver.timed(stream, |driver| driver.perform(context, stream, work))?;
        }
    }
    Ok(driver)
}

/// Runs work in the null stream, and waits for it.
pub fn run_and_wait(driver: Guard, context: usize, work: &[Arc<Work>]) -> Outcome {
    let stream = driver.contexts.get(context).map_or(0, |context| context.legacy);
    let mut driver = run(driver, context, stream, work)?;
    let until = driver.ready(stream);
    driver.host_waited(until);
    Ok(())
}

impl Driver {
    pub fn context_of(&self, stream: usize) -> Outcome<usize> {
        self.streams.get(stream).map(|stream| stream.context).ok_or_else(|| invalid("stream"))
    }

    fn perform(&mut self, context: usize, stream: usize, work: &Work) -> Outcome {
        self.tally.add(work);
        match work {
            Work::Launch(launch) => self.launch(context, launch),
            Work::Copy(copy) => self.copy(context, *copy),
            Work::Fill(fill) => {
                let filled = self.machine_of(context).fill(fill.to, &fill.pattern[..fill.width], fill.count);
                filled.map_err(|finding| self.found(finding))
            }
            Work::Record(event) => {
                let time = self.ready(stream);
                let event = self.events.get_mut(*event).ok_or_else(|| invalid("event"))?;
                event.recorded = Recorded::At(time);
                Ok(())
            }
            Work::Wait | Work::Empty | Work::Host(..) => Ok(()),
        }
    }

    /// Refuses a launch that hardware refuses, before it is recorded.
    pub fn permit(&mut self, launch: &KernelLaunch) -> Outcome {
        match self.machine().check(&launch.kernel, &launch.as_launch()) {
            Ok(()) => Ok(()),
            Err(LaunchError::Refused(code, why)) => fail(code, why),
            Err(LaunchError::Found(finding)) => Err(self.found(*finding)),
        }
    }

    fn launch(&mut self, context: usize, launch: &KernelLaunch) -> Outcome {
        if self.functions.get(launch.function).is_none() {
            return fail(ERROR_INVALID_HANDLE, format!("the module of {} was unloaded", launch.kernel.name));
        }
        match self.machine_of(context).launch(&launch.kernel, &launch.as_launch()) {
            Ok(()) => Ok(()),
            Err(LaunchError::Refused(code, why)) => fail(code, why),
            Err(LaunchError::Found(finding)) if finding.kind == Kind::ArgumentSize => Err(self.found(*finding)),
            Err(LaunchError::Found(finding)) => {
                self.fault(context, &finding);
                Ok(())
            }
        }
    }

    fn copy(&mut self, context: usize, copy: Copy) -> Outcome {
        if copy.bytes == 0 {
            return Ok(());
        }
        let Copy { to, from, bytes, direction } = copy;
        if direction != Direction::HostToDevice && direction != Direction::HostToHost {
            self.device_side(from, "source", bytes)?;
        } else {
            self.host_side(from, "source", bytes)?;
        }
        if direction != Direction::DeviceToHost && direction != Direction::HostToHost {
            self.device_side(to, "destination", bytes)?;
        } else {
            self.host_side(to, "destination", bytes)?;
        }
        let done = match direction {
            Direction::HostToDevice => {
                // SAFETY: the program vouches for this many bytes of its memory; `host_side` has refused what is known to be wrong.
                self.machine_of(context).write(to, unsafe { std::slice::from_raw_parts(from as *const u8, bytes) })
            }
            Direction::DeviceToHost => {
                // SAFETY: the same for memory that is written, which nothing else uses during the call.
                self.machine_of(context).read(from, unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) })
            }
            Direction::DeviceToDevice => self.copy_between_devices(context, copy),
            Direction::HostToHost => {
                // SAFETY: the program vouches for both ranges; they may overlap, which `copy_to` allows.
                unsafe { (from as *const u8).copy_to(to as *mut u8, bytes) };
                Ok(())
            }
        };
        done.map_err(|finding| self.found(finding))
    }

    /// The buffers tell which devices hold the two sides.
    #[expect(clippy::result_large_err, reason = "a finding is rare, and a copy is long")]
    fn copy_between_devices(&mut self, context: usize, copy: Copy) -> Result<(), Finding> {
        let Copy { to, from, bytes, .. } = copy;
        let holder = |address: u64| self.machines.iter().find(|(_, machine)| machine.buffer_at(address).is_some());
        let own = self.device_of(context);
        let [source, target] = [from, to].map(|address| holder(address).map_or(own, |(device, _)| *device));
        let Some(other) = (source != target).then(|| self.machines.remove(&source)).flatten() else {
            let machine = self.machines.get_mut(&source).expect("a machine as long as there is a context");
            return machine.copy(to, from, bytes);
        };
        let target = self.machines.get_mut(&target);
        let done = target.map_or(Ok(()), |target| target.copy_from(to, &other, from, bytes));
        self.machines.insert(source, other);
        done
    }

    /// Refuses a host address where a copy needs one of the device. What else can be wrong with it, the machine knows.
    fn device_side(&mut self, address: u64, side: &str, bytes: usize) -> Outcome {
        if Machine::is_device_address(address) || address < 4096 || self.machine().buffer_at(address).is_some() {
            return Ok(());
        }
        let what = format!("the {side} of a copy of {bytes} bytes should be a device address, found one of the host");
        Err(self.found(Finding { address: Some(address), ..Finding::new(Kind::HostPointer, what) }))
    }

    /// Refuses a device address where a copy needs one of the host, and a copy beyond the end of pinned memory.
    fn host_side(&mut self, address: u64, side: &str, bytes: usize) -> Outcome {
        if address == 0 {
            return fail(ERROR_INVALID_VALUE, format!("the {side} of a copy is null"));
        }
        let last = address.saturating_add(bytes as u64 - 1);
        let finding = if Machine::is_device_address(address) || Machine::is_device_address(last) {
            let what =
                format!("the {side} of a copy of {bytes} bytes should be a host address, found one of the device");
            Finding::new(Kind::HostPointer, what)
        } else if let Some(left) = self.pinned_bytes_from(address as usize).filter(|left| bytes > *left) {
            let what = format!("the {side} of a copy of {bytes} bytes is pinned memory with {left} bytes left");
            Finding::new(Kind::CopySize, what)
        } else {
            return Ok(());
        };
        Err(self.found(Finding { address: Some(address), ..finding }))
    }
}
