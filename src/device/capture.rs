//! Work that is recorded once and launched again and again: a CUDA graph; on the host, which has no such thing, the closure itself.
//!
//! A graph names addresses. What is allocated while it is recorded therefore comes from a [`Reserve`] of its own, which gives nothing
//! away before the graph and its buffers are gone; the closure, which owns or borrows everything else, lives as long as the graph.

use std::sync::Arc;

use super::cuda::{CudaDevice, Recorded};
use super::shared::{Backend, Capture, Device, Reserve};
use crate::{Error, Result};

/// Recordings before it is given up that one lacks nothing: the first finds what is to be loaded and made, the second has it.
const ROUNDS: usize = 3;

/// Work that [`Device::capture`] took.
pub struct Captured<'a> {
    device: Device,
    work: Box<dyn Fn() -> Result<()> + 'a>,
    /// On CUDA.
    graph: Option<(Recorded, Arc<Reserve>)>,
}

impl Device {
    /// Records `work`, which is not done yet: [`Captured::launch`] does it, on CUDA as one graph. The work launches kernels, copies within
    /// the device and clears memory; it does the same at every call, and everything it addresses is its own. One thread at a time uses
    /// a CUDA device, so that nothing else is recorded.
    ///
    /// # Errors
    /// [`Error::Device`] where the work copies from or to the host or waits for the device, none of which a graph can do, or captures
    /// itself; and what the work returns.
    pub fn capture<'a>(&self, work: impl Fn() -> Result<()> + 'a) -> Result<Captured<'a>> {
        let work: Box<dyn Fn() -> Result<()> + 'a> = Box::new(work);
        let Backend::Cuda(cuda) = &self.0.backend else {
            return Ok(Captured { device: self.clone(), work, graph: None });
        };
        // Kernels are not loaded while a stream captures, but afterwards.
        for _ in 0..ROUNDS {
            if let Some(graph) = self.record(cuda, &work)? {
                return Ok(Captured { device: self.clone(), work, graph: Some(graph) });
            }
        }
        Err(Error::device(format!("capture: the work made something new to keep each of {ROUNDS} times")))
    }

    /// `None` where something was lacking.
    fn record(&self, cuda: &CudaDevice, work: &dyn Fn() -> Result<()>) -> Result<Option<(Recorded, Arc<Reserve>)>> {
        let reserve = Arc::new(Reserve::new(self));
        let mut capture = self.0.capture.lock().expect("no panic while locked");
        if capture.is_some() {
            return Err(Error::device("capture: other work is being captured: capture one after the other"));
        }
        cuda.begin_capture()?;
        *capture = Some(Capture { reserve: reserve.clone(), broken: false });
        drop(capture);
        let done = work();
        let recorded = cuda.end_capture();
        let capture = self.0.capture.lock().expect("no panic while locked").take();
        // What went wrong first says more than what came of it.
        let recorded = match (done, recorded) {
            (Ok(()), recorded) => recorded?,
            (Err(error), recorded) => {
                recorded.ok().flatten().into_iter().for_each(|recorded| cuda.forget(recorded));
                return Err(error);
            }
        };
        match recorded {
            Some(recorded) if capture.is_none_or(|capture| capture.broken) => {
                cuda.forget(recorded);
                Ok(None)
            }
            recorded => Ok(recorded.map(|recorded| (recorded, reserve))),
        }
    }

    /// Makes what is kept beyond the work at hand, such as weights in another order, which is never part of a graph: a recording is broken
    /// off for it, and done again.
    ///
    /// # Errors
    /// What `make` returns, and [`Error::Device`] when the driver refuses.
    pub fn aside<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let Backend::Cuda(cuda) = &self.0.backend else { return make() };
        let capture = self.0.capture.lock().expect("no panic while locked").take();
        let Some(capture) = capture else { return make() };
        cuda.break_capture()?;
        let made = make();
        cuda.begin_capture()?;
        *self.0.capture.lock().expect("no panic while locked") = Some(Capture { broken: true, ..capture });
        made
    }

    /// Refuses what no graph can do.
    pub(super) fn not_capturing(&self, what: &str, bytes: usize) -> Result<()> {
        if self.0.capture.lock().expect("no panic while locked").is_none() {
            return Ok(());
        }
        let bytes = if bytes > 0 { format!(" of {bytes} bytes") } else { String::new() };
        Err(Error::device(format!(
            "capture: {what}{bytes} in work that is captured as a graph: a graph would not do it again; do it before or after"
        )))
    }
}

impl Captured<'_> {
    /// Does the work once more, after everything launched before.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed; on the host what the work returns.
    pub fn launch(&self) -> Result<()> {
        match (&self.graph, &self.device.0.backend) {
            (Some((recorded, _)), Backend::Cuda(cuda)) => cuda.replay(recorded),
            _ => (self.work)(),
        }
    }
}

impl Drop for Captured<'_> {
    fn drop(&mut self) {
        // The graph goes before what it addresses.
        if let (Some((recorded, reserve)), Backend::Cuda(cuda)) = (self.graph.take(), &self.device.0.backend) {
            cuda.forget(recorded);
            drop(reserve);
        }
    }
}
