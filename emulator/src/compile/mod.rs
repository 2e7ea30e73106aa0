//! From parsed PTX to a [`Program`]: names are resolved, calls inlined, opcodes looked up, registers given rows.

mod allocate;
mod call;
mod compiler;
mod finish;
mod flow;
mod lower;
mod lowered;
mod mbarrier;
mod memory;
mod operands;
mod problem;
mod runtime;
mod scope;
mod video;
mod wmma;

use std::collections::{BTreeMap, HashMap};

use self::compiler::Compiler;
use self::scope::Meaning;
pub(crate) use self::scope::function_address;
use crate::address;
use crate::program::Program;
use crate::ptx::PtxError;
use crate::ptx::ast::{Function, Module, Operand, Space, Statement};
use crate::ptx::opcode::Operation;
use crate::registers::Level;

/// Bytes of shared memory that a kernel may declare, of every architecture (CUDA C++ Programming Guide, "Technical Specifications").
const STATIC_SHARED: u32 = 48 << 10;

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
    let mut c = Compiler::new(module, level);
    let done = lower(&mut c, entry, variables);
    let location = c.location;
    let program = match done {
        Ok((parameters, bytes)) => c.finish(entry, parameters, bytes),
        Err(e) => Err(e),
    };
    program.map_err(|e| {
        let file = module.files.iter().find(|(n, _)| *n == location.file && location.ptx_line == e.line);
        e.of_kernel(&entry.name, file.map(|(_, name)| (name.clone(), location.line)))
    })
}

/// The functions with a body that no entry calls, or reaches through a register.
pub fn uncalled(module: &Module) -> Vec<&Function> {
    let mut called: Vec<&str> = Vec::new();
    for body in module.functions.iter().filter(|f| f.entry).filter_map(|f| f.body.as_deref()) {
        called.extend(reachable(module, body).into_keys());
        for f in call::indirect(module, body) {
            called.push(&f.name);
            called.extend(f.body.iter().flat_map(|body| reachable(module, body).into_keys()));
        }
    }
    let left = |f: &&Function| !f.entry && f.body.is_some() && !called.contains(&f.name.as_str());
    module.functions.iter().filter(left).collect()
}

/// Compiles a function alone, as if an entry called it with memory and registers of its own.
///
/// # Errors
/// As for [`compile`], naming the function.
pub fn compile_function(
    module: &Module,
    function: &Function,
    variables: &HashMap<String, u64>,
    level: Level,
) -> Result<(), PtxError> {
    let mut body = Vec::new();
    for p in function.returns.iter().chain(&function.parameters) {
        body.push(match p.space {
            Space::Param => Statement::Variable(p.clone()),
            _ => Statement::Registers { ty: p.ty, name: p.name.clone(), count: None, line: p.line },
        });
        // The first element of a vector register; the others follow.
        if let Some((vector, "x")) = p.name.split_once('.') {
            let all = function.returns.iter().chain(&function.parameters);
            let elements = all.filter(|p| p.name.split_once('.').is_some_and(|(v, _)| v == vector)).count();
            body.push(Statement::VectorRegister(vector.into(), elements));
        }
    }
    body.push(Statement::Block(function.body.clone().unwrap_or_default()));
    let entry = Function {
        name: function.name.clone(),
        entry: true,
        body: Some(body),
        line: function.line,
        ..Function::default()
    };
    let done = compile(module, &entry, variables, level);
    done.map(drop).map_err(|e| PtxError { function: e.kernel, kernel: None, ..e })
}

/// The code of an entry; its parameters, and their bytes.
fn lower(
    c: &mut Compiler,
    entry: &Function,
    variables: &HashMap<String, u64>,
) -> Result<(Vec<(usize, usize)>, usize), PtxError> {
    let module = c.module;
    c.scopes.open();
    let mut external = Vec::new();
    for v in &module.variables {
        match v.space {
            Space::Shared if v.bytes == 0 => external.push(v),
            Space::Shared => {
                let at = c.shared_variable(v)?;
                c.scopes.declare(&v.name, Meaning::Variable(Space::Shared, at, v.ty.bytes() as u8));
            }
            _ => {
                let address = variables.get(&v.name).copied();
                let address = address
                    .ok_or_else(|| PtxError::new(v.line, format!("variable {} has no address (extern?)", v.name)))?;
                c.scopes.declare(&v.name, Meaning::Variable(v.space, address, v.ty.bytes() as u8));
                if v.space == Space::Const {
                    c.constants.push((address, v.bytes as u64));
                }
            }
        }
    }
    let mut parameters = Vec::new();
    let mut named = Vec::new();
    let mut at = 0usize;
    for p in &entry.parameters {
        at = at.next_multiple_of(p.align.max(1));
        parameters.push((at, p.bytes));
        named.push((&p.name, Meaning::Variable(Space::Param, address::PARAM + at as u64, p.ty.bytes() as u8)));
        at += p.bytes;
    }
    let body = entry.body.as_ref().ok_or_else(|| PtxError::new(entry.line, format!("{} has no body", entry.name)))?;
    // Arrays inside the function lie before dynamic shared memory, whose start is known only when all are placed.
    place_shared(c, body)?;
    let mut callees = reachable(module, body);
    callees.extend(call::indirect(module, body).into_iter().map(|f| (f.name.as_str(), f)));
    let more: Vec<_> = callees
        .values()
        .filter_map(|f| f.body.as_deref())
        .flat_map(|b| {
            let mut more = reachable(module, b);
            more.extend(call::indirect(module, b).into_iter().map(|f| (f.name.as_str(), f)));
            more
        })
        .collect();
    callees.extend(more);
    for callee in callees.values() {
        if let Some(body) = &callee.body {
            place_shared(c, body)?;
        }
    }
    let dynamic = external.iter().map(|v| v.align as u32).max().unwrap_or(16).max(16);
    c.static_shared = c.static_shared.next_multiple_of(if external.is_empty() { 1 } else { dynamic });
    for v in external {
        let at = address::SHARED_FIRST + u64::from(c.static_shared);
        c.scopes.declare(&v.name, Meaning::Variable(Space::Shared, at, v.ty.bytes() as u8));
    }
    c.scopes.open_function();
    for (name, meaning) in named {
        c.scopes.declare(name, meaning);
    }
    c.statements(body)?;
    if c.static_shared > STATIC_SHARED {
        let what =
            format!("{} bytes of shared memory are declared, {STATIC_SHARED} can be; more is dynamic", c.static_shared);
        return Err(PtxError::new(entry.line, what));
    }
    c.location.ptx_line = entry.line;
    c.emit_exit();
    Ok((parameters, at))
}

/// Shared variables of a function body keep their place wherever the function is inlined.
fn place_shared(c: &mut Compiler, body: &[Statement]) -> Result<(), PtxError> {
    let mut work: Vec<&[Statement]> = vec![body];
    while let Some(statements) = work.pop() {
        for s in statements {
            match s {
                Statement::Block(inner) => work.push(inner),
                Statement::Variable(v) if v.space == Space::Shared => {
                    let at = c.shared_variable(v)?;
                    c.placed.insert(v, at);
                }
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
                Statement::Instruction(i) if i.opcode.operation == Operation::Call => {
                    for o in &i.operands {
                        if let Operand::Name(name) = o
                            && let Some(f) = module.function(name)
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
