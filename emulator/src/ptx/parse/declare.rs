//! Variables, parameters, registers and initial values (PTX ISA 5.4).

use super::{Literal, Parse, Parser, PtxError, Token, space};
use crate::ptx::ast::{Initial, Space, Statement, Type, Variable};

/// More than any device has.
const MAX_BYTES: usize = 1 << 40;
const MAX_ALIGN: u32 = 1 << 20;
/// Elements of an initialiser, filled rows included.
const MAX_INITIAL: usize = 1 << 24;
/// Dimensions of an array; braces nest no deeper.
const MAX_DIMENSIONS: usize = 8;
/// The elements of a vector register.
const PARTS: [&str; 4] = ["x", "y", "z", "w"];
/// `.reg .v4 .b32 %v<n>`
const MAX_VECTORS: u32 = 1 << 12;

/// What stands between the state space and the name.
#[derive(Clone, Copy)]
struct Kind {
    ty: Type,
    align: Option<usize>,
    /// Elements of a vector: 1 without `.v2` or `.v4`.
    lanes: usize,
}

impl<'a> Parser<'a> {
    /// Behind the state space: `.align 4 .v4 .f32`.
    fn kind(&mut self) -> Parse<Kind> {
        let (mut align, mut lanes) = (None, 1);
        loop {
            let Token::Directive(directive) = self.token else { return self.expected("a type") };
            match directive {
                "align" => align = Some(self.align()?),
                "v2" | "v4" | "v8" => {
                    self.bump()?;
                    lanes = usize::from(directive.as_bytes()[1] - b'0');
                }
                _ => {
                    let Some(ty) = Type::named(directive) else {
                        return self.error(format!("unknown type .{directive}"));
                    };
                    self.bump()?;
                    return Ok(Kind { ty, align, lanes });
                }
            }
        }
    }

    fn align(&mut self) -> Parse<usize> {
        let line = self.line;
        self.bump()?;
        let n = self.count("an alignment")?;
        if !n.is_power_of_two() || n > MAX_ALIGN {
            return Err(PtxError::new(line, format!(".align {n}: expected a power of two up to {MAX_ALIGN}")));
        }
        Ok(n as usize)
    }

    /// `[4][2]`; a first dimension `[]` is `None`.
    fn dimensions(&mut self) -> Parse<Vec<Option<usize>>> {
        let mut dimensions = Vec::new();
        while self.accept('[')? {
            if dimensions.len() == MAX_DIMENSIONS {
                return self.error(format!("an array of more than {MAX_DIMENSIONS} dimensions"));
            }
            if dimensions.is_empty() && self.at(']') {
                dimensions.push(None);
            } else {
                dimensions.push(Some(self.count("a number of elements")? as usize));
            }
            self.expect(']')?;
        }
        Ok(dimensions)
    }

    /// The variable's name and array bounds, checked and without initial value.
    fn named(&mut self, space: Space, kind: Kind, external: bool) -> Parse<(Variable, Vec<Option<usize>>)> {
        let line = self.line;
        let name = self.name("a name")?;
        let mut dimensions = self.dimensions()?;
        if kind.lanes > 1 {
            dimensions.push(Some(kind.lanes));
        }
        // An open or empty dimension counts as one, so that no product of dimensions can overflow later.
        let most = dimensions.iter().try_fold(kind.ty.bytes(), |all, d| all.checked_mul(d.unwrap_or(1).max(1)));
        if most.is_none_or(|n| n > MAX_BYTES) {
            return Err(PtxError::new(line, format!("{name} is too large")));
        }
        let bytes = dimensions.iter().fold(kind.ty.bytes(), |all, d| all * d.unwrap_or(0));
        let natural = (kind.ty.bytes() * kind.lanes).max(1);
        let align = kind.align.unwrap_or(natural);
        let variable = Variable { space, name: name.into(), ty: kind.ty, align, bytes, external, initial: None, line };
        Ok((variable, dimensions))
    }

