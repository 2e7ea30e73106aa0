//! Accuracies as plain text: a row per model, a column per epsilon, the interval below each number.

use super::Series;
use crate::number::eps_label;
use crate::stats::wilson;

/// Epsilons side by side before the table goes on below.
const COLUMNS: usize = 7;
/// Width of a column: the widest interval, `[90.5, 100.0]`, and two spaces.
const WIDTH: usize = 15;

/// A table in % with Wilson 95 % intervals, `sign` behind each number. All series have the same epsilons.
pub fn accuracy(title: &str, series: &[Series], sign: &str) -> String {
    let mut lines = vec![title.to_owned()];
    let eps: Vec<f64> = series.first().map(|s| s.points.iter().map(|p| p.eps).collect()).unwrap_or_default();
    let names = series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).max("eps".len()) + 2;
    for (block, eps) in eps.chunks(COLUMNS).enumerate() {
        lines.push(row(names, "eps", eps.iter().map(|&eps| eps_label(eps))));
        for model in series {
            let points = || model.points.iter().skip(block * COLUMNS).take(COLUMNS);
            lines.push(row(names, &model.name, points().map(|p| format!("{:.1}{sign}", 100.0 * p.accuracy()))));
            let interval = points().map(|p| {
                let interval = wilson(p.correct, p.n);
                format!("[{:.1}, {:.1}]", 100.0 * interval.lo, 100.0 * interval.hi)
            });
            lines.push(row(names, "", interval));
        }
    }
    lines.join("\n") + "\n"
}

/// One line: a name, and a column per cell.
pub fn row(names: usize, name: &str, cells: impl Iterator<Item = String>) -> String {
    // What is wider than its column still ends before the next.
    let cells: String =
        cells.map(|cell| format!("{cell:<width$}", width = WIDTH.max(cell.chars().count() + 2))).collect();
    format!("{name:<names$}{cells}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Point;

    #[test]
    fn reads_like_this() {
        let model = |name: &str, correct: [u64; 2]| Series {
            name: name.into(),
            colour: 0,
            mark: 0,
            steps: false,
            unsure: 0.0,
            points: vec![
                Point { eps: 0.0, correct: correct[0], n: 100 },
                Point { eps: 8.0 / 255.0, correct: correct[1], n: 100 },
            ],
        };
        let expected = "\
accuracy
eps        0              8/255
plain      100.0          37.0
           [96.3, 100.0]  [28.2, 46.8]
with-cbam  37.0           0.0
           [28.2, 46.8]   [0.0, 3.7]
";
        let both = [model("plain", [100, 37]), model("with-cbam", [37, 0])];
        assert_eq!(accuracy("accuracy", &both, ""), expected);
        assert!(accuracy("accuracy", &both, "†").contains("100.0†         37.0†"));
    }

    #[test]
    fn long_tables_go_on_below() {
        let points = (0..9).map(|i| Point { eps: f64::from(i), correct: 1, n: 2 }).collect();
        let text =
            accuracy("t", &[Series { name: "m".into(), points, colour: 0, mark: 0, steps: false, unsure: 0.0 }], "");
        assert_eq!(text.lines().count(), 7);
        assert!(text.lines().all(|line| line.len() < 120));
        assert_eq!(accuracy("t", &[], ""), "t\n");
    }
}
