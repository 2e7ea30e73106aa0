//! Self-contained HTML pages: templates, style and script are part of the program, pictures and figures of the page.

use std::sync::OnceLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::heat;
use crate::error::{Error, Result};

const TEMPLATES: [(&str, &str); 5] = [
    ("base.html", include_str!("html/base.html")),
    ("parts.html", include_str!("html/parts.html")),
    ("run.html", include_str!("html/run.html")),
    ("compare.html", include_str!("html/compare.html")),
    ("maps.html", include_str!("html/maps.html")),
];

/// The values of a page, and the template that they fill in.
pub trait Page: Serialize {
    const TEMPLATE: &'static str;
}

/// Makes a page.
///
/// # Errors
/// [`Error::Failed`] when the template and the values do not fit.
pub fn render<P: Page>(page: &P) -> Result<String> {
    fill(P::TEMPLATE, page)
}

/// Fills in a template. A value that it names and does not get is an error.
///
/// # Errors
/// As [`render`].
pub fn fill(template: &str, values: impl Serialize) -> Result<String> {
    static KNOWN: OnceLock<Result<Environment, String>> = OnceLock::new();
    let failed = |e: String| Error::Failed(format!("the page cannot be made: {e}"));
    let known = KNOWN.get_or_init(|| environment().map_err(|e| format!("{e:#}")));
    let environment = known.as_ref().map_err(|e| failed(e.clone()))?;
    let made = environment.get_template(template).and_then(|template| template.render(values));
    made.map_err(|e| failed(format!("{e:#}")))
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("fixed", |value: f64, digits: usize| format!("{value:.digits$}"));
    environment.add_global("style", include_str!("html/style.css"));
    environment.add_global("script", include_str!("html/script.js"));
    environment.add_global("scale", heat::css_gradient());
    environment.add_global("version", env!("CARGO_PKG_VERSION"));
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Titled {
        title: &'static str,
    }

    #[test]
    fn values_are_escaped() {
        let html = fill("base.html", Titled { title: "<x> & y" }).unwrap();
        assert!(html.contains("&lt;x&gt; &amp; y") && !html.contains("<x>"), "{html}");
    }

    #[test]
    fn what_a_template_lacks_is_an_error() {
        let error = fill("run.html", Titled { title: "x" }).unwrap_err().to_string();
        assert!(error.contains("the page cannot be made: undefined value") && error.contains("run.html"), "{error}");
    }
}
