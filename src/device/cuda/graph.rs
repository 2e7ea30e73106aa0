//! Stream capture: the work of a stream as a graph that is launched again and again.

use cudarc::driver::{result, sys};

use super::super::kernel::KernelInfo;
use super::{CudaDevice, failed};
use crate::{Error, Result};

/// A graph, ready to be launched. Given back by [`CudaDevice::forget`].
pub struct Recorded(sys::CUgraphExec);

impl CudaDevice {
    /// From here on work is recorded, not run. The capture is relaxed: memory may be allocated meanwhile.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses, or something launched before failed.
    pub fn begin_capture(&self) -> Result<()> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(|e| failed("beginning to capture the stream", e))?;
        self.loaded.lock().expect("no panic while locked").lacking = Some(vec![]);
        Ok(())
    }

    /// What was recorded; `None` where a kernel of it had not been loaded, as it is now.
    ///
    /// # Errors
    /// [`Error::Device`] when something was called that a capture does not allow, or a kernel cannot be loaded.
    pub fn end_capture(&self) -> Result<Option<Recorded>> {
        let (graph, lacking) = self.ended()?;
        let made = match lacking.is_empty() {
            true => {
                let plain = sys::CUgraphInstantiate_flags(0);
                // SAFETY: the graph is the one that the capture gave.
                let made = unsafe { result::graph::instantiate(graph, plain) };
                made.map(|exec| Some(Recorded(exec))).map_err(|e| failed("making a graph", e))
            }
            false => Ok(None),
        };
        // SAFETY: the graph is destroyed once; what was instantiated of it does not need it.
        let _ = unsafe { result::graph::destroy(graph) };
        for kernel in lacking {
            self.function(kernel)?;
        }
        made
    }

    /// Forgets what was recorded, and runs work again.
    ///
    /// # Errors
    /// [`Error::Device`] when something was called that a capture does not allow.
    pub fn break_capture(&self) -> Result<()> {
        let (graph, _) = self.ended()?;
        // SAFETY: the graph is the one that the capture gave.
        unsafe { result::graph::destroy(graph) }.map_err(|e| failed("destroying a graph", e))
    }

    /// The graph, and kernels of it that have not been loaded.
    fn ended(&self) -> Result<(sys::CUgraph, Vec<&'static KernelInfo>)> {
        let lacking = self.loaded.lock().expect("no panic while locked").lacking.take().unwrap_or_default();
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        let graph = unsafe { result::stream::end_capture(self.stream) }.map_err(|e| failed("capturing a stream", e))?;
        match graph.is_null() {
            true => Err(Error::device("CUDA: capturing a stream: it gave no graph")),
            false => Ok((graph, lacking)),
        }
    }

    /// Launches what was recorded.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed.
    pub fn replay(&self, recorded: &Recorded) -> Result<()> {
        self.bind()?;
        // SAFETY: the graph is given back by `forget` alone, which takes it.
        unsafe { result::graph::launch(recorded.0, self.stream) }.map_err(|e| failed("launching a graph", e))
    }

    /// Gives a graph back. One that still runs is freed by the driver when it is done.
    pub fn forget(&self, recorded: Recorded) {
        if self.bind().is_ok() {
            // A failure here was reported where it arose.
            // SAFETY: the graph came from `end_capture` of this device.
            let _ = unsafe { result::graph::exec_destroy(recorded.0) };
        }
    }
}
