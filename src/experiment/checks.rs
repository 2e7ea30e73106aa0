//! Sanity checks of a run's attack: verdicts with the numbers behind them.
//!
//! Source: Carlini et al. 2019; Tramer et al. 2020; Pintor et al. 2022.

use serde::Serialize;

use super::finished::Finished;
use super::records::Found;
use super::results::{self, Channel};
use super::settings::Score;
use super::trials::{Trial, Trials};
use crate::attack::{Norm, Outcome};
use crate::report::eps_label;
use crate::stats::sign_test;

/// Worst last, but for what was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    #[serde(rename = "not run")]
    NotRun,
    #[serde(rename = "pass")]
    Pass,
    #[serde(rename = "warn")]
    Warn,
    #[serde(rename = "fail")]
    Fail,
}

/// One check over all models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What passes.
    pub rule: String,
    pub verdict: Verdict,
    /// The numbers, a line per model.
    pub numbers: Vec<String>,
}

fn check(name: &'static str, rule: impl Into<String>, found: Vec<(Verdict, String)>) -> Check {
    let verdict = found.iter().map(|(verdict, _)| *verdict).max().unwrap_or(Verdict::NotRun);
    Check { name, rule: rule.into(), verdict, numbers: found.into_iter().map(|(_, numbers)| numbers).collect() }
}

fn not_run(why: &str) -> Vec<(Verdict, String)> {
    vec![(Verdict::NotRun, why.to_owned())]
}

/// Paired: how surprising it is that `more` images went the wrong way and `fewer` the right way.
fn surprise(more: u64, fewer: u64) -> Verdict {
    match sign_test(more, fewer) {
        p if p < 0.01 => Verdict::Fail,
        p if p < 0.05 => Verdict::Warn,
        _ => Verdict::Pass,
    }
}

/// All checks, those of the records first.
pub fn all(run: &Finished, trials: Option<&Trials>) -> Vec<Check> {
    let mut checks = vec![budget(run), clean(run), monotone(run), large_listed(run), silent(run), adaptive(run)];
    let per_model = |judge: &dyn Fn(&Trial, u64) -> (Verdict, String)| match trials {
        Some(trials) => {
            let line = |trial| {
                let (verdict, numbers) = judge(trial, trials.n);
                (verdict, format!("{}: {numbers}", trial.model))
            };
            trials.models.iter().map(line).collect()
        }
        None => not_run("needs trials.json, which a sweep leaves behind unless --no-checks is given"),
    };
    let at = trials.map_or(String::new(), |t| format!(" ({} images, eps {})", t.n, eps_label(t.eps)));
    checks.push(check("the loss rises with steps", format!("each longer run of equal steps ends at a higher mean loss; the last doubling breaks under 1 image in 16 more{at}"), per_model(&trace)));
    checks.push(check("the largest budget reaches 0", "where every image can be made grey, at most the share of the largest class stays right (linf 0.5, or its L2 counterpart)", per_model(&grey)));
    checks.push(check(
        "restarts never weaken the attack",
        format!("three restarts leave no more right than one; under 1 image in 16 less{at}"),
        per_model(&restarts),
    ));
    checks.push(check(
        "many steps beat one",
        format!("the attack leaves no more right than a single step of size eps{at}"),
        per_model(&single),
    ));
    checks.push(check(
        "the gradient is not masked",
        "at most 1 % of the gradients at clean images are zero (5 %: fail), none below 1e-12 or not finite",
        per_model(&gradient),
    ));
    checks
}

/// The names of failed checks after which no accuracy may stand alone.
pub fn failed(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| check.name).collect()
}

fn outcomes(run: &Finished, cell: usize) -> impl Iterator<Item = &Outcome> {
    run.found[cell].iter().filter_map(|found| match found {
        Some(Found::Attacked(outcome)) => Some(outcome),
        _ => None,
    })
}

/// One line per model over its undefended cells.
fn undefended(run: &Finished, judge: impl Fn(&[usize]) -> Option<(Verdict, String)>) -> Vec<(Verdict, String)> {
    let names = run.config.models.iter().enumerate();
    let found = names.filter_map(|(model, named)| {
        let cells: Vec<usize> =
            run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, Channel::Undefended, eps)).collect();
        judge(&cells).map(|(verdict, numbers)| (verdict, format!("{}: {numbers}", named.name)))
    });
    found.collect()
}

