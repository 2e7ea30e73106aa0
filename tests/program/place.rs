//! The program in a folder of its own.
#![allow(dead_code, reason = "every test takes what it needs")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rampart");

/// One model, 20 images and an attack strong enough to be wrong about some of them.
pub const SMALL: &str = "limit = 20\n[defense]\nsigma = [0.25]\n[[models]]\nweights = \"demo:resnet50-cbam-w16\"\n[attack]\neps = [0, 0.005, 0.01]\nsteps = 3\n";

/// The first line of a file of records.
pub fn is_header(line: &str) -> bool {
    line.starts_with("{\"settings\":")
}

pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Ended with `code` and a message on stderr, from the program and not from a panic, that holds all of `parts`.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{}| {part}", self.stderr);
        }
    }
}

/// A folder that the program runs in, on the host.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `sweep` takes its device from elsewhere when `args` name one.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.0.path()).args(args.split_whitespace());
        if (args.starts_with("sweep") || args.starts_with("certify")) && !args.contains("--device") {
            command.args(["--device", "host"]);
        }
        command
    }

    pub fn run(&self, args: &str) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The records of a run directory in an order of their own: which image came first depends on where a run stopped.
    pub fn records(&self, run: &str) -> Vec<String> {
        let text = self.read(&format!("{run}/records.jsonl"));
        let mut lines: Vec<String> = text.lines().filter(|line| !is_header(line)).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    pub fn results(&self, run: &str) -> String {
        self.read(&format!("{run}/results.csv"))
    }
}
