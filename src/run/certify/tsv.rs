//! The table that certifications are published as: `idx label predict radius correct time`, one row per image.
//!
//! Source: the files of locuslab/smoothing (Cohen et al. 2019). Some of others' hold a running total under `correct`; what is read here goes by
//! label and prediction.

use std::fmt::Write as _;
use std::path::Path;

use super::certified::Cell;
use crate::config::settings::{Procedure, Rounding};
use crate::{Error, Result, files};

pub const HEADER: &str = "idx\tlabel\tpredict\tradius\tcorrect\ttime";
/// Of predictions, which have no radius.
const OF_PREDICT: &str = "idx\tlabel\tpredict\tcorrect\ttime";

/// A radius as Python's `{:.3}` writes it: three significant digits, at least one behind the point.
pub fn radius(value: f64, rounding: Rounding) -> String {
    if value <= 0.0 || !value.is_finite() {
        return "0.0".into();
    }
    let nearest = format!("{value:.2e}");
    let (digits, exponent) = nearest.split_once('e').unwrap_or(("0.00", "0"));
    let mut digits: i64 = digits.replace('.', "").parse().unwrap_or(0);
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    if rounding == Rounding::Down && nearest.parse::<f64>().is_ok_and(|nearest| nearest > value) {
        digits -= 1;
        if digits < 100 {
            (digits, exponent) = (999, exponent - 1);
        }
    }
    let digits = digits.to_string();
    let trimmed = |text: &str| text.trim_end_matches('0').to_owned();
    match exponent {
        // Without a type, Python goes over to exponents one digit early.
        2.. | ..=-5 => {
            let rest = trimmed(&digits[1..]);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}{point}{rest}e{sign}{:02}", &digits[..1], exponent.abs())
        }
        0.. => {
            let (whole, rest) = digits.split_at(exponent as usize + 1);
            let rest = trimmed(rest);
            format!("{whole}.{}", if rest.is_empty() { "0" } else { &rest })
        }
        _ => format!("0.{}{}", "0".repeat((-exponent) as usize - 1), trimmed(&digits)),
    }
}

/// Seconds as Python writes a `timedelta`: `0:02:31.238689`.
pub fn time(seconds: f64) -> String {
    let micros = (seconds.max(0.0) * 1e6).round_ties_even() as u64;
    let (whole, micros) = (micros / 1_000_000, micros % 1_000_000);
    let days = whole / 86_400;
    let mut text = match days {
        0 => String::new(),
        1 => "1 day, ".into(),
        days => format!("{days} days, "),
    };
    let _ = write!(text, "{}:{:02}:{:02}", whole / 3600 % 24, whole / 60 % 60, whole % 60);
    if micros > 0 {
        let _ = write!(text, ".{micros:06}");
    }
    text
}

/// The table of a model at a sigma.
pub fn table(cell: &Cell, procedure: Procedure, rounding: Rounding) -> String {
    let predicts = procedure == Procedure::Predict;
    let mut out = format!("{}\n", if predicts { OF_PREDICT } else { HEADER });
    for image in &cell.images {
        let radius = if predicts { String::new() } else { radius(image.radius, rounding) + "\t" };
        let (correct, time) = (u8::from(image.correct), time(image.seconds));
        let _ = writeln!(out, "{}\t{}\t{}\t{radius}{correct}\t{time}", image.image, image.label, image.predict);
    }
    out
}

/// A row of such a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub image: u64,
    pub label: i64,
    /// -1 abstains.
    pub predict: i64,
    pub radius: f64,
}

impl Row {
    pub fn correct(&self) -> bool {
        self.label == self.predict
    }
}

/// Reads a table of anybody's.
///
/// # Errors
/// [`Error::File`] naming the line for what is no such table; [`Error::Io`].
pub fn read(path: &Path) -> Result<Vec<Row>> {
    parse(&files::text(path, "read the table of a certification")?).map_err(|problem| Error::file(path, problem))
}

