//! Ctrl-C: the bar is taken away, and the way to go on is said. Records are on disk batch by batch, so nothing else is left to do.

use std::sync::{Mutex, Once, PoisonError};

use super::progress;

/// The status of a program that SIGINT ended, as shells count: 128 + 2.
#[cfg(unix)]
const INTERRUPTED: i32 = 130;

/// What is said when the user stops the program now.
static WORDS: Mutex<Option<String>> = Mutex::new(None);

/// Until it is dropped, its words are the last that an interrupted program says.
pub(super) struct Words;

pub(super) fn says(words: String) -> Words {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(listen);
    *WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    Words
}

impl Drop for Words {
    fn drop(&mut self) {
        *WORDS.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A program that cannot listen is interrupted as any other: without a word.
#[cfg(unix)]
fn listen() {
    use signal_hook::consts::SIGINT;
    use signal_hook::iterator::Signals;

    let Ok(mut signals) = Signals::new([SIGINT]) else { return };
    let _ = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        if signals.forever().next().is_some() {
            progress::clear();
            let words = WORDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(words) = words {
                progress::note(words);
            }
            // Without destructors: kernels are still running.
            signal_hook::low_level::exit(INTERRUPTED);
        }
    });
}

#[cfg(not(unix))]
fn listen() {}
