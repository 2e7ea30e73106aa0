//! The state of one compilation, and where variables and labels lie.

use std::collections::HashMap;

use super::lowered::Lowered;
use super::scope::Scopes;
use crate::address;
use crate::ops::Class;
use crate::program::{Ins, Location, Step};
use crate::ptx::PtxError;
use crate::ptx::ast::{Module, Variable};
use crate::registers::Level;

/// The state of one compilation.
pub(super) struct Compiler<'a> {
    pub module: &'a Module,
    pub level: Level,
    pub scopes: Scopes,
    pub code: Vec<Lowered>,
    /// Instruction number of each label.
    pub labels: Vec<usize>,
    pub location: Location,
    pub static_shared: u32,
    pub local_bytes: u32,
    pub depth: usize,
    /// Where `ret` goes inside an inlined function.
    pub returns: Vec<usize>,
    /// The functions that are being inlined, outermost first.
    pub calling: Vec<String>,
    /// Where the shared variables of function bodies lie, by the address of their declaration.
    pub placed: HashMap<*const Variable, u64>,
    /// First address and bytes of each `.const` variable of the module.
    pub constants: Vec<(u64, u64)>,
    pub tables: Vec<Vec<usize>>,
    pub serial: bool,
    /// Fences, or accesses that acquire or release; atomics.
    pub ordering: bool,
    pub atomics: bool,
    pub partial_barriers: bool,
    pub shared_granule: u32,
}

impl<'a> Compiler<'a> {
    pub fn new(module: &'a Module, level: Level) -> Self {
        Compiler {
            module,
            level,
            scopes: Scopes::default(),
            code: Vec::new(),
            labels: Vec::new(),
            location: Location::default(),
            static_shared: 0,
            local_bytes: 0,
            depth: 0,
            returns: Vec::new(),
            calling: Vec::new(),
            placed: HashMap::new(),
            constants: Vec::new(),
            tables: Vec::new(),
            serial: false,
            ordering: false,
            atomics: false,
            partial_barriers: false,
            shared_granule: 4,
        }
    }

    /// Room in the block's shared memory; its address.
    pub fn shared_variable(&mut self, v: &Variable) -> Result<u64, PtxError> {
        self.static_shared = self.static_shared.next_multiple_of(v.align.max(1) as u32);
        let at = address::SHARED_FIRST + u64::from(self.static_shared);
        self.static_shared = u32::try_from(v.bytes)
            .ok()
            .and_then(|n| self.static_shared.checked_add(n))
            .filter(|&n| n <= 1 << 20)
            .ok_or_else(|| PtxError::new(v.line, format!("{}: {} bytes of shared memory", v.name, v.bytes)))?;
        Ok(at)
    }

    /// Room in each thread's local memory.
    pub fn local_variable(&mut self, v: &Variable) -> Result<u64, PtxError> {
        self.local_bytes = self.local_bytes.next_multiple_of(v.align.max(1) as u32);
        let at = address::LOCAL_FIRST + u64::from(self.local_bytes);
        self.local_bytes = u32::try_from(v.bytes)
            .ok()
            .and_then(|n| self.local_bytes.checked_add(n))
            .filter(|&n| n <= 512 << 10)
            .ok_or_else(|| PtxError::new(v.line, format!("{}: {} bytes of local memory", v.name, v.bytes)))?;
        Ok(at)
    }

    pub fn new_label(&mut self) -> usize {
        self.labels.push(usize::MAX);
        self.labels.len() - 1
    }

    pub fn place_label(&mut self, label: usize) {
        self.labels[label] = self.code.len();
    }

    pub fn emit_exit(&mut self) {
        let location = self.location;
        self.code.push(Lowered::new(Ins::new(Step::Exit, Class::Branch), location));
    }
}
