//! Names: registers, variables and labels as they are visible inside nested blocks.

use std::collections::HashMap;

use crate::ptx::PtxError;
use crate::ptx::ast::{Space, Type};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// A virtual register.
    Register(u32),
    /// A variable: its state space, and its address there.
    Variable(Space, u64),
}

/// How many rows a register takes: 0 for a predicate.
pub fn width(ty: Type) -> Result<u8, String> {
    match ty {
        Type::Pred => Ok(0),
        Type::B128 => Err("registers of 128 bits are not supported".into()),
        _ => Ok(if ty.bytes() == 8 { 2 } else { 1 }),
    }
}

/// Nested scopes of one function.
#[derive(Default)]
pub struct Scopes {
    /// Names and families (`%r<7>`: prefix, first register, count), innermost last.
    levels: Vec<Level>,
    /// Rows of each virtual register, 0 for predicates.
    pub widths: Vec<u8>,
}

#[derive(Default)]
struct Level {
    names: HashMap<String, Meaning>,
    families: HashMap<String, (u32, u32)>,
    labels: HashMap<String, usize>,
}

impl Scopes {
    pub fn open(&mut self) {
        self.levels.push(Level::default());
    }

    pub fn close(&mut self) {
        self.levels.pop();
    }

    fn innermost(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.open();
        }
        self.levels.last_mut().expect("just opened")
    }

    pub fn declare(&mut self, name: &str, meaning: Meaning) {
        self.innermost().names.insert(name.into(), meaning);
    }

    /// A fresh virtual register.
    pub fn fresh(&mut self, width: u8) -> u32 {
        self.widths.push(width);
        self.widths.len() as u32 - 1
    }

    pub fn registers(&mut self, ty: Type, name: &str, count: Option<u32>, line: u32) -> Result<(), PtxError> {
        let width = width(ty).map_err(|e| PtxError::new(line, e))?;
        let first = self.widths.len() as u32;
        let n = count.unwrap_or(1);
        if n > 1 << 20 || first > 1 << 22 {
            return Err(PtxError::new(line, format!("{n} registers {name}: more than this emulator takes")));
        }
        self.widths.extend(std::iter::repeat_n(width, n as usize));
        match count {
            Some(_) => {
                self.innermost().families.insert(name.into(), (first, n));
            }
            None => self.declare(name, Meaning::Register(first)),
        }
        Ok(())
    }

    pub fn label(&mut self, name: &str, number: usize) {
        self.innermost().labels.insert(name.into(), number);
    }

    pub fn find_label(&self, name: &str) -> Option<usize> {
        self.levels.iter().rev().find_map(|l| l.labels.get(name).copied())
    }

    pub fn find(&self, name: &str) -> Option<Meaning> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(name.len() - digits);
        let number = number.parse::<u32>().ok();
        for level in self.levels.iter().rev() {
            if let Some(meaning) = level.names.get(name) {
                return Some(meaning.clone());
            }
            if let (Some(number), Some(&(first, count))) = (number, level.families.get(prefix))
                && number < count
            {
                return Some(Meaning::Register(first + number));
            }
        }
        None
    }
}
