//! Instructions and their operands (PTX ISA 4.2.2, 6).

use super::{Literal, Parse, Parser, Token};
use crate::ptx::ast::{Instruction, Operand};
use crate::ptx::opcode::Opcode;

impl Parser<'_> {
    /// Behind the opcode: operands up to the semicolon.
    pub(super) fn instruction(&mut self, guard: Option<(String, bool)>, opcode: &str, line: u32) -> Parse<Instruction> {
        let opcode = Opcode::new(opcode);
        let mut operands = Vec::new();
        if !self.at(';') {
            operands.push(self.operand()?);
            while self.accept(',')? {
                operands.push(self.operand()?);
            }
        }
        if !self.accept(';')? {
            return self.expected("`,` or `;`");
        }
        Ok(Instruction { guard, opcode, operands, line })
    }

    fn operand(&mut self) -> Parse<Operand> {
        match self.token {
            Token::Mark('[') => self.address(),
            Token::Mark('{') => {
                self.bump()?;
                Ok(Operand::Vector(self.elements('}')?))
            }
            Token::Mark('(') => {
                self.bump()?;
                if self.accept(')')? {
                    return Ok(Operand::List(Vec::new()));
                }
                Ok(Operand::List(self.elements(')')?))
            }
            Token::Mark('!') => {
                self.bump()?;
                Ok(Operand::Not(self.name("a predicate")?.into()))
            }
            _ => {
                let first = self.element()?;
                if !self.at('|') {
                    return Ok(first);
                }
                if !matches!(first, Operand::Name(_)) {
                    return self.expected("`,` or `;`");
                }
                self.bump()?;
                let second = Operand::Name(self.name("a register")?.into());
                Ok(Operand::Pair(Box::new(first), Box::new(second)))
            }
        }
    }

    /// What may stand alone or in a list: a name, `name+8`, a number.
    fn element(&mut self) -> Parse<Operand> {
        match self.token {
            // Threads of a warp, a constant of the language (PTX ISA 4.5.5).
            Token::Word("WARP_SZ") => {
                self.bump()?;
                Ok(Operand::Integer(32))
            }
            Token::Word(name) => {
                self.bump()?;
                if self.at('+') || self.at('-') {
                    return Ok(Operand::Address(Some(name.into()), self.offset()?));
                }
                if self.accept('[')? {
                    let Literal::Integer(at) = self.constant("the number of an element")? else {
                        return self.error("the number of an element is an integer");
                    };
                    self.expect(']')?;
                    return Ok(Operand::Element(name.into(), at));
                }
                Ok(Operand::Name(name.into()))
            }
            _ => {
                let negative = self.accept('-')?;
                if negative && let Token::Word(name) = self.token {
                    self.bump()?;
                    return Ok(Operand::Negated(name.into()));
                }
                Ok(match self.constant_behind(negative, "an operand")? {
                    Literal::Integer(v) => Operand::Integer(v),
                    Literal::F32(bits) => Operand::F32(bits),
                    Literal::F64(bits) => Operand::F64(bits),
                })
            }
        }
    }

    /// One or more elements, and the mark that closes them.
    fn elements(&mut self, close: char) -> Parse<Vec<Operand>> {
        let mut all = vec![self.element()?];
        while self.accept(',')? {
            all.push(self.element()?);
        }
        self.expect(close)?;
        Ok(all)
    }

    /// `[name]`, `[name+8]`, `[name-8]`, `[256]`.
    fn address(&mut self) -> Parse<Operand> {
        self.expect('[')?;
        let operand = match self.token {
            Token::Word(name) => {
                self.bump()?;
                Operand::Address(Some(name.into()), self.offset()?)
            }
            _ => match self.constant("an address")? {
                Literal::Integer(at) => Operand::Address(None, at),
                _ => return self.error("expected an address, found a floating-point number"),
            },
        };
        if self.at(',') {
            return self.error("an address with coordinates: textures, surfaces and tensor maps are not supported");
        }
        self.expect(']')?;
        Ok(operand)
    }
}
