//! What an array of NumPy begins with (NEP 1): a mark, a version, a length, and a Python dictionary of three entries. By hand, since
//! the libraries for it bring a parser generator along that takes longer to compile, and more of the disk, than any format of images.

use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Bytes that a header of any shape fits in; a length beyond it is damage.
const MOST: u32 = 1 << 16;

/// What values follow a header, and in which shape.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The type, as in `<f4`; of records the list of their fields.
    pub descr: String,
    pub fortran: bool,
    pub shape: Vec<usize>,
}

/// Reads a header, and nothing behind it.
///
/// # Errors
/// What was found in its place, in words.
pub(super) fn read(from: &mut impl Read) -> Result<Header, String> {
    let mut bytes = |n: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; n];
        from.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    };
    let start = bytes(8)?;
    if start[..6] != MAGIC[..] {
        return Err("no array of NumPy: another mark at its beginning".into());
    }
    let length = match start[6] {
        1 => u32::from(u16::from_le_bytes(*bytes(2)?.first_chunk().unwrap_or(&[0; 2]))),
        2 | 3 => u32::from_le_bytes(*bytes(4)?.first_chunk().unwrap_or(&[0; 4])),
        other => return Err(format!("version {other} of the format, expected 1 to 3")),
    };
    if length > MOST {
        return Err(format!("a header of {length} bytes, expected at most {MOST}"));
    }
    let text = String::from_utf8(bytes(length as usize)?).map_err(|_| "a header that is no text")?;
    Literal { rest: &text }.header()
}

/// Texts and their bytes that a list of classes may have.
const MOST_TEXTS: usize = 1 << 20;
const MOST_BYTES: usize = 1 << 26;

