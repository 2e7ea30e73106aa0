//! Numbers as people write them: budgets and noise levels as decimals or as fractions of 255.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number that may be written as a fraction: `0.03`, `"8/255"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    pub value: f64,
    spelled: Spelled,
}

/// How a number was written, as far as that raises doubts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelled {
    /// With a point or as a fraction.
    Exactly,
    /// As an integer.
    Whole,
    /// As an integer of so many digits that begins with 0: `01`, what a decimal comma leaves of 0,01.
    ZeroLed(usize),
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Number { value, spelled: Spelled::Exactly }
    }
}

impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let value = part
                .trim()
                .parse::<f64>()
                .map_err(|_| format!("expected a number or a fraction like 8/255, found `{text}`"))?;
            let digits = part.split(['e', 'E']).next().unwrap_or(part);
            if value == 0.0 && digits.bytes().any(|b| matches!(b, b'1'..=b'9')) {
                return Err(format!("expected 0 or a number that float64 can tell from it, found `{text}`"));
            }
            Ok(value)
        };
        let value = match text.split_once('/') {
            Some((numerator, denominator)) => part(numerator)? / part(denominator)?,
            None => part(text)?,
        };
        let text = text.trim();
        let is_whole = text.bytes().all(|b| b.is_ascii_digit());
        let spelled = match is_whole {
            true if text.len() > 1 && text.starts_with('0') => Spelled::ZeroLed(text.len()),
            true => Spelled::Whole,
            false => Spelled::Exactly,
        };
        Ok(Number { value, spelled })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number or a fraction like \"8/255\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(value.into())
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number { value: value as f64, spelled: Spelled::Whole })
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number { value: value as f64, spelled: Spelled::Whole })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value)
    }
}

/// The values of a list of budgets or noise levels in units of pixels in [0, 1], unless they look like something else that was meant:
/// decimal commas, grey levels, a list out of order. `most` is the largest value that is usual.
///
/// # Errors
/// What looks wrong, with the spelling that was probably meant.
pub fn plausible(list: &[Number], most: f64) -> Result<(), String> {
    for (at, number) in list.iter().enumerate() {
        let value = number.value;
        let after = list[..at].last().filter(|n| n.spelled == Spelled::Whole && n.value == 0.0).map(|n| n.value);
        let comma = after.map_or(String::new(), |whole| format!("{whole}.{value} if a decimal comma was meant, "));
        match number.spelled {
            Spelled::ZeroLed(digits) => {
                let (whole, part) = (after.unwrap_or(0.0), format!("{value:0>digits$}"));
                return Err(format!("`{part}` is what a decimal comma leaves: write {whole}.{part} if that is meant"));
            }
            _ if value > most => {
                let problem = format!("found {value}, beyond {most}: values are for pixels in [0, 1]");
                return Err(format!("{problem}; write {comma}{value}/255 if grey levels were"));
            }
            Spelled::Whole if value > 1.0 => {
                return Err(format!(
                    "found the integer {value}: write {comma}{value}/255 if grey levels were, else {value}.0"
                ));
            }
            _ => {}
        }
    }
    if let [first, second] = list
        && first.spelled == Spelled::Whole
        && second.spelled == Spelled::Whole
        && (first.value, second.value) == (0.0, 1.0)
    {
        return Err("found 0 and 1, nothing and everything: write 0.1 if a comma was meant, 0,1.0 if not".into());
    }
    let in_doubt = list.iter().all(|n| n.value >= 0.0);
    if let Some(pair) = list.windows(2).find(|pair| in_doubt && pair[0].value > pair[1].value) {
        let mut sorted: Vec<f64> = list.iter().map(|n| n.value).collect();
        sorted.sort_by(f64::total_cmp);
        let sorted: Vec<String> = sorted.into_iter().map(eps_label).collect();
        let [a, b] = [pair[0].value, pair[1].value].map(eps_label);
        return Err(format!("expected ascending values, found {a} before {b}: write {}", sorted.join(",")));
    }
    Ok(())
}

