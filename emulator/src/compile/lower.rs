//! One instruction at a time: looks its opcode up and resolves its operands.

use super::scope::Meaning;
use super::{Compiler, Lowered, MAX_DEPTH, Operand, TRUE, runtime};
use crate::address;
use crate::count::MatrixFormat;
use crate::ops::{self, Arg, Class, Recipe};
use crate::program::{Barrier, BarrierKind, Ins, LaneMask, NOWHERE, Special, Step};
use crate::ptx::PtxError;
use crate::ptx::ast::{self, Function, Instruction, Module, Space, Statement};

/// What is wrong with an instruction: said of it, or of something inside a call.
pub(super) enum Problem {
    Here(String),
    Inside(PtxError),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Here(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Here(text.into())
    }
}

impl From<PtxError> for Problem {
    fn from(e: PtxError) -> Self {
        Problem::Inside(e)
    }
}

pub(super) type Lower<T> = Result<T, Problem>;

/// The function of this name that has a body, or its declaration.
pub(super) fn function<'a>(module: &'a Module, name: &str) -> Option<&'a Function> {
    let mut all = module.functions.iter().filter(|f| f.name == name);
    let first = all.next()?;
    Some(if first.body.is_some() { first } else { all.find(|f| f.body.is_some()).unwrap_or(first) })
}