    /// Behind the state space: `.align 4 .b8 a[8] = {1, 2}, b;`
    pub(super) fn variables(&mut self, space: Space, external: bool) -> Parse<Vec<Variable>> {
        let kind = self.kind()?;
        let mut variables = Vec::new();
        loop {
            let (mut v, mut dimensions) = self.named(space, kind, external)?;
            if kind.ty == Type::Pred {
                return problem(&v, "has type .pred, which only registers have");
            }
            if self.accept('=')? {
                if external || !matches!(space, Space::Global | Space::Const) {
                    return problem(&v, "cannot have an initial value: only .global and .const of this module can");
                }
                let values = self.initial(&mut dimensions, kind.ty)?;
                v.bytes = dimensions.iter().flatten().product::<usize>() * kind.ty.bytes();
                v.initial = Some(values);
            }
            if v.bytes == 0 && !external {
                return problem(&v, "has no elements");
            }
            variables.push(v);
            if !self.accept(',')? {
                self.expect(';')?;
                return Ok(variables);
            }
        }
    }

    /// `(.param .u64 a, .param .align 8 .b8 b[16])` of a function. A `.reg` parameter has no state space: `Space::Generic`.
    pub(super) fn parameters(&mut self) -> Parse<Vec<Variable>> {
        self.expect('(')?;
        let mut parameters = Vec::new();
        if self.accept(')')? {
            return Ok(parameters);
        }
        loop {
            let space = match self.token {
                Token::Directive("param") => Space::Param,
                Token::Directive("reg") => Space::Generic,
                _ => return self.expected("`.param`"),
            };
            self.bump()?;
            let kind = self.kind()?;
            if self.token == Token::Directive("ptr") {
                self.pointer()?;
            }
            let (v, dimensions) = self.named(space, kind, false)?;
            if space == Space::Generic && dimensions == [Some(kind.lanes)] && (2..=PARTS.len()).contains(&kind.lanes) {
                // A vector register is passed element by element.
                for part in &PARTS[..kind.lanes] {
                    let (name, bytes) = (format!("{}.{part}", v.name), kind.ty.bytes());
                    parameters.push(Variable { name, bytes, align: bytes.max(1), ..v.clone() });
                }
                if !self.accept(',')? {
                    self.expect(')')?;
                    return Ok(parameters);
                }
                continue;
            }
            if space == Space::Generic && (!dimensions.is_empty() || kind.align.is_some()) {
                return problem(&v, "is a register, not an array");
            }
            if space == Space::Param && kind.ty == Type::Pred {
                return problem(&v, "has type .pred, which only registers have");
            }
            parameters.push(v);
            if !self.accept(',')? {
                self.expect(')')?;
                return Ok(parameters);
            }
        }
    }

    /// `.ptr .global .align 4`: what a kernel parameter points to. A promise to the compiler.
    fn pointer(&mut self) -> Parse<()> {
        self.bump()?;
        if let Token::Directive(directive) = self.token
            && directive != "param"
            && space(directive).is_some()
        {
            self.bump()?;
        }
        if self.token == Token::Directive("align") {
            self.align()?;
        }
        Ok(())
    }

    /// Behind `.reg`: `.b32 %r<7>, x;`. A vector `.v2 .f32 v` is the registers `v.x` and `v.y`.
    pub(super) fn registers(&mut self, into: &mut Vec<Statement>) -> Parse<()> {
        let kind = self.kind()?;
        loop {
            let line = self.line;
            let name = self.name("the name of a register")?;
            if kind.lanes > PARTS.len() {
                return self.error(format!("vector register {name} has more than four elements"));
            }
            let mut vector = |name: String| {
                for part in &PARTS[..kind.lanes] {
                    into.push(Statement::Registers { ty: kind.ty, name: format!("{name}.{part}"), count: None, line });
                }
                into.push(Statement::VectorRegister(name, kind.lanes));
            };
            if self.at('<') {
                self.bump()?;
                let count = self.count("a number of registers")?;
                if kind.lanes == 1 {
                    into.push(Statement::Registers { ty: kind.ty, name: name.into(), count: Some(count), line });
                } else if count > MAX_VECTORS {
                    return self.error(format!("{count} vector registers {name}: more than {MAX_VECTORS}"));
                } else {
                    (0..count).for_each(|n| vector(format!("{name}{n}")));
                }
                self.expect('>')?;
            } else if kind.lanes == 1 {
                into.push(Statement::Registers { ty: kind.ty, name: name.into(), count: None, line });
            } else {
                vector(name.into());
            }
            if !self.accept(',')? {
                return self.expect(';');
            }
        }
    }

