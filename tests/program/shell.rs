//! What the program gives to a shell: completions and manual pages, from the same text as `--help`.

use std::process::{Command, Output};

fn rampart(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rampart")).args(args).output().expect("the program starts")
}

fn text(args: &[&str]) -> String {
    let out = rampart(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn completions_know_subcommands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&["completions", shell]);
        for word in ["rampart", "sweep", "parity", "emulator-seed", "completions"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    // bash itself completes with it.
    let script = text(&["completions", "bash"]);
    let ask = "COMP_WORDS=(rampart swe); COMP_CWORD=1; _rampart rampart swe rampart; echo ${COMPREPLY[*]}";
    let out = Command::new("bash").args(["-c", &format!("{script}\n{ask}")]).output().expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "sweep", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let program = text(&["man"]);
    assert!(program.contains(".TH rampart 1"), "{program}");
    let help = text(&["--help"]);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    // A name stands two columns in; what is further in continues a description.
    let names = listed.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").collect();
    assert!(names.len() >= 10 && names.contains(&"sweep"), "{names:?}");
    for name in names {
        let page = text(&["man", name]);
        assert!(page.contains(&format!(".TH rampart-{name} 1")) && page.contains(".SH SYNOPSIS"), "{name}: {page}");
        assert!(program.contains(&format!("rampart\\-{name}(1)")), "{name} in the page of the program");
    }
}

#[test]
fn a_manual_page_that_does_not_exist_is_told_what_there_is() {
    let out = rampart(&["man", "swep"]);
    let problem = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{problem}");
    assert!(problem.contains("swep") && problem.contains("sweep, "), "{problem}");
}
