//! Text from outside as a terminal, and a person, may have it.

use std::borrow::Cow;

/// Bytes of a message that are shown; a field of a file may be longer than any message.
const MOST: usize = 4000;

/// The text, or its beginning and its end: what is wrong with a value often stands behind it.
pub fn brief(text: String) -> String {
    if text.len() <= MOST {
        return text;
    }
    let boundary = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (head, tail) = (boundary(MOST / 2), boundary(text.len() - MOST / 4));
    format!("{}.. ({} bytes more) ..{}", &text[..head], tail - head, &text[tail..])
}

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
    use super::{brief, plain};

    #[test]
    fn a_long_text_is_cut_in_its_middle() {
        assert_eq!(brief("short".into()), "short");
        let text = format!("`{}`: expected a number", "é".repeat(65_000));
        let shown = brief(text.clone());
        assert!(shown.len() < 4000 && shown.starts_with("`éé") && shown.ends_with("éé`: expected a number"), "{shown}");
        let cut: usize = shown.split_once("(").unwrap().1.split_once(" bytes").unwrap().0.parse().unwrap();
        let kept = shown.len() - format!(".. ({cut} bytes more) ..").len();
        assert_eq!(kept + cut, text.len());
    }

    #[test]
    fn a_name_steers_no_terminal() {
        assert_eq!(plain("red\u{1b}[31m\r\u{7}"), "red\\u{1b}[31m\\u{d}\\u{7}");
        assert_eq!(plain("\u{9b}2J \u{202e}gnp.exe"), "\\u{9b}2J \\u{202e}gnp.exe");
        assert!(matches!(plain("é σ\t∞\n"), std::borrow::Cow::Borrowed(_)));
    }
}