fn budget(run: &Finished) -> Check {
    let found = undefended(run, |cells| {
        let (n, over) = cells.iter().fold((0, 0), |(n, over), &c| (n + run.cells[c].n, over + run.cells[c].violations));
        Some((
            if over == 0 { Verdict::Pass } else { Verdict::Fail },
            format!("{over} of {n} perturbations over budget"),
        ))
    });
    check(
        "perturbations stay within their budget",
        "none exceeds eps by more than rounding, and all pixels lie in [0, 1]",
        found,
    )
}

fn clean(run: &Finished) -> Check {
    let found = undefended(run, |cells| {
        let &cell = cells.iter().find(|&&c| run.cells[c].eps == 0.0)?;
        let other = outcomes(run, cell).filter(|o| o.prediction != o.clean_prediction).count();
        let verdict = if other == 0 { Verdict::Pass } else { Verdict::Fail };
        Some((verdict, format!("{other} of {} predictions differ", run.cells[cell].n)))
    });
    let found = if found.is_empty() { not_run("needs eps 0 in the sweep") } else { found };
    check("without a budget nothing changes", "at eps 0 every prediction is that of the clean image", found)
}

fn monotone(run: &Finished) -> Check {
    let mut found = Vec::new();
    for (model, named) in run.config.models.iter().enumerate() {
        let mut worst = (Verdict::Pass, 1.0, "no larger eps leaves more images right".to_owned());
        for channel in results::channels(&run.config) {
            for pair in run.config.attack.eps.windows(2) {
                let (Some(small), Some(large)) = (run.cell(model, channel, pair[0]), run.cell(model, channel, pair[1]))
                else {
                    continue;
                };
                let (mut gained, mut lost) = (0, 0);
                for image in 0..run.ids.len() {
                    match (run.correct(small, image), run.correct(large, image)) {
                        (Some(false), Some(true)) => gained += 1,
                        (Some(true), Some(false)) => lost += 1,
                        _ => {}
                    }
                }
                let p = sign_test(gained, lost);
                if gained > lost && p < worst.1 {
                    let what = format!(
                        "{}: {gained} images right at eps {} but not at {}, {lost} the other way, p {p:.3}",
                        super::paired::label(channel),
                        eps_label(pair[1]),
                        eps_label(pair[0])
                    );
                    worst = (surprise(gained, lost), p, what);
                }
            }
        }
        found.push((worst.0, format!("{}: {}", named.name, worst.2)));
    }
    check(
        "accuracy falls with eps",
        "no larger eps leaves significantly more images right (paired; warn p < .05, fail p < .01)",
        found,
    )
}

fn large_listed(run: &Finished) -> Check {
    let (limit, norm) = (16.0 / 255.0, run.config.attack.norm);
    let found = undefended(run, |cells| {
        let &cell = cells.last().filter(|&&c| norm == Norm::Linf && run.cells[c].eps >= limit - 3e-3)?;
        let of = &run.cells[cell];
        let share = 100.0 * of.any as f64 / of.n.max(1) as f64;
        let verdict = if share <= 1.0 {
            Verdict::Pass
        } else if share <= 5.0 {
            Verdict::Warn
        } else {
            Verdict::Fail
        };
        Some((verdict, format!("{:.1} % ({} of {}) right at eps {}", share, of.any, of.n, eps_label(of.eps))))
    });
    let found = if found.is_empty() { not_run("needs a linf sweep up to 16/255") } else { found };
    check(
        "the largest eps of the sweep breaks the classifier",
        "undefended, at most 1 % right at about 16/255 (linf)",
        found,
    )
}

fn silent(run: &Finished) -> Check {
    let found = undefended(run, |cells| {
        let counts =
            cells.iter().map(|&c| (run.cells[c].last - run.cells[c].any.min(run.cells[c].last), &run.cells[c]));
        let (lost, cell) = counts.max_by_key(|(lost, _)| *lost)?;
        let share = 100.0 * lost as f64 / cell.n.max(1) as f64;
        let verdict = if share > 1.0 && run.config.score == Score::Last { Verdict::Warn } else { Verdict::Pass };
        Some((verdict, format!("at most {share:.1} % ({lost} of {}), at eps {}", cell.n, eps_label(cell.eps))))
    });
    check(
        "no success is lost at the last step",
        "at most 1 % of the images are broken by an iterate but not by the last; beyond, report any iterate",
        found,
    )
}

