//! How far streams are.
//!
//! Work runs when it is submitted, while the host waits; its time is reckoned as if streams ran beside each other and beside the host:
//! work begins when the host has submitted it and its stream has come to it, and takes as long as it took. What the host waited without
//! having asked to wait is taken off the host's clock.
//!
//! A function of the host runs in a thread of its own. The call that submits it returns when it is done, or after a moment, if it waits
//! for what the program does next: its stream is behind it from then on, and further work in the stream waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::border::{call_back, lock};
use super::failure::{Outcome, fail};
use super::handles::StreamKind;
use super::pending::Pending;
use super::state::{Driver, Guard};
use super::types::*;

/// How long the call that submits a function of the host waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Waits, without the lock, until all are done.
pub fn wait_for(pending: &[Arc<Pending>]) {
    pending.iter().for_each(|pending| pending.wait(None));
}

impl Driver {
    /// The host's clock.
    pub fn host_time(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.hidden).unwrap_or(now)
    }

    /// The host has waited until then.
    pub fn host_waited(&mut self, until: Instant) {
        let ahead = until.saturating_duration_since(self.host_time());
        self.hidden = self.hidden.saturating_sub(ahead);
    }

    /// The streams that a stream's next work comes after: itself, and the null stream or those that it waits for.
    fn before(&self, stream: usize) -> Vec<usize> {
        let Some(entry) = self.streams.get(stream) else { return Vec::new() };
        let (legacy, blocking) = (entry.kind == StreamKind::Legacy, entry.flags & STREAM_NON_BLOCKING == 0);
        let comes_before = |other: &super::handles::Stream| {
            let meets = if legacy { other.flags & STREAM_NON_BLOCKING == 0 } else { other.kind == StreamKind::Legacy };
            other.context == entry.context && blocking && meets
        };
        self.streams.iter().filter(|(handle, other)| *handle == stream || comes_before(other)).map(|(h, _)| h).collect()
    }

    /// When a stream comes to what is submitted now.
    pub fn ready(&self, stream: usize) -> Instant {
        let before = self.before(stream);
        let times = before.iter().filter_map(|stream| self.streams.get(*stream).and_then(|stream| stream.ready));
        times.fold(self.host_time(), Instant::max)
    }

    /// A stream goes on from then, or later.
    pub fn go_on(&mut self, stream: usize, from: Instant) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.ready = Some(stream.ready.map_or(from, |ready| ready.max(from)));
        }
    }

    /// Does a stream's work, and reckons its time.
    pub fn timed<T>(&mut self, stream: usize, work: impl FnOnce(&mut Driver) -> T) -> T {
        let (from, began) = (self.ready(stream), Instant::now());
        let done = work(self);
        let took = began.elapsed();
        self.hidden += took;
        self.go_on(stream, from + took);
        done
    }

    /// The functions of the host that a stream is behind.
    pub fn pending(&self, stream: usize) -> Vec<Arc<Pending>> {
        let of = |stream: usize| self.streams.get(stream).map_or(&[][..], |stream| &stream.pending);
        self.before(stream).into_iter().flat_map(of).filter(|pending| pending.done().is_none()).cloned().collect()
    }

    /// The same for all streams of a context.
    pub fn pending_in(&self, context: usize) -> Vec<Arc<Pending>> {
        let own = self.streams.iter().filter(|(_, stream)| stream.context == context);
        own.flat_map(|(_, stream)| &stream.pending).filter(|pending| pending.done().is_none()).cloned().collect()
    }

    /// A stream is behind these as well.
    pub fn comes_after(&mut self, stream: usize, pending: &[Arc<Pending>]) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.pending.retain(|pending| pending.done().is_none());
            stream.pending.extend_from_slice(pending);
        }
    }

    /// When the work of a context that was submitted is done.
    pub fn context_ready(&self, context: usize) -> Instant {
        let own = self.streams.iter().filter(|(_, stream)| stream.context == context);
        own.filter_map(|(_, stream)| stream.ready).fold(self.host_time(), Instant::max)
    }
}

/// The driver, once a stream is behind no function of the host.
pub fn unblocked(mut driver: Guard, stream: usize) -> Outcome<Guard> {
    loop {
        let pending = driver.pending(stream);
        if pending.is_empty() {
            return Ok(driver);
        }
        drop(driver);
        wait_for(&pending);
        driver = lock()?;
    }
}

/// Runs a function of the host in a stream that is behind no other.
pub fn call_host(mut driver: Guard, stream: usize, call: impl FnOnce() + Send + 'static) -> Outcome<Guard> {
    let pending = Arc::new(Pending::default());
    driver.comes_after(stream, std::slice::from_ref(&pending));
    drop(driver);
    let here = pending.clone();
    let started = std::thread::Builder::new().name("host function".into()).spawn(move || {
        call_back(call);
        here.finish();
    });
    if started.is_err() {
        pending.finish();
        return fail(ERROR_OUT_OF_MEMORY, "no thread for a function of the host");
    }
    pending.wait(Some(PATIENCE));
    lock()
}
