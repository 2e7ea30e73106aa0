//! Commands in the repository's root, told as they start, with what their tests said counted.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

pub type Result<T = ()> = std::result::Result<T, String>;

pub struct Run {
    pub root: PathBuf,
    tests: Tests,
}

/// Sums over the lines that every test binary closes with.
#[derive(Default, Debug, PartialEq)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tests {
    /// Adds `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        for part in counts.1.split("; ") {
            match part.split_once(' ').and_then(|(n, what)| Some((n.parse::<u64>().ok()?, what))) {
                Some((n, "passed")) => self.passed += n,
                Some((n, "failed")) => self.failed += n,
                Some((n, "ignored")) => self.ignored += n,
                _ => {}
            }
        }
    }
}

impl Run {
    pub fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_path_buf();
        Run { root, tests: Tests::default() }
    }

    /// One line over all test binaries that ran, in their own words.
    pub fn tests(&self) -> String {
        let Tests { passed, failed, ignored } = self.tests;
        if passed + failed + ignored == 0 {
            return String::new();
        }
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        format!("test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; over all binaries")
    }

    pub fn tests_passed(&self) -> u64 {
        self.tests.passed
    }

    pub fn command(&self, program: impl AsRef<OsStr>, args: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).args(args.split_whitespace());
        command
    }

    /// The cargo that runs this program.
    pub fn cargo(&self, args: &str) -> Command {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
    }

    pub fn rampart(&self, args: &str) -> Command {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        self.command(self.root.join(target).join("release/rampart"), args)
    }

    /// Runs a command with its stdout on ours; counts what tests say.
    pub fn step(&mut self, command: &mut Command) -> Result {
        self.stream(command, &mut |line| println!("{line}"))
    }

    /// Runs a command and gives what it wrote to stdout, which is shown only where it fails.
    pub fn output(&mut self, command: &mut Command) -> Result<String> {
        let mut text = String::new();
        let result = self.stream(command, &mut |line| text += &format!("{line}\n"));
        if result.is_err() {
            print!("{text}");
        }
        result.map(|()| text)
    }

    /// The last line that a script prints: the path of what it installed.
    pub fn installed(&mut self, script: &str) -> Result<String> {
        let text = self.output(&mut self.command("bash", script))?;
        text.lines().last().map(str::to_owned).ok_or_else(|| format!("`bash {script}` printed no path"))
    }

    fn stream(&mut self, command: &mut Command, each: &mut dyn FnMut(&str)) -> Result {
        let shown = told(command);
        println!("\n$ {shown}");
        let begin = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("`{shown}` could not be started: {e}; is it installed?"))?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).split(b'\n');
        for line in lines {
            let line = line.map_err(|e| format!("`{shown}`: its output cannot be read: {e}"))?;
            let line = String::from_utf8_lossy(&line);
            self.tests.add(&line);
            each(&line);
        }
        let status = child.wait().map_err(|e| format!("`{shown}`: {e}"))?;
        if !status.success() {
            return Err(format!("`{shown}` failed: {status}"));
        }
        println!("({} s)", begin.elapsed().as_secs());
        Ok(())
    }
}

/// A command as one would type it.
fn told(command: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    for (name, value) in command.get_envs() {
        words.push(format!("{}={}", name.display(), value.unwrap_or_default().display()));
    }
    let program = Path::new(command.get_program());
    words.push(program.file_name().unwrap_or_default().display().to_string());
    words.extend(command.get_args().map(|arg| arg.display().to_string()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut tests = Tests::default();
        tests.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s");
        tests.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        tests.add("test ops::test result: ok. 5 passed ... ok");
        assert_eq!(tests, Tests { passed: 14, failed: 4, ignored: 1 });
    }

    #[test]
    fn a_command_that_fails_or_is_missing_is_named() {
        let mut run = Run::new();
        let failed = run.step(&mut run.command("sh", "-c false")).unwrap_err();
        assert!(failed.contains("`sh -c false` failed: exit status: 1"), "{failed}");
        let missing = run.step(&mut run.command("no-such-program", "")).unwrap_err();
        assert!(missing.contains("could not be started"), "{missing}");
    }

    #[test]
    fn output_is_what_was_printed() {
        let mut run = Run::new();
        assert_eq!(run.output(&mut run.command("echo", "a b")).unwrap(), "a b\n");
    }
}
