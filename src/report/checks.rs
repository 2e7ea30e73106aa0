//! Sanity checks of a run's attack: verdicts with the numbers behind them.
//!
//! Source: Carlini et al. 2019; Tramer et al. 2020; Pintor et al. 2022.

use serde::Serialize;

use super::words::{self, p_value, significant};
use crate::Result;
use crate::attack::{Loss, Norm, Outcome, Target, autoattack};
use crate::config::settings::Score;
use crate::defense::suite::SUITE;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Channel, NOT_JUDGED, Under};
use crate::run::rundir::stored;
use crate::run::trials::{Signs, Trial, Trials};
use crate::stats::{holm, sign_test, wilson};

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

/// What was found, or that there was nothing to look at.
fn or_not_run(found: Vec<(Verdict, String)>, why: &str) -> Vec<(Verdict, String)> {
    if found.is_empty() { not_run(why) } else { found }
}

/// All checks of a run, with the trials that lie in its directory.
///
/// # Errors
/// [`crate::Error::File`] and [`crate::Error::Io`] for trials that cannot be read.
pub fn of_run(run: &Ledger) -> Result<Vec<Check>> {
    let trials: Option<Trials> = stored(&run.dir, Trials::FILE)?;
    Ok(all(run, trials.as_ref()))
}

/// All checks, those of the records first.
pub fn all(run: &Ledger, trials: Option<&Trials>) -> Vec<Check> {
    let mut checks =
        vec![budget(run), clean(run), saturated(run), monotone(run), large_listed(run), silent(run), adaptive(run)];
    if run.config.defense.suite {
        checks.extend([exact(run), fixed_noise(run)]);
    }
    let per_model = |judge: &dyn Fn(&Trial, u64) -> (Verdict, String)| match trials {
        Some(trials) => {
            let line = |trial| {
                let (verdict, numbers) = judge(trial, trials.n);
                (verdict, format!("{}: {numbers}", trial.model))
            };
            trials.models.iter().map(line).collect()
        }
        None if run.config.attack.normalised() => not_run("small attacks of their own are made in pixel units only"),
        None if run.config.attack.middle_eps().is_none() => not_run("needs an eps above 0"),
        None => not_run(
            "needs trials.json, which the end of a sweep leaves behind, but not with --no-checks or on the emulated GPU",
        ),
    };
    let at = trials.map_or(String::new(), |t| format!(" ({} images, eps {})", t.n, eps_label(t.eps)));
    let rises = match run.config.attack.targeted {
        Target::None => per_model(&trace),
        _ => not_run("the trials' loss is that of an untargeted attack"),
    };
    checks.push(check("the loss rises with steps", format!("each longer run of equal steps ends at a higher mean loss; the last doubling breaks under 1 image in 16 more{at}"), rises));
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
        "at most 1 % of the gradients at clean images are zero (5 %: fail), none shorter than 10⁻¹² or not finite",
        per_model(&gradient),
    ));
    if !autoattack::stages(run.config.attack.method).is_empty() {
        checks.push(check("the network answers twice the same", "five passes have equally many images right, and their logits, scaled to length 1, lie within 10⁻⁴: else take autoattack-rand", per_model(&twice)));
        checks.push(check(
            "outputs are logits",
            "no image's outputs lie in [0, 1] and sum to 1: losses of probabilities have gradients that vanish",
            per_model(&logits),
        ));
        checks.push(check(
            "APGD begins on a slope",
            format!("no image's gradient of the difference of logits ratio is nothing but zeros at the start{at}"),
            per_model(&slope),
        ));
        checks.push(check("there are classes enough", "apgd-t and fab-t aim at 9 wrong classes", per_model(&classes)));
        checks.push(square(run));
    }
    checks.push(clean_accuracy(run));
    checks
}

/// Images that a search without gradients breaks after all attacks with one, as a share of all, before that is noted (AutoAttack).
const BY_SEARCH: f64 = 0.002;

