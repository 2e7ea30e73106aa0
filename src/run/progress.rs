//! How far a run is: a bar on a terminal, a line per cell elsewhere. Everything goes to stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Counts images of all cells together.
pub(super) struct Progress {
    bar: ProgressBar,
    speed: Speed,
}

/// What this process did since it began: what an earlier one left is not its speed.
#[derive(Clone, Copy)]
struct Speed {
    begin: Instant,
    already: u64,
}

impl Speed {
    /// Images per second, once there are any.
    fn rate(self, done: u64, elapsed: Duration) -> Option<f64> {
        let own = done.saturating_sub(self.already);
        (own > 0).then(|| own as f64 / elapsed.as_secs_f64().max(1e-9))
    }

    /// `12.3 images/s  2m05s left`; nothing before the first batch is done.
    fn words(self, done: u64, total: u64, elapsed: Duration) -> String {
        match self.rate(done, elapsed) {
            None => "no batch is done yet".into(),
            Some(rate) => {
                let left = duration(total.saturating_sub(done) as f64 / rate);
                format!("{rate:.1} images/s  {left} left")
            }
        }
    }
}

impl Progress {
    pub fn new(total: u64, already: u64) -> Self {
        if already > 0 {
            note(format_args!("resuming: {already} of {total} images were done before"));
        }
        let speed = Speed { begin: Instant::now(), already };
        let bar = ProgressBar::new(total).with_position(already);
        let template = "{msg}  {wide_bar} {human_pos}/{human_len} images  {speed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let words = move |state: &indicatif::ProgressState, f: &mut dyn std::fmt::Write| {
                let total = state.len().unwrap_or(state.pos());
                let _ = f.write_str(&speed.words(state.pos(), total, speed.begin.elapsed()));
            };
            bar.set_style(style.with_key("speed", words).progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress { bar, speed }
    }

    /// Announces the cell whose images come next.
    pub fn cell(&self, name: String) {
        self.bar.set_message(name);
    }

    pub fn advance(&self, images: usize) {
        self.bar.inc(images as u64);
    }

    /// Reports a cell that is done, above the bar where there is one; `result` says what came out.
    pub fn cell_done(&self, result: &str) {
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let speed = self.speed.words(done, total, self.speed.begin.elapsed());
        let line = format!("{}  {result}  {speed}", self.bar.message());
        if self.bar.is_hidden() { note(line) } else { self.bar.println(line) }
    }
}

/// The next message, an error above all, begins on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Tells the user what is going on. A log on a full disk is no reason to stop.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `9s`, `2m05s`, `3h02m`.
fn duration(seconds: f64) -> String {
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
        let speed = Speed { begin: Instant::now(), already: 900 };
        assert_eq!(speed.words(900, 1000, Duration::from_secs(1)), "no batch is done yet");
        assert_eq!(speed.words(920, 1000, Duration::from_secs(10)), "2.0 images/s  40s left");
        assert_eq!(speed.words(1000, 1000, Duration::from_secs(50)), "2.0 images/s  0s left");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!([0.4, 59.4, 59.6, 125.0, 10925.0].map(duration), ["0s", "59s", "1m00s", "2m05s", "3h02m"]);
    }
}