impl Compiler<'_> {
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
        ins.flops = recipe.flops;
        ins.matrix = MatrixFormat::of(&i.opcode);
        ins.operands.extra = recipe.extra;
        self.push(i, ins, &recipe.args)
    }

    /// Resolves the operands by `args` and appends the instruction.
    pub(super) fn push(&mut self, i: &Instruction, ins: Ins, args: &[Arg]) -> Lower<()> {
        let mut l = self.begin(i, ins)?;
        let mut flat = Vec::with_capacity(args.len());
        for o in &i.operands {
            match o {
                ast::Operand::Vector(v) => flat.extend(v.iter()),
                ast::Operand::Pair(a, b) => flat.extend([a.as_ref(), b.as_ref()]),
                _ => flat.push(o),
            }
        }
        let mut next = flat.into_iter();
        let mut source_predicates = 0;
        for &arg in args {
            match arg {
                Arg::ToPredicateToo if !matches!(i.operands.first(), Some(ast::Operand::Pair(..))) => {
                    l.predicates.push(None);
                    l.predicate_writes |= 1 << (l.predicates.len() - 1);
                    continue;
                }
                _ => {}
            }
            let o = next.next().ok_or_else(|| format!("expected {} operands", args.len()))?;
            match arg {
                Arg::To32 | Arg::To64 => {
                    l.writes |= 1 << l.rows.len();
                    let operand = self.destination(o, arg == Arg::To64)?;
                    l.rows.push(operand);
                }
                Arg::From32 | Arg::From64 | Arg::From16 => {
                    let operand = self.source(o, arg)?;
                    l.rows.push(operand);
                }
                Arg::ToPredicate | Arg::ToPredicateToo => {
                    l.predicate_writes |= 1 << l.predicates.len();
                    let predicate = match o {
                        ast::Operand::Name(n) if n == "_" => None,
                        _ => Some(self.predicate(o)?.0),
                    };
                    l.predicates.push(predicate);
                }
                Arg::FromPredicate => {
                    let (v, negated) = match o {
                        ast::Operand::Integer(v) => (TRUE, *v == 0),
                        _ => self.predicate(o)?,
                    };
                    l.predicates.push(Some(v));
                    l.ins.operands.negated |= u16::from(negated) << source_predicates;
                    source_predicates += 1;
                }
                Arg::Immediate => l.ins.operands.extra = self.integer(o)? as u32,
            }
        }
        if next.next().is_some() {
            return Err(format!("expected {} operands, found {}", args.len(), i.operands.len()).into());
        }
        if l.rows.len() > 16 || l.predicates.len() > 4 {
            return Err("too many operands".into());
        }
        self.code.push(l);
        Ok(())
    }

    /// The instruction with its guard.
    pub(super) fn begin(&mut self, i: &Instruction, ins: Ins) -> Lower<Lowered> {
        let mut l = Lowered::new(ins, self.location);
        if let Some((name, negated)) = &i.guard {
            l.guard = Some((self.predicate(&ast::Operand::Name(name.clone()))?.0, *negated));
        }
        Ok(l)
    }

    pub(super) fn destination(&self, o: &ast::Operand, wide: bool) -> Lower<Operand> {
        let ast::Operand::Name(name) = o else {
            return Err(format!("expected a register to write, found {o:?}").into());
        };
        if name == "_" {
            return Ok(Operand::Sink);
        }
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) => self.check_width(name, v, wide).map(|()| Operand::Register(v)),
            _ => Err(format!("unknown register {name}").into()),
        }
    }

    fn check_width(&self, name: &str, v: u32, wide: bool) -> Lower<()> {
        let found = self.scopes.widths[v as usize];
        if found == if wide { 2 } else { 1 } {
            return Ok(());
        }
        let (found, expected) = (
            ["a predicate", "32 bits or fewer", "64 bits"][found as usize],
            if wide { "64 bits" } else { "32 bits or fewer" },
        );
        Err(format!("{name}: expected {expected}, found {found}").into())
    }

    /// Rows of a register that a source or destination names; 0 when it names none.
    pub(super) fn register_width(&self, o: &ast::Operand) -> u8 {
        match o {
            ast::Operand::Name(n) => match self.scopes.find(n) {
                Some(Meaning::Register(v)) => self.scopes.widths[v as usize],
                _ => 0,
            },
            _ => 0,
        }
    }

    pub(super) fn source(&self, o: &ast::Operand, arg: Arg) -> Lower<Operand> {
        let wide = arg == Arg::From64;
        let constant = |bits: u64| Operand::Constant(if wide { bits } else { bits & 0xffff_ffff }, wide);
        match o {
            ast::Operand::Name(name) => {
                if let Some(special) = special(name) {
                    return if wide {
                        Err(format!("{name} has 32 bits").into())
                    } else {
                        Ok(Operand::Special(special))
                    };
                }
                match self.scopes.find(name) {
                    Some(Meaning::Register(v)) => self.check_width(name, v, wide).map(|()| Operand::Register(v)),
                    Some(Meaning::Variable(_, at)) => Ok(constant(at)),
                    None if name == "WARP_SZ" => Ok(constant(32)),
                    None => Err(format!("unknown name {name}").into()),
                }
            }
            ast::Operand::Integer(v) if arg == Arg::From16 => Ok(constant(*v as u64 & 0xffff)),
            ast::Operand::Integer(v) => Ok(constant(*v as u64)),
            ast::Operand::F32(bits) if !wide => Ok(constant(u64::from(*bits))),
            ast::Operand::F64(bits) if wide => Ok(constant(*bits)),
            ast::Operand::F64(bits) if arg == Arg::From32 => {
                Ok(constant(u64::from((f64::from_bits(*bits) as f32).to_bits())))
            }
            ast::Operand::Address(Some(name), offset) => match self.scopes.find(name) {
                // `mov.u64 %rd, array+8`
                Some(Meaning::Variable(_, at)) => Ok(constant(at.wrapping_add(*offset as u64))),
                _ => Err(format!("unknown variable {name}").into()),
            },
            _ => Err(format!("expected a register or a number, found {o:?}").into()),
        }
    }

    pub(super) fn predicate(&self, o: &ast::Operand) -> Lower<(u32, bool)> {
        let (name, negated) = match o {
            ast::Operand::Name(n) => (n, false),
            ast::Operand::Not(n) => (n, true),
            _ => return Err(format!("expected a predicate, found {o:?}").into()),
        };
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) if self.scopes.widths[v as usize] == 0 => Ok((v, negated)),
            _ => Err(format!("expected a predicate, found {name}").into()),
        }
    }

    pub(super) fn integer(&self, o: &ast::Operand) -> Lower<i64> {
        match o {
            ast::Operand::Integer(v) => Ok(*v),
            ast::Operand::Name(n) if n == "WARP_SZ" => Ok(32),
            _ => Err(format!("expected a number, found {o:?}").into()),
        }
    }

    fn label(&self, o: &ast::Operand) -> Lower<usize> {
        let ast::Operand::Name(name) = o else { return Err(format!("expected a label, found {o:?}").into()) };
        self.scopes.find_label(name).ok_or_else(|| format!("unknown label {name}").into())
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
        let callee = function(module, name)
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
        let mut ins = Ins::new(Step::Barrier(Barrier { kind, counted, aligned }), Class::Barrier);
        // Where the number lies among the rows: behind the destination of a count.
        ins.operands.extra = u32::from(kind == BarrierKind::Count);
        self.push(i, ins, &args)
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

/// Special registers whose value is fixed while a block runs.
fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| ["x", "y", "z"].iter().position(|a| *a == rest).map(|a| a as u8);
    if let Some((base, rest)) = name.split_once('.') {
        let axis = axis(rest)?;
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NSmId,
        "%lanemask_eq" => Special::LaneMask(LaneMask::Eq),
        "%lanemask_lt" => Special::LaneMask(LaneMask::Lt),
        "%lanemask_le" => Special::LaneMask(LaneMask::Le),
        "%lanemask_ge" => Special::LaneMask(LaneMask::Ge),
        "%lanemask_gt" => Special::LaneMask(LaneMask::Gt),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => return None,
    })
}

/// The state space that an opcode part names.
pub(super) fn space(part: &str) -> Option<Space> {
    Some(match part {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}
