//! Self-contained HTML pages: templates, style and script are part of the program, pictures and figures of the page.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, escape_formatter};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::heat;
use crate::error::{Error, Result};
use crate::shown::plain;

const TEMPLATES: [(&str, &str); 7] = [
    ("base.html", include_str!("html/base.html")),
    ("parts.html", include_str!("html/parts.html")),
    ("certificate.html", include_str!("html/certificate.html")),
    ("certify.html", include_str!("html/certify.html")),
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
    environment.set_formatter(|out, state, value| match value.as_str().filter(|_| !value.is_safe()) {
        // A name from outside neither hides a letter nor turns a line around.
        Some(text) => escape_formatter(out, state, &Value::from(plain(text).as_ref())),
        None => escape_formatter(out, state, value),
    });
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("fixed", |value: f64, digits: usize| format!("{value:.digits$}"));
    environment.add_filter("picture", picture);
    environment.add_global("style", include_str!("html/style.css"));
    environment.add_global("script", include_str!("html/script.js"));
    environment.add_global("scale", heat::css_gradient());
    environment.add_global("policy", policy(include_str!("html/script.js")));
    environment.add_global("version", env!("CARGO_PKG_VERSION"));
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// What a page may load and run: the pictures in it, and the one script that is part of the program. What a run directory brings along
/// stays text even where a template forgets to escape it.
///
/// Source: Content Security Policy Level 3.
fn policy(script: &str) -> String {
    let hash = STANDARD.encode(Sha256::digest(script));
    format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    )
}

/// A picture within the page, as an attribute has it: a data URI of PNG or JPEG bytes, and nothing else.
fn picture(uri: &str) -> Result<Value, minijinja::Error> {
    match is_picture(uri) {
        true => Ok(Value::from_safe_string(uri.to_owned())),
        false => {
            let start: String = uri.chars().take(40).collect();
            let problem = format!("expected a data URI of PNG or JPEG bytes, found `{start}`");
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem))
        }
    }
}

/// Whether a text is a data URI of PNG or JPEG bytes, by its words and by its bytes.
pub fn is_picture(uri: &str) -> bool {
    [("data:image/png;base64,", &b"\x89PNG\r\n\x1a\n"[..]), ("data:image/jpeg;base64,", b"\xff\xd8\xff")]
        .into_iter()
        .any(|(prefix, magic)| {
            let bytes = uri.strip_prefix(prefix).and_then(|data| STANDARD.decode(data).ok());
            bytes.is_some_and(|bytes| bytes.starts_with(magic))
        })
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
    fn what_steers_a_line_is_spelt_out() {
        let html = fill("base.html", Titled { title: "\u{1b}[31m \u{202e}gnp" }).unwrap();
        assert!(html.contains("\\u{1b}[31m \\u{202e}gnp") && !html.contains(['\u{1b}', '\u{202e}']), "{html}");
    }

    #[test]
    fn only_pictures_are_pictures() {
        let good = heat::data_uri(&[1, 2, 3], [1, 1]).unwrap();
        assert!(is_picture(&good));
        for bad in [
            "",
            "data:image/png;base64,",
            "data:image/svg+xml;base64,iVBORw0KGgo=",
            "data:image/png;base64,PHNjcmlwdD4=",
            "javascript:alert(1)",
            &format!("{good}\" onerror=\"alert(1)"),
            &format!(" {good}"),
        ] {
            assert!(!is_picture(bad), "{bad}");
        }
    }

    /// The known digest of no bytes, and that the page's script has the one in the page's policy.
    #[test]
    fn the_policy_names_the_script() {
        assert!(policy("").contains("'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"));
        let html = fill("base.html", Titled { title: "x" }).unwrap();
        let script = html.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
        assert!(html.contains(&policy(script)), "{html}");
        assert_eq!(html.matches("<script").count(), 1);
    }

    #[test]
    fn what_a_template_lacks_is_an_error() {
        let error = fill("run.html", Titled { title: "x" }).unwrap_err().to_string();
        assert!(error.contains("the page cannot be made: undefined value") && error.contains("run.html"), "{error}");
    }
}
