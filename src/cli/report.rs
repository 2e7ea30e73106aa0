//! `rampart report`: a page or tables from runs that are there already.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;

use super::common::{keeps, say};
use crate::files::write_output;
use crate::report::certificate::Certificates;
use crate::report::mark::Mark;
use crate::report::{checks, four, page, paired, tables, words};
use crate::run::ledger::Ledger;
use crate::run::progress::note;
use crate::run::results;
use crate::run::rundir::RunDir;
use crate::{Error, Result};

/// How a report is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// a self-contained page
    Html,
    /// a row per run and cell
    Csv,
    /// cells and paired comparisons
    Json,
    /// a table per run
    Markdown,
    /// the same for a paper
    Latex,
}

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Run directories; several are compared side by side
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
    /// Exit with 1, once all is written, where a check of the attack fails
    #[arg(long)]
    strict: bool,
    /// Where it goes; by default html of one run to its report.html, all else to standard output. Html of several runs needs a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A cell of one of several runs.
#[derive(Serialize)]
struct Row {
    run: String,
    #[serde(flatten)]
    cell: results::Row,
}

/// # Errors
/// [`Error::Usage`] for a folder that is no run, [`Error::File`] for a damaged one, [`Error::Io`].
pub fn run(args: &Args) -> Result<()> {
    if args.format == Format::Html && args.out.is_none() && args.runs.len() > 1 {
        return Err(Error::usage("--out", "expected a file for the page of several runs, as in --out compare.html"));
    }
    if let Some(out) = &args.out {
        let own = args.runs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        keeps(out, "--out", own.map(|entry| entry.path()).filter(|path| is_of_run(path)))?;
    }
    let runs = args.runs.iter().map(|dir| Ledger::read(dir)).collect::<Result<Vec<_>>>()?;
    let text = match (args.format, runs.as_slice()) {
        (Format::Html, [run]) => page::of_run(run)?,
        (Format::Html, runs) => page::of_runs(runs)?,
        (Format::Csv, runs) => csv(runs)?,
        (Format::Json, runs) => json(runs)?,
        (Format::Markdown, runs) => {
            let heading = |name: &str, run: &Ledger| format!("**{}**: {}\n\n", tables::one_line(name), of_what(run));
            tables(runs, tables::markdown, heading, Certificates::markdown)?
        }
        (Format::Latex, runs) => {
            let heading = |name: &str, run: &Ledger| format!("% {}: {}\n", tables::one_line(name), of_what(run));
            tables(runs, tables::latex, heading, Certificates::latex)?
        }
    };
    match (&args.out, args.format, args.runs.as_slice()) {
        (Some(file), ..) => {
            write_output(file, text.as_bytes())?;
            say(&file.display().to_string())?;
        }
        (None, Format::Html, [dir]) => {
            RunDir::beside(dir)?.write("report.html", text.as_bytes())?;
            say(&dir.join("report.html").display().to_string())?;
        }
        _ => say(text.trim_end())?,
    }
    for run in runs.iter().filter(|_| args.strict) {
        if let Some(problem) = Mark::of(&checks::of_run(run)?).note() {
            return Err(Error::Failed(format!("--strict: {}: {problem}", run.dir.display())));
        }
    }
    Ok(())
}

/// Whether a file of a run directory is what the run left, and no page or table of it that is made again.
fn is_of_run(path: &Path) -> bool {
    let ends = |known: &[&str]| path.extension().is_some_and(|end| known.iter().any(|known| end == *known));
    ends(&["toml", "jsonl", "zst", "json"]) || path.file_name().is_some_and(|name| name == "results.csv")
}

fn rows(run: &Ledger, name: &str) -> Result<Vec<Row>> {
    let verdict = checks::summed(&checks::of_run(run)?);
    let verdict = match page::unfinished(run) {
        Some(_) => format!("unfinished; {verdict}"),
        None => verdict,
    };
    let row = |cell| results::Row::new(&run.config, &run.dataset, &run.device, cell, &verdict);
    Ok(run.cells.iter().map(|cell| Row { run: name.to_owned(), cell: row(cell) }).collect())
}

