//! S26: what passes on no gradient: clipped pixels, gates that are shut, channels that are dead.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S26",
    name: "little is clipped, shut or dead",
    rule: "of the denoiser's pixels at most 95 % are clipped, of no attention more than half of the gates within 10⁻⁴ of 0 or 1, of no stage more \
           than half of the channels 0 for every image",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "clamped",
        |trial| trial.clamped.as_ref(),
        |found| {
            let worst = |shares: &[(String, f64)]| shares.iter().cloned().max_by(|a, b| a.1.total_cmp(&b.1));
            let (gate, stage) = (worst(&found.gates), worst(&found.dead));
            let bad = found.pixels.is_some_and(|share| share > 0.95)
                || [&gate, &stage].iter().any(|worst| worst.as_ref().is_some_and(|(_, share)| *share > 0.5));
            let told = |what: &str, worst: Option<(String, f64)>| {
                worst.map(|(name, share)| format!("{:.1} % of the {what} of {name}", 100.0 * share))
            };
            let pixels = found.pixels.map(|share| format!("{:.1} % of the denoised pixels clipped", 100.0 * share));
            let parts = [pixels, told("gates", gate), told("channels", stage)];
            (
                if bad { Verdict::Warn } else { Verdict::Pass },
                parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
                vec![],
            )
        },
    )
}
