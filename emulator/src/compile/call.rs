//! Calls: the callee is inlined. What a `.param` of it stands for is the caller's variable or register; its `.reg` parameters are
//! registers of its own. A call through a register tries the functions whose address is taken, one after another.

use super::compiler::Compiler;
use super::lowered::Lowered;
use super::operands::Given;
use super::problem::{Lower, Problem};
use super::runtime;
use super::scope::{Meaning, function_address, width};
use crate::ops::Class;
use crate::program::{Ins, Step};
use crate::ptx::ast::{self, Function, Initial, Instruction, Module, Operand, Space, Statement};
use crate::ptx::opcode::Operation;

/// Deepest chain of calls; a cycle is deeper.
pub(super) const MAX_DEPTH: usize = 32;
/// Functions that one call through a register may reach: each is inlined.
const MAX_CANDIDATES: usize = 64;

/// The parts of a call.
struct Call<'a> {
    returns: &'a [Operand],
    callee: &'a str,
    arguments: &'a [Operand],
    /// The prototype or the list of targets of an indirect call.
    prototype: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn of(i: &'a Instruction) -> Lower<Self> {
        use Operand::{List, Name};
        let (returns, callee, rest): (&[Operand], _, _) = match &i.operands[..] {
            [List(r), Name(n), rest @ ..] => (r, n, rest),
            [Name(n), rest @ ..] => (&[], n, rest),
            _ => return Err("expected (results), function, (arguments)".into()),
        };
        let (arguments, prototype): (&[Operand], _) = match rest {
            [] => (&[], None),
            [List(a)] => (a, None),
            [Name(p)] => (&[], Some(p.as_str())),
            [List(a), Name(p)] => (a, Some(p.as_str())),
            _ => return Err("expected (results), function, (arguments)".into()),
        };
        Ok(Call { returns, callee, arguments, prototype })
    }
}

