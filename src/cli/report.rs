//! `rampart report`: a page or tables from runs that are there already.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;

use super::common::say;
use crate::files::write_whole;
use crate::number::eps_label;
use crate::report::{checks, page, paired, summary, words};
use crate::run::ledger::Ledger;
use crate::run::results;
use crate::run::rundir::RunDir;
use crate::stats::wilson;
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
}

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Run directories; several are compared side by side
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
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
    let runs = args.runs.iter().map(|dir| Ledger::read(dir)).collect::<Result<Vec<_>>>()?;
    let text = match (args.format, runs.as_slice()) {
        (Format::Html, [run]) => page::of_run(run)?,
        (Format::Html, runs) => page::of_runs(runs)?,
        (Format::Csv, runs) => csv(runs)?,
        (Format::Json, runs) => json(runs)?,
        (Format::Markdown, runs) => markdown(runs)?,
    };
    match (&args.out, args.format, args.runs.as_slice()) {
        (Some(file), ..) => {
            write_whole(file, text.as_bytes())?;
            say(&file.display().to_string())
        }
        (None, Format::Html, [dir]) => {
            RunDir::beside(dir)?.write("report.html", text.as_bytes())?;
            say(&dir.join("report.html").display().to_string())
        }
        _ => say(text.trim_end()),
    }
}

fn rows(run: &Ledger, name: &str) -> Result<Vec<Row>> {
    let verdict = checks::summed(&checks::of_run(run)?);
    let row = |cell| results::Row::new(&run.config, &run.dataset, &run.device, cell, &verdict);
    Ok(run.cells.iter().map(|cell| Row { run: name.to_owned(), cell: row(cell) }).collect())
}

fn csv(runs: &[Ledger]) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("csv: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["run"].iter().chain(&results::Row::COLUMNS)).map_err(|e| failed(&e))?;
    let names = words::names(runs);
    let all = runs.iter().zip(&names).map(|(run, name)| rows(run, name)).collect::<Result<Vec<_>>>()?;
    for row in all.into_iter().flatten() {
        let fields = row.cell.fields();
        writer.write_record([&row.run].into_iter().chain(&fields)).map_err(|e| failed(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn json(runs: &[Ledger]) -> Result<String> {
    let names = words::names(runs);
    let view = |(run, name): (&Ledger, &String)| {
        let what: serde_json::Map<_, _> =
            page::what(run).into_iter().map(|fact| (fact.name, fact.value.into())).collect();
        let (cells, checks) = (rows(run, name)?, checks::of_run(run)?);
        Ok(serde_json::json!({
            "run": name, "what": what, "checks": checks, "cells": cells, "paired": paired::models(run)
        }))
    };
    let views = runs.iter().zip(&names).map(view).collect::<Result<Vec<_>>>()?;
    let value = serde_json::json!({ "runs": views, "paired": paired::runs(runs) });
    serde_json::to_string_pretty(&value).map_err(|e| Error::Failed(format!("json: {e}")))
}

/// A table per run: a row per curve, a column per epsilon.
fn markdown(runs: &[Ledger]) -> Result<String> {
    let mut lines = Vec::new();
    for (run, name) in runs.iter().zip(words::names(runs)) {
        let series = summary::all_series(run);
        let eps = summary::epsilons(&series);
        lines.push(format!("**{name}**: accuracy in % [Wilson 95 % interval], n = {}\n", words::images(run)));
        let cells = |first: &str, rest: Vec<String>| format!("| {first} | {} |", rest.join(" | "));
        lines.push(cells("ε", eps.iter().map(|&eps| eps_label(eps)).collect()));
        lines.push(cells("---", vec!["---".into(); eps.len()]));
        for s in &series {
            let at = |&eps: &f64| {
                let Some(p) = s.points.iter().find(|p| p.eps == eps) else { return "–".into() };
                let interval = wilson(p.correct, p.n);
                format!("{:.1} [{:.1}, {:.1}]", 100.0 * p.accuracy(), 100.0 * interval.lo, 100.0 * interval.hi)
            };
            lines.push(cells(&s.name, eps.iter().map(at).collect()));
        }
        let checks = checks::of_run(run)?;
        lines.push(format!("\n{}\n", checks::in_words(&checks)));
    }
    Ok(lines.join("\n"))
}
