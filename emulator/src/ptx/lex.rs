//! Words, numbers and marks of PTX text, one at a time (PTX ISA 4.1 to 4.5).

use super::error::PtxError;

/// The smallest pieces of PTX text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A name or an opcode: `%tid.x`, `$L__BB0_2`, `ld.global.L2::128B.f32`. Dots and `::` inside belong to it.
    Word(&'a str),
    /// `.visible` is "visible".
    Directive(&'a str),
    /// As written; [`literal`] gives its value.
    Number(&'a str),
    /// What stands between the quotes, escapes as written.
    Text(&'a str),
    Mark(char),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Long enough for every name that nvcc mangles, short enough for a report on garbage.
        let cut = |s: &str| s.chars().take(200).collect::<String>();
        match self {
            Token::Word(s) | Token::Number(s) => write!(f, "`{}`", cut(s)),
            Token::Directive(s) => write!(f, "`.{}`", cut(s)),
            Token::Text(s) => write!(f, "\"{}\"", cut(s)),
            // What looks like a blank, or like nothing, is told by its number.
            Token::Mark(c) if !c.is_ascii_graphic() && !c.is_alphanumeric() => {
                write!(f, "the character U+{:04X}", u32::from(*c))
            }
            Token::Mark(c) => write!(f, "`{c}`"),
            Token::End => write!(f, "the end of the file"),
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Byte offset; always between two characters.
    at: usize,
    line: u32,
}

/// Characters inside a name.
const NAME: [bool; 256] = {
    let mut set = [false; 256];
    let mut c = 0;
    while c < 256 {
        set[c] = matches!(c as u8, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'%');
        c += 1;
    }
    set
};

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        // Drivers get PTX as a C string; its end may be part of the text.
        Lexer { text: text.trim_end_matches('\0'), at: 0, line: 1 }
    }

    /// The line of the token that `next` returned last; a token never spans lines.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The byte `ahead` places further on; 0 behind the end.
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn in_name(&self, ahead: usize) -> bool {
        NAME[self.byte(ahead) as usize]
    }

    pub fn next(&mut self) -> Result<Token<'a>, PtxError> {
        self.skip_blank()?;
        if self.at == self.text.len() {
            return Ok(Token::End);
        }
        let from = self.at;
        match self.byte(0) {
            b'0'..=b'9' => {
                self.skip_number();
                Ok(Token::Number(&self.text[from..self.at]))
            }
            b'.' if self.in_name(1) => {
                self.at += 1;
                self.skip_name();
                Ok(Token::Directive(&self.text[from + 1..self.at]))
            }
            b'"' => self.quoted(),
            c if NAME[c as usize] => {
                self.skip_name();
                loop {
                    if self.byte(0) == b'.' && self.in_name(1) {
                        self.at += 1;
                    } else if self.byte(0) == b':' && self.byte(1) == b':' && self.in_name(2) {
                        self.at += 2;
                    } else {
                        break;
                    }
                    self.skip_name();
                }
                Ok(Token::Word(&self.text[from..self.at]))
            }
            _ => {
                let c = self.text[from..].chars().next().unwrap_or('\0');
                self.at += c.len_utf8();
                Ok(Token::Mark(c))
            }
        }
    }

    fn skip_name(&mut self) {
        while self.in_name(0) {
            self.at += 1;
        }
    }

    /// Digits, letters and a point; in a decimal number also a sign behind `e`.
    fn skip_number(&mut self) {
        let decimal = self.byte(0) != b'0' || !self.byte(1).is_ascii_alphabetic();
        while self.in_name(0) || self.byte(0) == b'.' {
            let exponent = decimal && matches!(self.byte(0), b'e' | b'E');
            self.at += 1;
            if exponent && matches!(self.byte(0), b'+' | b'-') {
                self.at += 1;
            }
        }
    }

    /// Spaces, comments, and the `@@DWARF` lines of old debug information.
    fn skip_blank(&mut self) -> Result<(), PtxError> {
        loop {
            match self.byte(0) {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'/' if self.byte(1) == b'/' => self.skip_line(),
                b'/' if self.byte(1) == b'*' => {
                    let rest = &self.text[self.at..];
                    let end =
                        rest[2..].find("*/").ok_or_else(|| PtxError::new(self.line, "a comment without its `*/`"))?;
                    self.line += rest.as_bytes()[..end + 2].iter().filter(|&&b| b == b'\n').count() as u32;
                    self.at += end + 4;
                }
                b'@' if self.text[self.at..].starts_with("@@DWARF") => self.skip_line(),
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        self.at = self.text[self.at..].find('\n').map_or(self.text.len(), |n| self.at + n);
    }

    fn quoted(&mut self) -> Result<Token<'a>, PtxError> {
        let from = self.at + 1;
        let mut escaped = false;
        for (n, b) in self.text.as_bytes()[from..].iter().enumerate() {
            match b {
                b'\n' => break,
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at = from + n + 1;
                    return Ok(Token::Text(&self.text[from..from + n]));
                }
                _ => {}
            }
        }
        Err(PtxError::new(self.line, "a string without its closing quote"))
    }
}

/// The value of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Literal {
    /// Bits; a literal from 2^63 on is unsigned.
    Integer(i64),
    /// Bits of `0f` and eight digits.
    F32(u32),
    /// Bits of `0d` and sixteen digits, or of a decimal number.
    F64(u64),
}