/// Whether the stages of AutoAttack that follow a gradient left little to the one that does not.
fn square(run: &Ledger) -> Check {
    let name = "square finds nothing new";
    let rule = "where apgd and fab are done, square breaks at most 0.2 % of all images: more hints at masked gradients";
    let stages = autoattack::stages(run.config.attack.method);
    let Some(last) = stages.iter().position(|row| row.name == "square") else {
        return check(name, rule, not_run("has no stage of that name"));
    };
    let mut found = Vec::new();
    for (model, named) in run.config.models.iter().enumerate() {
        for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
            let Some(cell) = run.cell(model, Channel::Undefended, eps) else { continue };
            let outcomes = || {
                run.found[cell].iter().flatten().filter_map(|found| match found {
                    Found::Attacked(outcome) => Some(outcome),
                    Found::Denoised(_) => None,
                })
            };
            let n = outcomes().count();
            let broken = outcomes().filter(|o| o.stage.is_some_and(|stage| usize::from(stage) == last)).count();
            if n > 0 {
                let verdict = if broken as f64 > BY_SEARCH * n as f64 { Verdict::Warn } else { Verdict::Pass };
                found.push((verdict, format!("{}: {broken} of {n} at eps {}", named.name, eps_label(eps))));
            }
        }
    }
    check(name, rule, or_not_run(found, "needs records at an eps above 0"))
}

/// What a trial saw of AutoAttack's warnings, judged; files of older versions have none.
fn of_signs(trial: &Trial, judge: impl Fn(&Signs) -> (bool, String)) -> (Verdict, String) {
    match &trial.signs {
        None => (Verdict::NotRun, "trials.json is of an older version".into()),
        Some(signs) => {
            let (fine, numbers) = judge(signs);
            (if fine { Verdict::Pass } else { Verdict::Warn }, numbers)
        }
    }
}

fn twice(trial: &Trial, n: u64) -> (Verdict, String) {
    of_signs(trial, |signs| {
        let passes: Vec<String> = signs.passes.iter().map(u64::to_string).collect();
        let same = signs.passes.windows(2).all(|pair| pair[0] == pair[1]) && signs.apart <= 1e-4;
        let numbers = format!("{} of {n} right, logits at most {} apart", passes.join(", "), significant(signs.apart));
        (same, numbers)
    })
}

fn logits(trial: &Trial, n: u64) -> (Verdict, String) {
    of_signs(trial, |signs| {
        (signs.probabilities < n, format!("{} of {n} look like probabilities", signs.probabilities))
    })
}

fn slope(trial: &Trial, n: u64) -> (Verdict, String) {
    of_signs(trial, |signs| (signs.flat == 0, format!("{} of {n} have none", signs.flat)))
}

fn classes(trial: &Trial, _: u64) -> (Verdict, String) {
    of_signs(trial, |signs| (signs.classes >= 10, format!("{} classes", signs.classes)))
}

/// Points of accuracy by which the whole interval may lie below what the checkpoint says, before that is noted and before it fails:
/// other decoders and precisions cost less than the one, other classes, sizes and normalisations more than the other.
const BELOW: [f64; 2] = [0.01, 0.05];

/// Whether the models are right without an attack as often as their checkpoints say: what is fed in wrongly shows here first.
pub fn clean_accuracy(run: &Ledger) -> Check {
    let mut found = Vec::new();
    for (model, named) in run.config.models.iter().enumerate() {
        let cells = run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, Channel::Undefended, eps));
        let cell = cells.map(|c| &run.cells[c]).max_by_key(|cell| cell.n).filter(|cell| cell.n > 0);
        let Some((cell, said)) = cell.zip(named.clean_test_accuracy) else { continue };
        let interval = wilson(cell.clean, cell.n);
        let verdict = match said - interval.hi {
            below if below > BELOW[1] => Verdict::Fail,
            below if below > BELOW[0] => Verdict::Warn,
            _ => Verdict::Pass,
        };
        let [share, lo, hi, said] =
            [cell.clean as f64 / cell.n as f64, interval.lo, interval.hi, said].map(|v| 100.0 * v);
        let numbers = format!("{share:.1} % of {} [{lo:.1}, {hi:.1}], the checkpoint says {said:.2} %", cell.n);
        found.push((verdict, format!("{}: {numbers}", named.name)));
    }
    let found = or_not_run(found, "needs a checkpoint that says its clean_test_accuracy");
    check(
        "the clean accuracy is that of the checkpoint (S1)",
        "its 95 % interval does not end more than 1 point (warn) or 5 points (fail) below what the checkpoint says of itself",
        found,
    )
}

/// All checks in one line for tables and exports: how many passed, or the worst verdict and the checks it comes from.
pub fn summed(checks: &[Check]) -> String {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::NotRun);
    let names = || {
        let own = checks.iter().filter(|check| check.verdict == worst).map(|check| check.name);
        own.collect::<Vec<_>>().join("; ")
    };
    match worst {
        Verdict::NotRun => NOT_JUDGED.into(),
        Verdict::Pass => format!("pass: {}", passed(checks)),
        Verdict::Warn => format!("warn: {}", names()),
        Verdict::Fail => format!("fail: {}", names()),
    }
}

