//! Names: registers, variables and labels as they are visible inside nested blocks.

use std::collections::{HashMap, HashSet};

use crate::address;
use crate::ptx::PtxError;
use crate::ptx::ast::{Module, Space, Type};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// A virtual register.
    Register(u32),
    /// A register that a call gave for a `.param`: `ld.param` and `st.param` of its name are moves.
    Argument(u32),
    /// A variable: its state space, its address there, and the bytes of one element.
    Variable(Space, u64, u8),
    /// A vector register, whose elements are registers of its name and `.x`, `.y`, `.z`, `.w`: how many.
    Vector(usize),
}

/// How many rows a register takes: 0 for a predicate.
pub fn width(ty: Type) -> Result<u8, String> {
    match ty {
        Type::Pred => Ok(0),
        Type::B128 => Err("registers of 128 bits are not supported".into()),
        _ => Ok(if ty.bytes() == 8 { 2 } else { 1 }),
    }
}

/// The address of a function: its place among those of the module.
pub(crate) fn function_address(module: &Module, name: &str) -> Option<u64> {
    let at = module.functions.iter().position(|f| f.name == name && !f.entry)?;
    Some(address::CODE + 16 * at as u64)
}

/// Nested scopes of one function.
#[derive(Default)]
pub struct Scopes {
    /// Names and families (`%r<7>`: prefix, first register, count), innermost last.
    levels: Vec<Level>,
    /// Where the function that is being inlined begins: it sees its own levels, and the outermost, which is the module's.
    floors: Vec<usize>,
    /// Rows of each virtual register, 0 for predicates.
    pub widths: Vec<u8>,
}

#[derive(Default)]
struct Level {
    names: HashMap<String, Meaning>,
    families: HashMap<String, (u32, u32)>,
    labels: HashMap<String, usize>,
    /// Names of registers and families that were declared here.
    registers: HashSet<(String, bool)>,
}

impl Scopes {
    pub fn open(&mut self) {
        self.levels.push(Level::default());
    }

    pub fn close(&mut self) {
        self.levels.pop();
    }

    /// The level of a function of its own: nothing of its caller is visible in it.
    pub fn open_function(&mut self) {
        self.floors.push(self.levels.len());
        self.open();
    }

    pub fn close_function(&mut self) {
        self.floors.pop();
        self.close();
    }

    /// What is visible, innermost first.
    fn visible(&self) -> impl Iterator<Item = &Level> {
        let floor = self.floors.last().copied().unwrap_or(0).min(self.levels.len());
        self.levels[floor..].iter().rev().chain(self.levels[..floor].first())
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
        if !self.innermost().registers.insert((name.into(), count.is_some())) {
            return Err(PtxError::new(line, format!("a second declaration of the registers {name}")));
        }
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

    /// Whether it is the first of its name here.
    pub fn label(&mut self, name: &str, number: usize) -> bool {
        self.innermost().labels.insert(name.into(), number).is_none()
    }

    pub fn find_label(&self, name: &str) -> Option<usize> {
        self.visible().find_map(|l| l.labels.get(name).copied())
    }

    pub fn find(&self, name: &str) -> Option<Meaning> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(name.len() - digits);
        let number = number.parse::<u32>().ok();
        for level in self.visible() {
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
