//! Certified accuracies as tables: for a terminal, Markdown, LaTeX and CSV.

use std::fmt::Write as _;

use super::{Certificates, Curve, RHO, label};
use crate::error::{Error, Result};

impl Certificates {
    /// The largest accuracy at a radius, which tables mark; `None` where all are 0 or there is one curve only.
    fn best(&self, radius: f64) -> Option<u64> {
        let most = self.curves.iter().map(|curve| self.marked(curve, radius)).max()?;
        (most > 0 && self.curves.len() > 1).then_some(most)
    }

    /// Accuracies of curves of different images, in parts per million.
    fn marked(&self, curve: &Curve, radius: f64) -> u64 {
        (1e6 * curve.accuracy(radius)).round() as u64
    }

    /// The L-infinity radii under a row of L2 radii; none under predictions.
    pub fn linf_of(&self, radii: &[f64]) -> Option<Vec<f64>> {
        if self.predicts { None } else { radii.iter().map(|&radius| self.linf(radius)).collect() }
    }

    /// For a terminal: the accuracy in % with its interval, and below what it is sure to be at least.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} in %{}, Wilson 95 % interval, and what it is at least but for a chance of {RHO}{}\n",
            self.what(),
            if self.predicts { "" } else { " over the L2 radius" },
            self.flaw()
        );
        let names = self.curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0).max(6) + 2;
        for radii in self.radii().chunks(7) {
            let line = |name: &str, cells: Vec<String>| {
                let cells: String = cells.iter().map(|cell| format!("{cell:<15}")).collect();
                format!("{name:<names$}{cells}").trim_end().to_owned() + "\n"
            };
            let head = if self.predicts { "" } else { "radius" };
            out += &line(head, radii.iter().map(|&radius| self.column(radius, str::to_owned)).collect());
            if let Some(linf) = self.linf_of(radii) {
                out += &line("L∞", linf.into_iter().map(|radius| format!("{radius:.4}")).collect());
            }
            for curve in &self.curves {
                let at: Vec<_> = radii.iter().map(|&radius| self.at(curve, radius)).collect();
                out += &line(&curve.name, at.iter().map(|at| format!("{:.1}", at.accuracy)).collect());
                out += &line("", at.iter().map(|at| format!("[{:.1}, {:.1}]", at.lo, at.hi)).collect());
                if let Some(sure) = at.iter().map(|at| at.sure).collect::<Option<Vec<_>>>() {
                    out += &line("", sure.iter().map(|sure| format!("{sure:.1}")).collect());
                }
            }
        }
        out + &self.unfinished().map_or(String::new(), |text| text + "\n")
    }

    /// The best at each radius is bold.
    pub fn markdown(&self) -> String {
        let mut out = format!("| {}, %{} |", self.what(), self.flaw());
        for &radius in self.radii() {
            let _ = write!(out, " {} |", self.column(radius, |radius| format!("r = {radius}")));
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(self.radii().len()));
        for curve in &self.curves {
            let _ = write!(out, "| {} |", curve.name.replace('|', "\\|"));
            for &radius in self.radii() {
                let at = self.at(curve, radius);
                let bold = if self.best(radius) == Some(self.marked(curve, radius)) { "**" } else { "" };
                let _ = write!(out, " {bold}{:.1}{bold} [{:.1}, {:.1}] |", at.accuracy, at.lo, at.hi);
            }
            out.push('\n');
        }
        if let Some(linf) = self.linf_of(self.radii()) {
            out += "| L∞ radius that it holds |";
            for radius in linf {
                let _ = write!(out, " {radius:.4} |");
            }
            out.push('\n');
        }
        let counts: Vec<String> = self.curves.iter().map(|curve| format!("{} (n = {})", curve.name, curve.n)).collect();
        let _ = write!(
            out,
            "\n{}. Wilson 95 % intervals. {} Failure chance of a {}{}: {}.\n",
            counts.join(", "),
            match self.curves.len() {
                0 | 1 => "",
                _ if self.predicts => "Bold: the best, chosen on the test set.",
                _ => "Bold: best per radius, chosen on the test set.",
            },
            if self.predicts { "prediction" } else { "certificate" },
            if self.curves.iter().any(|curve| curve.sigma.is_none()) { " of this run" } else { "" },
            self.alpha
        );
        out + &self.unfinished().map_or(String::new(), |text| format!("\n{text}\n"))
    }

    /// A `tabular` for booktabs; the best at each radius is bold.
    pub fn latex(&self) -> String {
        let escaped = |text: &str| {
            text.chars().fold(String::new(), |mut out, c| {
                match c {
                    '_' | '&' | '%' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
                    '\\' => out += "\\textbackslash{}",
                    '~' => out += "\\textasciitilde{}",
                    '^' => out += "\\textasciicircum{}",
                    'σ' => out += "$\\sigma$",
                    c => out.push(c),
                }
                out
            })
        };
        let mut out = format!("\\begin{{tabular}}{{l{}}}\n\\toprule\n & ", "c".repeat(self.radii().len()));
        let heads: Vec<String> =
            self.radii().iter().map(|&radius| self.column(radius, |radius| format!("$r = {radius}$"))).collect();
        let _ = write!(out, "{} \\\\\n\\midrule\n", heads.join(" & "));
        for curve in &self.curves {
            out += &escaped(&curve.name);
            for &radius in self.radii() {
                let accuracy = format!("{:.1}", self.at(curve, radius).accuracy);
                let best = self.best(radius) == Some(self.marked(curve, radius));
                let _ = if best { write!(out, " & \\textbf{{{accuracy}}}") } else { write!(out, " & {accuracy}") };
            }
            out += " \\\\\n";
        }
        let flaw = if self.flaw().is_empty() { String::new() } else { format!("% {}\n", self.flaw().trim()) };
        let flaw = flaw + &self.unfinished().map_or(String::new(), |text| format!("% {text}\n"));
        flaw + &out + "\\bottomrule\n\\end{tabular}\n"
    }

    /// For a machine: what [`Certificates::csv`] has, and what attacks say of it.
    pub fn json(&self) -> serde_json::Value {
        let curve = |curve: &Curve| {
            let at = |&radius: &f64| {
                let at = self.at(curve, radius);
                serde_json::json!({ "radius": radius, "radius_linf": self.linf(radius), "accuracy": at })
            };
            serde_json::json!({
                "curve": curve.name, "sigma": curve.sigma, "n": curve.n, "at": self.radii().iter().map(at).collect::<Vec<_>>()
            })
        };
        serde_json::json!({
            "what": self.what(), "alpha": self.alpha, "unfinished": self.unfinished(), "not_to_be_quoted": !self.flaw().is_empty(), "words": self.words(),
            "attacked_within": self.crossed.compared, "broken": self.crossed.lines().split_off(1),
            "curves": self.curves.iter().map(curve).collect::<Vec<_>>()
        })
    }

    /// What a row of [`Certificates::rows`] has.
    pub const COLUMNS: [&str; 10] =
        ["curve", "sigma", "radius", "radius_linf", "n", "certified", "accuracy", "lo", "hi", "sure"];

    /// A row per curve and radius.
    pub fn rows(&self) -> Vec<[String; 10]> {
        let row = |curve: &Curve, radius: f64| {
            let at = self.at(curve, radius);
            let share = |percent: f64| format!("{:.6}", percent / 100.0);
            [
                curve.name.clone(),
                curve.sigma.map_or(String::new(), |sigma| sigma.to_string()),
                label(radius),
                self.linf(radius).map_or(String::new(), |radius| format!("{radius:.6}")),
                at.n.to_string(),
                at.k.to_string(),
                share(at.accuracy),
                share(at.lo),
                share(at.hi),
                at.sure.map_or(String::new(), share),
            ]
        };
        self.curves.iter().flat_map(|curve| self.radii().iter().map(move |&radius| row(curve, radius))).collect()
    }

    /// # Errors
    /// [`Error::Failed`] when it cannot be written.
    pub fn csv(&self) -> Result<String> {
        let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("curves.csv: {e}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(Self::COLUMNS).map_err(|e| failed(&e))?;
        self.rows().iter().try_for_each(|row| writer.write_record(row)).map_err(|e| failed(&e))?;
        let bytes = writer.into_inner().map_err(|e| failed(&e))?;
        String::from_utf8(bytes).map_err(|e| failed(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Certificates {
        let curve =
            |name: &str, n, radii: &[f64]| Curve::new(name.into(), Some(0.25), n, radii.iter().copied(), [0, 0]);
        Certificates {
            predicts: false,
            curves: vec![curve("net_a, σ 0.25", 4, &[0.1, 0.3, 0.6]), curve("b|c", 10, &[0.3; 8])],
            attacked: vec![],
            radii: vec![0.0, 0.25, 0.5],
            alpha: 0.001,
            crossed: Default::default(),
            values: Some(3 * 32 * 32),
            words: vec![],
            missing: vec![],
        }
    }

    #[test]
    fn the_best_at_each_radius_is_marked() {
        let markdown = two().markdown();
        let rows: Vec<&str> = markdown.lines().collect();
        assert!(rows[2].starts_with("| net_a, σ 0.25 | 75.0 [") && rows[2].contains("| **25.0** ["), "{markdown}");
        assert!(rows[3].starts_with("| b\\|c | **80.0** [") && rows[3].contains("| 0.0 ["), "{markdown}");
        assert!(rows[4].contains("| 0.0045 |"), "{markdown}");
        let latex = two().latex();
        assert!(latex.contains("net\\_a, $\\sigma$ 0.25 & 75.0 & 50.0 & \\textbf{25.0} \\\\"), "{latex}");
        assert!(latex.contains("b|c & \\textbf{80.0} & \\textbf{80.0} & 0.0 \\\\"), "{latex}");
    }

    #[test]
    fn predictions_are_called_neither_certified_nor_at_a_radius() {
        let all = Certificates { predicts: true, radii: vec![0.0], ..two() };
        for text in [all.text(), all.markdown(), all.latex(), all.json()["what"].to_string()] {
            assert!(!text.contains("certified") && !text.contains("radius") && !text.contains("r = "), "{text}");
        }
        assert!(
            all.markdown().starts_with("| accuracy of the smoothed classifier, % | predicted |"),
            "{}",
            all.markdown()
        );
    }

    #[test]
    fn csv_has_a_row_per_curve_and_radius() {
        let csv = two().csv().unwrap();
        let rows: Vec<&str> = csv.lines().collect();
        assert_eq!(rows.len(), 7);
        assert!(rows[2].starts_with("\"net_a, σ 0.25\",0.25,0.25,0.004511,4,2,0.500000,"), "{csv}");
    }

    #[test]
    fn a_terminal_sees_interval_and_sure_accuracy() {
        let text = two().text();
        assert!(text.contains("radius         0") && text.contains("80.0") && text.contains("[49.0, 94.3]"), "{text}");
    }
}
