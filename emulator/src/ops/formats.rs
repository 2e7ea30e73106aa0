//! What matrix instructions multiply.

use serde::{Deserialize, Serialize};

/// The elements of A and B: tensor cores have a rate for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatrixFormat {
    F16,
    Bf16,
    Tf32,
    F64,
    Int8,
    Float8,
}

impl MatrixFormat {
    /// Of an opcode `mma. ... .D.A.B.C`: the type of A.
    pub fn of(opcode: &[&str]) -> Option<Self> {
        let types = opcode.len().checked_sub(4)?;
        match (opcode[0], opcode[types + 1]) {
            ("mma", "f16") => Some(MatrixFormat::F16),
            ("mma", "bf16") => Some(MatrixFormat::Bf16),
            ("mma", "tf32") => Some(MatrixFormat::Tf32),
            ("mma", "f64") => Some(MatrixFormat::F64),
            ("mma", "s8" | "u8") => Some(MatrixFormat::Int8),
            ("mma", "e4m3" | "e5m2") => Some(MatrixFormat::Float8),
            _ => None,
        }
    }
}

/// What one warp-wide instruction multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub format: MatrixFormat,
    /// Multiplications and additions.
    pub flops: u32,
}
