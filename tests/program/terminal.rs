//! The program on a terminal: a bar, what is told above it, and Ctrl-C.
#![cfg(unix)]

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::place::{Place, SMALL};

/// The program with its stderr on a terminal of 120 columns.
struct OnTerminal {
    child: Child,
    parts: Receiver<String>,
    seen: String,
}

impl OnTerminal {
    fn start(place: &Place, args: &str) -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both numbers are written before they are read, and the size outlives the call.
        let opened = unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: openpty has just made them, and nobody else owns them.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        let child = place.command(args).env("TERM", "xterm").stderr(theirs).spawn().unwrap();
        let (send, parts) = channel();
        thread::spawn(move || {
            let (mut ours, mut part) = (ours, [0; 4096]);
            // A terminal whose last writer has gone ends in an error.
            while let Ok(n @ 1..) = ours.read(&mut part) {
                let _ = send.send(String::from_utf8_lossy(&part[..n]).into_owned());
            }
        });
        OnTerminal { child, parts, seen: String::new() }
    }

    /// Reads until these words are there.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let begin = Instant::now();
        while !self.seen.contains(words) {
            match self.parts.recv_timeout(Duration::from_secs(60)) {
                Ok(part) => self.seen.push_str(&part),
                Err(e) => panic!("{e}: no `{words}` in\n{}", self.seen),
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "no `{words}` in\n{}", self.seen);
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.seen.extend(self.parts.iter());
        (status, self.seen)
    }
}

fn slow() -> String {
    format!("batch = 2\n{}", SMALL.replace("steps = 3", "steps = 20").replace("limit = 20", "limit = 8"))
}

#[test]
fn a_terminal_sees_how_far_a_batch_is_and_each_finished_cell() {
    let place = Place::new();
    place.write("small.toml", slow());
    // A tenth of a run as small as this is too little for any check.
    let run = OnTerminal::start(&place, "sweep --config small.toml --checks-budget 5 --out run");
    let (status, seen) = run.end();
    assert!(status.success(), "{seen}");
    for words in ["/22", "denoise at 0.25", "/24 images", "images/s", "sanity checks", "strips, samples and maps"] {
        assert!(seen.contains(words), "no `{words}` in\n{seen}");
    }
    // Above the bar, on lines of their own.
    let cells: Vec<&str> = seen.lines().filter(|line| line.contains("of 8: ")).collect();
    assert_eq!(cells.len(), 3, "{seen}");
    assert!(cells[0].contains("eps 0") && cells[2].contains("eps 0.01"), "{cells:?}");
}

#[test]
fn ctrl_c_says_how_to_go_on_and_nothing_is_lost() {
    let place = Place::new();
    place.write("small.toml", slow());
    let mut run = OnTerminal::start(&place, "sweep --config small.toml --no-checks --out run$1");
    // Not every step is shown.
    run.wait_for("eps 0.005  attack ");
    // SAFETY: a plain system call; the child has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(run.child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let (status, seen) = run.end();
    assert_eq!(status.code(), Some(130), "{seen}");
    let last = seen.trim_end().lines().last().unwrap();
    let (_, words) = last.split_once("Go on with: rampart ").unwrap_or_else(|| panic!("{seen}"));
    assert!(seen.ends_with('\n'), "{seen:?}");

    let words = shlex::split(words).unwrap().join(" ");
    let before = place.records("run$1").len();
    assert!(before < 48, "{before} records before it was interrupted");
    place.run(&format!("{words} --no-checks")).ok();
    place.run("sweep --config small.toml --no-checks --out whole").ok();
    assert_eq!(place.records("run$1"), place.records("whole"));
}
