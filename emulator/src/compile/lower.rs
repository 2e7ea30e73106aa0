//! Statements, one instruction at a time: looks its opcode up and resolves its operands.

use super::compiler::Compiler;
use super::lowered::Lowered;
use super::problem::{Lower, Problem};
use super::runtime;
use super::scope::Meaning;
use crate::address::{self, NOWHERE};
use crate::ops::formats::{MatrixFormat, Product};
use crate::ops::{self, Arg, Class, Recipe};
use crate::program::{Barrier, BarrierKind, Ins, Location, Step};
use crate::ptx::PtxError;
use crate::ptx::ast::{self, Instruction, Space, Statement};

/// Deepest chain of calls; a cycle is deeper.
const MAX_DEPTH: usize = 32;
/// Instructions of one kernel, calls inlined.
const MAX_CODE: usize = 1 << 20;

impl Compiler<'_> {
    /// The statements of one scope, whose labels and variables are visible throughout it.
    pub(super) fn statements(&mut self, body: &[Statement]) -> Result<(), PtxError> {
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
                        Problem::Here(text) => PtxError::new(i.line, format!("`{}`: {text}", i.opcode.join("."))),
                        Problem::Inside(e) => e,
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

    pub(super) fn instruction(&mut self, i: &Instruction, body: &[Statement]) -> Lower<()> {
        let op: Vec<&str> = i.opcode.iter().map(String::as_str).collect();
        match op[..] {
            ["bra"] | ["bra", "uni"] => self.branch(i),
            ["brx", "idx"] | ["brx", "idx", "uni"] => self.branch_table(i, body),
            ["ret"] | ["ret", "uni"] => match self.returns.last() {
                Some(&label) => self.jump(i, label),
                None => self.push(i, Ins::new(Step::Exit, Class::Branch), &[]),
            },
            ["exit"] => self.push(i, Ins::new(Step::Exit, Class::Branch), &[]),
            ["trap"] | ["brkpt"] => self.push(i, Ins::new(Step::Trap, Class::Other), &[]),
            ["call"] | ["call", "uni"] => self.call(i),
            ["bar" | "barrier", ..] => self.barrier(i, &op),
            ["membar", "cta" | "gl" | "sys"]
            | ["fence", "sc" | "acq_rel" | "acquire" | "release", "cta" | "gpu" | "sys"]
            | ["fence", "mbarrier_init", ..] => self.push(i, Ins::new(Step::Nothing, Class::Barrier), &[]),
            ["prefetch" | "prefetchu", ..]
            | ["nanosleep", "u32"]
            | ["pmevent", ..]
            | ["discard" | "applypriority", ..] => self.nothing(i),
            ["ld" | "ldu" | "st" | "atom" | "red" | "ldmatrix" | "stmatrix", ..] | ["cp", "async", ..] => {
                self.memory(i, &op)
            }
            ["cvta", ..] => self.cvta(i, &op),
            ["isspacep", space] => self.is_space(i, space),
            ["mov", "u32" | "b32" | "u64" | "b64" | "s32" | "s64"] if self.clock(i) => {
                let wide = matches!(op[1], "u64" | "b64" | "s64");
                let arg = if wide { Arg::To64 } else { Arg::To32 };
                let first = Instruction { operands: i.operands[..1].to_vec(), ..i.clone() };
                self.push(&first, Ins::new(Step::Clock { wide }, Class::Move), &[arg])
            }
            _ => self.compute(i, &op),
        }
    }

    /// Whether the source of a `mov` is a clock.
    fn clock(&self, i: &Instruction) -> bool {
        matches!(i.operands.get(1), Some(ast::Operand::Name(n))
            if matches!(n.as_str(), "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi"))
    }

    fn compute(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        let vectors: Vec<usize> =
            i.operands.iter().map(|o| if let ast::Operand::Vector(v) = o { v.len() } else { 0 }).collect();
        for (select, warp) in [
            (ops::select::select as ops::Select, false),
            (ops::matrix::select as ops::Select, false),
            (ops::warp::select as ops::Select, true),
        ] {
            if let Some(recipe) = select(op, i.operands.len(), &vectors, self.level)? {
                return self.recipe(i, &recipe, warp);
            }
        }
        Err("unknown opcode".into())
    }

    fn recipe(&mut self, i: &Instruction, recipe: &Recipe, members: bool) -> Lower<()> {
        // `cvt` may read a register wider than its source type: its low bits count.
        if i.opcode[0] == "cvt"
            && let [to, from] = &i.operands[..]
            && matches!(recipe.args[..], [_, Arg::From32 | Arg::From16])
            && self.register_width(from) == 2
        {
            let scratch = self.scopes.fresh(1);
            let name = format!("%low_{scratch}");
            self.scopes.declare(&name, Meaning::Register(scratch));
            let low = ast::Operand::Name(name);
            let cut = Instruction { operands: vec![low.clone(), from.clone()], ..i.clone() };
            self.compute(&cut, &["cvt", "u32", "u64"])?;
            let narrow = Instruction { operands: vec![to.clone(), low], ..i.clone() };
            return self.recipe(&narrow, recipe, members);
        }
        let step = match recipe.warp_wide {
            // Which row holds the member mask is known when rows are given; see `finish`.
            true => Step::WarpWide { exec: recipe.exec, members: members.then_some(0) },
            false => Step::Compute(recipe.exec),
        };
        let mut ins = Ins::new(step, recipe.class);
        ins.product = MatrixFormat::of(&i.opcode).map(|format| Product { format, flops: recipe.flops });
        ins.operands.extra = recipe.extra;
        self.push(i, ins, &recipe.args)
    }

    fn branch(&mut self, i: &Instruction) -> Lower<()> {
        let [to] = &i.operands[..] else { return Err("expected one label".into()) };
        let label = self.label(to)?;
        self.jump(i, label)
    }

    fn jump(&mut self, i: &Instruction, label: usize) -> Lower<()> {
        let mut l = self.begin(i, Ins::new(Step::Branch { target: 0, join: NOWHERE }, Class::Branch))?;
        l.targets.push(label);
        self.code.push(l);
        Ok(())
    }

    fn branch_table(&mut self, i: &Instruction, body: &[Statement]) -> Lower<()> {
        let [index, ast::Operand::Name(table)] = &i.operands[..] else {
            return Err("expected an index and a list of targets".into());
        };
        let list = body.iter().find_map(|s| match s {
            Statement::BranchTargets(name, labels) if name == table => Some(labels),
            _ => None,
        });
        let list = list.ok_or_else(|| format!("unknown branch targets {table}"))?;
        let targets = list.iter().map(|n| self.label(&ast::Operand::Name(n.clone()))).collect::<Lower<Vec<usize>>>()?;
        let table = self.tables.len() as u32;
        self.tables.push(targets.clone());
        let mut l = self.begin(i, Ins::new(Step::BranchTable { table, join: NOWHERE }, Class::Branch))?;
        l.rows.push(self.source(index, Arg::From32)?);
        l.targets = targets;
        self.code.push(l);
        Ok(())
    }

    /// Inlines the callee: its parameters become local memory of the caller's threads.
    fn call(&mut self, i: &Instruction) -> Lower<()> {
        let (returns, name, arguments): (&[ast::Operand], _, &[ast::Operand]) = match &i.operands[..] {
            [ast::Operand::List(r), ast::Operand::Name(n), ast::Operand::List(a), ..] => (r, n, a),
            [ast::Operand::Name(n), ast::Operand::List(a), ..] => (&[], n, a),
            [ast::Operand::List(r), ast::Operand::Name(n)] => (r, n, &[]),
            [ast::Operand::Name(n)] => (&[], n, &[]),
            _ => return Err("expected (results), function, (arguments)".into()),
        };
        let module = self.module;
        let callee = module
            .function(name)
            .ok_or_else(|| format!("unknown function {name}; indirect calls are not supported"))?;
        if let (None, Some(known)) = (&callee.body, runtime::named(name)) {
            return self.runtime_call(i, &known, returns, arguments);
        }
        let body = callee.body.as_ref().ok_or_else(|| format!("function {name} has no body in this module"))?;
        if callee.parameters.len() != arguments.len() || callee.returns.len() != returns.len() {
            let (p, r) = (callee.parameters.len(), callee.returns.len());
            return Err(format!("{name} takes {p} arguments and returns {r}").into());
        }
        if self.returns.len() >= MAX_DEPTH {
            return Err(format!("calls of {name} nest too deep; recursion is not supported").into());
        }
        // Lanes that the guard leaves out jump over the body.
        let after = self.new_label();
        if let Some((guard, negated)) = &i.guard {
            let skip = Instruction { guard: Some((guard.clone(), !negated)), ..i.clone() };
            self.jump(&skip, after)?;
        }
        let mut bound = Vec::new();
        for (p, o) in callee.parameters.iter().zip(arguments).chain(callee.returns.iter().zip(returns)) {
            let ast::Operand::Name(argument) = o else {
                return Err(format!("expected a .param variable or register for {}, found {o:?}", p.name).into());
            };
            let meaning = self.scopes.find(argument).ok_or_else(|| format!("unknown name {argument}"))?;
            bound.push((p.name.clone(), meaning));
        }
        self.scopes.open();
        for (name, meaning) in bound {
            self.scopes.declare(&name, meaning);
        }
        self.returns.push(after);
        let location = self.location;
        let done = self.statements(body);
        self.returns.pop();
        self.scopes.close();
        self.location = location;
        done?;
        self.place_label(after);
        // Something must stand at the label, whatever follows.
        let l = Lowered::new(Ins::new(Step::Nothing, Class::Other), self.location);
        self.code.push(l);
        Ok(())
    }

    fn barrier(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        let mut aligned = op[0] == "bar";
        let mut rest = &op[1..];
        if rest == ["warp", "sync"] {
            return self.push(i, Ins::new(Step::WarpBarrier, Class::Barrier), &[Arg::From32]);
        }
        if rest.first() == Some(&"cluster") {
            return Err("thread block clusters are not supported".into());
        }
        if rest.first() == Some(&"cta") {
            rest = &rest[1..];
        }
        let mut parts: Vec<&str> = rest.to_vec();
        if let Some(at) = parts.iter().position(|p| *p == "aligned") {
            parts.remove(at);
            aligned = true;
        }
        let n = i.operands.len();
        let (kind, args): (BarrierKind, Vec<Arg>) = match parts[..] {
            ["sync"] => (BarrierKind::Sync, vec![Arg::From32; n]),
            ["arrive"] if n == 2 => (BarrierKind::Arrive, vec![Arg::From32; 2]),
            ["red", "and", "pred"] if n >= 3 => (BarrierKind::And, reduction(n, Arg::ToPredicate)),
            ["red", "or", "pred"] if n >= 3 => (BarrierKind::Or, reduction(n, Arg::ToPredicate)),
            ["red", "popc", "u32"] if n >= 3 => (BarrierKind::Count, reduction(n, Arg::To32)),
            _ => return Err("unknown kind of barrier".into()),
        };
        let expected = if matches!(kind, BarrierKind::Sync) { 1..=2 } else { 2..=4 };
        if !expected.contains(&n) {
            return Err(format!("expected a barrier number, found {n} operands").into());
        }
        let counted = match kind {
            BarrierKind::Sync | BarrierKind::Arrive => n == 2,
            _ => n == 4,
        };
        self.partial_barriers |= counted;
        self.push(i, Ins::new(Step::Barrier(Barrier { kind, counted, aligned }), Class::Barrier), &args)
    }

    fn nothing(&mut self, i: &Instruction) -> Lower<()> {
        let bare = Instruction { operands: Vec::new(), ..i.clone() };
        self.push(&bare, Ins::new(Step::Nothing, Class::Other), &[])
    }

    /// Generic addresses of shared, local and parameter space are windows; those of the rest are the same.
    fn cvta(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        let (to, space, size) = match op[1..] {
            ["to", space, size] => (true, space, size),
            [space, size] => (false, space, size),
            _ => return Err("expected a state space and a size".into()),
        };
        if size != "u64" {
            return Err("expected .u64 addresses".into());
        }
        let window = match space {
            "global" | "const" | "param" | "param::entry" => 0,
            "shared" | "shared::cta" => address::SHARED,
            "local" => address::LOCAL,
            _ => return Err(format!("unknown state space {space}").into()),
        };
        let operation = if to { "sub" } else { "add" };
        let mut operands = i.operands.clone();
        operands.push(ast::Operand::Integer(window as i64));
        let instead = Instruction {
            opcode: vec![operation.into(), "u64".into()],
            operands,
            guard: i.guard.clone(),
            line: i.line,
        };
        self.compute(&instead, &[operation, "u64"])
    }

    /// `isspacep`: whether a generic address lies in a window.
    fn is_space(&mut self, i: &Instruction, space: &str) -> Lower<()> {
        let [to, from] = &i.operands[..] else { return Err("expected a predicate and an address".into()) };
        let (first, size) = match space {
            "shared" | "shared::cta" => (address::SHARED, address::WINDOW),
            "local" => (address::LOCAL, address::WINDOW),
            "param" | "param::entry" => (address::PARAM, address::WINDOW),
            "global" => (address::GLOBAL, address::GLOBAL_END - address::GLOBAL),
            _ => return Err(format!("unknown state space {space}").into()),
        };
        let scratch = self.scopes.fresh(2);
        let name = format!("%isspacep_{scratch}");
        self.scopes.declare(&name, Meaning::Register(scratch));
        let make = |opcode: &[&str], operands: Vec<ast::Operand>| Instruction {
            opcode: opcode.iter().map(|s| s.to_string()).collect(),
            operands,
            guard: i.guard.clone(),
            line: i.line,
        };
        let name = ast::Operand::Name(name);
        let sub = make(&["sub", "u64"], vec![name.clone(), from.clone(), ast::Operand::Integer(first as i64)]);
        self.compute(&sub, &["sub", "u64"])?;
        let below = make(&["setp", "lt", "u64"], vec![to.clone(), name, ast::Operand::Integer(size as i64)]);
        self.compute(&below, &["setp", "lt", "u64"])
    }
}

fn reduction(operands: usize, destination: Arg) -> Vec<Arg> {
    let mut args = vec![destination];
    args.extend(std::iter::repeat_n(Arg::From32, operands - 2));
    args.push(Arg::FromPredicate);
    args
}
