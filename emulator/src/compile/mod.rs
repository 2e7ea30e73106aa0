//! From parsed PTX to a [`Program`]: names are resolved, calls inlined, opcodes looked up, registers given rows.

mod allocate;
mod flow;
mod lower;
mod memory;
mod runtime;
mod scope;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use self::flow::{Blocks, Leave};
use self::scope::{Meaning, Scopes};
use crate::address;
use crate::ops::Class;
use crate::program::{Ins, Location, Program, Special, Step};
use crate::ptx::PtxError;
use crate::ptx::ast::{Function, Module, Space, Statement, Variable};
use crate::registers::{Level, NO_PREDICATE, Row};

/// Deepest chain of calls; a cycle is deeper.
const MAX_DEPTH: usize = 32;
/// Instructions of one kernel, calls inlined.
const MAX_CODE: usize = 1 << 20;

/// The predicate that holds in every lane, for immediates; not a virtual register.
const TRUE: u32 = u32::MAX;
/// Predicates 0, the carry flag, and 1, [`TRUE`], are nobody else's.
const RESERVED_PREDICATES: usize = 2;
/// Rows 0 and 1 are where results go that nobody reads.
const RESERVED_ROWS: usize = 2;

/// A row operand before registers have rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Operand {
    Register(u32),
    /// Bits, and whether they fill 64-bit lanes.
    Constant(u64, bool),
    Special(Special),
    /// A destination that nobody reads.
    Sink,
}

/// An instruction before registers have rows.
pub(crate) struct Lowered {
    pub ins: Ins,
    /// What `ins.operands.slot` will hold; bit n of `writes` marks destinations.
    pub rows: Vec<Operand>,
    pub writes: u32,
    pub predicates: Vec<Option<u32>>,
    pub predicate_writes: u32,
    pub guard: Option<(u32, bool)>,
    /// Labels it may jump to.
    pub targets: Vec<usize>,
    pub location: Location,
}

/// The state of one compilation.
pub(crate) struct Compiler<'a> {
    module: &'a Module,
    level: Level,
    scopes: Scopes,
    code: Vec<Lowered>,
    /// Instruction number of each label.
    labels: Vec<usize>,
    location: Location,
    static_shared: u32,
    local_bytes: u32,
    depth: usize,
    /// Where `ret` goes inside an inlined function.
    returns: Vec<usize>,
    tables: Vec<Vec<usize>>,
    serial: bool,
    partial_barriers: bool,
    shared_granule: u32,
}

/// Compiles one entry. `variables` holds the device addresses of the module's global and constant variables.
///
/// # Errors
/// [`PtxError`] with the line: an unknown opcode, modifier, name or operand.
pub fn compile(
    module: &Module,
    entry: &Function,
    variables: &HashMap<String, u64>,
    level: Level,
) -> Result<Program, PtxError> {
    let mut c = Compiler {
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
        tables: Vec::new(),
        serial: false,
        partial_barriers: false,
        shared_granule: 4,
    };
    c.scopes.open();
    let mut external = Vec::new();
    for v in &module.variables {
        match v.space {
            Space::Shared if v.bytes == 0 => external.push(v),
            Space::Shared => c.shared_variable(v)?,
            _ => {
                let address = variables.get(&v.name).copied();
                let address = address
                    .ok_or_else(|| PtxError::new(v.line, format!("variable {} has no address (extern?)", v.name)))?;
                c.scopes.declare(&v.name, Meaning::Variable(v.space, address));
            }
        }
    }
    let mut parameters = Vec::new();
    let mut at = 0usize;
    for p in &entry.parameters {
        at = at.next_multiple_of(p.align.max(1));
        parameters.push((at, p.bytes));
        c.scopes.declare(&p.name, Meaning::Variable(Space::Param, address::PARAM + at as u64));
        at += p.bytes;
    }
    let body = entry.body.as_ref().ok_or_else(|| PtxError::new(entry.line, format!("{} has no body", entry.name)))?;
    // Arrays inside the function lie before dynamic shared memory, whose start is known only when all are placed.
    place_shared(&mut c, body)?;
    for (name, target) in reachable(module, body) {
        if let Some(body) = &target.body {
            let _ = name;
            place_shared(&mut c, body)?;
        }
    }
    let dynamic = external.iter().map(|v| v.align as u32).max().unwrap_or(16).max(16);
    c.static_shared = c.static_shared.next_multiple_of(if external.is_empty() { 1 } else { dynamic });
    for v in external {
        c.scopes.declare(&v.name, Meaning::Variable(Space::Shared, address::SHARED_FIRST + u64::from(c.static_shared)));
    }
    c.statements(body)?;
    c.location.ptx_line = entry.line;
    c.emit_exit();
    c.finish(entry, parameters, at)
}

