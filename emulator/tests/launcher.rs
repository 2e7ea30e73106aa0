//! `ptx-emu` as a user types it: exit codes, what a program is given, and what a check says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn ptx_emu(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptx-emu"));
    // What a program loads does not matter here: none of these opens it.
    command.env("PTX_EMULATOR_LIBRARY", env!("CARGO_BIN_EXE_ptx-emu")).args(arguments);
    command.output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this test, gone at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let at = std::env::temp_dir().join(format!("ptx-emu-test-{}-{name}", std::process::id()));
        std::fs::write(&at, text).unwrap();
        File(at)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_program_finds_the_driver_under_its_names() {
    let script = "test -e ${LD_LIBRARY_PATH%%:*}/libcuda.so.1 && test -e ${LD_LIBRARY_PATH%%:*}/libcuda.so && \
                  echo $PTX_EMULATOR_MODEL $PTX_EMULATOR_SEED $PTX_EMULATOR_CHECKS; exit 7";
    let done = ptx_emu(&["run", "--model", "h100", "--seed", "3", "--no-checks", "--", "sh", "-c", script]);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(7), "h100 3 0\n".into()), "{}", text(&done.stderr));
}

#[test]
fn findings_fail_a_program_that_succeeds() {
    let kept = File::new("findings", "of an earlier run\n");
    let script = "echo '{}' >> $PTX_EMULATOR_FINDINGS; echo '{}' >> $PTX_EMULATOR_FINDINGS";
    let done = ptx_emu(&["run", "--findings", kept.path(), "sh", "-c", script]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("2 findings"), "{}", text(&done.stderr));
    assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), "{}\n{}\n");
    assert_eq!(ptx_emu(&["run", "true"]).status.code(), Some(0));
    assert_eq!(ptx_emu(&["run", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
}

#[test]
fn wrong_usage_is_2_and_says_the_way_out() {
    for (arguments, words) in [
        (&[][..], "run and check"),
        (&["walk"], "no command walk"),
        (&["run"], "no program"),
        (&["run", "--fast", "true"], "no option --fast"),
        (&["run", "--seed"], "takes a value"),
        (&["check"], "no file"),
        (&["check", "--all", "x.ptx"], "no option --all"),
    ] {
        let done = ptx_emu(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(text(&done.stderr).contains(words), "{arguments:?}: {}", text(&done.stderr));
    }
    let done = ptx_emu(&["run", "/nowhere/to/be/found"]);
    assert!(done.status.code() == Some(1) && text(&done.stderr).contains("/nowhere/to/be/found"));
    assert!(text(&ptx_emu(&["--help"]).stdout).contains("ptx-emu check"));
}

/// A wrong value is refused before the program starts, with what is wrong and what would not be; so is one that it would inherit.
#[test]
fn wrong_values_are_refused_before_the_program_starts() {
    for (option, variable, value, words) in [
        ("--threads", "PTX_EMULATOR_THREADS", "99999999", "1 to 1024"),
        ("--threads", "PTX_EMULATOR_THREADS", "two", "1 to 1024"),
        ("--threads", "PTX_EMULATOR_THREADS", "-1", "1 to 1024"),
        ("--threads", "PTX_EMULATOR_THREADS", "", "1 to 1024"),
        ("--seed", "PTX_EMULATOR_SEED", "x", "0 to 2^64 - 1"),
        ("--seed", "PTX_EMULATOR_SEED", "18446744073709551616", "0 to 2^64 - 1"),
        ("--model", "PTX_EMULATOR_MODEL", "b200", "a100, h100 or rtx5090"),
    ] {
        let done = ptx_emu(&["run", option, value, "--", "echo", "ran"]);
        let said = text(&done.stderr);
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(2), String::new()), "{said}");
        assert!(said.contains(&format!("{option}: {value:?} is not")) && said.contains(words), "{said}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptx-emu"));
        command.env("PTX_EMULATOR_LIBRARY", env!("CARGO_BIN_EXE_ptx-emu")).env(variable, value);
        let done = command.args(["run", "echo", "ran"]).output().unwrap();
        let said = text(&done.stderr);
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(2), String::new()), "{said}");
        assert!(said.contains(&format!("{variable}: {value:?} is not")) && said.contains(words), "{said}");
        // An option goes before the variable.
        let good = if option == "--model" { "h100" } else { "1" };
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptx-emu"));
        command.env("PTX_EMULATOR_LIBRARY", env!("CARGO_BIN_EXE_ptx-emu")).env(variable, value);
        let done = command.args(["run", option, good, "echo", "ran"]).output().unwrap();
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), "ran\n".into()), "{}", text(&done.stderr));
    }
}

