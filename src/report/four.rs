//! The four numbers that a defence is judged by, clean and attacked, without it and with it; the last of them under a blind and under an
//! adaptive attack.

use serde::Serialize;

use super::words::{self, percent};
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::results::{Cell, Channel, Under};

/// Of one model at one sigma and the middle epsilon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Four {
    pub model: String,
    pub sigma: String,
    pub eps: String,
    /// Images right, in %; `not measured` where there is no record.
    pub clean: String,
    pub clean_defended: String,
    pub attacked: String,
    pub blind: String,
    pub adaptive: String,
}

/// What is said in place of a number.
const MISSING: &str = "not measured";
/// Of a defended number that only a blind attack stands behind.
const BLIND_ONLY: &str = "not run: the number before is non-adaptive";
const BLIND_THROUGH: &str = "not run: the estimator is blind to the defence, and its number non-adaptive";

/// Of every model and sigma; none without a defence or an epsilon above 0. `sign` stands behind each number.
pub fn numbers(run: &Ledger, sign: &str) -> Vec<Four> {
    let config = &run.config;
    let Some(eps) = config.attack.middle_eps() else { return vec![] };
    let mut all = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let cell = |channel, eps| run.cell(model, channel, eps).map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0);
        let share = |cell: Option<&Cell>| {
            let told =
                |cell: &Cell| format!("{}{sign}{}", percent(cell.correct(config.score), cell.n), words::seeds(cell));
            cell.map_or(MISSING.into(), told)
        };
        for &sigma in &config.defense.sigma {
            let behind = |under, eps| cell(Channel::Denoised { sigma, under }, eps);
            let undefended = cell(Channel::Undefended, eps);
            let adaptive = match (config.defense.suite, config.defense.attack) {
                (true, _) => share(behind(Under::Worst, eps)),
                (_, true) if config.defense.is_blind() => BLIND_THROUGH.into(),
                (_, true) => share(behind(Under::Through, eps)),
                _ => BLIND_ONLY.into(),
            };
            all.push(Four {
                model: named.name.clone(),
                sigma: sigma.to_string(),
                eps: eps_label(eps),
                clean: undefended.map_or(MISSING.into(), |cell| format!("{}{sign}", percent(cell.clean, cell.n))),
                clean_defended: share(behind(Under::Transferred, 0.0)),
                attacked: share(undefended),
                blind: share(behind(Under::Transferred, eps)),
                adaptive,
            });
        }
    }
    all
}

/// The same as lines of text.
pub fn text(run: &Ledger, sign: &str) -> Option<String> {
    let all = numbers(run, sign);
    let eps = &all.first()?.eps;
    let mut lines = vec![format!("four numbers at eps {eps}: images right")];
    for four in &all {
        lines.push(format!(
            "{}, sigma {}: clean {} undefended and {} defended; attacked {} undefended, and defended {} (blind, non-adaptive), {} (adaptive)",
            four.model, four.sigma, four.clean, four.clean_defended, four.attacked, four.blind, four.adaptive
        ));
    }
    Some(lines.join("\n") + "\n")
}
