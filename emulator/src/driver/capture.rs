//! Stream capture: what is submitted to a capturing stream is recorded in order instead of run, and streams join through events.
//!
//! Each stream of a capture keeps a clock, the number of operations of every stream that come before its next one; an event carries
//! the clock of its stream. The capture is complete when the clock of the stream it began in covers all operations.

use std::collections::HashMap;
use std::sync::Arc;

use super::failure::{Failure, Outcome, fail, failure};
use super::handles::{Capture, Clock, Graph, Mode, Recorded, StreamKind};
use super::state::{Driver, this_thread};
use super::types::*;
use super::work::Work;

fn merge(into: &mut Clock, from: &Clock) {
    for (stream, count) in from {
        let known = into.entry(*stream).or_default();
        *known = (*known).max(*count);
    }
}

fn invalidated() -> Failure {
    failure(ERROR_STREAM_CAPTURE_INVALIDATED, "the capture was invalidated by an earlier illegal call")
}

impl Driver {
    pub fn capture_of(&self, stream: usize) -> Option<usize> {
        self.streams.get(stream)?.capture
    }

    fn invalidate(&mut self, capture: usize) {
        if let Some(capture) = self.captures.get_mut(capture) {
            capture.invalid = true;
        }
    }

    /// Refuses a call that a capturing stream does not allow; it ends the hopes of the capture.
    pub fn not_capturing(&mut self, stream: usize, call: &str) -> Outcome {
        match self.capture_of(stream) {
            Some(capture) => {
                self.invalidate(capture);
                fail(ERROR_STREAM_CAPTURE_UNSUPPORTED, format!("{call} on a capturing stream"))
            }
            None => Ok(()),
        }
    }

    /// The same for a call that concerns all streams of a context.
    pub fn no_capture_in(&mut self, context: usize, call: &str) -> Outcome {
        let mut found = false;
        for (_, capture) in self.captures.iter_mut().filter(|(_, capture)| capture.context == context) {
            capture.invalid = true;
            found = true;
        }
        match found {
            true => fail(ERROR_STREAM_CAPTURE_UNSUPPORTED, format!("{call} while a stream captures")),
            false => Ok(()),
        }
    }

    /// Refuses work in the null stream while a stream that waits for it captures.
    pub fn no_implicit_dependency(&mut self, stream: usize, call: &str) -> Outcome {
        let Some((context, StreamKind::Legacy)) = self.streams.get(stream).map(|s| (s.context, s.kind)) else {
            return Ok(());
        };
        let blocking = |flags: u32| flags & STREAM_NON_BLOCKING == 0;
        let capturing = self.streams.iter().filter(|(_, s)| s.context == context && blocking(s.flags));
        let Some(capture) = capturing.filter_map(|(_, s)| s.capture).next() else {
            return Ok(());
        };
        self.invalidate(capture);
        fail(ERROR_STREAM_CAPTURE_IMPLICIT, format!("{call} in the null stream, on which a capturing stream depends"))
    }

