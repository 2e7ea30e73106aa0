//! Results as people read them: tables for the terminal, figures for a page.

pub mod heat;
pub mod page;
pub mod picture;
pub mod plot;
pub mod profile;
pub mod roofline;
pub mod strip;
pub mod table;

/// `correct` of `n` images at one epsilon, in pixel units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub eps: f64,
    pub correct: u64,
    pub n: u64,
}

/// One curve of a figure or row of a table: a model in one channel over ascending epsilons.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
    /// Curves of one channel share a colour, those of one model a mark.
    pub colour: usize,
    pub mark: usize,
}

impl Point {
    /// 0 to 1; 0 without images.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.n.max(1) as f64
    }
}

/// An epsilon as short as it can be read back: `0.03`, `8/255`.
pub fn eps_label(eps: f64) -> String {
    let decimal = eps.to_string();
    let levels = (eps * 255.0).round();
    if decimal.len() > 6 && levels / 255.0 == eps { format!("{levels}/255") } else { decimal }
}

#[cfg(test)]
mod tests {
    use super::eps_label;

    #[test]
    fn epsilons_are_short() {
        assert_eq!([0.0, 0.005, 8.0 / 255.0, 0.2, 1.0].map(eps_label), ["0", "0.005", "8/255", "0.2", "1"]);
        assert_eq!(eps_label(1.0 / 3.0), "85/255");
        assert_eq!(eps_label(0.123456789), "0.123456789");
    }
}
