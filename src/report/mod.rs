//! What is said of a run: verdicts on its attack, paired comparisons, tables and figure, images and maps, and the page of it all.

pub mod certificate;
pub mod checks;
pub mod curves;
pub mod four;
pub mod maps;
pub mod mark;
pub mod page;
pub mod paired;
pub mod question;
pub mod samples;
mod stages;
mod strips;
mod suite;
pub mod summary;
pub mod tables;
pub mod terminal;
pub mod words;