/// Cells of attacks; of runs that only certify, a row per radius.
fn csv(runs: &[Ledger]) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("csv: {e}"));
    let names = words::names(runs);
    let certified = runs.iter().map(Certificates::alone).collect::<Result<Vec<_>>>()?;
    if let (Some(at), true) = (certified.iter().position(Option::is_some), certified.iter().any(Option::is_none)) {
        let problem = format!(
            "csv has one kind of rows, and {} holds certificates alone: ask for it by itself",
            runs[at].dir.display()
        );
        return Err(Error::usage("RUN", problem));
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    if certified.iter().all(Option::is_some) {
        writer.write_record(["run"].iter().chain(&Certificates::COLUMNS)).map_err(|e| failed(&e))?;
        for (name, row) in
            names.iter().zip(certified.iter().flatten()).flat_map(|(n, c)| c.rows().into_iter().map(move |r| (n, r)))
        {
            writer.write_record([name].into_iter().chain(&row)).map_err(|e| failed(&e))?;
        }
    } else {
        for run in runs {
            if Certificates::of_run(run)?.is_some() {
                let file = run.dir.join("certify/curves.csv");
                note(format!(
                    "these are the cells of attacks; the certificates of {} are in {}",
                    run.dir.display(),
                    file.display()
                ));
            }
        }
        writer.write_record(["run"].iter().chain(&results::Row::COLUMNS)).map_err(|e| failed(&e))?;
        let all = runs.iter().zip(&names).map(|(run, name)| rows(run, name)).collect::<Result<Vec<_>>>()?;
        for row in all.into_iter().flatten() {
            let fields = row.cell.fields();
            writer.write_record([&row.run].into_iter().chain(&fields)).map_err(|e| failed(&e))?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn json(runs: &[Ledger]) -> Result<String> {
    let names = words::names(runs);
    let view = |(run, name): (&Ledger, &String)| {
        if let Some(certificates) = Certificates::alone(run)? {
            let what: serde_json::Map<_, _> =
                page::of_certificates(run).into_iter().map(|fact| (fact.name, fact.value.into())).collect();
            return Ok(serde_json::json!({ "run": name, "what": what, "certificates": certificates.json() }));
        }
        let what: serde_json::Map<_, _> =
            page::what(run).into_iter().map(|fact| (fact.name, fact.value.into())).collect();
        let (cells, checks) = (rows(run, name)?, checks::of_run(run)?);
        let certificates = Certificates::of_run(run)?.map(|all| all.json());
        Ok(serde_json::json!({
            "run": name, "unfinished": page::unfinished(run), "what": what, "verdict": checks::summed(&checks), "not_to_be_quoted": Mark::of(&checks),
            "four": four::numbers(run, Mark::of(&checks).sign()), "checks": checks, "cells": cells,
            "paired": paired::models(run), "certificates": certificates
        }))
    };
    let views = runs.iter().zip(&names).map(view).collect::<Result<Vec<_>>>()?;
    let value = serde_json::json!({ "runs": views, "paired": paired::runs(runs), "unpaired": paired::unpaired(runs) });
    serde_json::to_string_pretty(&value).map_err(|e| Error::Failed(format!("json: {e}")))
}

fn of_what(run: &Ledger) -> String {
    format!("{} of {}", Certificates::heading(run).to_lowercase(), tables::one_line(&run.dataset))
}

/// A table per run, by whoever writes one; of a run that only certifies that of its certificates.
fn tables(
    runs: &[Ledger],
    table: fn(&Ledger, &str, &[checks::Check]) -> String,
    heading: fn(&str, &Ledger) -> String,
    certificates: fn(&Certificates) -> String,
) -> Result<String> {
    let names = words::names(runs);
    let of = |(run, name): (&Ledger, &String)| {
        if let Some(alone) = Certificates::alone(run)? {
            return Ok(heading(name, run) + &certificates(&alone));
        }
        let certified = Certificates::of_run(run)?.map_or(String::new(), |all| format!("\n{}", certificates(&all)));
        Ok(table(run, name, &checks::of_run(run)?) + &certified)
    };
    Ok(runs.iter().zip(&names).map(of).collect::<Result<Vec<_>>>()?.join("\n"))
}
