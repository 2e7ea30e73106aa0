//! How far a run is: a bar on a terminal, a line per cell elsewhere. Everything goes to stderr.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::device::nvtx;
use crate::shown::plain;

/// Every bar there is, so that a message above them breaks none.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How often a bar is drawn anew though nothing happened: the seconds go on.
const TICK: Duration = Duration::from_millis(500);

/// Told how far a batch is: what is done to it, parts done, parts in all where that is known.
pub type Watch = Arc<dyn Fn(&str, u64, Option<u64>) + Send + Sync>;

/// One that tells nobody.
pub fn unwatched() -> Watch {
    Arc::new(|_, _, _| {})
}

/// Counts images of all cells together.
pub(super) struct Progress {
    bar: ProgressBar,
    speed: Arc<Mutex<Speed>>,
    cell: Arc<Mutex<String>>,
}

/// What this process did in the last batches: neither what an earlier process left nor the fast cells of long ago are its speed.
#[derive(Debug)]
struct Speed {
    /// Seconds since the start, and images done, at the end of each batch.
    ends: VecDeque<(f64, u64)>,
}

/// Batches, or seconds if these are more, that the speed is taken over.
const RECENT: (usize, f64) = (4, 20.0);

impl Speed {
    fn new(already: u64) -> Self {
        Speed { ends: VecDeque::from([(0.0, already)]) }
    }

    fn batch(&mut self, seconds: f64, done: u64) {
        self.ends.push_back((seconds, done));
        while self.ends.len() > RECENT.0 + 1 && seconds - self.ends[1].0 >= RECENT.1 {
            self.ends.pop_front();
        }
    }

    /// Images per second, once there are any. A batch that takes longer than those before slows it while it lasts.
    fn rate(&self, now: f64) -> Option<f64> {
        let (first, last) = (self.ends.front()?, self.ends.back()?);
        let batches = self.ends.len() - 1;
        let usual = (last.0 - first.0) / batches.max(1) as f64;
        let end = if now - last.0 > usual { now - usual } else { last.0 };
        (last.1 > first.1).then(|| (last.1 - first.1) as f64 / (end - first.0).max(1e-9))
    }

    /// `12.3 images/s  2m05s left`; nothing before the first batch is done.
    fn words(&self, done: u64, total: u64, now: f64) -> String {
        match self.rate(now) {
            None => "no batch is done yet".into(),
            Some(rate) => {
                let left = duration(total.saturating_sub(done) as f64 / rate);
                format!("{rate:.1} images/s  {left} left")
            }
        }
    }
}

fn held<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    pub fn new(total: u64, already: u64) -> Self {
        if already > 0 {
            note(format_args!(
                "resuming: {already} of {total} images were done before, each counted once per network and budget"
            ));
        }
        let speed = Arc::new(Mutex::new(Speed::new(already)));
        let bar = BARS.add(ProgressBar::new(total).with_position(already));
        let template = "{msg}  {wide_bar} {human_pos}/{human_len} images  {speed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let speed = speed.clone();
            let words = move |state: &indicatif::ProgressState, f: &mut dyn std::fmt::Write| {
                let total = state.len().unwrap_or(state.pos());
                let _ = f.write_str(&held(&speed).words(state.pos(), total, state.elapsed().as_secs_f64()));
            };
            bar.set_style(style.with_key("speed", words).progress_chars("=> "));
        }
        // The bar starts a thread for it, and panics where the system refuses one.
        if !bar.is_hidden() && std::thread::Builder::new().spawn(|| {}).is_ok() {
            bar.enable_steady_tick(TICK);
        }
        Progress { bar, speed, cell: Arc::default() }
    }

    /// Announces the cell whose images come next.
    pub fn cell(&self, name: String) {
        self.bar.set_message(name.clone());
        *held(&self.cell) = name;
    }

    /// Shows what is told beside the name of the cell.
    pub fn watch(&self) -> Watch {
        let (bar, cell) = (self.bar.clone(), self.cell.clone());
        Arc::new(move |what, done, of| bar.set_message(format!("{}  {}", held(&cell), within(what, done, of))))
    }

    pub fn advance(&self, images: usize) {
        self.bar.inc(images as u64);
        held(&self.speed).batch(self.bar.elapsed().as_secs_f64(), self.bar.position());
    }

    /// Reports a cell that is done, above the bar where there is one; `result` says what came out.
    pub fn cell_done(&self, result: &str) {
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let speed = held(&self.speed).words(done, total, self.bar.elapsed().as_secs_f64());
        note(format!("{}  {result}  {speed}", held(&self.cell)));
    }
}

/// The next message, an error above all, begins on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Work without images to count, as pictures and checks are: a line that moves on a terminal, nothing elsewhere.
pub(crate) struct Phase {
    bar: ProgressBar,
    name: &'static str,
    _range: nvtx::Range,
}

impl Phase {
    pub fn new(name: &'static str) -> Self {
        let bar = BARS.add(ProgressBar::new_spinner().with_message(name));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Phase { bar, name, _range: nvtx::range(nvtx::Kind::Phase, name) }
    }

    pub fn watch(&self) -> Watch {
        let (bar, name) = (self.bar.clone(), self.name);
        Arc::new(move |what, done, of| bar.set_message(format!("{name}: {}", within(what, done, of))))
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `attack 12/51`
fn within(what: &str, done: u64, of: Option<u64>) -> String {
    of.map_or_else(|| format!("{what} {done}"), |of| format!("{what} {done}/{of}"))
}

/// Tells the user what is going on, above the bars. A log on a full disk is no reason to stop.
pub(crate) fn note(line: impl Display) {
    BARS.suspend(|| {
        let _ = writeln!(io::stderr(), "{}", plain(&line.to_string()));
    });
}

/// Takes every bar away for good: the program is about to end.
pub(super) fn clear() {
    let _ = BARS.clear();
    BARS.set_draw_target(ProgressDrawTarget::hidden());
}

/// `9s`, `2m05s`, `3h02m`.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_has_the_speed_of_its_own_process() {
        let mut speed = Speed::new(900);
        assert_eq!(speed.words(900, 1000, 1.0), "no batch is done yet");
        speed.batch(10.0, 920);
        assert_eq!(speed.words(920, 1000, 10.0), "2.0 images/s  40s left");
        speed.batch(50.0, 1000);
        assert_eq!(speed.words(1000, 1000, 50.0), "2.0 images/s  0s left");
    }

    #[test]
    fn the_speed_is_that_of_the_last_batches() {
        let mut speed = Speed::new(0);
        // A cell without an attack, then one with: five batches of 100 images, 1 s and 20 s each.
        (1..=5).for_each(|i| speed.batch(f64::from(i), 100 * i as u64));
        assert_eq!(speed.rate(5.0), Some(100.0));
        (1..=5).for_each(|i| speed.batch(5.0 + 20.0 * f64::from(i), 500 + 100 * i as u64));
        assert_eq!(speed.rate(105.0), Some(5.0));
        // Half way through a usual batch nothing changes; one that lasts ten times as long slows it.
        assert_eq!(speed.rate(115.0), Some(5.0));
        assert!(speed.rate(305.0).unwrap() < 2.0);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!([0.4, 59.4, 59.6, 125.0, 10925.0].map(duration), ["0s", "59s", "1m00s", "2m05s", "3h02m"]);
    }
}