fn adaptive(run: &Finished) -> Check {
    let name = "the attack through the defence is the stronger one";
    let rule = "it leaves no more right than the transferred attack (paired; warn p < .05, fail p < .01)";
    if !run.config.defense.attack {
        return check(
            name,
            rule,
            not_run("needs --attack-through defense: defended accuracies here are under a non-adaptive attack"),
        );
    }
    let mut found = Vec::new();
    for (model, named) in run.config.models.iter().enumerate() {
        let (mut more, mut fewer) = (0, 0);
        for &sigma in &run.config.defense.sigma {
            for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
                let cell = |through| run.cell(model, Channel::Denoised { sigma, through }, eps);
                let (Some(blind), Some(through)) = (cell(false), cell(true)) else { continue };
                for image in 0..run.ids.len() {
                    match (run.correct(blind, image), run.correct(through, image)) {
                        (Some(false), Some(true)) => more += 1,
                        (Some(true), Some(false)) => fewer += 1,
                        _ => {}
                    }
                }
            }
        }
        found.push((
            surprise(more, fewer),
            format!("{}: it alone breaks {fewer}, the transferred attack alone {more} (all cells)", named.name),
        ));
    }
    check(name, rule, found)
}

fn trace(trial: &Trial, n: u64) -> (Verdict, String) {
    let losses: Vec<f64> = std::iter::once(trial.clean_loss).chain(trial.trace.iter().map(|t| t.1)).collect();
    let range = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max) - trial.clean_loss;
    let falls = !losses.windows(2).all(|pair| pair[1] >= pair[0] - 0.02 * range.abs());
    let rises = losses.last().is_some_and(|&last| last > trial.clean_loss);
    let last: Vec<u64> = trial.trace.iter().rev().take(2).map(|t| t.2).collect();
    let broken = last.get(1).zip(last.first()).map_or(0, |(before, after)| before.saturating_sub(*after));
    let verdict = match (rises, falls || 16 * broken > n) {
        (false, _) => Verdict::Fail,
        (true, true) => Verdict::Warn,
        (true, false) => Verdict::Pass,
    };
    let points: Vec<String> =
        trial.trace.iter().map(|(steps, loss, right)| format!("{steps}: {loss:.3} ({right} right)")).collect();
    (verdict, format!("mean loss {:.3} clean, after steps {}", trial.clean_loss, points.join(", ")))
}

fn grey(trial: &Trial, n: u64) -> (Verdict, String) {
    let verdict = if trial.large_correct == 0 || trial.large_correct <= trial.largest_class {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    (
        verdict,
        format!(
            "{} of {n} right at eps {}; the largest class has {}",
            trial.large_correct,
            eps_label(trial.large_eps),
            trial.largest_class
        ),
    )
}

fn restarts(trial: &Trial, n: u64) -> (Verdict, String) {
    match trial.restarts {
        None => (Verdict::NotRun, "needs a random start".into()),
        Some([one, three]) => {
            let verdict = if three > one {
                Verdict::Fail
            } else if 16 * (one - three) > n {
                Verdict::Warn
            } else {
                Verdict::Pass
            };
            (verdict, format!("{one} of {n} right after one, {three} after three"))
        }
    }
}

fn single(trial: &Trial, n: u64) -> (Verdict, String) {
    let [one, many] = trial.single_step;
    (
        if many <= one { Verdict::Pass } else { Verdict::Fail },
        format!("{one} of {n} right after one step, {many} after the attack"),
    )
}

fn gradient(trial: &Trial, n: u64) -> (Verdict, String) {
    let verdict = match trial {
        t if t.not_finite > 0 || 20 * t.zero > n => Verdict::Fail,
        t if 100 * t.zero > n || t.tiny > 0 => Verdict::Warn,
        _ => Verdict::Pass,
    };
    (
        verdict,
        format!(
            "{} of {n} zero, {} below 1e-12, {} not finite; median length 1e{:.1}",
            trial.zero, trial.tiny, trial.not_finite, trial.median_log10
        ),
    )
}
