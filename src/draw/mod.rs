//! How results look: figures, tables for the terminal, strips of images, colours, and the templates of the pages.

pub mod heat;
pub mod html;
pub mod picture;
pub mod plot;
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
    /// Whether its value at a point holds until the next one: drawn as steps, without marks.
    pub steps: bool,
    /// How much less is sure, as a share: a thin line of its own; 0 draws none.
    pub unsure: f64,
}

impl Point {
    /// 0 to 1; 0 without images.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.n.max(1) as f64
    }
}
