//! The front end: PTX text to [`ast::Module`].

pub mod ast;
mod error;
mod lex;
pub mod opcode;
mod parse;
pub mod since;
pub mod types;

pub use error::PtxError;
pub use parse::parse;