/// Shared variables of a function body keep their place wherever the function is inlined.
fn place_shared(c: &mut Compiler, body: &[Statement]) -> Result<(), PtxError> {
    let mut work: Vec<&[Statement]> = vec![body];
    while let Some(statements) = work.pop() {
        for s in statements {
            match s {
                Statement::Block(inner) => work.push(inner),
                Statement::Variable(v) if v.space == Space::Shared => c.shared_variable(v)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Functions that a body calls, directly or not.
fn reachable<'a>(module: &'a Module, body: &'a [Statement]) -> BTreeMap<&'a str, &'a Function> {
    let mut found: BTreeMap<&str, &Function> = BTreeMap::new();
    let mut work: Vec<&[Statement]> = vec![body];
    while let Some(statements) = work.pop() {
        for s in statements {
            match s {
                Statement::Block(inner) => work.push(inner),
                Statement::Instruction(i) if i.opcode.first().is_some_and(|o| o == "call") => {
                    for o in &i.operands {
                        if let crate::ptx::ast::Operand::Name(name) = o
                            && let Some(f) = lower::function(module, name)
                            && found.insert(&f.name, f).is_none()
                            && let Some(body) = &f.body
                        {
                            work.push(body);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found
}

impl Compiler<'_> {
    fn shared_variable(&mut self, v: &Variable) -> Result<(), PtxError> {
        self.static_shared = self.static_shared.next_multiple_of(v.align.max(1) as u32);
        let at = address::SHARED_FIRST + u64::from(self.static_shared);
        self.static_shared = u32::try_from(v.bytes)
            .ok()
            .and_then(|n| self.static_shared.checked_add(n))
            .filter(|&n| n <= 1 << 20)
            .ok_or_else(|| PtxError::new(v.line, format!("{}: {} bytes of shared memory", v.name, v.bytes)))?;
        self.scopes.declare(&v.name, Meaning::Variable(Space::Shared, at));
        Ok(())
    }

    /// Room in each thread's local memory.
    fn local_variable(&mut self, v: &Variable) -> Result<u64, PtxError> {
        self.local_bytes = self.local_bytes.next_multiple_of(v.align.max(1) as u32);
        let at = address::LOCAL_FIRST + u64::from(self.local_bytes);
        self.local_bytes = u32::try_from(v.bytes)
            .ok()
            .and_then(|n| self.local_bytes.checked_add(n))
            .filter(|&n| n <= 512 << 10)
            .ok_or_else(|| PtxError::new(v.line, format!("{}: {} bytes of local memory", v.name, v.bytes)))?;
        Ok(at)
    }

    fn new_label(&mut self) -> usize {
        self.labels.push(usize::MAX);
        self.labels.len() - 1
    }

    fn place_label(&mut self, label: usize) {
        self.labels[label] = self.code.len();
    }

    /// The statements of one scope, whose labels and variables are visible throughout it.
    fn statements(&mut self, body: &[Statement]) -> Result<(), PtxError> {
        self.depth += 1;
        if self.depth > 4 * MAX_DEPTH {
            return Err(PtxError::new(self.location.ptx_line, "blocks and calls nest too deep (recursion?)"));
        }
        self.scopes.open();
        for s in body {
            if let Statement::Label(name, _) = s {
                let label = self.new_label();
                self.scopes.label(name, label);
            }
        }
        for s in body {
            match s {
                Statement::Label(name, line) => {
                    let label = self.scopes.find_label(name);
                    self.place_label(label.ok_or_else(|| PtxError::new(*line, format!("label {name} is lost")))?);
                }
                Statement::Variable(v) => match v.space {
                    Space::Shared => {
                        // Placed before; found again by its name in the outermost scope.
                        if self.scopes.find(&v.name).is_none() {
                            return Err(PtxError::new(v.line, format!("variable {} is lost", v.name)));
                        }
                    }
                    Space::Local | Space::Param => {
                        let at = self.local_variable(v)?;
                        self.scopes.declare(&v.name, Meaning::Variable(Space::Local, at));
                    }
                    _ => {
                        let what = format!("variable {}: expected .shared, .local or .param inside a function", v.name);
                        return Err(PtxError::new(v.line, what));
                    }
                },
                Statement::Registers { ty, name, count, line } => self.scopes.registers(*ty, name, *count, *line)?,
                Statement::Location { file, line, inlined_at } => {
                    self.location =
                        Location { file: *file, line: *line, inlined_at: *inlined_at, ptx_line: self.location.ptx_line }
                }
                Statement::Block(inner) => self.statements(inner)?,
                Statement::BranchTargets(..) => {}
                Statement::Instruction(i) => {
                    self.location.ptx_line = i.line;
                    self.instruction(i, body).map_err(|problem| match problem {
                        lower::Problem::Here(text) => {
                            PtxError::new(i.line, format!("`{}`: {text}", i.opcode.join(".")))
                        }
                        lower::Problem::Inside(e) => e,
                    })?;
                    if self.code.len() > MAX_CODE {
                        return Err(PtxError::new(i.line, "too many instructions"));
                    }
                }
            }
        }
        self.scopes.close();
        self.depth -= 1;
        Ok(())
    }

    fn emit_exit(&mut self) {
        let location = self.location;
        self.code.push(Lowered::new(Ins::new(Step::Exit, Class::Branch), location));
    }

    /// Finds joins, gives registers rows, and resolves labels.
    fn finish(
        mut self,
        entry: &Function,
        parameters: Vec<(usize, usize)>,
        parameter_bytes: usize,
    ) -> Result<Program, PtxError> {
        self.insert_joins();
        let blocks = self.blocks();
        let touches: Vec<allocate::Touches> = self.code.iter().map(|l| l.touches(&self.scopes.widths, false)).collect();
        let rows = allocate::allocate(&blocks, &touches, &self.scopes.widths, RESERVED_ROWS);
        let touches: Vec<allocate::Touches> = self.code.iter().map(|l| l.touches(&self.scopes.widths, true)).collect();
        let as_predicates: Vec<u8> = self.scopes.widths.iter().map(|&w| u8::from(w == 0)).collect();
        let predicates = allocate::allocate(&blocks, &touches, &as_predicates, RESERVED_PREDICATES);

        let mut next = rows.rows;
        let mut fixed: BTreeMap<Operand, u16> = BTreeMap::new();
        let mut constants = Vec::new();
        let mut specials = Vec::new();
        let (mut code, mut locations) = (Vec::with_capacity(self.code.len()), Vec::with_capacity(self.code.len()));
        for (pc, l) in self.code.iter().enumerate() {
            let mut ins = l.ins;
            for (n, &operand) in l.rows.iter().enumerate() {
                ins.operands.slot[n] = match operand {
                    Operand::Register(v) => rows.slot[v as usize].unwrap_or(0),
                    Operand::Sink => 0,
                    Operand::Constant(bits, wide) => *fixed.entry(operand).or_insert_with(|| {
                        let at = next as u16;
                        next += 1 + usize::from(wide);
                        if wide {
                            let words: [u32; 64] =
                                std::array::from_fn(|i| if i % 2 == 0 { bits as u32 } else { (bits >> 32) as u32 });
                            let half = |first: usize| Row(std::array::from_fn(|i| words[first + i]));
                            constants.push((at, half(0)));
                            constants.push((at + 1, half(32)));
                        } else {
                            constants.push((at, Row([bits as u32; 32])));
                        }
                        at
                    }),
                    Operand::Special(special) => *fixed.entry(operand).or_insert_with(|| {
                        next += 1;
                        specials.push((next as u16 - 1, special));
                        next as u16 - 1
                    }),
                };
            }
            for (n, v) in l.predicates.iter().enumerate() {
                let slot = v.map(|v| match v {
                    TRUE => 1,
                    _ => predicates.slot[v as usize].unwrap_or(NO_PREDICATE),
                });
                ins.operands.predicate[n] = slot.unwrap_or(NO_PREDICATE);
            }
            if let Some((v, negated)) = l.guard {
                ins.guard = predicates.slot[v as usize].unwrap_or(NO_PREDICATE);
                ins.guard_negated = negated;
            }
            if let (Step::Branch { target, .. }, Some(&label)) = (&mut ins.step, l.targets.first()) {
                *target = self.labels[label] as u32;
            }
            if let Step::WarpWide { members, .. } = &mut ins.step
                && members.is_some()
            {
                *members = Some(ins.operands.slot[l.rows.len() - 1]);
            }
            ins.pc = pc as u32;
            code.push(ins);
            locations.push(l.location);
        }
        if next > usize::from(u16::MAX) - 1 {
            return Err(PtxError::new(
                entry.line,
                format!("{} needs {next} rows of registers, more than 65534", entry.name),
            ));
        }
        let tables = self.tables.iter().map(|t| t.iter().map(|&label| self.labels[label] as u32).collect()).collect();
        let max_threads = entry.required_threads.or(entry.max_threads).map_or(1024, |t| t.iter().product());
        Ok(Program {
            name: entry.name.clone(),
            code,
            locations,
            files: Arc::new(self.module.files.clone()),
            tables,
            rows: next,
            predicates: predicates.rows,
            constants,
            specials,
            undefined: rows.undefined.iter().filter_map(|&v| rows.slot[v as usize]).collect(),
            pressure: rows.pressure as u32,
            parameters,
            parameter_bytes,
            static_shared: self.static_shared,
            local_bytes: self.local_bytes,
            max_threads,
            required_threads: entry.required_threads,
            serial: self.serial,
            partial_barriers: self.partial_barriers,
            shared_granule: self.shared_granule,
        })
    }

    fn blocks(&self) -> Blocks {
        let targets: Vec<Vec<usize>> =
            self.code.iter().map(|l| l.targets.iter().map(|&t| self.labels[t]).collect()).collect();
        Blocks::new(self.code.len(), |i| {
            let l = &self.code[i];
            match l.ins.step {
                Step::Branch { .. } | Step::BranchTable { .. } => {
                    let falls = l.guard.is_some();
                    Some(Leave { targets: &targets[i], falls })
                }
                Step::Exit => Some(Leave { targets: &[], falls: l.guard.is_some() }),
                _ => None,
            }
        })
    }

    /// Puts a [`Step::Join`] wherever the sides of a branch meet, and tells the branch.
    fn insert_joins(&mut self) {
        // A label at the very end needs an instruction to stand before.
        let blocks = self.blocks();
        let meets = blocks.post_dominators();
        let mut join_of: Vec<(usize, usize)> = Vec::new(); // branch, instruction it joins at
        for (b, meet) in meets.iter().enumerate() {
            let last = blocks.first[b + 1] - 1;
            let l = &self.code[last];
            let splits = match l.ins.step {
                Step::Branch { .. } => l.guard.is_some(),
                Step::BranchTable { .. } => true,
                _ => false,
            };
            if let (true, Some(meet)) = (splits, meet) {
                join_of.push((last, blocks.first[*meet]));
            }
        }
        let mut at: Vec<usize> = join_of.iter().map(|&(_, at)| at).collect();
        at.sort_unstable();
        at.dedup();
        let moved = |i: usize| i + at.partition_point(|&j| j < i);
        for (branch, meet) in &join_of {
            let to = moved(*meet) as u32;
            match &mut self.code[*branch].ins.step {
                Step::Branch { join, .. } | Step::BranchTable { join, .. } => *join = to,
                _ => {}
            }
        }
        for label in self.labels.iter_mut().filter(|l| **l != usize::MAX) {
            *label = moved(*label);
        }
        let old = std::mem::take(&mut self.code);
        self.code.reserve(old.len() + at.len());
        for (i, l) in old.into_iter().enumerate() {
            if at.binary_search(&i).is_ok() {
                let location = l.location;
                self.code.push(Lowered::new(Ins::new(Step::Join, Class::Other), location));
            }
            self.code.push(l);
        }
    }
}

impl Lowered {
    fn new(ins: Ins, location: Location) -> Self {
        Lowered {
            ins,
            rows: Vec::new(),
            writes: 0,
            predicates: Vec::new(),
            predicate_writes: 0,
            guard: None,
            targets: Vec::new(),
            location,
        }
    }

    /// The registers it reads and writes: rows, or predicates.
    fn touches(&self, widths: &[u8], predicates: bool) -> allocate::Touches {
        let mut t = allocate::Touches { guarded: self.guard.is_some(), ..Default::default() };
        if predicates {
            t.reads.extend(self.guard.map(|(v, _)| v));
            for (n, v) in self.predicates.iter().enumerate() {
                let Some(v) = v.filter(|&v| v != TRUE) else { continue };
                if self.predicate_writes >> n & 1 == 1 { t.writes.push(v) } else { t.reads.push(v) }
            }
        } else {
            for (n, o) in self.rows.iter().enumerate() {
                let Operand::Register(v) = *o else { continue };
                if widths[v as usize] == 0 {
                    continue;
                }
                if self.writes >> n & 1 == 1 { t.writes.push(v) } else { t.reads.push(v) }
            }
        }
        t
    }
}
