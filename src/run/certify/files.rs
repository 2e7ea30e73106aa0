//! What a certification leaves in its folder, `certify/` of the run. The same draws make the same bytes, but for the times in the tables.

use serde::Serialize;

use super::super::rundir::RunDir;
use super::certified::{Cell, Certification, Certified};
use super::tsv;
use crate::config::Config;
use crate::config::settings::Procedure;
use crate::{Error, Result};

/// A line of `certify/certified.jsonl`.
#[derive(Serialize)]
struct Of<'a> {
    model: &'a str,
    sigma: f64,
    alpha: f64,
    #[serde(flatten)]
    certified: &'a Certified,
}

/// The name of a table, without what stands behind the point. Bounds that hold at every n are labelled.
pub fn name(config: &Config, cell: &Cell) -> String {
    let label = match &config.certify {
        Some(certify) if certify.procedure == Procedure::Predict => "-predict",
        Some(certify) if !certify.radius.is_empty() => "-anytime",
        _ => "",
    };
    format!("certify/{}-sigma-{}{label}", cell.model, cell.sigma)
}

/// The published table of one model and sigma.
pub(super) fn write_cell(dir: &RunDir, config: &Config, cell: &Cell) -> Result<()> {
    let Some(certify) = &config.certify else { return Ok(()) };
    dir.write(
        &format!("{}.tsv", name(config, cell)),
        tsv::table(cell, certify.procedure, certify.tsv_rounding).as_bytes(),
    )
}

/// All tables, and every image with its votes and its exact radius.
///
/// # Errors
/// [`Error::Io`].
pub fn write(dir: &RunDir, config: &Config, found: &Certification) -> Result<()> {
    let Some(certify) = &config.certify else { return Ok(()) };
    let mut lines = Vec::new();
    for cell in &found.cells {
        write_cell(dir, config, cell)?;
        for certified in &cell.images {
            let line = Of { model: &cell.model, sigma: cell.sigma, alpha: certify.alpha, certified };
            serde_json::to_writer(&mut lines, &line).map_err(|e| Error::Failed(format!("certified.jsonl: {e}")))?;
            lines.push(b'\n');
        }
    }
    dir.write("certify/certified.jsonl", &lines)
}
