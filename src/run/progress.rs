//! How far a run is: a bar on a terminal, a line per cell elsewhere. Everything goes to stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Counts images of all cells together.
pub(super) struct Progress {
    bar: ProgressBar,
    /// When this process began, and how many images were done by then: a resumed run does not count them as its speed.
    begin: Instant,
    already: u64,
}

impl Progress {
    pub fn new(total: u64, already: u64) -> Self {
        if already > 0 {
            note(format_args!("resuming: {already} of {total} images were done before"));
        }
        let bar = ProgressBar::new(total).with_position(already);
        let template = "{msg}  {wide_bar} {human_pos}/{human_len} images  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &indicatif::ProgressState, f: &mut dyn std::fmt::Write| {
                let _ = write!(f, "{:.1} images/s", state.per_sec());
            };
            bar.set_style(style.with_key("per_sec", rate).progress_chars("=> "));
        }
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress { bar, begin: Instant::now(), already }
    }

    /// Announces the cell whose images come next.
    pub fn cell(&self, name: String) {
        self.bar.set_message(name);
    }

    pub fn advance(&self, images: usize) {
        self.bar.inc(images as u64);
    }

    /// Reports a cell that is done; `result` says what came out.
    pub fn cell_done(&self, result: &str) {
        if !self.bar.is_hidden() {
            return;
        }
        let done = self.bar.position();
        let rate = (done - self.already) as f64 / self.begin.elapsed().as_secs_f64().max(1e-9);
        let left = self.bar.length().unwrap_or(done).saturating_sub(done);
        let seconds = if left == 0 { 0.0 } else { left as f64 / rate.max(1e-9) };
        note(format_args!("{}  {result}  {rate:.1} images/s  {} left", self.bar.message(), duration(seconds)));
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
    use super::duration;

    #[test]
    fn durations_read_well() {
        assert_eq!([0.4, 59.4, 59.6, 125.0, 10925.0].map(duration), ["0s", "59s", "1m00s", "2m05s", "3h02m"]);
    }
}
