//! Combined attacks, stage by stage.

use crate::attack::{Outcome, Work, autoattack};
use crate::draw::table;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Channel};

/// What each stage of the combined attacks left standing, in % of the images; nothing for attacks of one stage.
pub(super) fn stages(run: &Ledger) -> Option<String> {
    let undefended = results::shown(&run.config).into_iter().filter(|channel| !channel.is_defended());
    let tables: Vec<String> = undefended.filter_map(|channel| stages_of(run, channel)).collect();
    (!tables.is_empty()).then(|| tables.join("\n"))
}

fn stages_of(run: &Ledger, channel: Channel) -> Option<String> {
    let config = &run.config;
    let spec = match channel {
        Channel::Beside(place) => config.attack.beside.get(place)?,
        _ => &config.attack,
    };
    let stages = autoattack::stages(spec.method);
    if stages.is_empty() {
        return None;
    }
    let mut lines = vec![format!(
        "{}, stage by stage: images that stand after it, in %, and how many went forward / backward through the network",
        spec.label()
    )];
    lines.push(table::row(24, "eps", config.attack.eps.iter().map(|&eps| eps_label(eps))));
    for (model, named) in config.models.iter().enumerate() {
        lines.push(named.name.clone());
        for (number, row) in stages.iter().enumerate() {
            let standing = |&eps: &f64| {
                let cell = run.cell(model, channel, eps)?;
                let (mut n, mut stand) = (0u32, 0u32);
                for found in run.found[cell].iter().flatten() {
                    let Found::Attacked(outcome) = found else { continue };
                    let later = outcome.stage.is_some_and(|broken| usize::from(broken) > number);
                    n += 1;
                    stand += u32::from(outcome.correct_any || outcome.correct_clean && later);
                }
                (n > 0).then(|| format!("{:.1}", 100.0 * f64::from(stand) / f64::from(n)))
            };
            let cells = config.attack.eps.iter().map(|eps| standing(eps).unwrap_or_default());
            lines.push(table::row(24, &format!("  after {}", row.name), cells));
        }
        // Of all images together; a gradient is a pass in both directions.
        for (number, row) in stages.iter().enumerate() {
            let passes = |&eps: &f64| {
                let cell = run.cell(model, channel, eps)?;
                let mut work: Option<Work> = None;
                for found in run.found[cell].iter().flatten() {
                    let Found::Attacked(Outcome { asked: Some(asked), .. }) = found else { continue };
                    *work.get_or_insert_default() += asked.stages().nth(number).unwrap_or_default();
                }
                work.map(|work| format!("{} / {}", work.forwards + work.gradients, work.gradients))
            };
            let cells = config.attack.eps.iter().map(|eps| passes(eps).unwrap_or_default());
            lines.push(table::row(24, &format!("  passes of {}", row.name), cells));
        }
    }
    Some(lines.join("\n") + "\n")
}
