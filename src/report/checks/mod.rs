//! Sanity checks of a run's attack: verdicts with the numbers and the images behind them. A new one is a file and a row of the table.
//!
//! Source: Carlini et al. 2019; Tramer et al. 2020; Pintor et al. 2022; the flags of Croce & Hein's AutoAttack.

mod ablation;
mod adaptive;
mod autoattack;
mod batches;
mod black_box;
mod bpda;
mod budget;
mod certificate;
mod check;
mod clamped;
mod clean_accuracy;
mod differences;
mod eot;
mod finding;
mod fixed_noise;
mod gradients;
mod large;
mod monotone;
mod null;
mod planted;
mod precision;
mod random_search;
mod restarts;
mod rounding;
mod scale;
mod seen;
mod silent;
mod single_step;
mod steps;
mod trace;
mod unchanged;
mod words;

pub use self::check::Check;
use self::check::Row;
pub use self::finding::{Finding, Verdict};
use self::seen::Seen;
pub use self::words::{Verdicts, brief, failed, in_words, summed, verdicts};
use crate::Result;
use crate::run::ledger::Ledger;
use crate::run::rundir::stored;
use crate::run::trials::Trials;

/// Every check there is.
static TABLE: [Row; 32] = [
    clean_accuracy::ROW,
    budget::ROW,
    unchanged::ROW,
    monotone::ROW,
    large::ROW,
    single_step::ROW,
    steps::ROW,
    restarts::ROW,
    black_box::ROW,
    random_search::ROW,
    gradients::ROW,
    differences::ROW,
    scale::ROW,
    eot::ROW,
    fixed_noise::ROW,
    null::ROW,
    bpda::ROW,
    adaptive::ROW,
    certificate::ROW,
    trace::ROW,
    silent::ROW,
    rounding::ROW,
    batches::ROW,
    precision::ROW,
    planted::WEAKNESS,
    clamped::ROW,
    planted::ACTIVE,
    ablation::ROW,
    autoattack::ANSWERS,
    autoattack::LOGITS,
    autoattack::SLOPE,
    autoattack::CLASSES,
];

/// All checks of a run, with the trials that lie in its directory.
///
/// # Errors
/// [`crate::Error::File`] and [`crate::Error::Io`] for trials that cannot be read.
pub fn of_run(run: &Ledger) -> Result<Vec<Check>> {
    let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
    Ok(all(run, trials.as_ref()))
}

/// All checks, in the order of the table.
pub fn all(run: &Ledger, trials: Option<&Trials>) -> Vec<Check> {
    let seen = Seen { run, trials };
    TABLE
        .iter()
        .map(|row| {
            let found = (row.judge)(&seen);
            let verdict = found.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::NotRun);
            Check { id: row.id, name: row.name, rule: row.rule, verdict, found }
        })
        .collect()
}
