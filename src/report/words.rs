//! The words of tables, figures and pages: units, norms, channels and what counts as right.

use crate::attack::Norm;
use crate::config::Config;
use crate::config::settings::Score;
use crate::run::results::Channel;

/// Of budgets.
pub fn units(config: &Config) -> &'static str {
    if config.attack.normalised() { "units of normalised images" } else { "pixel units" }
}

/// Of a norm, as formulas write it.
pub fn symbol(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

pub fn what_counts(score: Score) -> &'static str {
    match score {
        Score::Last => "the last iterate counts",
        Score::Any => "any successful iterate counts",
    }
}

/// A model in a channel, as legends and tables name it: `resnet50`, `resnet50, σ 0.25`.
pub fn curve(model: &str, channel: Channel) -> String {
    match channel {
        Channel::Undefended => model.to_owned(),
        denoised => format!("{model}, {denoised:#}"),
    }
}

/// `1 draw`, `5 draws`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
