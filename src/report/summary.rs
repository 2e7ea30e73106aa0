//! A finished run as people read it: the figure, the tables, the paired comparison of models, and what an adaptive attack adds.

use super::paired;
use super::words::{self, count, p_value, percent, symbol, units, what_counts};
use crate::attack::{Outcome, Target, Work, autoattack};
use crate::config::Config;
use crate::config::settings::Score;
use crate::defense::suite::SUITE;
use crate::draw::plot::{self, Figure};
use crate::draw::{Point, Series, table};
use crate::error::Result;
use crate::number::eps_label;
use crate::run::ledger::Ledger;
use crate::run::records::Found;
use crate::run::results::{self, Cell, Channel, Under};

/// Accuracy over epsilon: undefended and at every sigma, for every model.
///
/// # Errors
/// [`crate::Error::Failed`] when it cannot be drawn.
pub fn figure(run: &Ledger) -> Result<Figure> {
    let Ledger { config, dataset, .. } = run;
    let (attack, defense) = (&config.attack, &config.defense);
    let mut how = vec![format!("{} {}", attack.label(), symbol(attack.norm)), count(attack.steps as usize, "step")];
    if attack.restarts > 1 {
        how.push(count(attack.restarts as usize, "restart"));
    }
    how.push(format!("{} images", run.ids.len()));
    how.push(what_counts(config.score).to_owned());
    if !defense.sigma.is_empty() {
        how.push(format!("denoised once under {}", count(defense.draws() as usize, "draw")));
    }
    let title = match defense.sigma.is_empty() {
        true => format!("Accuracy under attack: {}", dataset),
        false => format!("Accuracy under attack, undefended and denoised: {}", dataset),
    };
    let x_axis = format!("ε, {} budget in {}", symbol(attack.norm), units(config));
    plot::accuracy(&title, &how.join(" · "), &x_axis, &curves(run))
}

/// The last iterate and any iterate, each in a table of its own; then the denoised channels, the comparison of models image by image,
/// and the two attacks side by side. Early stop has no last iterate to speak of.
pub fn tables(run: &Ledger) -> String {
    let Ledger { config, cells, .. } = run;
    let attack = &config.attack;
    let what = format!("{} {}, {}", attack.label(), attack.norm, words::images(run));
    let undefended = |score| series(config, cells, score, |channel| !channel.is_defended());
    let titled =
        |counts: &str, rows: &[Series]| table::accuracy(&format!("accuracy in % after {what}: {counts}"), rows);
    let (last, any) = (undefended(Score::Last), undefended(Score::Any));
    let mut parts = match last == any {
        true if !attack.early_stop => {
            vec![titled("the last iterate counts; any successful iterate counts the same", &last)]
        }
        _ if attack.early_stop => vec![titled(what_counts(Score::Any), &any)],
        _ => vec![titled(what_counts(Score::Last), &last), titled(what_counts(Score::Any), &any)],
    };
    parts.extend(smallest(run));
    parts.extend(nested(run));
    for wanted in [Under::Transferred, Under::Through] {
        let rows = series(
            config,
            cells,
            config.score,
            |channel| matches!(channel, Channel::Denoised { under, .. } if under == wanted),
        );
        if rows.is_empty() {
            continue;
        }
        let defense = &config.defense;
        let how = match wanted {
            Under::Transferred => "denoised; the attack does not know of it".to_owned(),
            _ => format!("denoised; attacked through ({}, {} draws a step)", defense.estimator(), defense.eot()),
        };
        let vote = format!("{} of {}", defense.vote(), count(defense.draws() as usize, "draw"));
        parts.push(table::accuracy(&format!("accuracy in %, {how}: {vote}"), &rows));
    }
    if config.attack.targeted != Target::None {
        let reached = |cell: &Cell| Cell { last: cell.reached, any: cell.reached_any, clean: 0, ..cell.clone() };
        let cells: Vec<Cell> = cells.iter().map(reached).collect();
        let rows = series(config, &cells, config.score, |_| true);
        let rule = config.attack.targeted;
        parts.push(table::accuracy(
            &format!("target reached in % (rule: {rule}); accuracy above is of the label"),
            &rows,
        ));
    }
    if config.dataset.top5() {
        parts.push(table::accuracy("top-5 accuracy in %: last iterates, and votes of the denoised", &top5_series(run)));
    }
    parts.extend(beside(run));
    parts.extend(stages(run));
    parts.extend(compared(run));
    parts.extend(adaptive(run));
    if let Some((table, decided)) = suite(run) {
        parts.push(table + &decided.join("\n") + "\n");
    }
    parts.join("\n")
}

