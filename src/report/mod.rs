//! What is said of a run: verdicts on its attack, paired comparisons, tables and figure, images and maps, and the page of it all.

pub mod certificate;
pub mod checks;
pub mod maps;
pub mod page;
pub mod paired;
pub mod samples;
mod strips;
pub mod summary;
pub mod terminal;
pub mod words;
