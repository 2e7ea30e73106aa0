//! Text from outside as a terminal may have it.

use std::borrow::Cow;

/// The text with characters that would steer a terminal, or turn the line around, written as Rust writes them: `\u{1b}`. Ends of
/// lines and tabs stay.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        match steers(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push(c),
        }
        out
    });
    Cow::Owned(escaped)
}

fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_name_steers_no_terminal() {
        assert_eq!(plain("red\u{1b}[31m\r\u{7}"), "red\\u{1b}[31m\\u{d}\\u{7}");
        assert_eq!(plain("\u{9b}2J \u{202e}gnp.exe"), "\\u{9b}2J \\u{202e}gnp.exe");
        assert!(matches!(plain("é σ\t∞\n"), std::borrow::Cow::Borrowed(_)));
    }
}
