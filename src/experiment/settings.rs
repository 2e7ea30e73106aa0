//! The choices that a config offers, by the names it gives them.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::choice::choice;

choice! {
    /// Where the kernels run.
    DeviceChoice {
        /// CUDA when there is a driver and a GPU, else the host.
        Auto = "auto",
        Host = "host",
        Cuda = "cuda",
        /// The PTX emulator behind the stand-in driver.
        Emulated = "emulated",
    }
}

choice! {
    /// Which flag of an image counts as "correct" in `results.csv`.
    Score {
        /// The last iterate is classified correctly.
        Last = "last",
        /// Every iterate of every restart is classified correctly.
        Any = "any",
    }
}

choice! {
    /// The format of the images.
    DatasetKind {
        /// The images embedded in this program.
        Demo = "demo",
        FashionMnist = "fashion-mnist",
        Cifar10 = "cifar10",
        /// One folder of images per class, all of one size.
        Folder = "folder",
        /// ImageNet's validation set, images of any size.
        Imagenet = "imagenet",
    }
}

choice! {
    /// Which images a limit keeps.
    SelectBy {
        /// The first of the source.
        First = "first",
        /// As many of each class as of any other.
        Balanced = "balanced",
        /// Drawn by `seed` of the dataset, as NumPy's shuffle would.
        Random = "random",
    }
}

choice! {
    /// What an attack moves, and what is clipped to [0, 1].
    Space {
        Pixel = "pixel",
        /// The normalised tensor, as in a published study; see [`crate::attack::Normalised`].
        Normalised = "normalised",
    }
}

choice! {
    /// How attacked images are handed on to be scored and denoised.
    HandOver {
        Float = "float",
        /// Rounded to 8 bits, as if they were saved as PNG and read again.
        EightBit = "8-bit",
    }
}

/// A number that may be written as a fraction: `0.03`, `"8/255"`.
#[derive(Clone, Copy, Debug, PartialEq)]
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
}
