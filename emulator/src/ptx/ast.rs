//! PTX as written: names are text, nothing is resolved. Every piece knows its line.

use std::fmt;

use super::opcode::Opcode;
pub use super::types::{Space, Type};

/// A whole `.ptx` file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// `.version 9.0` is (9, 0).
    pub version: (u32, u32),
    /// `.target sm_80, debug` is "sm_80".
    pub target: String,
    /// `.file` directives: number and name.
    pub files: Vec<(u32, String)>,
    /// Variables at module level.
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}

impl Module {
    /// The function of this name that has a body, or its declaration.
    pub fn function(&self, name: &str) -> Option<&Function> {
        let mut all = self.functions.iter().filter(|f| f.name == name);
        let first = all.next()?;
        Some(if first.body.is_some() { first } else { all.find(|f| f.body.is_some()).unwrap_or(first) })
    }
}

/// `.entry` or `.func`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    pub name: String,
    pub entry: bool,
    pub parameters: Vec<Variable>,
    pub returns: Vec<Variable>,
    /// `.maxntid`
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    pub line: u32,
}

/// A variable of any state space, a parameter included.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// A `.reg` parameter lies in no state space: `Generic`.
    pub space: Space,
    pub name: String,
    /// Of one element, also of arrays and vectors.
    pub ty: Type,
    /// Bytes; alignment of the type unless `.align` says otherwise.
    pub align: usize,
    /// Bytes in all; 0 for an array of unknown length (`extern .shared .b8 x[]`).
    pub bytes: usize,
    pub external: bool,
    /// `None` means zeros where the space has initial values; so do elements missing at the end. Row-major.
    pub initial: Option<Vec<Initial>>,
    pub line: u32,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// The bits of the element.
    Bits(u64),
    /// The address of a variable or function plus an offset; `generic(x)` and plain `x` alike.
    Address(String, i64),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Label(String, u32),
    Variable(Variable),
    /// `.reg .b32 %r<7>` has `count` 7 and stands for %r0 ... %r6; `.reg .pred p` has no count.
    Registers {
        ty: Type,
        name: String,
        count: Option<u32>,
        line: u32,
    },
    /// `.loc`: what follows belongs to this source line.
    Location {
        file: u32,
        line: u32,
        inlined_at: Option<(u32, u32)>,
    },
    /// A vector register, whose elements are declared before: its name and their number.
    VectorRegister(String, usize),
    /// A `.global` or `.const` variable of this function: its name here, and the one it has among the variables of the module.
    Static(String, String),
    /// `name: .calltargets f, g;`
    CallTargets(String, Vec<String>),
    /// `name: .callprototype (...) _ (...);`
    Prototype(String, Box<Function>),
    /// `{ ... }`: names declared inside are not seen outside.
    Block(Vec<Statement>),
    /// `name: .branchtargets a, b;`
    BranchTargets(String, Vec<String>),
    Instruction(Instruction),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The predicate before the instruction, and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: Opcode,
    pub operands: Vec<Operand>,
    /// Of the PTX file, from 1.
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register (`%tid.x`), variable, function or label.
    Name(String),
    /// Bits, sign-extended to 64.
    Integer(i64),
    /// `0f3f800000`
    F32(u32),
    /// `0d3ff0000000000000` or a decimal literal
    F64(u64),
    /// `!%p1`
    Not(String),
    /// `-%r1` of vmad.
    Negated(String),
    /// `%r1|%p2` of shfl and setp; `_` is the name of a destination nobody wants.
    Pair(Box<Operand>, Box<Operand>),
    /// `{%f1, %f2}`
    Vector(Vec<Operand>),
    /// `array[3]`: an element of a variable, counted in elements.
    Element(String, i64),
    /// `[base+offset]`; the base is a name, or none when the address is a number. Also `array+8` without brackets.
    Address(Option<String>, i64),
    /// The parenthesised lists of `call`.
    List(Vec<Operand>),
}

/// As PTX is written, for reports.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: char, all: &[Operand], close: char| {
            let all: Vec<String> = all.iter().map(Operand::to_string).collect();
            write!(f, "{open}{}{close}", all.join(", "))
        };
        match self {
            Operand::Name(name) => f.write_str(name),
            Operand::Integer(v) => write!(f, "{v}"),
            Operand::F32(bits) => write!(f, "0f{bits:08x}"),
            Operand::F64(bits) => write!(f, "0d{bits:016x}"),
            Operand::Not(name) => write!(f, "!{name}"),
            Operand::Negated(name) => write!(f, "-{name}"),
            Operand::Pair(a, b) => write!(f, "{a}|{b}"),
            Operand::Vector(all) => list(f, '{', all, '}'),
            Operand::Element(name, n) => write!(f, "{name}[{n}]"),
            Operand::Address(Some(name), 0) => write!(f, "[{name}]"),
            Operand::Address(Some(name), offset) => write!(f, "[{name}{offset:+}]"),
            Operand::Address(None, at) => write!(f, "[{at}]"),
            Operand::List(all) => list(f, '(', all, ')'),
        }
    }
}