/// `7 of 12 checks`: the others could not be run.
fn passed(checks: &[Check]) -> String {
    let passed = checks.iter().filter(|check| check.verdict == Verdict::Pass).count();
    format!("{passed} of {} checks", checks.len())
}

/// The same in sentences, with the numbers behind what did not pass.
pub fn in_words(checks: &[Check]) -> String {
    let of = |verdict: Verdict, word: &str| {
        let own = checks.iter().filter(move |check| check.verdict == verdict);
        own.map(|check| format!("  {word} {}: {}", check.name, check.numbers.join(" · "))).collect::<Vec<_>>()
    };
    let (failed, warned) = (of(Verdict::Fail, "fail"), of(Verdict::Warn, "warn"));
    let head = match (failed.len(), warned.len()) {
        (0, 0) if checks.iter().all(|check| check.verdict == Verdict::NotRun) => {
            "verdict: the attack was not judged".to_owned()
        }
        (0, 0) => format!("verdict: pass, {} of the attack", passed(checks)),
        (0, _) => "verdict: read these accuracies with care".to_owned(),
        _ => "verdict: DO NOT QUOTE these accuracies alone".to_owned(),
    };
    [vec![head], failed, warned].concat().join("\n")
}

/// The names of failed checks after which no accuracy may stand alone.
pub fn failed(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| check.verdict == Verdict::Fail).map(|check| check.name).collect()
}

/// How many have which verdict, the worst first: `1 fail · 10 pass`.
pub fn verdicts(checks: &[Check]) -> String {
    let count = |(verdict, word)| match checks.iter().filter(|check| check.verdict == verdict).count() {
        0 => None,
        n => Some(format!("{n} {word}")),
    };
    let all = [(Verdict::Fail, "fail"), (Verdict::Warn, "warn"), (Verdict::Pass, "pass"), (Verdict::NotRun, "not run")];
    all.into_iter().filter_map(count).collect::<Vec<_>>().join(" · ")
}

fn outcomes(run: &Ledger, cell: usize) -> impl Iterator<Item = &Outcome> {
    run.found[cell].iter().filter_map(|found| match found {
        Some(Found::Attacked(outcome)) => Some(outcome),
        _ => None,
    })
}

/// One line per model over its undefended cells.
fn undefended(run: &Ledger, judge: impl Fn(&[usize]) -> Option<(Verdict, String)>) -> Vec<(Verdict, String)> {
    let names = run.config.models.iter().enumerate();
    let found = names.filter_map(|(model, named)| {
        let cells: Vec<usize> =
            run.config.attack.eps.iter().filter_map(|&eps| run.cell(model, Channel::Undefended, eps)).collect();
        let cells: Vec<usize> = cells.into_iter().filter(|&c| run.cells[c].n > 0).collect();
        if cells.is_empty() {
            return None;
        }
        judge(&cells).map(|(verdict, numbers)| (verdict, format!("{}: {numbers}", named.name)))
    });
    found.collect()
}

fn budget(run: &Ledger) -> Check {
    let found = undefended(run, |cells| {
        let (n, over) = cells.iter().fold((0, 0), |(n, over), &c| (n + run.cells[c].n, over + run.cells[c].violations));
        Some((
            if over == 0 { Verdict::Pass } else { Verdict::Fail },
            format!("{over} of {n} perturbations over budget"),
        ))
    });
    let found = or_not_run(found, "needs records of an attack");
    check(
        "perturbations stay within their budget",
        "none exceeds eps by more than rounding, and all pixels lie in [0, 1]",
        found,
    )
}

fn clean(run: &Ledger) -> Check {
    let found = undefended(run, |cells| {
        let &cell = cells.iter().find(|&&c| run.cells[c].eps == 0.0)?;
        let other = outcomes(run, cell).filter(|o| o.prediction != o.clean_prediction).count();
        let verdict = if other == 0 { Verdict::Pass } else { Verdict::Fail };
        Some((verdict, format!("{other} of {} predictions differ", run.cells[cell].n)))
    });
    let found = or_not_run(found, "needs eps 0 in the sweep");
    check("without a budget nothing changes", "at eps 0 every prediction is that of the clean image", found)
}

/// Images right in the second cell but not in the first, and the other way round; `None` unless both have records.
fn moved(run: &Ledger, first: usize, second: usize) -> Option<(u64, u64)> {
    if run.cells[first].n == 0 || run.cells[second].n == 0 {
        return None;
    }
    let (mut gained, mut lost) = (0, 0);
    for image in 0..run.ids.len() {
        match (run.correct(first, image), run.correct(second, image)) {
            (Some(false), Some(true)) => gained += 1,
            (Some(true), Some(false)) => lost += 1,
            _ => {}
        }
    }
    Some((gained, lost))
}