/// The texts behind a header: `<U11`, in UTF-32, or `|S11`, in UTF-8; zeros at the end of each are none of it.
///
/// # Errors
/// What was found in their place, in words.
pub(super) fn texts(header: &Header, from: &mut impl Read) -> Result<Vec<String>, String> {
    let descr = &header.descr;
    let plain = || format!("expected texts like '<U11', found '{descr}': save numpy.array(names, dtype='U')");
    let (order, kind) = descr.split_at_checked(1).ok_or_else(plain)?;
    let (kind, length) = kind.split_at_checked(1).ok_or_else(plain)?;
    let (length, unit): (usize, usize) = match (kind, length.parse()) {
        ("U", Ok(length)) => (length, 4),
        ("S", Ok(length)) => (length, 1),
        _ => return Err(plain()),
    };
    let &[n] = &header.shape[..] else { return Err(format!("expected (K,), found {:?}", header.shape)) };
    let each = length.saturating_mul(unit);
    if n > MOST_TEXTS || n.saturating_mul(each) > MOST_BYTES {
        return Err(format!("expected at most {MOST_TEXTS} texts in {MOST_BYTES} bytes, found {n} of {each} bytes"));
    }
    let mut bytes = vec![0; each];
    let mut text = || {
        from.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        match unit {
            1 => String::from_utf8(bytes[..end].to_vec()).map_err(|_| "found bytes that are no text".to_owned()),
            _ => {
                let number = |b: &[u8]| {
                    let b = *b.first_chunk().unwrap_or(&[0; 4]);
                    if order == ">" { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
                };
                let letter = |b| char::from_u32(number(b)).ok_or_else(|| "found a number that is no text".to_owned());
                let text: String = bytes[..end.next_multiple_of(4)].chunks(4).map(letter).collect::<Result<_, _>>()?;
                Ok(text)
            }
        }
    };
    (0..n).map(|_| text()).collect()
}

/// A header of version 1, as NumPy writes it.
pub(super) fn written(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let sides = sides.join(", ") + comma;
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    // The values begin at a multiple of 64.
    let begin = MAGIC.len() + 4;
    let length = (begin + text.len() + 1).next_multiple_of(64) - begin;
    text = format!("{text:<0$}\n", length - 1);
    [&MAGIC[..], &[1, 0], &(length as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// The literals of Python that such a header is made of.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.takes("}") {
            let key = self.quoted()?;
            self.expect(":")?;
            match key {
                "descr" => descr = Some(self.descr()?),
                "fortran_order" => fortran = Some(self.truth()?),
                "shape" => shape = Some(self.shape()?),
                other => return Err(format!("an entry `{}`", other.chars().take(60).collect::<String>())),
            }
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        let missing = |what: &str| format!("no `{what}`");
        Ok(Header {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran: fortran.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }

    fn takes(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        match self.takes(token) {
            true => Ok(()),
            false => Err(format!("expected `{token}` at `{}`", self.rest.chars().take(20).collect::<String>())),
        }
    }

    fn quoted(&mut self) -> Result<&'a str, String> {
        let quote = if self.takes("\"") { '"' } else { self.expect("'").map(|()| '\'')? };
        let (text, rest) = self.rest.split_once(quote).ok_or("a text without an end")?;
        self.rest = rest;
        Ok(text)
    }

    /// A text; or the list of fields, which ends before the next entry and is only shown.
    fn descr(&mut self) -> Result<String, String> {
        if !self.rest.trim_start().starts_with('[') {
            return self.quoted().map(str::to_owned);
        }
        let end = self.rest.rfind(']').ok_or("a list without an end")? + 1;
        let (list, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(list.trim().chars().take(60).collect())
    }

    fn truth(&mut self) -> Result<bool, String> {
        let yes = self.takes("True");
        if !yes {
            self.expect("False")?;
        }
        Ok(yes)
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let mut sides = Vec::new();
        self.expect("(")?;
        while !self.takes(")") {
            let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            let (side, rest) = self.rest.split_at(digits);
            let side = side.parse().map_err(|_| format!("a side `{}`", rest.chars().take(20).collect::<String>()))?;
            self.rest = rest;
            sides.push(side);
            // Python 2 wrote large ones as 3L.
            self.takes("L");
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(sides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Header, String> {
        let length = (text.len() as u16).to_le_bytes();
        read(&mut [b"\x93NUMPY\x01\0", &length[..], text.as_bytes()].concat().as_slice())
    }

    #[test]
    fn what_is_written_is_read() {
        for shape in [&[][..], &[3], &[3, 4], &[1000, 3, 224, 224], &[usize::MAX, 0]] {
            let bytes = written("<f4", shape);
            assert_eq!(bytes.len() % 64, 0, "{shape:?}");
            assert_eq!(*bytes.last().unwrap(), b'\n');
            let values = [&bytes[..], b"values"].concat();
            let mut rest = values.as_slice();
            let header = read(&mut rest).unwrap();
            assert_eq!(header, Header { descr: "<f4".into(), fortran: false, shape: shape.to_vec() });
            assert_eq!(rest, b"values");
        }
        // As numpy.save of NumPy 2 begins a (3,) and a (2, 5).
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[10..]).trim_end().to_owned();
        assert_eq!(text(&written("<i8", &[3])), "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }");
        assert_eq!(text(&written("|u1", &[2, 5])), "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 5), }");
    }

    #[test]
    fn other_hands_and_versions_are_read() {
        let header = of("{ \"shape\":(3L,4L) ,'fortran_order':True,'descr':'>f8'}\n").unwrap();
        assert_eq!(header, Header { descr: ">f8".into(), fortran: true, shape: vec![3, 4] });
        let text = "{'descr': [('a', '<f4'), ('b', '<i4', (2,))], 'fortran_order': False, 'shape': (1,), }";
        assert_eq!(of(text).unwrap().descr, "[('a', '<f4'), ('b', '<i4', (2,))]");
        let long = [b"\x93NUMPY\x03\0\x3b\0\0\0", &written("<f4", &[2])[10..69]].concat();
        assert_eq!(read(&mut long.as_slice()).unwrap().shape, [2]);
    }

    #[test]
    fn damage_is_told() {
        for (text, part) in [
            ("", "expected `{`"),
            ("{'descr': '<f4', 'shape': (1,)}", "no `fortran_order`"),
            ("{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}", "expected `False`"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "a side `-1"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616,)}", "a side"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}", "expected `)`"),
            ("{'descr': '<f4, 'fortran_order': False", "expected `}`"),
            ("{'descr': '<f4", "without an end"),
            ("{'__import__': 1}", "an entry `__import__`"),
        ] {
            let problem = of(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem} | {part}");
        }
        assert!(read(&mut &b"\x93NUMPY\x02\0\0\0\x01\0"[..]).unwrap_err().contains("fill whole buffer"));
        assert!(read(&mut &b"\x93NUMPY\x02\0\x01\0\x01\0"[..]).unwrap_err().contains("a header of 65537 bytes"));
        assert!(read(&mut &b"\x93NUMPY\x04\0\0\0"[..]).unwrap_err().contains("version 4"));
        assert!(read(&mut &b"PK\x03\x04 no array"[..]).unwrap_err().contains("another mark"));
    }
}
