//! Reports what a program never gave back, when a context goes and when the process ends; and then, with counters, what it asked for.

use super::state::{Driver, try_locked};
use super::tally::Tally;
use crate::finding::{Finding, Kind};

impl Driver {
    /// Records the buffers and pinned memory that a context still has. A failed context says nothing of the program: its calls to
    /// free were refused.
    pub fn report_leaks(&mut self, context: usize) {
        if self.panicked || self.contexts.get(context).is_none_or(|context| context.failure.is_some()) {
            return;
        }
        let leaks = self.machines.values().flat_map(|machine| machine.leaks());
        let owned = |leak: &Finding| leak.buffer.is_some_and(|b| self.buffers.get(&b.base) == Some(&context));
        let mut leaks: Vec<Finding> = leaks.filter(owned).collect();
        leaks.extend(self.pinned.iter().filter(|(_, pinned)| pinned.context == context).map(|(at, pinned)| {
            let what = match pinned.layout {
                Some(_) => format!("{} bytes of pinned host memory never freed", pinned.bytes),
                None => format!("{} bytes of host memory still registered", pinned.bytes),
            };
            Finding { address: Some(*at as u64), ..Finding::new(Kind::Leak, what) }
        }));
        leaks.extend(
            self.virtual_memory
                .never_released(context)
                .into_iter()
                .map(|bytes| Finding::new(Kind::Leak, format!("{bytes} bytes of cuMemCreate never released"))),
        );
        for leak in &leaks {
            self.findings.record(leak);
        }
    }
}

/// Runs when the process ends or the library is unloaded.
extern "C" fn at_exit() {
    // A panic here would abort; there is nobody left to tell.
    let _ = std::panic::catch_unwind(|| {
        if let Some(mut driver) = try_locked() {
            let contexts: Vec<usize> = driver.contexts.iter().map(|(handle, _)| handle).collect();
            for context in contexts {
                driver.report_leaks(context);
            }
            // Nobody has asked for it: whoever set the variable reads it here.
            let counting = driver.options.as_ref().is_some_and(|options| options.counters);
            if counting && driver.tally != Tally::default() {
                eprintln!("emulator: the program asked for {}", driver.tally);
            }
        }
    });
}

#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;
