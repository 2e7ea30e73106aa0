//! Functions of the host that may still run.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A function of the host that may still run: when it was done.
#[derive(Default)]
pub struct Pending {
    done: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Pending {
    pub fn done(&self) -> Option<Instant> {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn finish(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.changed.notify_all();
    }

    pub fn wait(&self, at_most: Option<Duration>) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |done: &mut Option<Instant>| done.is_none();
        match at_most {
            Some(time) => drop(self.changed.wait_timeout_while(done, time, running)),
            None => drop(self.changed.wait_while(done, running)),
        }
    }
}
