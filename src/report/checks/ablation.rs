//! S28: the defence taken apart.

use super::check::Row;
use super::finding::{Finding, Verdict};
use super::seen::Seen;

pub(super) const ROW: Row = Row {
    id: "S28",
    name: "the denoiser does what is said of it",
    rule: "without noise as many clean images are right as undefended, and under noise no fewer than without the denoiser (1 image in 8 aside)",
    judge,
};

fn judge(seen: &Seen) -> Vec<Finding> {
    seen.tried(
        "ablation",
        |trial| trial.ablation.as_ref(),
        |found| {
            let apart = 8 * found.undefended.abs_diff(found.no_noise) > found.n;
            let useless = 8 * found.noise_alone.saturating_sub(found.denoised) > found.n;
            let numbers = format!(
                "of {} clean images {} right undefended, {} denoised without noise; at sigma {} {} denoised, {} under the noise alone",
                found.n, found.undefended, found.no_noise, found.sigma, found.denoised, found.noise_alone
            );
            (if apart || useless { Verdict::Warn } else { Verdict::Pass }, numbers, vec![])
        },
    )
}
