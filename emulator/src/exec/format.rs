//! `printf` of a kernel: a C format string and arguments as C passes them (CUDA C++ Programming Guide, "Formatted Output").

/// Widths and precisions beyond this are refused.
const MAX_WIDTH: usize = 4096;

/// Where arguments come from.
pub(super) trait Arguments {
    /// The next argument of 4 or 8 bytes, which lies at a multiple of its size.
    fn next(&mut self, bytes: usize) -> Result<u64, String>;
    /// The string at an address, at most `limit` bytes of it.
    fn string(&mut self, address: u64, limit: usize) -> Result<Vec<u8>, String>;
}

/// `%-08.3lld` without its last letter.
#[derive(Default)]
struct Field {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer.
    size: usize,
}

/// The text, and how many arguments it took.
///
/// # Errors
/// A conversion that is unknown or not supported, or an argument that cannot be read.
pub(super) fn format(template: &[u8], arguments: &mut impl Arguments) -> Result<(Vec<u8>, u32), String> {
    let (mut out, mut taken) = (Vec::with_capacity(template.len()), 0);
    let mut rest = template.iter().copied().peekable();
    while let Some(c) = rest.next() {
        if c != b'%' {
            out.push(c);
            continue;
        }
        let mut field = Field { size: 4, ..Field::default() };
        while let Some(&flag) = rest.peek() {
            match flag {
                b'-' => field.left = true,
                b'+' => field.plus = true,
                b' ' => field.space = true,
                b'#' => field.alternate = true,
                b'0' => field.zeros = true,
                _ => break,
            }
            rest.next();
        }
        let mut number = |rest: &mut std::iter::Peekable<_>, taken: &mut u32| -> Result<i64, String> {
            let rest: &mut std::iter::Peekable<std::iter::Copied<std::slice::Iter<u8>>> = rest;
            if rest.next_if_eq(&b'*').is_some() {
                *taken += 1;
                return Ok(i64::from(arguments.next(4)? as i32));
            }
            let mut n = 0i64;
            while let Some(digit) = rest.next_if(u8::is_ascii_digit) {
                n = (n * 10 + i64::from(digit - b'0')).min(1 << 32);
            }
            Ok(n)
        };
        let width = number(&mut rest, &mut taken)?;
        field.left |= width < 0;
        field.width = width.unsigned_abs() as usize;
        if rest.next_if_eq(&b'.').is_some() {
            field.precision = usize::try_from(number(&mut rest, &mut taken)?).ok();
        }
        if field.width.max(field.precision.unwrap_or(0)) > MAX_WIDTH {
            return Err(format!("a width or precision of more than {MAX_WIDTH}"));
        }
        while let Some(length) = rest.next_if(|c| b"hlLjzt".contains(c)) {
            field.size = match (length, field.size) {
                (b'h', 2) => 1,
                (b'h', _) => 2,
                _ => 8,
            };
        }
        let conversion = rest.next().ok_or("the format ends within a conversion")?;
        if conversion == b'%' {
            out.push(b'%');
            continue;
        }
        taken += 1;
        let (sign, prefix, body, numeric) = convert(&field, conversion, arguments)?;
        field.pad(&mut out, &sign, &prefix, &body, numeric);
    }
    Ok((out, taken))
}

type Converted = (String, String, Vec<u8>, bool);

