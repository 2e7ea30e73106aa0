//! Numbers as people write them: budgets and noise levels as decimals or as fractions of 255.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A number that may be written as a fraction: `0.03`, `"8/255"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Number(pub f64);

impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            part.trim()
                .parse::<f64>()
                .map_err(|_| format!("expected a number or a fraction like 8/255, found `{text}`"))
        };
        Ok(Number(match text.split_once('/') {
            Some((numerator, denominator)) => part(numerator)? / part(denominator)?,
            None => part(text)?,
        }))
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
                Ok(Number(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// An epsilon as short as it can be read back: `0.03`, `8/255`.
pub fn eps_label(eps: f64) -> String {
    let decimal = eps.to_string();
    let levels = (eps * 255.0).round();
    if decimal.len() > 6 && levels / 255.0 == eps { format!("{levels}/255") } else { decimal }
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
        let parse = |text: &str| text.parse::<Number>().map(|n| n.0);
        assert_eq!(parse("8/255"), Ok(8.0 / 255.0));
        assert_eq!(parse(" 1 / 4 "), Ok(0.25));
        assert_eq!(parse("0.03"), Ok(0.03));
        assert_eq!(parse("-1"), Ok(-1.0));
        for bad in ["", "1/2/3", "eight", "8/"] {
            assert!(parse(bad).unwrap_err().contains(bad));
        }
    }

    #[test]
    fn epsilons_are_short() {
        assert_eq!([0.0, 0.005, 8.0 / 255.0, 0.2, 1.0].map(eps_label), ["0", "0.005", "8/255", "0.2", "1"]);
        assert_eq!(eps_label(1.0 / 3.0), "85/255");
        assert_eq!(eps_label(0.123456789), "0.123456789");
    }
}