/// Accuracies where an image that was broken within a smaller budget counts as broken; nothing where that changes none, or all are counted so.
fn nested(run: &Ledger) -> Option<String> {
    let config = &run.config;
    if config.attack.nest {
        return None;
    }
    let mut cells = run.cells.clone();
    let mut changed = false;
    for cell in cells.iter_mut().filter(|cell| cell.channel == Channel::Undefended) {
        let fallen = (0..run.ids.len()).filter(|&image| run.fallen(cell.model, cell.eps, image).is_some());
        let own = run.cell(cell.model, cell.channel, cell.eps)?;
        let right =
            |image: &usize| matches!(run.found[own][*image], Some(Found::Attacked(outcome)) if outcome.correct_any);
        let more = fallen.filter(right).count() as u64;
        changed |= more > 0;
        cell.any -= more;
    }
    let rows = series(config, &cells, Score::Any, |channel| channel == Channel::Undefended);
    changed.then(|| {
        table::accuracy("accuracy in % where a success within a smaller budget counts within every larger one", &rows)
    })
}

/// Of each model at the middle epsilon, what every attack on the undefended classifier leaves, and which one decides; nothing where there is
/// only one.
pub(super) fn beside(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let eps = config.attack.middle_eps().filter(|_| !config.attack.beside.is_empty())?;
    let channels: Vec<Channel> = results::shown(config).into_iter().filter(|channel| !channel.is_defended()).collect();
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let cells = channels.iter().map(|&channel| run.cell(model, channel, eps)).collect::<Option<Vec<_>>>()?;
        let of = |cell: usize| &run.cells[cell];
        if cells.iter().any(|&cell| of(cell).n == 0 || of(cell).n != of(cells[0]).n) {
            continue;
        }
        let name = |cell: usize| of(cell).channel.attack(config);
        let share = |cell: usize| percent(of(cell).correct(config.score), of(cell).n);
        let said: Vec<String> = cells.iter().map(|&cell| format!("{} leaves {}", name(cell), share(cell))).collect();
        let right = |cell: usize| of(cell).correct(config.score);
        let strongest = cells.iter().copied().min_by_key(|&cell| right(cell))?;
        let equal = cells.iter().filter(|&&cell| right(cell) == right(strongest));
        let (names, decides, _) = deciding(&equal.map(|&cell| name(cell)).collect::<Vec<_>>());
        let stand =
            (0..run.ids.len()).filter(|&i| cells.iter().all(|&cell| run.correct(cell, i) == Some(true))).count();
        lines.push(format!(
            "{}, undefended at eps {}: {}; {names} {decides}, and {} stand against all of them.",
            named.name,
            eps_label(eps),
            words::list(&said),
            percent(stand as u64, of(strongest).n)
        ));
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

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

/// Every pair of models on the same images: how many one has right and the other wrong, and the p value of McNemar's test adjusted for
/// all comparisons of the table.
fn compared(run: &Ledger) -> Option<String> {
    let pairs = paired::models(run);
    let config = &run.config;
    let mut lines = Vec::new();
    for second in 1..config.models.len() {
        for first in 0..second {
            let names = [first, second].map(|model| config.models[model].name.as_str());
            lines.push(format!("{} right : {} right, p", names[0], names[1]));
            for channel in results::shown(config) {
                let at = |&eps: &f64| {
                    let own = |p: &&paired::Pair| p.eps == eps && [p.first.as_str(), p.second.as_str()] == names;
                    let found = pairs.iter().filter(own).find(|p| p.channel == words::channel(config, channel));
                    found.map_or(String::new(), |p| {
                        format!("{}:{} {}", p.only_first, p.only_second, p_value(p.p_adjusted))
                    })
                };
                let name = if channel.is_defended() { channel.to_string() } else { words::channel(config, channel) };
                lines.push(table::row(24, &name, config.attack.eps.iter().map(at)));
            }
        }
    }
    if lines.is_empty() {
        return None;
    }
    let eps = table::row(24, "eps", config.attack.eps.iter().map(|&eps| eps_label(eps)));
    let head = format!(
        "images that one model has right and the other wrong (McNemar, mid-p, adjusted for the {} comparisons by Holm)",
        pairs.len()
    );
    Some([vec![head, eps], lines].concat().join("\n") + "\n")
}

/// One sentence per model: how much an attack that does not know of the defence overstates it.
pub(super) fn adaptive(run: &Ledger) -> Option<String> {
    let Ledger { config, cells, .. } = run;
    if !config.defense.attack {
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
                row(&format!("{}: {}", attack.name, attack.help), under(Under::Member(number)), &right);
            }
            row("worst of a1 to a5", under(Under::Worst), &right);
            row("  a single draw", under(Under::Worst), &|cell| share(cell.correct_draws, cell.draws));
            row("  every draw", under(Under::Worst), &|cell| share(cell.any, cell.n));
            for (number, attack) in SUITE.iter().enumerate().filter(|(_, attack)| attack.fixed) {
                row(&format!("{}: {}", attack.name, attack.help), under(Under::Member(number)), &right);
            }
            decided.extend(decides(run, model, sigma));
        }
        tables.push(lines.join("\n") + "\n");
    }
    Some((tables.join("\n"), decided))
}