    /// Behind `=`: one value, or braces. Sets an open first dimension. Elements that are not given at the end are zero.
    fn initial(&mut self, dimensions: &mut [Option<usize>], ty: Type) -> Parse<Vec<Initial>> {
        let mut values = Vec::new();
        if self.at('{') {
            let one = [Some(1)];
            let line = self.line;
            self.braces(if dimensions.is_empty() { &one } else { dimensions }, ty, &mut values)?;
            if let Some(first @ None) = dimensions.first_mut() {
                *first = Some(0);
                let row: usize = dimensions[1..].iter().flatten().product();
                if row == 0 {
                    return Err(PtxError::new(line, "an initialised array without elements"));
                }
                dimensions[0] = Some(values.len().div_ceil(row));
            }
        } else if dimensions.is_empty() {
            values.push(self.initial_element(ty)?);
        } else {
            return self.expected("`{`");
        }
        Ok(values)
    }

    /// `{a, b}` or `{{a, b}, {c}}`: shorter inner braces are filled with zeros.
    fn braces(&mut self, dimensions: &[Option<usize>], ty: Type, values: &mut Vec<Initial>) -> Parse<()> {
        let start = values.len();
        let row: usize = dimensions[1..].iter().flatten().product();
        let most = dimensions[0].map_or(MAX_INITIAL, |n| (n * row).min(MAX_INITIAL));
        self.expect('{')?;
        if self.accept('}')? {
            return Ok(());
        }
        loop {
            let line = self.line;
            if self.at('{') && dimensions.len() > 1 {
                let from = start + (values.len() - start).next_multiple_of(row.max(1));
                if from + row - start > most || from + row > MAX_INITIAL {
                    return Err(PtxError::new(line, format!("expected at most {most} elements in these braces")));
                }
                values.resize(from, Initial::Bits(0));
                self.braces(&dimensions[1..], ty, values)?;
                values.resize(from + row, Initial::Bits(0));
            } else {
                values.push(self.initial_element(ty)?);
                if values.len() - start > most {
                    return Err(PtxError::new(line, format!("expected at most {most} elements in these braces")));
                }
            }
            if !self.accept(',')? {
                return self.expect('}');
            }
        }
    }

    /// A number, `name+8`, or `generic(name)+8`.
    fn initial_element(&mut self, ty: Type) -> Parse<Initial> {
        let line = self.line;
        if let Token::Word(_) = self.token {
            let mut name = self.name("a variable or function")?;
            if name == "generic" && self.accept('(')? {
                name = self.name("a variable")?;
                self.expect(')')?;
            }
            if ty.bytes() != 8 {
                return Err(PtxError::new(line, format!("the address of {name} needs an element of 64 bits")));
            }
            return Ok(Initial::Address(name.into(), self.offset()?));
        }
        let value = self.constant("a number or an address")?;
        if self.at('(') {
            return self.error("a mask over an address in an initialiser is not supported");
        }
        match bits(value, ty) {
            Some(bits) => Ok(Initial::Bits(bits)),
            None => Err(PtxError::new(line, format!("initial value {value:?} does not fit type {ty:?}"))),
        }
    }
}

fn problem<T>(v: &Variable, text: &str) -> Parse<T> {
    Err(PtxError::new(v.line, format!("{} {text}", v.name)))
}

/// The bits of an initial value; `None` if the type cannot hold it. `.f16` and its pairs have no initialisers (PTX ISA 5.4.4).
fn bits(value: Literal, ty: Type) -> Option<u64> {
    use Type::*;
    let real = match value {
        Literal::Integer(v) => v as f64,
        Literal::F32(b) => f64::from(f32::from_bits(b)),
        Literal::F64(b) => f64::from_bits(b),
    };
    match (value, ty) {
        // Same width: the bits as they are, a NaN's included.
        (Literal::F32(b), F32 | B32) => Some(u64::from(b)),
        (Literal::F64(b), F64 | B64) => Some(b),
        (_, F32) => Some(u64::from((real as f32).to_bits())),
        (_, F64) => Some(real.to_bits()),
        (Literal::Integer(v), B8 | B16 | B32 | B64 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64) => {
            let width = 8 * ty.bytes() as u32;
            let unused = 64 - width;
            let fits = unused == 0 || v >> width == 0 || v >> (width - 1) == -1;
            fits.then_some((v as u64) << unused >> unused)
        }
        _ => None,
    }
}