/// The value of a number as written: decimal, `0x`, `0b` or octal with an optional `U`; `0f`, `0d`; or decimal with a point
/// or exponent.
pub(super) fn literal(text: &str) -> Option<Literal> {
    let b = text.as_bytes();
    let hex = |digits: &str, count: usize| {
        let fits = digits.len() == count && digits.bytes().all(|c| c.is_ascii_hexdigit());
        fits.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    match b {
        [b'0', b'f' | b'F', ..] => return Some(Literal::F32(hex(&text[2..], 8)? as u32)),
        [b'0', b'd' | b'D', ..] => return Some(Literal::F64(hex(&text[2..], 16)?)),
        _ => {}
    }
    let digits = text.strip_suffix('U').unwrap_or(text);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', b'0'..=b'9', ..] if !text.contains(['.', 'e', 'E']) => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if let Ok(value) = u64::from_str_radix(digits, radix)
        && digits.as_bytes()[0] != b'+'
    {
        return Some(Literal::Integer(value as i64));
    }
    let decimal = radix == 10
        && text.contains(['.', 'e', 'E'])
        && b.iter().all(|c| !c.is_ascii_alphabetic() || matches!(c, b'e' | b'E'));
    decimal.then(|| text.parse::<f64>().ok()).flatten().map(|v| Literal::F64(v.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_form() {
        use Literal::*;
        for (text, value) in [
            ("0", Integer(0)),
            ("42", Integer(42)),
            ("7U", Integer(7)),
            ("0x7fU", Integer(127)),
            ("0XfF", Integer(255)),
            ("0b101", Integer(5)),
            ("0B11U", Integer(3)),
            ("017", Integer(15)),
            ("00", Integer(0)),
            ("9223372036854775807", Integer(i64::MAX)),
            ("18446744073709551615", Integer(-1)),
            ("0xFFFFFFFFFFFFFFFF", Integer(-1)),
            ("0f3f800000", F32(0x3f80_0000)),
            ("0FFF800000", F32(0xff80_0000)),
            ("0d3ff0000000000000", F64(0x3ff0_0000_0000_0000)),
            ("0D7FF0000000000000", F64(0x7ff0_0000_0000_0000)),
            ("1.5", F64(1.5f64.to_bits())),
            ("1.", F64(1f64.to_bits())),
            ("2e3", F64(2000f64.to_bits())),
            ("09.5e-1", F64(0.95f64.to_bits())),
            ("0.1E+2", F64(10f64.to_bits())),
        ] {
            assert_eq!(literal(text), Some(value), "{text}");
        }
        for text in [
            "08",
            "0x",
            "0b2",
            "0f3f80000",
            "0f3f8000000",
            "0f+f800000",
            "0d3ff",
            "1x",
            "18446744073709551616",
            "1.2.3",
            "1e",
            "0x1.8",
            "12u",
        ] {
            assert_eq!(literal(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_keep_their_dots_and_lines() {
        let mut lexer =
            Lexer::new("ld.global.L2::128B.f32 /* a\nb */ %f1,[a+-4];// c\n.visible%p1|_ L: 9.0 \"x\\\"y\" 1.e+5-3\0");
        let mut seen = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            if token == Token::End {
                break;
            }
            seen.push((lexer.line(), token.to_string()));
        }
        let seen: Vec<(u32, &str)> = seen.iter().map(|(l, t)| (*l, t.trim_matches('`'))).collect();
        let first =
            [(1, "ld.global.L2::128B.f32"), (2, "%f1"), (2, ","), (2, "["), (2, "a"), (2, "+"), (2, "-"), (2, "4")];
        let then = [(2, "]"), (2, ";"), (3, ".visible%p1"), (3, "|"), (3, "_"), (3, "L"), (3, ":"), (3, "9.0")];
        let last = [(3, "\"x\\\"y\""), (3, "1.e+5"), (3, "-"), (3, "3")];
        assert_eq!(seen, [&first[..], &then, &last].concat());
    }
}