/// Sign, prefix, digits or text, and whether zeros may fill it up.
fn convert(field: &Field, conversion: u8, arguments: &mut impl Arguments) -> Result<Converted, String> {
    let text = |body: Vec<u8>| (String::new(), String::new(), body, false);
    let sign = |negative: bool| match negative {
        true => "-",
        false if field.plus => "+",
        false if field.space => " ",
        false => "",
    };
    Ok(match conversion {
        b'c' => text(vec![arguments.next(4)? as u8]),
        b's' => {
            let address = arguments.next(8)?;
            text(arguments.string(address, field.precision.unwrap_or(usize::MAX))?)
        }
        b'p' => {
            let address = arguments.next(8)?;
            text(if address == 0 { b"(nil)".to_vec() } else { format!("{address:#x}").into_bytes() })
        }
        b'd' | b'i' => {
            let unused = 64 - 8 * field.size as u32;
            let v = (arguments.next(field.size.max(4))? << unused) as i64 >> unused;
            let digits = field.digits(v.unsigned_abs().to_string());
            (sign(v < 0).into(), String::new(), digits.into_bytes(), field.precision.is_none())
        }
        b'u' | b'o' | b'x' | b'X' => {
            let v = arguments.next(field.size.max(4))? & (u64::MAX >> (64 - 8 * field.size));
            let (digits, prefix) = match conversion {
                b'u' => (v.to_string(), ""),
                b'o' => (format!("{v:o}"), "0"),
                b'x' => (format!("{v:x}"), "0x"),
                _ => (format!("{v:X}"), "0X"),
            };
            let prefix = if field.alternate && v != 0 { prefix } else { "" };
            (String::new(), prefix.into(), field.digits(digits).into_bytes(), field.precision.is_none())
        }
        b'f' | b'F' | b'e' | b'E' | b'g' | b'G' => {
            let v = f64::from_bits(arguments.next(8)?);
            let mut digits = match (v.is_finite(), conversion.to_ascii_lowercase()) {
                (false, _) => if v.is_nan() { "nan" } else { "inf" }.to_string(),
                (_, b'f') => field.point(fixed(v.abs(), field.precision.unwrap_or(6))),
                (_, b'e') => field.point(scientific(v.abs(), field.precision.unwrap_or(6))),
                _ => field.shortest(v.abs()),
            };
            if conversion.is_ascii_uppercase() {
                digits.make_ascii_uppercase();
            }
            (sign(v.is_sign_negative()).into(), String::new(), digits.into_bytes(), v.is_finite())
        }
        other => return Err(format!("the conversion %{} is not supported", char::from(other))),
    })
}

fn fixed(v: f64, precision: usize) -> String {
    format!("{v:.precision$}")
}

