//! Statements, one instruction at a time: looks its opcode up and resolves its operands.

use super::call::MAX_DEPTH;
use super::compiler::Compiler;
use super::lowered::Lowered;
use super::operands::{Given, Guard, written};
use super::problem::{Lower, Problem};
use super::scope::Meaning;
use super::video::is_video;
use crate::address::{self, NOWHERE};
use crate::ops::formats::{MatrixFormat, Product};
use crate::ops::{self, Arg, Class};
use crate::program::{Barrier, CopyGroups, Ins, Location, Step};
use crate::ptx::ast::{self, Instruction, Space, Statement};
use crate::ptx::opcode::{BarrierKind, Operation, Scope};
use crate::ptx::{PtxError, since};

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
            if let Statement::Label(name, line) = s {
                let label = self.new_label();
                if !self.scopes.label(name, label) {
                    return Err(PtxError::new(*line, format!("a second label {name}")));
                }
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
                        // Placed before, once for all calls of its function.
                        let at = self.placed.get(&(v as *const _)).copied();
                        let at = at.ok_or_else(|| PtxError::new(v.line, format!("variable {} is lost", v.name)))?;
                        self.scopes.declare(&v.name, Meaning::Variable(Space::Shared, at, v.ty.bytes() as u8));
                    }
                    Space::Local | Space::Param => {
                        let at = self.local_variable(v)?;
                        self.scopes.declare(&v.name, Meaning::Variable(Space::Local, at, v.ty.bytes() as u8));
                    }
                    _ => {
                        let what = format!("variable {}: expected .shared, .local or .param inside a function", v.name);
                        return Err(PtxError::new(v.line, what));
                    }
                },
                Statement::VectorRegister(name, n) => self.scopes.declare(name, Meaning::Vector(*n)),
                Statement::Static(name, unique) => {
                    if let Some(meaning) = self.scopes.find(unique) {
                        self.scopes.declare(name, meaning);
                    }
                }
                Statement::Registers { ty, name, count, line } => self.scopes.registers(*ty, name, *count, *line)?,
                Statement::Location { file, line, inlined_at } => {
                    self.location =
                        Location { file: *file, line: *line, inlined_at: *inlined_at, ptx_line: self.location.ptx_line }
                }
                Statement::Block(inner) => self.statements(inner)?,
                Statement::BranchTargets(..) | Statement::CallTargets(..) | Statement::Prototype(..) => {}
                Statement::Instruction(i) => {
                    self.location.ptx_line = i.line;
                    self.instruction(i, body).map_err(|problem| match problem {
                        Problem::Here(text) => PtxError::new(i.line, format!("`{}`: {text}", i.opcode.parts.join("."))),
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

    fn instruction(&mut self, i: &Instruction, body: &[Statement]) -> Lower<()> {
        since::allowed(&i.opcode.parts, i.operands.len(), self.module.version, &self.module.target)?;
        // A vector register stands for its elements.
        let spelled;
        let i = if i.opcode.operation != Operation::Call && i.operands.iter().any(|o| self.elements_of(o).is_some()) {
            let spell = |o: &ast::Operand| self.elements_of(o).map_or_else(|| o.clone(), ast::Operand::Vector);
            spelled = Instruction { operands: i.operands.iter().map(spell).collect(), ..i.clone() };
            &spelled
        } else {
            i
        };
        let guard = i.guard.as_ref();
        // The policy of a cache is the last operand, and changes nothing here.
        let shortened;
        let i = match i.operands.split_last() {
            Some((policy, rest)) if i.opcode.parts.iter().any(|p| p == "L2::cache_hint") => {
                self.source(Given::Written(policy), Arg::From64)?;
                shortened = Instruction { operands: rest.to_vec(), ..i.clone() };
                &shortened
            }
            _ => i,
        };
        match i.opcode.operation {
            Operation::Branch => self.branch(i),
            Operation::BranchTable => self.branch_table(i, body),
            Operation::Return => match self.returns.last() {
                Some(&label) => self.jump(guard, label),
                None => self.push(i, Ins::new(Step::Exit, Class::Branch), &[]),
            },
            Operation::Exit => self.push(i, Ins::new(Step::Exit, Class::Branch), &[]),
            Operation::Trap => self.push(i, Ins::new(Step::Trap, Class::Other), &[]),
            Operation::Call => self.call(i, body),
            Operation::Barrier { kind, aligned } => self.barrier(i, kind, aligned),
            Operation::WarpBarrier => self.push(i, Ins::new(Step::WarpBarrier, Class::Barrier), &[Arg::From32]),
            Operation::Fence(fence) => {
                self.ordering = true;
                self.serial |= fence.scope == Scope::Device;
                self.push(i, Ins::new(Step::Fence(fence), Class::Barrier), &[])
            }
            Operation::OtherFence => self.push_given(guard, Ins::new(Step::Nothing, Class::Barrier), &[], &[]),
            Operation::Hint => self.push_given(guard, Ins::new(Step::Nothing, Class::Other), &[], &[]),
            Operation::Load(elements) => self.load(i, elements),
            Operation::Store(elements) => self.store(i, elements),
            Operation::Atomic { space, kind, ty, vector, result, order } => {
                self.atomics(i, (space, kind, ty, order), vector, result)
            }
            Operation::LoadMatrix(matrices) => self.matrix(i, matrices, true),
            Operation::StoreMatrix(matrices) => self.matrix(i, matrices, false),
            Operation::Copy { cg } => self.async_copy(i, cg),
            Operation::CommitCopies => self.copy_groups(i, CopyGroups::Commit),
            Operation::WaitCopies => self.wait_group(i),
            Operation::WaitAllCopies => self.copy_groups(i, CopyGroups::WaitAll),
            Operation::BulkCopy => self.bulk_copy(i),
            Operation::Mbarrier(mbarrier) => self.mbarrier(i, mbarrier),
            Operation::PendingCount => self.pending_count(i),
            Operation::ConvertAddress { to, space } => self.cvta(i, to, space),
            Operation::IsSpace(space) => self.is_space(i, space),
            Operation::Compute => self.register_instruction(i),
            Operation::Wrong(ref why) => Err(why.clone().into()),
        }
    }

    fn register_instruction(&mut self, i: &Instruction) -> Lower<()> {
        let op: Vec<&str> = i.opcode.parts.iter().map(String::as_str).collect();
        let (guard, operands) = (i.guard.as_ref(), written(&i.operands));
        match op[..] {
            ["mov", ty @ ("u32" | "b32" | "u64" | "b64" | "s32" | "s64")] if reads_clock(i) => {
                let wide = matches!(ty, "u64" | "b64" | "s64");
                let arg = if wide { Arg::To64 } else { Arg::To32 };
                self.push_given(guard, Ins::new(Step::Clock { wide }, Class::Move), &[arg], &operands[..1])
            }
            ["mov", "v2" | "v4", ty] => self.move_vector(guard, ty, &i.operands),
            // What it chooses is how long lines stay in a cache.
            ["createpolicy", kind @ ("fractional" | "range" | "cvt"), ..] => {
                let (to, zero) = (operands.first().copied().ok_or("expected a register")?, ast::Operand::Integer(0));
                let expected = if kind == "range" {
                    4..=4
                } else if kind == "cvt" {
                    2..=2
                } else {
                    1..=2
                };
                if !expected.contains(&operands.len()) {
                    return Err(format!("expected {} operands, found {}", expected.end(), operands.len()).into());
                }
                self.compute(guard, &["mov", "b64"], &[to, Given::Written(&zero)])
            }
            ["wmma", ..] => self.wmma(i, &op),
            [name, ..] if is_video(name) => self.video(guard, &op, &i.operands),
            _ => self.compute(guard, &op, &operands),
        }
    }

    /// `mov.v2.b32`, of which one vector may be the other in another order.
    fn move_vector(&mut self, guard: Option<&Guard>, ty: &str, operands: &[ast::Operand]) -> Lower<()> {
        let [ast::Operand::Vector(to), ast::Operand::Vector(from)] = operands else {
            return Err("expected two vectors".into());
        };
        if to.len() != from.len() {
            return Err(format!("{} registers from {}", to.len(), from.len()).into());
        }
        let width = if ty.ends_with("64") { 2 } else { 1 };
        let read: Vec<Given> = from.iter().map(|_| Given::Register(self.scopes.fresh(width))).collect();
        for (read, from) in read.iter().zip(from) {
            self.compute(guard, &["mov", ty], &[*read, Given::Written(from)])?;
        }
        to.iter().zip(read).try_for_each(|(to, read)| self.compute(guard, &["mov", ty], &[Given::Written(to), read]))
    }

    /// An instruction that touches only registers.
    pub(super) fn compute(&mut self, guard: Option<&Guard>, op: &[&str], operands: &[Given]) -> Lower<()> {
        let length = |given: &Given| if let Given::Written(ast::Operand::Vector(v)) = given { v.len() } else { 0 };
        let vectors: Vec<usize> = operands.iter().map(length).collect();
        for (select, warp) in [
            (ops::select::select as ops::Select, false),
            (ops::matrix::select as ops::Select, false),
            (ops::warp::select as ops::Select, true),
        ] {
            if let Some(recipe) = select(op, operands.len(), &vectors, self.level)? {
                let step = match recipe.warp_wide {
                    // Which row holds the member mask is known when rows are given; see `finish`.
                    true => Step::WarpWide { exec: recipe.exec, members: warp.then_some(0) },
                    false => Step::Compute(recipe.exec),
                };
                let mut ins = Ins::new(step, recipe.class);
                ins.product = MatrixFormat::of(op).map(|format| Product { format, flops: recipe.flops });
                ins.operands.extra = recipe.extra;
                let rows =
                    recipe.args.iter().filter(|a| matches!(a, Arg::To32 | Arg::To64 | Arg::From32 | Arg::From64));
                ins.wide_operand = rows.zip(0..).find_map(|(a, n)| (*a == Arg::From64).then_some(n)).unwrap_or(0);
                // `cvt` may read a register wider than its source type: its low bits count.
                if op[0] == "cvt"
                    && let [to, from] = *operands
                    && matches!(recipe.args[..], [_, Arg::From32 | Arg::From16])
                    && self.register_width(from) == 2
                {
                    let low = Given::Register(self.scopes.fresh(1));
                    self.compute(guard, &["cvt", "u32", "u64"], &[low, from])?;
                    return self.push_given(guard, ins, &recipe.args, &[to, low]);
                }
                return self.push_given(guard, ins, &recipe.args, operands);
            }
        }
        Err("unknown opcode".into())
    }

    fn branch(&mut self, i: &Instruction) -> Lower<()> {
        let [to] = &i.operands[..] else { return Err("expected one label".into()) };
        let label = self.label(to)?;
        self.jump(i.guard.as_ref(), label)
    }

    pub(super) fn jump_on(&mut self, predicate: u32, negated: bool, label: usize) {
        let mut l = Lowered::new(Ins::new(Step::Branch { target: 0, join: NOWHERE }, Class::Branch), self.location);
        l.guard = Some((predicate, negated));
        l.targets.push(label);
        self.code.push(l);
    }

    pub(super) fn jump(&mut self, guard: Option<&Guard>, label: usize) -> Lower<()> {
        let mut l = self.begin(guard, Ins::new(Step::Branch { target: 0, join: NOWHERE }, Class::Branch))?;
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
        let targets = list.iter().map(|n| self.named_label(n)).collect::<Lower<Vec<usize>>>()?;
        let table = self.tables.len() as u32;
        self.tables.push(targets.clone());
        let mut l =
            self.begin(i.guard.as_ref(), Ins::new(Step::BranchTable { table, join: NOWHERE }, Class::Branch))?;
        l.rows.push(self.source(Given::Written(index), Arg::From32)?);
        l.targets = targets;
        self.code.push(l);
        Ok(())
    }

    fn barrier(&mut self, i: &Instruction, kind: BarrierKind, aligned: bool) -> Lower<()> {
        let n = i.operands.len();
        let args: Vec<Arg> = match kind {
            BarrierKind::Sync => vec![Arg::From32; n],
            BarrierKind::Arrive if n == 2 => vec![Arg::From32; 2],
            BarrierKind::And | BarrierKind::Or if n >= 3 => reduction(n, Arg::ToPredicate),
            BarrierKind::Count if n >= 3 => reduction(n, Arg::To32),
            _ => return Err("unknown kind of barrier".into()),
        };
        let expected = if kind == BarrierKind::Sync { 1..=2 } else { 2..=4 };
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

    /// Generic addresses of shared and local space are windows; those of the rest are the same.
    fn cvta(&mut self, i: &Instruction, to: bool, space: Space) -> Lower<()> {
        let first = match space {
            Space::Shared => address::SHARED,
            Space::Local => address::LOCAL,
            _ => 0,
        };
        let window = ast::Operand::Integer(first as i64);
        let mut operands = written(&i.operands);
        operands.push(Given::Written(&window));
        self.compute(i.guard.as_ref(), &[if to { "sub" } else { "add" }, "u64"], &operands)
    }

    /// `isspacep`: whether a generic address lies in a window. Constants have none of their own, but lie among what is global: those of
    /// the module are known.
    fn is_space(&mut self, i: &Instruction, space: Space) -> Lower<()> {
        let [to, from] = &i.operands[..] else { return Err("expected a predicate and an address".into()) };
        let window = match space {
            Space::Shared => (address::SHARED, address::WINDOW),
            Space::Local => (address::LOCAL, address::WINDOW),
            Space::Param => (address::PARAM, address::WINDOW),
            Space::Const => (0, 0),
            _ => (address::GLOBAL, address::GLOBAL_END - address::GLOBAL),
        };
        let constants = if matches!(space, Space::Const | Space::Global) { &self.constants[..] } else { &[] };
        let ranges: Vec<(u64, u64)> = [window].into_iter().chain(constants.iter().copied()).collect();
        let (guard, offset) = (i.guard.as_ref(), Given::Register(self.scopes.fresh(2)));
        // The destination, which may be the guard, is written once.
        let found = Given::Register(self.scopes.fresh(0));
        for (n, (first, size)) in ranges.iter().enumerate() {
            let (first, size) = (ast::Operand::Integer(*first as i64), ast::Operand::Integer(*size as i64));
            let (first, size) = (Given::Written(&first), Given::Written(&size));
            let to = if n + 1 == ranges.len() { Given::Written(to) } else { found };
            self.compute(guard, &["sub", "u64"], &[offset, Given::Written(from), first])?;
            match (n, space) {
                (0, _) => self.compute(guard, &["setp", "lt", "u64"], &[to, offset, size])?,
                (_, Space::Const) => self.compute(guard, &["setp", "lt", "or", "u64"], &[to, offset, size, found])?,
                _ => self.compute(guard, &["setp", "ge", "and", "u64"], &[to, offset, size, found])?,
            }
        }
        Ok(())
    }
}

/// Whether the source of a `mov` is a clock.
fn reads_clock(i: &Instruction) -> bool {
    matches!(i.operands.get(1), Some(ast::Operand::Name(n))
        if matches!(n.as_str(), "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi"))
}

fn reduction(operands: usize, destination: Arg) -> Vec<Arg> {
    let mut args = vec![destination];
    args.extend(std::iter::repeat_n(Arg::From32, operands - 2));
    args.push(Arg::FromPredicate);
    args
}
