//! The choices that a config offers, by the names it gives them.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] #[value(name = $text)] $variant,)+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

choice! {
    /// Number format of activations and weights.
    Precision {
        F32 = "f32",
        Bf16 = "bf16",
        /// f32 with one TF32 product per step on CUDA.
        Tf32 = "tf32",
    }
}

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
        /// One folder of images per class.
        Folder = "folder",
    }
}

choice! {
    /// Whose attack: the details of starts, steps and projections differ between libraries.
    Profile {
        Native = "native",
        Torchattacks = "torchattacks",
        Foolbox = "foolbox",
        Cleverhans = "cleverhans",
        Art = "art",
    }
}

choice! {
    Method {
        Pgd = "pgd",
        /// One step of size epsilon.
        Fgsm = "fgsm",
        /// PGD along an accumulated gradient (MI-FGSM), L-inf only.
        Mim = "mim",
    }
}

choice! {
    /// The norm of the budget.
    Norm { Linf = "linf", L2 = "l2", }
}

choice! {
    /// What the attack ascends.
    Loss {
        /// Cross-entropy.
        Ce = "ce",
        /// Difference of logits ratio.
        Dlr = "dlr",
        /// Best wrong logit less the true one.
        Margin = "margin",
    }
}

impl Norm {
    /// As it is written in a figure.
    pub fn symbol(self) -> &'static str {
        match self {
            Norm::Linf => "L∞",
            Norm::L2 => "L2",
        }
    }
}

/// The class a targeted attack aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Any class but the true one: untargeted.
    None,
    /// Drawn among the wrong classes.
    Random,
    /// The class with the lowest logit on the clean image.
    LeastLikely,
    /// The wrong class with the highest logit on the clean image.
    SecondLikely,
    /// The true class plus one, modulo the number of classes.
    Next,
    /// Always this class.
    Class(u32),
}

impl Goal {
    const NAMED: [(Goal, &str); 5] = [
        (Goal::None, "none"),
        (Goal::Random, "random"),
        (Goal::LeastLikely, "least-likely"),
        (Goal::SecondLikely, "second-likely"),
        (Goal::Next, "next"),
    ];
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Goal::Class(class) => write!(f, "{class}"),
            named => f.write_str(Goal::NAMED.iter().find(|(goal, _)| goal == named).map_or("", |(_, name)| name)),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Goal::Class(class) => serializer.serialize_u32(*class),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Goal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GoalVisitor;
        impl Visitor<'_> for GoalVisitor {
            type Value = Goal;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a class index or one of ")?;
                f.write_str(&Goal::NAMED.map(|(_, name)| format!("\"{name}\"")).join(", "))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Goal, E> {
                let found = Goal::NAMED.iter().find(|(_, name)| *name == text);
                found.map(|(goal, _)| *goal).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, class: u64) -> Result<Goal, E> {
                let class = class.try_into().map_err(|_| E::invalid_value(de::Unexpected::Unsigned(class), &self))?;
                Ok(Goal::Class(class))
            }
            fn visit_i64<E: de::Error>(self, class: i64) -> Result<Goal, E> {
                match u64::try_from(class) {
                    Ok(class) => self.visit_u64(class),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(class), &self)),
                }
            }
        }
        deserializer.deserialize_any(GoalVisitor)
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

    #[test]
    fn goals_round_trip() {
        #[derive(Serialize, Deserialize)]
        struct Table {
            targeted: Goal,
        }
        for goal in Goal::NAMED.map(|(goal, _)| goal).into_iter().chain([Goal::Class(7)]) {
            let text = toml::to_string(&Table { targeted: goal }).unwrap();
            assert_eq!(toml::from_str::<Table>(&text).unwrap().targeted, goal, "{text}");
        }
        for bad in ["\"worst\"", "-1", "0.5", "4294967296"] {
            let error = toml::from_str::<Table>(&format!("targeted = {bad}")).map(|t| t.targeted).unwrap_err();
            assert!(error.to_string().contains("least-likely"), "{error}");
        }
    }
}