/// `1.5e+03`: at least two digits of exponent.
fn scientific(v: f64, precision: usize) -> String {
    let text = format!("{v:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

impl Field {
    /// An integer with as many digits as the precision asks for; none for 0 with a precision of 0.
    fn digits(&self, digits: String) -> String {
        match self.precision {
            Some(0) if digits == "0" => String::new(),
            Some(n) => format!("{digits:0>n$}"),
            None => digits,
        }
    }

    /// `#` keeps a point that no digit follows.
    fn point(&self, digits: String) -> String {
        if !self.alternate || digits.contains('.') {
            return digits;
        }
        match digits.split_once('e') {
            Some((digits, exponent)) => format!("{digits}.e{exponent}"),
            None => digits + ".",
        }
    }

    /// `%g`: the precision counts significant digits, and zeros at the end go unless `#` keeps them.
    fn shortest(&self, v: f64) -> String {
        let significant = self.precision.unwrap_or(6).max(1);
        let scaled = scientific(v, significant - 1);
        let exponent: i32 = scaled.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
        let digits = if exponent < -4 || exponent >= significant as i32 {
            scaled
        } else {
            fixed(v, (significant as i32 - 1 - exponent) as usize)
        };
        if self.alternate {
            return self.point(digits);
        }
        let (digits, exponent) = digits.find('e').map_or((&digits[..], ""), |at| digits.split_at(at));
        let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
        format!("{digits}{exponent}")
    }

    fn pad(&self, out: &mut Vec<u8>, sign: &str, prefix: &str, body: &[u8], numeric: bool) {
        let missing = self.width.saturating_sub(sign.len() + prefix.len() + body.len());
        let zeros = self.zeros && numeric && !self.left;
        let fill =
            |out: &mut Vec<u8>, with: u8, on: bool| out.extend(std::iter::repeat_n(with, if on { missing } else { 0 }));
        fill(out, b' ', !self.left && !zeros);
        out.extend(sign.bytes().chain(prefix.bytes()));
        fill(out, b'0', zeros);
        out.extend(body);
        fill(out, b' ', self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List<'a>(std::slice::Iter<'a, (usize, u64)>);

    impl Arguments for List<'_> {
        fn next(&mut self, bytes: usize) -> Result<u64, String> {
            let &(size, value) = self.0.next().ok_or("no argument left")?;
            assert_eq!(size, bytes);
            Ok(value)
        }
        fn string(&mut self, address: u64, limit: usize) -> Result<Vec<u8>, String> {
            assert_eq!(address, 0x1000);
            Ok(b"text"[..limit.min(4)].to_vec())
        }
    }

    fn printed(template: &str, arguments: &[(usize, u64)]) -> String {
        let (text, taken) = format(template.as_bytes(), &mut List(arguments.iter())).unwrap();
        assert_eq!(taken as usize, arguments.len(), "{template}");
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn integers() {
        let minus = (4, -42i32 as u32 as u64);
        assert_eq!(printed("%d|%5d|%-5d|%05d|%+d|%.4d", &[minus; 6]), "-42|  -42|-42  |-0042|-42|-0042");
        assert_eq!(printed("%u %x %X %o", &[(4, 255); 4]), "255 ff FF 377");
        assert_eq!(
            printed("%#x %#o %#x %08x %#06x", &[(4, 8), (4, 8), (4, 0), (4, 8), (4, 8)]),
            "0x8 010 0 00000008 0x0008"
        );
        assert_eq!(printed("%lld %llu", &[(8, u64::MAX), (8, u64::MAX)]), "-1 18446744073709551615");
        assert_eq!(printed("%hd %hhu", &[(4, 0x18000), (4, 300)]), "-32768 44");
        assert_eq!(
            printed("%*d|%-*d|% d|%.0d|%.*d", &[(4, 4), (4, 1), (4, 3), (4, 2), (4, 3), (4, 0), (4, 2), (4, 7)]),
            "   1|2  | 3||07"
        );
    }

    #[test]
    fn floats() {
        let of = |v: f64| (8, v.to_bits());
        assert_eq!(
            printed("%f %.2f %8.1f %-8.1f| %08.1f", &[of(1.5), of(-2.345), of(9.96), of(9.96), of(-9.96)]),
            "1.500000 -2.35     10.0 10.0    | -00010.0"
        );
        assert_eq!(
            printed("%e %.1e %E %.0e %#.0e", &[of(1234.5), of(1e-9), of(0.0), of(5e100), of(5.0)]),
            "1.234500e+03 1.0e-09 0.000000E+00 5e+100 5.e+00"
        );
        assert_eq!(
            printed("%g %g %g %g %#g %.3g", &[of(0.0001), of(0.00001), of(1e6), of(100000.0), of(1.0), of(1234.0)]),
            "0.0001 1e-05 1e+06 100000 1.00000 1.23e+03"
        );
        assert_eq!(
            printed("%f %5.1f|%05f %+f", &[of(f64::NAN), of(f64::INFINITY), of(f64::NEG_INFINITY), of(0.0)]),
            "nan   inf| -inf +0.000000"
        );
    }

    #[test]
    fn text_and_pointers() {
        assert_eq!(
            printed("100%% %s %.2s|%6s|%-6s|%c", &[(8, 0x1000), (8, 0x1000), (8, 0x1000), (8, 0x1000), (4, 65)]),
            "100% text te|  text|text  |A"
        );
        assert_eq!(printed("%p %p %5c", &[(8, 0), (8, 0xabc), (4, 66)]), "(nil) 0xabc     B");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let problem = |template: &str| format(template.as_bytes(), &mut List([].iter())).unwrap_err();
        assert!(problem("%n").contains("%n"));
        assert!(problem("%a").contains("%a"));
        assert!(problem("50%").contains("ends"));
        assert!(problem("%d").contains("no argument"));
        assert!(problem("%99999999999d").contains("width"));
    }
}
