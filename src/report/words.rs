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

pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `< 0.001`, `0.042`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// Three significant digits: `0`, `0.00174`, `0.302`, `15.0`.
pub fn significant(value: f64) -> String {
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    if value == 0.0 { "0".into() } else { format!("{value:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([p_value(0.0004), p_value(0.0421)], ["< 0.001", "0.042"]);
        assert_eq!([0.0, 0.001736, -0.3015, 15.0, 1234.5].map(significant), ["0", "0.00174", "-0.301", "15.0", "1234"]);
    }
}
