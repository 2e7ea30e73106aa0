//! `rampart report`: a page or tables from runs that are there already.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;

use super::say;
use crate::experiment::finished::Finished;
use crate::experiment::rundir::{RunDir, write_whole};
use crate::experiment::{page, paired};
use crate::report::eps_label;
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

/// One cell as a row.
#[derive(Serialize)]
struct Row {
    run: String,
    model: String,
    dataset: String,
    attack: String,
    norm: String,
    eps: f64,
    sigma: Option<f64>,
    channel: u8,
    n: u64,
    correct: u64,
    /// none without a record
    accuracy: Option<f64>,
    ci_low: Option<f64>,
    ci_high: Option<f64>,
    seed: u64,
    device: String,
    precision: String,
}

/// # Errors
/// [`Error::Usage`] for a folder that is no run, [`Error::File`] for a damaged one, [`Error::Io`].
pub fn run(args: &Args) -> Result<()> {
    if args.format == Format::Html && args.out.is_none() && args.runs.len() > 1 {
        return Err(Error::usage("--out", "expected a file for the page of several runs, as in --out compare.html"));
    }
    let runs = args.runs.iter().map(|dir| Finished::read(dir)).collect::<Result<Vec<_>>>()?;
    let text = match (args.format, runs.as_slice()) {
        (Format::Html, [run]) => page::of_run(run)?,
        (Format::Html, runs) => page::of_runs(runs)?,
        (Format::Csv, runs) => csv(runs)?,
        (Format::Json, runs) => json(runs)?,
        (Format::Markdown, runs) => markdown(runs),
    };
    match (&args.out, args.format, args.runs.as_slice()) {
        (Some(file), ..) => {
            write_whole(file, text.as_bytes())?;
            say(&file.display().to_string())
        }
        (None, Format::Html, [dir]) => {
            RunDir::open(Some(dir), "", true)?.write("report.html", text.as_bytes())?;
            say(&dir.join("report.html").display().to_string())
        }
        _ => say(text.trim_end()),
    }
}

fn rows(run: &Finished) -> Vec<Row> {
    let config = &run.config;
    let row = |cell: &crate::experiment::results::Cell| {
        let correct = cell.correct(config.score);
        let interval = wilson(correct, cell.n);
        Row {
            run: run.name(),
            model: config.models[cell.model].name.clone(),
            dataset: run.dataset.clone(),
            attack: cell.channel.attack(config),
            norm: config.attack.norm.to_string(),
            eps: cell.eps,
            sigma: cell.channel.sigma(),
            channel: cell.channel.number(),
            n: cell.n,
            correct,
            accuracy: (cell.n > 0).then(|| correct as f64 / cell.n as f64),
            ci_low: (cell.n > 0).then_some(interval.lo),
            ci_high: (cell.n > 0).then_some(interval.hi),
            seed: config.seed,
            device: run.device.clone(),
            precision: config.precision.to_string(),
        }
    };
    run.cells.iter().map(row).collect()
}

fn csv(runs: &[Finished]) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("csv: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in runs.iter().flat_map(rows) {
        writer.serialize(row).map_err(|e| failed(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn json(runs: &[Finished]) -> Result<String> {
    let views: Vec<serde_json::Value> = runs
        .iter()
        .map(|run| {
            let what: serde_json::Map<_, _> = page::what(run).into_iter().map(|(k, v)| (k, v.into())).collect();
            serde_json::json!({ "run": run.name(), "what": what, "cells": rows(run), "paired": paired::models(run) })
        })
        .collect();
    let value = serde_json::json!({ "runs": views, "paired": paired::runs(runs) });
    serde_json::to_string_pretty(&value).map_err(|e| Error::Failed(format!("json: {e}")))
}

/// A table per run: a row per curve, a column per epsilon.
fn markdown(runs: &[Finished]) -> String {
    let mut lines = Vec::new();
    for run in runs {
        let series = run.series();
        let mut eps: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.eps)).collect();
        eps.sort_by(f64::total_cmp);
        eps.dedup();
        let n = run.ids.len();
        lines.push(format!(
            "**{}**: accuracy in % [Wilson 95 % interval], n = {n} images of {}\n",
            run.name(),
            run.dataset
        ));
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
        lines.push(String::new());
    }
    lines.join("\n")
}