fn parse(text: &str) -> Result<Vec<Row>, String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default().trim_start_matches('\u{feff}');
    let columns: Vec<&str> = head.trim_end_matches('\r').split('\t').collect();
    let column = |name: &str| {
        columns.iter().position(|column| *column == name).ok_or_else(|| {
            let shown: String = head.chars().take(80).collect();
            let expected = HEADER.replace('\t', ", ");
            format!("line 1: expected the columns {expected}, with tabs between them, found {shown:?}")
        })
    };
    let [idx, label, predict] = [column("idx")?, column("label")?, column("predict")?];
    let (radius, correct) = (column("radius")?, column("correct").ok());
    let mut rows: Vec<Row> = Vec::new();
    for (at, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.trim_end_matches('\r').split('\t').collect();
        let bad = |what: &str| format!("line {}: expected {what}", at + 2);
        if fields.len() != columns.len() {
            return Err(bad(&format!("{} columns as in line 1, found {}", columns.len(), fields.len())));
        }
        let field = |column: usize| fields.get(column).copied().unwrap_or_default();
        let whole = |column: usize, what| field(column).parse::<i64>().map_err(|_| bad(what));
        let row = Row {
            image: field(idx).parse().map_err(|_| bad("the number of an image under `idx`"))?,
            label: whole(label, "a class under `label`")?,
            predict: whole(predict, "a class or -1 under `predict`")?,
            radius: field(radius)
                .parse()
                .ok()
                .filter(|r: &f64| r.is_finite() && *r >= 0.0)
                .ok_or_else(|| bad("a number of at least 0 under `radius`"))?,
        };
        if row.label < 0 {
            return Err(bad(&format!("a class from 0 on under `label`, found {}", row.label)));
        }
        if row.predict < 0 && (row.predict != -1 || row.radius > 0.0) {
            return Err(bad(&format!(
                "a class, or -1 with a radius of 0 for an abstention, found {} with {}",
                row.predict, row.radius
            )));
        }
        // A 1 may be a running total.
        if row.correct() && matches!(correct.map(field), Some("0" | "0.0" | "False" | "false")) {
            return Err(bad("label and prediction to differ where `correct` is 0, found the same class"));
        }
        if rows.last().is_some_and(|last| last.image >= row.image) {
            return Err(bad("ascending numbers under `idx`"));
        }
        rows.push(row);
    }
    match rows.is_empty() {
        true => Err("expected a row per image, found none".into()),
        false => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radii_as_python_writes_them() {
        for (value, text) in [
            (0.16543, "0.165"),
            (0.05041, "0.0504"),
            (1.0, "1.0"),
            (12.3456, "12.3"),
            (9.999, "10.0"),
            (0.0001, "0.0001"),
            (5e-5, "5e-05"),
            (99.96, "1e+02"),
            (123.4, "1.23e+02"),
            (0.25, "0.25"),
            (0.24951, "0.25"),
            (0.0, "0.0"),
        ] {
            assert_eq!(radius(value, Rounding::Nearest), text);
        }
    }

    #[test]
    fn by_default_no_radius_grows() {
        for (value, text) in [
            (0.24951, "0.249"),
            (0.25, "0.25"),
            (9.999, "9.99"),
            (0.1, "0.1"),
            (0.09999, "0.0999"),
            (99.96, "99.9"),
            (0.000099999, "9.99e-05"),
        ] {
            assert_eq!(radius(value, Rounding::Down), text);
        }
    }

    #[test]
    fn times_as_python_writes_them() {
        for (seconds, text) in [
            (151.238689, "0:02:31.238689"),
            (1.0, "0:00:01"),
            (90061.5, "1 day, 1:01:01.500000"),
            (0.0, "0:00:00"),
            (200_000.0, "2 days, 7:33:20"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn tables_of_others_are_read_whatever_they_count() {
        let text = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.165\t1\t0:00:01\n20\t8\t-1\t0.0\t1\t0:00:01\n40\t1\t2\t5e-05\t2\t1\n";
        let rows = parse(text).unwrap();
        assert_eq!(rows.iter().map(Row::correct).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!((rows[2].image, rows[2].radius), (40, 5e-5));
        // As some editors begin a file.
        assert_eq!(parse(&format!("\u{feff}{text}")), Ok(rows));
        for (bad, why) in [
            ("", "line 1: expected the columns"),
            ("idx\tlabel\tpredict\tradius\tcorrect\ttime\n", "found none"),
            ("idx\tlabel\tpredict\tcorrect\n0\t1\t1\t1\n", "expected the columns idx, label, predict, radius"),
            ("idx\tlabel\tpredict\tradius\n0\t1\t1\tnan\n", "line 2: expected a number"),
            ("idx\tlabel\tpredict\tradius\n5\t1\t1\t0.1\n5\t1\t1\t0.1\n", "line 3: expected ascending"),
            ("idx\tlabel\tpredict\tradius\n5\t1\tone\t0.1\n", "line 2: expected a class or -1"),
            ("idx label predict radius\n5 1 1 0.1\n", "with tabs between them, found \"idx label"),
            ("idx\tlabel\tpredict\tradius\tcorrect\n0\t1\t1\t0.1\t1\n5\t1\t1\t0.3\n", "line 3: expected 5 columns"),
            ("idx\tlabel\tpredict\tradius\n5\t1\t-1\t0.3\n", "line 2: expected a class, or -1 with a radius of 0"),
            ("idx\tlabel\tpredict\tradius\n5\t-1\t-1\t0\n", "line 2: expected a class from 0 on under `label`"),
            (
                "idx\tlabel\tpredict\tradius\tcorrect\n5\t3\t3\t0.3\t0\n",
                "line 2: expected label and prediction to differ",
            ),
            (
                "idx\tlabel\tpredict\tradius\tcorrect\n5\t3\t3\t0.3\tFalse\n",
                "line 2: expected label and prediction to differ",
            ),
        ] {
            let problem = parse(bad).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_never_more(value in 1e-7f64..150.0) {
            let down: f64 = radius(value, Rounding::Down).parse().unwrap();
            let near: f64 = radius(value, Rounding::Nearest).parse().unwrap();
            proptest::prop_assert!(down <= value && value - down < 0.0101 * value);
            proptest::prop_assert!((near - value).abs() <= 0.00501 * value);
        }
    }
}