/// Pairs of cells where more images came to be right than ought to, judged for all of them together (Holm 1979): model, images
/// gained and lost, and which pair.
fn surprises(run: &Ledger, pairs: &[(usize, u64, u64, String)], none: &str) -> Vec<(Verdict, String)> {
    let raw: Vec<f64> =
        pairs.iter().map(|&(_, more, fewer, _)| if more > fewer { sign_test(more, fewer) } else { 1.0 }).collect();
    let adjusted = holm(&raw);
    let mut found = Vec::new();
    for (model, named) in run.config.models.iter().enumerate() {
        let own = pairs.iter().zip(&adjusted).filter(|((m, ..), _)| *m == model);
        let Some(((_, more, fewer, what), &p)) = own.min_by(|a, b| a.1.total_cmp(b.1)) else { continue };
        let verdict = match p {
            p if p < 0.01 => Verdict::Fail,
            p if p < 0.05 => Verdict::Warn,
            _ => Verdict::Pass,
        };
        let numbers = match more > fewer && p < 1.0 {
            true => {
                format!(
                    "{what}: {more} images right against expectation, {fewer} the other way, adjusted p {}",
                    p_value(p)
                )
            }
            false => none.to_owned(),
        };
        found.push((verdict, format!("{}: {numbers}", named.name)));
    }
    found
}

fn monotone(run: &Ledger) -> Check {
    let mut pairs = Vec::new();
    for model in 0..run.config.models.len() {
        for channel in results::shown(&run.config) {
            for eps in run.config.attack.eps.windows(2) {
                let cells = run.cell(model, channel, eps[0]).zip(run.cell(model, channel, eps[1]));
                if let Some((gained, lost)) = cells.and_then(|(small, large)| moved(run, small, large)) {
                    let channel = words::channel(&run.config, channel);
                    let what = format!("{channel}, eps {} after {}", eps_label(eps[1]), eps_label(eps[0]));
                    pairs.push((model, gained, lost, what));
                }
            }
        }
    }
    let found = surprises(run, &pairs, "no larger eps leaves significantly more images right");
    let found = or_not_run(found, "needs records at two epsilons");
    check(
        "accuracy falls with eps",
        "no larger eps leaves significantly more images right (paired, adjusted for all pairs; warn p < .05, fail p < .01)",
        found,
    )
}

