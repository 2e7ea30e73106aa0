//! What a reader should know first, in words: what fell, what came back, and whether to believe it.

use serde::Serialize;

use super::super::checks::{Check, Verdict};
use super::super::mark::Mark;
use super::super::words::{count, list, percent, symbol};
use crate::attack::Target;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::results::{Cell, Channel, Under};

#[derive(Serialize)]
pub(super) struct Lead {
    fell: String,
    came_back: String,
    believe: String,
    /// The worst verdict, as the style sheet knows it.
    verdict: &'static str,
}

#[cfg(test)]
impl Lead {
    pub(super) fn verdict(&self) -> &str {
        self.verdict
    }
}

pub(super) fn lead(run: &Ledger, checks: &[Check], mark: &Mark, unfinished: bool) -> Lead {
    let (believe, verdict) = believe(checks, unfinished);
    let eps = run.config.attack.middle_eps();
    Lead {
        fell: mark.before(eps.map_or("Nothing was attacked: every budget is 0.".into(), |eps| fell(run, eps))),
        came_back: mark.before(eps.map_or(String::new(), |eps| came_back(run, eps))),
        believe,
        verdict,
    }
}

/// The cells of all models in a channel that have records.
fn cells(run: &Ledger, channel: Channel, eps: f64) -> Vec<&Cell> {
    let found = (0..run.config.models.len()).filter_map(|model| run.cell(model, channel, eps));
    found.map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0).collect()
}

/// Every model's share, or where they are many the lowest and the highest.
fn shares(run: &Ledger, cells: &[&Cell], beside: impl Fn(&Cell) -> String) -> String {
    let share = |cell: &Cell| percent(cell.correct(run.config.score), cell.n);
    let name = |cell: &Cell| match run.config.models.len() {
        1 => String::new(),
        _ => format!(" for {}", run.config.models[cell.model].name),
    };
    let said = |cell: &&Cell| format!("{}{}{}", share(cell), name(cell), beside(cell));
    if cells.len() <= 3 {
        return list(&cells.iter().map(said).collect::<Vec<_>>());
    }
    let rate = |cell: &&&Cell| cell.correct(run.config.score) as f64 / cell.n as f64;
    let lowest = cells.iter().min_by(|a, b| rate(a).total_cmp(&rate(b)));
    let highest = cells.iter().max_by(|a, b| rate(a).total_cmp(&rate(b)));
    let ends: Vec<String> = [lowest, highest].into_iter().flatten().map(said).collect();
    format!("between {}", list(&ends))
}

fn fell(run: &Ledger, eps: f64) -> String {
    let attack = &run.config.attack;
    let found = cells(run, Channel::Undefended, eps);
    let Some(first) = found.first() else { return "No image is attacked yet.".into() };
    let clean = |cell: &Cell| format!(" ({} when clean)", percent(cell.clean, cell.n));
    let aim = if attack.targeted == Target::None { "" } else { ", targeted," };
    let of = format!(" % of {} right", count(first.n as usize, "image"));
    format!(
        "Undefended, {}{aim} within ε = {} ({}) leaves {}.",
        attack.method.to_uppercase(),
        eps_label(eps),
        symbol(attack.norm),
        shares(run, &found, clean).replacen(" %", &of, 1),
    )
}

fn came_back(run: &Ledger, eps: f64) -> String {
    let sigmas = &run.config.defense.sigma;
    if sigmas.is_empty() {
        return "No defence was measured.".into();
    }
    let right = |sigma: f64| -> u64 {
        let found = cells(run, Channel::Denoised { sigma, under: Under::Transferred }, eps);
        found.iter().map(|cell| cell.correct(run.config.score)).sum()
    };
    // The first of equals.
    let Some(&sigma) = sigmas.iter().rev().max_by_key(|&&sigma| right(sigma)) else { return String::new() };
    let found = cells(run, Channel::Denoised { sigma, under: Under::Transferred }, eps);
    if found.is_empty() {
        return "Nothing is denoised yet.".into();
    }
    let chosen = if sigmas.len() > 1 { format!(", the best of {} here", sigmas.len()) } else { String::new() };
    let nothing = |_: &Cell| String::new();
    let way = if run.config.defense.noise_alone() { "Under noise alone" } else { "Denoised first" };
    let back = format!("{way} (σ = {sigma}{chosen}), {} are right", shares(run, &found, nothing));
    // The suite is the stronger of the two.
    let defense = &run.config.defense;
    let (under, which) = match defense.suite {
        true => (Under::Worst, "the worst of the attacks that go through the denoiser"),
        false if defense.is_blind() => {
            (Under::Through, "an attack that is blind to the denoiser and only scored behind it, a non-adaptive number")
        }
        false => (Under::Through, "an attack that goes through the denoiser"),
    };
    let through = cells(run, Channel::Denoised { sigma, under }, eps);
    match (defense.attack || defense.suite, through.is_empty()) {
        (true, false) => format!("{back}, but {} under {which}.", shares(run, &through, nothing)),
        (true, true) => format!("{back}; the attack through the denoiser is still to come."),
        (false, _) => {
            format!(
                "{back}, against an attack that does not know of the denoiser: these are non-adaptive numbers, and one that does may leave far less."
            )
        }
    }
}

fn believe(checks: &[Check], unfinished: bool) -> (String, &'static str) {
    let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let named = |verdict| {
        let names = checks.iter().filter(|check| check.verdict == verdict).map(|check| format!("“{}”", check.title()));
        list(&names.collect::<Vec<_>>())
    };
    let (passed, warn, fail, not_run) = (of(Verdict::Pass), of(Verdict::Warn), of(Verdict::Fail), of(Verdict::NotRun));
    let rest = if not_run > 0 { format!(", {not_run} not run") } else { String::new() };
    let (words, verdict) = match (fail, warn, passed) {
        (1.., ..) => (
            format!(
                "Do not quote these accuracies alone: of the attack’s sanity checks {} failed.",
                named(Verdict::Fail)
            ),
            "fail",
        ),
        (0, 1.., _) => (
            format!(
                "Quote with care: {} of the attack’s sanity checks pass{rest}, but {} warns.",
                passed,
                named(Verdict::Warn)
            ),
            "warn",
        ),
        (0, 0, 0) => ("Nothing tells yet whether the attack works: no sanity check was run.".into(), "warn"),
        (0, 0, _) if not_run > passed => {
            (format!("Quote with care: only {passed} of the attack’s sanity checks pass{rest}."), "warn")
        }
        _ => (
            format!(
                "The attack works as far as {passed} sanity checks can tell{rest}: quote its numbers with their intervals."
            ),
            "pass",
        ),
    };
    if unfinished {
        (format!("The run is not finished. {words}"), if fail > 0 { "fail" } else { "warn" })
    } else {
        (words, verdict)
    }
}
