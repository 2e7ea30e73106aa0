//! Signals and time limits. Ctrl-C ends the program at once: the bar is taken away, and the way to go on is said. SIGTERM and SIGUSR1, which
//! schedulers send before they take a machine away, and a time limit end it between two batches. Records are on disk batch by batch, so
//! nothing else is left to do.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::progress;
use crate::error::{Error, Result};

/// The status of a program that SIGINT ended, as shells count: 128 + 2.
#[cfg(unix)]
const INTERRUPTED: i32 = 130;

/// What is said when the user stops the program now.
static WORDS: Mutex<Option<String>> = Mutex::new(None);
/// The signal that asked for an end, 0 without one.
static ASKED: AtomicI32 = AtomicI32::new(0);
/// Whether somebody looks at `ASKED` after each batch.
static HEEDED: AtomicBool = AtomicBool::new(false);
static LIMITS: Mutex<Option<Limits>> = Mutex::new(None);

/// When to leave off, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Seconds that the process may take.
    pub until: Option<f64>,
    /// The exit code when a signal or the limit ended it.
    pub on_preempt: u8,
}

/// Until it is dropped, its words are the last that an interrupted program says.
pub(super) struct Words;

pub(super) fn says(words: String) -> Words {
    listen();
    *WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    Words
}

impl Drop for Words {
    fn drop(&mut self) {
        *WORDS.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// From here on SIGTERM and SIGUSR1 end the program with the code that the limits say.
pub fn heed(limits: Limits) {
    *LIMITS.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
    listen();
}

fn code() -> u8 {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default().on_preempt
}

/// Batches that follow each other. While there are some, signals wait for the end of one; elsewhere everything is made again by whoever goes
/// on, and they end the program at once.
pub(super) struct Batches {
    begun: Instant,
    last: Instant,
    longest: Duration,
}

impl Batches {
    pub fn begin() -> Batches {
        HEEDED.store(true, Ordering::SeqCst);
        let now = Instant::now();
        Batches { begun: now, last: now, longest: Duration::ZERO }
    }

    /// A batch is done and on the disk.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a signal came, or where another batch as long as the longest so far would end behind the time limit.
    pub fn done(&mut self) -> Result<()> {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        let why = match ASKED.load(Ordering::SeqCst) {
            0 => {
                let limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
                let end = started(self.begun).elapsed() + self.longest;
                match limits.until {
                    Some(until) if end.as_secs_f64() > until => {
                        format!("--until {until}: the next batch would end later")
                    }
                    _ => return Ok(()),
                }
            }
            signal => format!("stopped by {}", name(signal)),
        };
        let words = WORDS.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Err(Error::Stopped { words: format!("{why}; {words}"), code: code() })
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        HEEDED.store(false, Ordering::SeqCst);
    }
}

/// When this process began to listen, which is before it loads anything; else `other`.
fn started(other: Instant) -> Instant {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(other)
}

static STARTED: Mutex<Option<Instant>> = Mutex::new(None);

#[cfg(unix)]
fn name(signal: i32) -> &'static str {
    if signal == signal_hook::consts::SIGUSR1 { "SIGUSR1" } else { "SIGTERM" }
}

#[cfg(not(unix))]
fn name(_: i32) -> &'static str {
    "a signal"
}

fn listen() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        *STARTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        listener();
    });
}

/// A program that cannot listen is interrupted as any other: without a word.
#[cfg(unix)]
fn listener() {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;

    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGUSR1]) else { return };
    let _ = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        for signal in signals.forever() {
            if signal != SIGINT && HEEDED.load(Ordering::SeqCst) {
                // The first of several is told.
                if ASKED.swap(signal, Ordering::SeqCst) == 0 {
                    progress::note(format!("{}: leaving off after this batch", name(signal)));
                }
                continue;
            }
            progress::clear();
            let words = WORDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(words) = words {
                let why = if signal == SIGINT { "interrupted" } else { name(signal) };
                progress::note(format!("{why}; {words}"));
            }
            // Without destructors: kernels are still running.
            signal_hook::low_level::exit(if signal == SIGINT { INTERRUPTED } else { code().into() });
        }
    });
}

#[cfg(not(unix))]
fn listener() {}