/// Letters of a decimal that is said by its exponent.
const LONG: usize = 24;

/// An epsilon as short as it can be read back: `0.03`, `8/255`, `0.5/255`.
pub fn eps_label(eps: f64) -> String {
    let decimal = eps.to_string();
    let levels = (eps * 25500.0).round() / 100.0;
    match decimal.len() {
        7.. if levels / 255.0 == eps => format!("{levels}/255"),
        // No name of a file is longer than 255 letters.
        LONG.. => format!("{eps:e}"),
        _ => decimal,
    }
}

/// For serde: JSON has no NaN, so that what is not finite was written as null.
///
/// # Errors
/// What the deserializer returns.
pub fn or_nan<'de, D: Deserializer<'de>, T: Deserialize<'de> + From<f32>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_else(|| T::from(f32::NAN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_divide_as_doubles() {
        let parse = |text: &str| text.parse::<Number>().map(|n| n.value);
        assert_eq!(parse("8/255"), Ok(8.0 / 255.0));
        assert_eq!(parse(" 1 / 4 "), Ok(0.25));
        assert_eq!(parse("0.03"), Ok(0.03));
        assert_eq!(parse("-1"), Ok(-1.0));
        for bad in ["", "1/2/3", "eight", "8/"] {
            assert!(parse(bad).unwrap_err().contains(bad));
        }
        // Nothing in silence becomes 0.
        for (text, zero) in [("1e-400", false), ("1e-400/3", false), ("0e5", true), ("0.00", true), ("5e-324", true)] {
            assert_eq!(parse(text).is_ok(), zero, "{text}");
        }
    }

    #[test]
    fn what_was_probably_not_meant_is_spelled_out() {
        let list = |text: &str| text.split(',').map(|n| n.parse().unwrap()).collect::<Vec<Number>>();
        for good in ["0,0.01,0.02", "0", "1", "0.5,1", "0.25,0.5,1.0", "0,1/255,8/255", "0,1.0"] {
            assert_eq!(plausible(&list(good), 1.0), Ok(()), "{good}");
        }
        for (bad, most, hint) in [
            ("0,01", 1.0, "write 0.01"),
            ("0,005,0,01", 1.0, "write 0.005"),
            ("0.1,05", 1.0, "write 0.05"),
            ("0,1", 1.0, "write 0.1 if a comma"),
            ("0,5", 1.0, "write 0.5 if a decimal comma was meant, 5/255"),
            ("64", 1.0, "64/255"),
            ("1.5", 1.0, "beyond 1"),
            ("0.5,3", f64::INFINITY, "3/255 if grey levels were, else 3.0"),
            ("0.03,0.01", 1.0, "write 0.01,0.03"),
        ] {
            let problem = plausible(&list(bad), most).unwrap_err();
            assert!(problem.contains(hint), "{bad}: {problem}");
        }
        assert_eq!(plausible(&list("0.5,3.0"), f64::INFINITY), Ok(()));
        let of_toml =
            |text: &str| toml::from_str::<std::collections::HashMap<String, Vec<Number>>>(text).unwrap()["eps"].clone();
        assert!(plausible(&of_toml("eps = [0, 8]"), f64::INFINITY).is_err());
        assert_eq!(plausible(&of_toml("eps = [0, 8.0]"), f64::INFINITY), Ok(()));
    }

    #[test]
    fn epsilons_are_short() {
        assert_eq!([0.0, 0.005, 8.0 / 255.0, 0.2, 1.0].map(eps_label), ["0", "0.005", "8/255", "0.2", "1"]);
        assert_eq!([1.0 / 3.0, 0.5 / 255.0, 1.25 / 255.0].map(eps_label), ["85/255", "0.5/255", "1.25/255"]);
        assert_eq!(eps_label(0.123456789), "0.123456789");
        assert_eq!(eps_label(1e-260), "1e-260");
    }
}