fn large_listed(run: &Ledger) -> Check {
    let (levels, norm) = (run.config.dataset.row().map_or(16, |row| row.breaks_at), run.config.attack.norm);
    let limit = f64::from(levels) / 255.0;
    let pixels = !run.config.attack.normalised();
    let found = undefended(run, |cells| {
        let &cell = cells.last().filter(|&&c| pixels && norm == Norm::Linf && run.cells[c].eps >= limit - 3e-3)?;
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
    let found = or_not_run(found, &format!("needs a linf sweep in pixel units up to {levels}/255"));
    check(
        "the largest eps of the sweep breaks the classifier",
        format!("undefended, at most 1 % right at about {levels}/255 (linf)"),
        found,
    )
}

/// A cross-entropy that is exactly 0 in float32 has no gradient: the logits are too far apart for this attack to see anything.
fn saturated(run: &Ledger) -> Check {
    let is_entropy = run.config.attack.loss == Loss::CrossEntropy && run.config.attack.targeted == Target::None;
    let found = undefended(run, |cells| {
        let &cell = cells.iter().rfind(|&&c| run.cells[c].n > 0 && run.cells[c].eps > 0.0 && is_entropy)?;
        let (mut n, mut zero) = (0u64, 0u64);
        for outcome in outcomes(run, cell) {
            n += 1;
            zero += u64::from(outcome.loss == 0.0);
        }
        let verdict = match () {
            () if 20 * zero > n => Verdict::Fail,
            () if 100 * zero > n => Verdict::Warn,
            () => Verdict::Pass,
        };
        let eps = eps_label(run.cells[cell].eps);
        Some((verdict, format!("{zero} of {n} images keep a loss of exactly 0 at eps {eps}")))
    });
    let found = or_not_run(found, "needs records of an untargeted attack on the cross-entropy at an eps above 0");
    check(
        "the logits are not saturated",
        "at most 1 % (5 %: fail) of the images have a cross-entropy of exactly 0, which has no gradient, at every point of the attack",
        found,
    )
}

fn silent(run: &Ledger) -> Check {
    let found = undefended(run, |cells| {
        let attacked = cells.iter().filter(|&&c| run.cells[c].eps > 0.0);
        let counts = attacked.map(|&c| (run.cells[c].last - run.cells[c].any.min(run.cells[c].last), &run.cells[c]));
        let (lost, cell) = counts.max_by_key(|(lost, _)| *lost)?;
        let share = 100.0 * lost as f64 / cell.n.max(1) as f64;
        let verdict = if share > 1.0 && run.config.score == Score::Last { Verdict::Warn } else { Verdict::Pass };
        Some((verdict, format!("at most {share:.1} % ({lost} of {}), at eps {}", cell.n, eps_label(cell.eps))))
    });
    let found = or_not_run(found, "needs records at an eps above 0");
    check(
        "no success is lost at the last step",
        "at most 1 % of the images are broken by an iterate but not by the last; beyond, report any iterate",
        found,
    )
}

fn adaptive(run: &Ledger) -> Check {
    let name = "the attack through the defence is the stronger one";
    let rule = "it leaves no more right than the transferred attack (paired, adjusted for all cells; warn p < .05, fail p < .01)";
    let defense = &run.config.defense;
    let both = [(Under::Through, defense.attack), (Under::Worst, defense.suite)];
    if both.iter().all(|(_, ran)| !ran) {
        return check(
            name,
            rule,
            not_run("needs --attack-through defense: defended accuracies here are under a non-adaptive attack"),
        );
    }
    let ran = both.into_iter().filter(|(_, ran)| *ran);
    let pairs = ran.flat_map(|(under, _)| weaker(run, Under::Transferred, under)).collect::<Vec<_>>();
    let found = surprises(run, &pairs, "nowhere does it leave significantly more images right");
    let found = or_not_run(found, "needs records of both attacks");
    check(name, rule, found)
}

/// The exact gradient against one that takes the denoiser for the identity: where that is the stronger one, the exact one is wrong or
/// masked.
fn exact(run: &Ledger) -> Check {
    stronger(run, "the exact gradient is no weaker than BPDA", "a1-exact", "a3-bpda")
}

/// Known noise against fresh noise: where that does not help, something but the noise hides the gradient.
fn fixed_noise(run: &Ledger) -> Check {
    stronger(run, "knowing the noise helps the attacker", "a6-fixed", "a1-exact")
}

/// Whether one attack of the suite leaves no more right than another.
fn stronger(run: &Ledger, name: &'static str, one: &str, other: &str) -> Check {
    let place = |name: &str| SUITE.iter().position(|row| row.name == name);
    let found = match (place(other), place(one), run.config.defense.suite) {
        (Some(other), Some(one), true) => {
            let pairs = weaker(run, Under::Member(other), Under::Member(one));
            let found = surprises(run, &pairs, "nowhere does it leave significantly more images right");
            or_not_run(found, "needs records of both attacks")
        }
        _ => not_run("needs --attack-through suite"),
    };
    let rule =
        format!("{one} leaves no more right than {other} (paired, adjusted for all cells; warn p < .05, fail p < .01)");
    check(name, rule, found)
}

/// Of every cell, how many images the second attack leaves right that the first broke, and the other way.
fn weaker(run: &Ledger, first: Under, second: Under) -> Vec<(usize, u64, u64, String)> {
    let mut pairs = Vec::new();
    for model in 0..run.config.models.len() {
        for &sigma in &run.config.defense.sigma {
            for &eps in run.config.attack.eps.iter().filter(|&&eps| eps > 0.0) {
                let cell = |under| run.cell(model, Channel::Denoised { sigma, under }, eps);
                let cells = cell(first).zip(cell(second));
                if let Some((more, fewer)) = cells.and_then(|(first, second)| moved(run, first, second)) {
                    pairs.push((model, more, fewer, format!("sigma {sigma}, eps {}", eps_label(eps))));
                }
            }
        }
    }
    pairs
}

fn trace(trial: &Trial, n: u64) -> (Verdict, String) {
    if !trial.clean_loss.is_finite() || trial.trace.iter().any(|t| !t.1.is_finite()) {
        return (Verdict::Fail, "a mean loss is not finite".into());
    }
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
            "{} of {n} zero, {} shorter than 10⁻¹², {} not finite; median length {}",
            trial.zero,
            trial.tiny,
            trial.not_finite,
            significant(10f64.powf(trial.median_log10))
        ),
    )
}