#[test]
fn each_command_lists_its_options() {
    let done = ptx_emu(&["run", "--help"]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for option in
        ["--model NAME", "--seed N", "--threads N", "--no-checks", "--counters", "--lints", "--lazy", "--findings FILE"]
    {
        let line = said.lines().find(|line| line.trim_start().starts_with(option)).expect(option);
        assert!(line.len() > option.len() + 20, "{line}");
    }
    assert!(text(&ptx_emu(&["check", "--help"]).stdout).contains("--json"));
    // Behind the program they are the program's.
    assert_eq!(text(&ptx_emu(&["run", "sh", "-c", "echo $0", "--help"]).stdout), "--help\n");
}

#[test]
fn a_check_names_kernel_and_line() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/tile.ptx");
    let done = ptx_emu(&["check", kernels.to_str().unwrap()]);
    assert!(done.status.success() && text(&done.stdout).contains("tile: "), "{}", text(&done.stdout));
    let broken = File::new(
        "broken.ptx",
        ".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"a.cu\"\n.visible .entry good() { ret; }\n\
         .visible .entry bad() {\n.reg .b32 %r;\n.loc 1 42 3\nadd.q32 %r, %r, 1;\nret;\n}\n",
    );
    let done = ptx_emu(&["check", broken.path()]);
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("good: ") && said.contains("PTX line 9") && said.contains("kernel bad, a.cu:42"), "{said}");
    let json = text(&ptx_emu(&["check", "--json", broken.path()]).stdout);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["kernel"], &lines[1]["error"]["line"]), (2, &"bad".into(), &9.into()), "{json}");
    assert_eq!(ptx_emu(&["check", "/nowhere.ptx"]).status.code(), Some(1));
    // A function that no kernel calls, one that a kernel calls, and one with what only a call gives.
    let functions = File::new(
        "functions.ptx",
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .func (.reg .b32 r) lost(.reg .b32 x) {\nadd.q32 r, x, 1;\nret;\n}\n\
         .func (.param .b32 r) fine(.param .b64 p, .reg .v2 .b32 v) {\n.reg .b64 %a; .reg .b32 %b;\nld.param.b64 %a, [p];\n\
         ld.u32 %b, [%a];\nadd.u32 %b, %b, v.y;\nst.param.b32 [r], %b;\nret;\n}\n\
         .func called() { ret; }\n.visible .entry k() { call called; ret; }\n",
    );
    let said = text(&ptx_emu(&["check", functions.path()]).stdout);
    let lost = "function lost, which no kernel calls: PTX line 5: `add.q32`: ";
    assert!(said.contains(lost) && said.contains("; function lost") && !said.contains("called:"), "{said}");
    assert!(said.contains("function fine, which no kernel calls: compiles"), "{said}");
    let json = text(&ptx_emu(&["check", "--json", functions.path()]).stdout);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost = lines.iter().find(|line| line["function"] == "lost").expect("a line of it");
    assert_eq!(
        (lines.len(), &lost["error"]["function"], &lost["error"]["line"]),
        (3, &"lost".into(), &5.into()),
        "{json}"
    );
    let good = std::fs::read_to_string(kernels).unwrap();
    for (name, contents, words) in [
        ("bom.ptx", format!("\u{feff}{good}").into_bytes(), "byte order mark"),
        ("wide.ptx", [0xfeff].into_iter().chain(good.encode_utf16()).flat_map(u16::to_le_bytes).collect(), "UTF-16"),
        ("newer.ptx", good.replacen(".version ", ".version 1", 1).into_bytes(), "there is no .version 1"),
    ] {
        let file = File::new(name, "");
        std::fs::write(file.path(), contents).unwrap();
        let done = ptx_emu(&["check", file.path()]);
        let said = text(&done.stdout) + &text(&done.stderr);
        assert!(done.status.code() == Some(1) && said.contains(words), "{said}");
    }
}