/// The names of functions whose address something takes: an operand that is not the callee of a call, or an initial value.
fn taken(module: &Module) -> Vec<&Function> {
    let mut names: std::collections::BTreeSet<&str> = Default::default();
    for v in &module.variables {
        names.extend(v.initial.iter().flatten().filter_map(|i| match i {
            Initial::Address(name, _) => Some(name.as_str()),
            Initial::Bits(_) => None,
        }));
    }
    let mut work: Vec<&[Statement]> = module.functions.iter().filter_map(|f| f.body.as_deref()).collect();
    while let Some(statements) = work.pop() {
        for s in statements {
            match s {
                Statement::Block(inner) => work.push(inner),
                Statement::Instruction(i) if i.opcode.operation != Operation::Call => {
                    names.extend(i.operands.iter().filter_map(|o| match o {
                        Operand::Name(n) => Some(n.as_str()),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
    }
    module.functions.iter().filter(|f| !f.entry && f.body.is_some() && names.contains(f.name.as_str())).collect()
}

/// Functions that an indirect call anywhere in the module may reach; none where there is no such call.
pub(super) fn indirect<'a>(module: &'a Module, body: &'a [Statement]) -> Vec<&'a Function> {
    let mut work: Vec<&[Statement]> = vec![body];
    while let Some(statements) = work.pop() {
        for s in statements {
            match s {
                Statement::Block(inner) => work.push(inner),
                Statement::Instruction(i)
                    if i.opcode.operation == Operation::Call && Call::of(i).is_ok_and(|c| c.prototype.is_some()) =>
                {
                    return taken(module);
                }
                _ => {}
            }
        }
    }
    Vec::new()
}

impl Compiler<'_> {
    /// Inlines the callee, or each function that an indirect call may reach.
    pub(super) fn call(&mut self, i: &Instruction, body: &[Statement]) -> Lower<()> {
        let call = Call::of(i)?;
        // Lanes that the guard leaves out jump over the body.
        let after = self.new_label();
        if let Some((guard, negated)) = &i.guard {
            self.jump(Some(&(guard.clone(), !negated)), after)?;
        }
        match self.scopes.find(call.callee) {
            Some(Meaning::Register(v)) => self.indirect_call(i, &call, v, body, after)?,
            _ => {
                let module = self.module;
                let callee = module.function(call.callee);
                let callee = callee.ok_or_else(|| format!("unknown function {}", call.callee))?;
                match (&callee.body, runtime::named(call.callee)) {
                    (None, Some(known)) => self.runtime_call(&known, call.returns, call.arguments)?,
                    _ => self.inline(callee, &call)?,
                }
            }
        }
        self.place_label(after);
        // Something must stand at the label, whatever follows.
        let l = Lowered::new(Ins::new(Step::Nothing, Class::Other), self.location);
        self.code.push(l);
        Ok(())
    }

    /// Compares the address with that of each candidate; whoever is left over jumps to nowhere, which traps.
    fn indirect_call(&mut self, i: &Instruction, call: &Call, to: u32, body: &[Statement], after: usize) -> Lower<()> {
        let module = self.module;
        let wanted = call.prototype.ok_or("a call through a register needs a prototype or a list of targets")?;
        let listed = body.iter().find_map(|s| match s {
            Statement::CallTargets(name, functions) if name == wanted => Some(Ok(functions)),
            Statement::Prototype(name, head) if name == wanted => Some(Err(head)),
            _ => None,
        });
        let sizes = |list: &[ast::Variable]| list.iter().map(|v| (v.space, v.bytes)).collect::<Vec<_>>();
        let fits = |f: &&Function| match listed {
            Some(Ok(names)) => names.contains(&f.name),
            Some(Err(head)) => {
                sizes(&f.parameters) == sizes(&head.parameters) && sizes(&f.returns) == sizes(&head.returns)
            }
            None => false,
        };
        if listed.is_none() {
            return Err(format!("unknown prototype or list of targets {wanted}").into());
        }
        let candidates: Vec<&Function> = match listed {
            Some(Ok(_)) => module.functions.iter().filter(|f| !f.entry && f.body.is_some()).filter(fits).collect(),
            _ => taken(module).into_iter().filter(fits).collect(),
        };
        if candidates.len() > MAX_CANDIDATES {
            let n = candidates.len();
            return Err(format!("the call may reach {n} functions, at most {MAX_CANDIDATES} are supported").into());
        }
        let predicate = self.scopes.fresh(0);
        for callee in candidates {
            // A function that is being called cannot be inlined in itself.
            if self.calling.contains(&callee.name) {
                continue;
            }
            let at = function_address(module, &callee.name).ok_or("a function without an address")?;
            let at = Operand::Integer(at as i64);
            let operands = [Given::Register(predicate), Given::Register(to), Given::Written(&at)];
            self.compute(None, &["setp", "eq", "u64"], &operands)?;
            let next = self.new_label();
            self.jump_on(predicate, true, next);
            self.inline(callee, call)?;
            self.jump(None, after)?;
            self.place_label(next);
            let l = Lowered::new(Ins::new(Step::Nothing, Class::Other), self.location);
            self.code.push(l);
        }
        self.push(
            &Instruction { guard: None, operands: Vec::new(), ..i.clone() },
            Ins::new(Step::NoFunction, Class::Branch),
            &[],
        )
    }

    fn inline(&mut self, callee: &Function, call: &Call) -> Lower<()> {
        let name = &callee.name;
        let body = callee.body.as_ref().ok_or_else(|| format!("function {name} has no body in this module"))?;
        let (returns, arguments) = (self.spread(call.returns), self.spread(call.arguments));
        if callee.parameters.len() != arguments.len() || callee.returns.len() != returns.len() {
            let (p, r) = (callee.parameters.len(), callee.returns.len());
            return Err(format!("{name} takes {p} arguments and returns {r}").into());
        }
        if self.returns.len() >= MAX_DEPTH {
            return Err(format!("calls of {name} nest too deep; recursion is not supported").into());
        }
        let mut bound = Vec::new();
        for (p, o) in callee.parameters.iter().zip(&arguments) {
            bound.push((p, self.argument(p, o)?));
        }
        let mut results = Vec::new();
        for (p, o) in callee.returns.iter().zip(&returns) {
            let Operand::Name(given) = o else {
                return Err(format!("expected a .param variable or register for {}, found {o}", p.name).into());
            };
            let meaning = self.scopes.find(given).ok_or_else(|| format!("unknown name {given}"))?;
            bound.push((
                p,
                match (p.space, meaning) {
                    (Space::Param, Meaning::Register(v)) => Meaning::Argument(v),
                    (Space::Param, meaning) => meaning,
                    (_, Meaning::Register(v)) => {
                        let own = self.scopes.fresh(width(p.ty)?);
                        results.push((v, own));
                        Meaning::Register(own)
                    }
                    _ => return Err(format!("expected a register for {}, found {given}", p.name).into()),
                },
            ));
        }
        self.scopes.open_function();
        for (p, meaning) in bound {
            self.scopes.declare(&p.name, meaning);
            if let Some((vector, part)) = p.name.split_once('.') {
                let n = ["x", "y", "z", "w"].iter().position(|x| *x == part).unwrap_or(0) + 1;
                self.scopes.declare(vector, Meaning::Vector(n));
            }
        }
        let end = self.new_label();
        self.returns.push(end);
        self.calling.push(name.clone());
        let location = self.location;
        let done = self.statements(body);
        self.calling.pop();
        self.returns.pop();
        self.scopes.close_function();
        self.location = location;
        done?;
        self.place_label(end);
        let l = Lowered::new(Ins::new(Step::Nothing, Class::Other), self.location);
        self.code.push(l);
        for (to, from) in results {
            self.copy(to, Given::Register(from))?;
        }
        Ok(())
    }

    /// What a parameter stands for inside the callee. A value is copied: the callee may change its register, and a result may be
    /// written to the register that an argument came from.
    fn argument(&mut self, p: &ast::Variable, o: &Operand) -> Lower<Meaning> {
        let meaning = match o {
            Operand::Name(name) => self.scopes.find(name),
            _ => None,
        };
        match (p.space, meaning) {
            (Space::Param, Some(meaning @ Meaning::Variable(Space::Local | Space::Param, ..))) => return Ok(meaning),
            (_, Some(Meaning::Vector(_))) => return Err(format!("expected one element for {}", p.name).into()),
            _ => {}
        }
        let own = self.scopes.fresh(width(p.ty)?);
        self.copy(own, Given::Written(o)).map_err(|problem| match problem {
            Problem::Here(text) => Problem::Here(format!("argument {}: {text}", p.name)),
            inside => inside,
        })?;
        Ok(if p.space == Space::Param { Meaning::Argument(own) } else { Meaning::Register(own) })
    }

    fn copy(&mut self, to: u32, from: Given) -> Lower<()> {
        let ty = ["pred", "b32", "b64"][self.scopes.widths[to as usize] as usize];
        self.compute(None, &["mov", ty], &[Given::Register(to), from])
    }

    /// The operands of a list, vector registers element by element.
    fn spread(&self, list: &[Operand]) -> Vec<Operand> {
        list.iter().flat_map(|o| self.elements_of(o).unwrap_or_else(|| vec![o.clone()])).collect()
    }

    /// The elements of a vector register.
    pub(super) fn elements_of(&self, o: &Operand) -> Option<Vec<Operand>> {
        let Operand::Name(name) = o else { return None };
        let Some(Meaning::Vector(n)) = self.scopes.find(name) else { return None };
        Some(["x", "y", "z", "w"][..n].iter().map(|part| Operand::Name(format!("{name}.{part}"))).collect())
    }
}
