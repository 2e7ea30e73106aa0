//! A part of a run's work, for one of several processes: every N-th unit of it.

use std::fmt;
use std::str::FromStr;

/// Part `number` of `of`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub number: u32,
    pub of: u32,
}

impl Shard {
    /// Whether a unit of work, counted from 0, is this part's.
    pub fn takes(self, unit: usize) -> bool {
        unit % self.of as usize == self.number as usize - 1
    }

    /// As it stands in names of files: `2-of-5`.
    pub fn named(self) -> String {
        format!("{}-of-{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected I/N with 1 <= I <= N <= 100000, as in 2/5, found `{text}`");
        let (number, of) = text.split_once('/').ok_or_else(bad)?;
        let (number, of) = (number.parse().map_err(|_| bad())?, of.parse().map_err(|_| bad())?);
        if number == 0 || number > of || of > 100_000 {
            return Err(bad());
        }
        Ok(Shard { number, of })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_of_one_part() {
        let parts: Vec<Shard> = (1..=5).map(|i| format!("{i}/5").parse().unwrap()).collect();
        for unit in 0..100 {
            assert_eq!(parts.iter().filter(|part| part.takes(unit)).count(), 1);
        }
        assert_eq!((parts[1].to_string(), parts[1].named()), ("2/5".into(), "2-of-5".into()));
        for bad in ["", "3", "0/4", "5/4", "1/0", "a/2", "1/2/3", "-1/2", "1/100001"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
