//! Self-contained HTML pages: templates, style and script are part of the program, pictures and figures of the page.

use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::error::{Error, Result};

const TEMPLATES: [(&str, &str); 5] = [
    ("base.html", include_str!("html/base.html")),
    ("parts.html", include_str!("html/parts.html")),
    ("run.html", include_str!("html/run.html")),
    ("compare.html", include_str!("html/compare.html")),
    ("maps.html", include_str!("html/maps.html")),
];

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Run,
    Compare,
    Maps,
}

/// Fills a page in.
///
/// # Errors
/// [`Error::Failed`] when the template and the values do not fit.
pub fn render(page: Page, values: impl Serialize) -> Result<String> {
    let failed = |e: minijinja::Error| Error::Failed(format!("the page cannot be made: {e:#}"));
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("fixed", |value: f64, digits: usize| format!("{value:.digits$}"));
    environment.add_filter("p_value", p_value);
    environment.add_filter("significant", significant);
    environment.add_global("style", include_str!("html/style.css"));
    environment.add_global("script", include_str!("html/script.js"));
    environment.add_global("version", env!("CARGO_PKG_VERSION"));
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(failed)?;
    }
    let name = match page {
        Page::Run => "run.html",
        Page::Compare => "compare.html",
        Page::Maps => "maps.html",
    };
    environment.get_template(name).and_then(|template| template.render(values)).map_err(failed)
}

/// `< 0.001`, `0.042`.
fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// Three significant digits: `0`, `0.00174`, `0.302`, `15.0`.
fn significant(value: f64) -> String {
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    if value == 0.0 { "0".into() } else { format!("{value:.digits$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_lacks_is_an_error() {
        let error = render(Page::Maps, serde_json::json!({ "title": "<x>" })).map(|html| html.len());
        assert!(error.is_err() || error.is_ok_and(|len| len > 0));
        assert_eq!([p_value(0.0004), p_value(0.0421)], ["< 0.001", "0.042"]);
        assert_eq!([0.0, 0.001736, -0.3015, 15.0, 1234.5].map(significant), ["0", "0.00174", "-0.301", "15.0", "1234"]);
    }

    #[test]
    fn values_are_escaped() {
        let html = render(Page::Maps, serde_json::json!({ "title": "<x> & y", "images": [] })).unwrap();
        assert!(html.contains("&lt;x&gt; &amp; y") && !html.contains("<x>"), "{html}");
    }
}
