//! What attacks through the defence add: one beside the transferred attack, and the adaptive suite.

use super::words::{count, deciding, percent};
use crate::defense::suite::SUITE;
use crate::draw::table;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::results::{Cell, Channel, Under};

/// One sentence per model: how much an attack that does not know of the defence overstates it.
pub(super) fn adaptive(run: &Ledger) -> Option<String> {
    let Ledger { config, cells, .. } = run;
    if !config.defense.attack || config.defense.is_blind() {
        return None;
    }
    let share = |cell: &Cell| 100.0 * cell.correct(config.score) as f64 / cell.n.max(1) as f64;
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let pairs = cells.iter().filter(|c| c.model == model).filter_map(|cell| {
            let Channel::Denoised { sigma, under: Under::Through } = cell.channel else { return None };
            let channel = Channel::Denoised { sigma, under: Under::Transferred };
            let other = cells.iter().find(|c| c.model == model && c.eps == cell.eps && c.channel == channel)?;
            // Half of a cell is of other images than the whole of the other.
            (cell.n > 0 && cell.n == other.n).then(|| (share(other) - share(cell), sigma, cell, other))
        });
        let Some((gap, sigma, cell, other)) = pairs.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        let eps = eps_label(cell.eps);
        lines.push(if gap > 0.0 {
            format!(
                "{}: at eps {eps}, sigma {sigma} the attack through the defence leaves {:.1} % right where the transferred one leaves \
                 {:.1} %: an attack on the undefended model alone overstates this defence by {gap:.1} points.",
                named.name,
                share(cell),
                share(other)
            )
        } else {
            format!("{}: the attack through the defence finds nothing that the transferred one does not.", named.name)
        });
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

/// The adaptive suite, a table for every sigma: what each attack leaves, and their worst case image by image, whose score is told in three
/// ways; and for each model which attack decides.
pub(super) fn suite(run: &Ledger) -> Option<(String, Vec<String>)> {
    let Ledger { config, .. } = run;
    let defense = &config.defense;
    if !defense.suite {
        return None;
    }
    let eps = &config.attack.eps;
    let share = |part: u64, whole: u64| {
        if whole == 0 { String::new() } else { format!("{:.1}", 100.0 * part as f64 / whole as f64) }
    };
    let (mut tables, mut decided) = (Vec::new(), Vec::new());
    for &sigma in &defense.sigma {
        let mut lines = vec![format!(
            "adaptive suite at sigma {sigma}: images right in %, {} of {}; {} draws a step, {} to choose a point, others to score it",
            defense.vote(),
            count(defense.draws() as usize, "draw"),
            defense.eot(),
            defense.selection()
        )];
        lines.push(table::row(SUITE_NAMES, "eps", eps.iter().map(|&eps| eps_label(eps))));
        for (model, named) in config.models.iter().enumerate() {
            lines.push(named.name.clone());
            let mut row = |name: &str, channel: Channel, value: &dyn Fn(&Cell) -> String| {
                let of =
                    |&eps: &f64| run.cell(model, channel, eps).map(|cell| value(&run.cells[cell])).unwrap_or_default();
                lines.push(table::row(SUITE_NAMES, &format!("  {name}"), eps.iter().map(of)));
            };
            let under = |under| Channel::Denoised { sigma, under };
            let right = |cell: &Cell| share(cell.correct(config.score), cell.n);
            row(&format!("undefended, {}", config.attack.label()), Channel::Undefended, &right);
            row("a0-transferred: knows of no defence", under(Under::Transferred), &right);
            for (number, attack) in SUITE.iter().enumerate().filter(|(_, attack)| !attack.fixed) {
                row(
                    &format!("{}: {}", attack.name(defense.aa_compat), attack.help),
                    under(Under::Member(number)),
                    &right,
                );
            }
            row("worst of a0 to a5", under(Under::Worst), &right);
            row("  a single draw", under(Under::Worst), &|cell| share(cell.correct_draws, cell.draws));
            row("  every draw", under(Under::Worst), &|cell| share(cell.any, cell.n));
            for (number, attack) in SUITE.iter().enumerate().filter(|(_, attack)| attack.fixed) {
                row(
                    &format!("{}: {}", attack.name(defense.aa_compat), attack.help),
                    under(Under::Member(number)),
                    &right,
                );
            }
            decided.extend(decides(run, model, sigma));
        }
        tables.push(lines.join("\n") + "\n");
    }
    Some((tables.join("\n"), decided))
}

/// Width of the names of a suite's attacks.
const SUITE_NAMES: usize = 64;

/// Which attack of the suite is the strongest at the middle epsilon, and what it decides.
fn decides(run: &Ledger, model: usize, sigma: f64) -> Option<String> {
    let config = &run.config;
    let eps = config.attack.middle_eps()?;
    let cell = |channel| run.cell(model, channel, eps).map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0);
    let under = |under| cell(Channel::Denoised { sigma, under });
    let right = |cell: &Cell| cell.correct(config.score);
    let share = |cell: &Cell| percent(right(cell), cell.n);
    let members = SUITE.iter().enumerate().filter(|(_, attack)| !attack.fixed);
    let found = members
        .filter_map(|(number, attack)| Some((attack.name(config.defense.aa_compat), under(Under::Member(number))?)));
    let blind = under(Under::Transferred).map(|cell| ("a0-transferred".to_owned(), cell));
    let found: Vec<(String, &Cell)> = blind.into_iter().chain(found).collect();
    let strongest = found.iter().map(|(_, cell)| *cell).min_by_key(|cell| right(cell))?;
    let equal = found.iter().filter(|(_, cell)| right(cell) == right(strongest));
    let (name, decides, leaves) = deciding(&equal.map(|(name, _)| name.clone()).collect::<Vec<_>>());
    let (worst, transferred) = (under(Under::Worst)?, under(Under::Transferred)?);
    let null = run.cell(model, worst.channel, 0.0).map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0);
    let clean = null.map_or(String::new(), |cell| format!("; of clean images {} are right so", share(cell)));
    Some(format!(
        "{}: at eps {}, sigma {sigma} {name} {decides}: {leaves} {} right, the worst case of all {}, the transferred attack {}{clean}.",
        config.models[model].name,
        eps_label(eps),
        share(strongest),
        share(worst),
        share(transferred)
    ))
}
