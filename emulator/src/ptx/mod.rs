//! The front end: PTX text to [`ast::Module`].

pub mod ast;
mod error;
mod lex;
mod parse;

pub use error::PtxError;
pub use parse::parse;