/// The strongest attacks, and the verbs that go with one or several.
fn deciding(names: &[String]) -> (String, &'static str, &'static str) {
    match names {
        [one] => (one.clone(), "decides", "it leaves"),
        equal => (words::list(equal), "decide alike", "they leave"),
    }
}

/// Width of the names of a suite's attacks.
const SUITE_NAMES: usize = 62;

/// Which attack of the suite is the strongest at the middle epsilon, and what it decides.
fn decides(run: &Ledger, model: usize, sigma: f64) -> Option<String> {
    let config = &run.config;
    let eps = config.attack.middle_eps()?;
    let cell = |channel| run.cell(model, channel, eps).map(|cell| &run.cells[cell]).filter(|cell| cell.n > 0);
    let under = |under| cell(Channel::Denoised { sigma, under });
    let right = |cell: &Cell| cell.correct(config.score);
    let share = |cell: &Cell| percent(right(cell), cell.n);
    let members = SUITE.iter().enumerate().filter(|(_, attack)| !attack.fixed);
    let found = members.filter_map(|(number, attack)| Some((attack.name, under(Under::Member(number))?)));
    let found: Vec<(&str, &Cell)> = found.collect();
    let strongest = found.iter().map(|(_, cell)| *cell).min_by_key(|cell| right(cell))?;
    let equal = found.iter().filter(|(_, cell)| right(cell) == right(strongest));
    let (name, decides, leaves) = deciding(&equal.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
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

/// The curves of a figure: as [`all_series`], and where the smallest budget is known that breaks each image, in steps from one to the next.
pub fn curves(run: &Ledger) -> Vec<Series> {
    let mut all = all_series(run);
    let undefended = all.iter_mut().filter(|series| series.colour == 0);
    for (model, series) in undefended.enumerate() {
        if let Some(points) = broken_at(run, model) {
            (series.points, series.steps) = (points, true);
        }
    }
    all
}

/// Images that are right within every budget up to the largest, from the smallest one that breaks each; nothing where no attack looked for it.
fn broken_at(run: &Ledger, model: usize) -> Option<Vec<Point>> {
    let most = run.config.attack.eps.last().copied()?;
    let cell = run.cell(model, Channel::Undefended, most)?;
    let (mut radii, mut right, mut n) = (Vec::new(), 0u64, 0u64);
    for found in run.found[cell].iter().flatten() {
        let Found::Attacked(outcome) = found else { continue };
        n += 1;
        right += u64::from(outcome.correct_clean);
        radii.extend(outcome.radius);
    }
    if radii.is_empty() {
        return None;
    }
    radii.sort_by(f64::total_cmp);
    let mut points = vec![Point { eps: 0.0, correct: right, n }];
    for same in radii.chunk_by(|a, b| a == b) {
        right -= same.len() as u64;
        points.push(Point { eps: same[0], correct: right, n });
    }
    points.push(Point { eps: most, correct: right, n });
    Some(points)
}

/// Half of the images that are right when clean are broken within this budget, by model; nothing where no attack looked for it.
fn smallest(run: &Ledger) -> Option<String> {
    let config = &run.config;
    let most = config.attack.eps.last().copied()?;
    let mut lines = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        let Some(points) = broken_at(run, model) else { continue };
        let clean = points[0].correct;
        let half = points.iter().find(|point| 2 * point.correct <= clean);
        let within = |point: &Point| format!("within {:.5}", point.eps);
        lines.push(format!(
            "{}: of {clean} images that are right when clean, {} are broken within {}, half of them {}.",
            named.name,
            clean - points[points.len() - 1].correct,
            eps_label(most),
            half.map_or("by none of these budgets".into(), within)
        ));
    }
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

/// Every curve of a run, at the budgets that were asked for.
pub fn all_series(run: &Ledger) -> Vec<Series> {
    series(&run.config, &run.cells, run.config.score, |_| true)
}

/// The same with the five likeliest classes counted; 0 everywhere where they are not scored.
pub fn top5_series(run: &Ledger) -> Vec<Series> {
    let cells: Vec<Cell> = run.cells.iter().map(Cell::as_top5).collect();
    series(&run.config, &cells, Score::Last, |_| true)
}

/// Every epsilon that a curve has a point at, ascending.
pub fn epsilons(series: &[Series]) -> Vec<f64> {
    let mut eps: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.eps)).collect();
    eps.sort_by(f64::total_cmp);
    eps.dedup();
    eps
}

/// The curves of a figure or the rows of a table: every model in every channel. They begin with the clean accuracy at epsilon 0,
/// unless the attack was run there; that of a denoised channel is known only where it was. Cells without a record are left out.
fn series(config: &Config, cells: &[Cell], score: Score, wanted: impl Fn(Channel) -> bool) -> Vec<Series> {
    let channels = results::shown(config);
    let mut all = Vec::new();
    for (model, named) in config.models.iter().enumerate() {
        for (colour, &channel) in channels.iter().enumerate().filter(|(_, channel)| wanted(**channel)) {
            let own = || cells.iter().filter(move |cell| cell.model == model && cell.channel == channel);
            let clean = own().next().filter(|first| first.eps > 0.0 && !channel.is_defended());
            let clean = clean.map(|first| Point { eps: 0.0, correct: first.clean, n: first.n });
            let points = own().map(|cell| Point { eps: cell.eps, correct: cell.correct(score), n: cell.n });
            let name = words::curve(config, &named.name, channel);
            all.push(Series {
                name,
                points: clean.into_iter().chain(points).filter(|p| p.n > 0).collect(),
                colour,
                mark: model,
                steps: false,
                unsure: 0.0,
            });
        }
    }
    all
}