    /// Refuses a copy or fill that blocks the host while a capture forbids such calls to this thread.
    pub fn may_block(&mut self, context: usize, call: &str) -> Outcome {
        if let Some(legacy) = self.contexts.get(context).map(|context| context.legacy) {
            self.no_implicit_dependency(legacy, call)?;
        }
        let thread = this_thread();
        let forbids = |capture: &Capture| match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == thread,
            Mode::Relaxed => false,
        };
        match self.captures.iter_mut().find(|(_, capture)| forbids(capture)) {
            Some((_, capture)) => {
                capture.invalid = true;
                fail(ERROR_STREAM_CAPTURE_UNSUPPORTED, format!("{call} blocks the host while a stream captures"))
            }
            None => Ok(()),
        }
    }

    pub fn begin_capture(&mut self, stream: usize, mode: Mode) -> Outcome {
        let Some(entry) = self.streams.get_mut(stream) else { return Ok(()) };
        if entry.kind == StreamKind::Legacy {
            return fail(ERROR_STREAM_CAPTURE_UNSUPPORTED, "the null stream cannot capture");
        }
        if entry.capture.is_some() {
            return fail(ERROR_ILLEGAL_STATE, "the stream captures already");
        }
        let context = entry.context;
        let clocks = HashMap::from([(stream, Clock::new())]);
        let thread = this_thread();
        let capture = Capture { context, origin: stream, mode, thread, invalid: false, work: Vec::new(), clocks };
        entry.capture = Some(self.captures.insert(capture));
        Ok(())
    }

    /// Adds work at the end of a capturing stream.
    pub fn record(&mut self, capture: usize, stream: usize, work: impl IntoIterator<Item = Arc<Work>>) -> Outcome {
        let Some(capture) = self.captures.get_mut(capture).filter(|capture| !capture.invalid) else {
            return Err(invalidated());
        };
        for work in work {
            capture.work.push(work);
            *capture.clocks.entry(stream).or_default().entry(stream).or_default() += 1;
        }
        Ok(())
    }

    /// What an event recorded in a capturing stream stands for.
    pub fn mark(&self, capture: usize, stream: usize) -> Outcome<Recorded> {
        let found = self.captures.get(capture).filter(|capture| !capture.invalid).ok_or_else(invalidated)?;
        Ok(Recorded::Captured(capture, found.clocks.get(&stream).cloned().unwrap_or_default()))
    }

    /// A stream waits for an event recorded in a capture: it joins that capture.
    pub fn join(&mut self, stream: usize, capture: usize, clock: &Clock) -> Outcome {
        let Some(entry) = self.streams.get_mut(stream) else { return Ok(()) };
        match entry.capture {
            Some(own) if own != capture => {
                self.invalidate(own);
                self.invalidate(capture);
                return fail(
                    ERROR_STREAM_CAPTURE_MERGE,
                    "the stream captures, and the event belongs to another capture",
                );
            }
            _ => {}
        }
        let Some(found) = self.captures.get_mut(capture) else {
            return fail(ERROR_CAPTURED_EVENT, "the event was last recorded in a capture that has ended");
        };
        if found.invalid {
            return Err(invalidated());
        }
        if entry.kind == StreamKind::Legacy {
            found.invalid = true;
            return fail(ERROR_STREAM_CAPTURE_IMPLICIT, "the null stream waits for an event of a capture");
        }
        entry.capture = Some(capture);
        merge(found.clocks.entry(stream).or_default(), clock);
        Ok(())
    }

    /// Ends the capture that began in a stream; the graph.
    pub fn end_capture(&mut self, stream: usize) -> Outcome<usize> {
        let handle =
            self.capture_of(stream).ok_or_else(|| failure(ERROR_ILLEGAL_STATE, "the stream does not capture"))?;
        let capture = self.captures.get(handle).ok_or_else(invalidated)?;
        if capture.origin != stream {
            self.invalidate(handle);
            return fail(ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
        }
        if capture.mode != Mode::Relaxed && capture.thread != this_thread() {
            self.invalidate(handle);
            return fail(ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
        }
        for (_, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.capture == Some(handle)) {
            stream.capture = None;
        }
        let capture = self.captures.remove(handle).filter(|capture| !capture.invalid).ok_or_else(invalidated)?;
        let joined = capture.clocks.get(&stream);
        let covered = |stream: &usize, clock: &Clock| {
            let known = joined.and_then(|clock| clock.get(stream)).copied().unwrap_or(0);
            known >= clock.get(stream).copied().unwrap_or(0)
        };
        if !capture.clocks.iter().all(|(stream, clock)| covered(stream, clock)) {
            return fail(
                ERROR_STREAM_CAPTURE_UNJOINED,
                "the capture's first stream does not wait for work in another stream",
            );
        }
        let graph = self.graphs.insert(Graph { context: capture.context, nodes: Vec::new() });
        let nodes = capture.work.into_iter().map(|work| (self.nodes.insert(graph), work)).collect();
        if let Some(graph) = self.graphs.get_mut(graph) {
            graph.nodes = nodes;
        }
        Ok(graph)
    }

    /// A stream goes while it captures: so does its capture.
    pub fn abandon_capture(&mut self, stream: usize) {
        if let Some(handle) = self.capture_of(stream) {
            self.invalidate(handle);
            if self.captures.get(handle).is_some_and(|capture| capture.origin == stream) {
                for (_, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.capture == Some(handle)) {
                    stream.capture = None;
                }
                self.captures.remove(handle);
            }
        }
    }
}
