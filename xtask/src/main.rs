//! The project's checks, by stage: `cargo xtask ci` runs them all in order, `cargo xtask STAGE...` some. `cargo xtask op NAME`
//! makes and proves what belongs to one op.

mod op;
mod run;
mod stages;

use std::process::ExitCode;
use std::time::Instant;

use run::Run;
use stages::{STAGES, Stage};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == "op"
    {
        return one_op(rest);
    }
    let wanted = match wanted(&args) {
        Ok(wanted) => wanted,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut run = Run::new();
    let start = Instant::now();
    let mut lines = Vec::new();
    let mut failure = None;
    for stage in &wanted {
        let begin = Instant::now();
        println!("\n=== {}: {}", stage.name, stage.about);
        let result = (stage.run)(&mut run);
        lines.push(format!(
            "{:>6} s  {}{}",
            begin.elapsed().as_secs(),
            stage.name,
            if result.is_err() { "  FAILED" } else { "" }
        ));
        if let Err(message) = result {
            failure = Some(format!("{}: {message}", stage.name));
            break;
        }
    }
    println!("\n=== seconds by stage");
    lines.extend(wanted.iter().skip(lines.len()).map(|stage| format!("     -    {}  not run", stage.name)));
    lines.push(format!("{:>6} s  together", start.elapsed().as_secs()));
    println!("{}\n{}", lines.join("\n"), run.tests());
    match failure {
        None => ExitCode::SUCCESS,
        Some(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn one_op(args: &[String]) -> ExitCode {
    if args.is_empty() || args.iter().any(|arg| arg.starts_with('-')) {
        eprintln!("{}", op::USAGE);
        return ExitCode::from(2);
    }
    match op::op(&mut Run::new(), args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The stages that the arguments name, in the order of the table.
fn wanted(args: &[String]) -> Result<Vec<&'static Stage>, String> {
    if let Some(unknown) = args.iter().find(|arg| *arg != "ci" && STAGES.iter().all(|stage| stage.name != **arg)) {
        return Err(format!("error: no stage `{unknown}`\n\n{}", usage()));
    }
    if args.is_empty() {
        return Err(usage());
    }
    let all = args.iter().any(|arg| arg == "ci");
    Ok(STAGES.iter().filter(|stage| all || args.iter().any(|arg| arg == stage.name)).collect())
}

fn usage() -> String {
    let mut text =
        String::from("usage: cargo xtask ci | STAGE... | op NAME\n\n  ci         all of them, in this order\n");
    for stage in &STAGES {
        text += &format!("  {:<10} {}\n", stage.name, stage.about);
    }
    text + "  op NAME    dumps, PTX, resources and tests of one op; `cargo xtask op` says more\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(args: &[&str]) -> Result<Vec<&'static str>, String> {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        wanted(&args).map(|stages| stages.iter().map(|stage| stage.name).collect())
    }

    #[test]
    fn stages_run_in_the_order_of_the_table() {
        assert_eq!(names(&["test", "lint"]).unwrap(), ["lint", "test"]);
        assert_eq!(names(&["ci"]).unwrap().len(), STAGES.len());
    }

    #[test]
    fn a_wrong_name_is_told_what_there_is() {
        assert!(names(&["tset"]).unwrap_err().contains("no stage `tset`"));
        assert!(names(&[]).unwrap_err().contains("emulated"));
    }
}
