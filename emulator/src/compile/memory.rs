//! Memory instructions: state space, element type and vector become an [`Ins`] with its address in slot 0.

use super::compiler::Compiler;
use super::lowered::{Lowered, Operand};
use super::problem::Lower;
use super::scope::Meaning;
use crate::exec::{async_copy, atomic, global, matrix, private, shared};
use crate::ops::atomic::Operation;
use crate::ops::{Arg, Class};
use crate::program::{Access, Addressing, Atomic, Copies, CopyGroups, Elements, Ins, Matrices, Run, Step};
use crate::ptx::ast::{self, Instruction, Space, Type};

/// Parts of an opcode that change no result here: caching, ordering, scope.
const HINTS: [&str; 26] = [
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "nc",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "weak",
    "cta",
    "gpu",
    "sys",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "sc",
];

/// What the parts behind the mnemonic say.
struct Parts<'a> {
    space: Space,
    vector: u8,
    rest: Vec<&'a str>,
}

fn parts<'a>(op: &[&'a str]) -> Parts<'a> {
    let mut p = Parts { space: Space::Generic, vector: 1, rest: Vec::new() };
    for &part in &op[1..] {
        if let Some(s) = space(part) {
            p.space = s;
        } else if let Some(n) =
            part.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()).filter(|n| [2, 4, 8].contains(n))
        {
            p.vector = n;
        } else if !HINTS.contains(&part) {
            p.rest.push(part);
        }
    }
    p
}

/// The state space that an opcode part names.
fn space(part: &str) -> Option<Space> {
    Some(match part {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}

impl Compiler<'_> {
    pub(super) fn memory(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        match op[0] {
            "ld" | "ldu" => self.load_or_store(i, op, true),
            "st" => self.load_or_store(i, op, false),
            "atom" | "red" => self.atomic(i, op),
            "ldmatrix" | "stmatrix" => self.matrix(i, op),
            _ => self.async_copy(i, op),
        }
    }

    /// The row, how it becomes addresses, and the state space of a variable that the address names.
    fn address(&self, o: &ast::Operand) -> Lower<(Operand, Addressing, Option<Space>)> {
        let (base, offset) = match o {
            ast::Operand::Address(base, offset) => (base.as_deref(), *offset),
            _ => return Err(format!("expected an address in brackets, found {o:?}").into()),
        };
        let Some(name) = base else {
            return Ok((Operand::Constant(offset as u64, true), Addressing { wide: true, offset: 0 }, None));
        };
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) => match self.scopes.widths[v as usize] {
                0 => Err(format!("{name} is a predicate, not an address").into()),
                width => Ok((Operand::Register(v), Addressing { wide: width == 2, offset }, None)),
            },
            Some(Meaning::Variable(space, at)) => {
                Ok((Operand::Constant(at, true), Addressing { wide: true, offset }, Some(space)))
            }
            None => Err(format!("unknown name {name}").into()),
        }
    }

    fn load_or_store(&mut self, i: &Instruction, op: &[&str], load: bool) -> Lower<()> {
        let p = parts(op);
        let [ty] = p.rest[..] else { return Err(format!("expected one type, found {:?}", p.rest).into()) };
        let ty = Type::named(ty).filter(|t| t.bytes() > 0 && t.bytes() <= 8);
        let ty = ty.ok_or("unknown type of element")?;
        let [data, address] = match (load, &i.operands[..]) {
            (true, [data, address]) => [data, address],
            (false, [address, data]) => [data, address],
            _ => return Err("expected a register and an address".into()),
        };
        let (row, addressing, named) = match (data, self.register_argument(p.space, address)) {
            // `ld.param` from a parameter that a call bound to a register.
            (_, Some(v)) => return self.move_argument(i, data, v, load),
            _ => self.address(address)?,
        };
        let data: Vec<&ast::Operand> = match data {
            ast::Operand::Vector(v) => v.iter().collect(),
            one => vec![one],
        };
        if data.len() != p.vector as usize || data.len() * ty.bytes() > 32 {
            return Err(format!("expected a vector of {}, found {}", p.vector, data.len()).into());
        }
        // Variables of a call's parameters lie in local memory.
        let space = match (p.space, named) {
            (Space::Param, Some(Space::Local)) => Space::Local,
            (s, _) => s,
        };
        let (run, class): (Run<Elements>, Class) = match (space, load) {
            (Space::Global | Space::Const, true) => (global::load(self.level), Class::GlobalLoad),
            (Space::Global, false) => (global::store(self.level), Class::GlobalStore),
            (Space::Shared, true) => (shared::load(self.level), Class::SharedLoad),
            (Space::Shared, false) => (shared::store(self.level), Class::SharedStore),
            (Space::Local, true) => (private::load, Class::OtherMemory),
            (Space::Local, false) => (private::store, Class::OtherMemory),
            (Space::Param, true) => (private::load_parameter, Class::OtherMemory),
            (Space::Generic, true) => (global::load_generic, Class::GlobalLoad),
            (Space::Generic, false) => (global::store_generic, Class::GlobalStore),
            (Space::Param | Space::Const, false) => return Err("this state space cannot be written".into()),
        };
        let wide = match data.iter().map(|o| self.register_width(o)).max() {
            Some(2) => true,
            Some(1) => false,
            _ => ty.bytes() == 8,
        };
        let width = ty.bytes() as u8;
        let memory = Elements { addressing, width, count: p.vector, signed: ty.signed() && load, wide };
        if matches!(space, Space::Shared | Space::Generic) {
            self.narrow(memory.bytes());
        }
        let mut l = self.begin(i, Ins::new(Step::Elements(Access { run, memory }), class))?;
        l.rows.push(row);
        for o in data {
            if load {
                l.writes |= 1 << l.rows.len();
                l.rows.push(self.destination(o, wide)?);
            } else {
                l.rows.push(self.source(o, if wide { Arg::From64 } else { Arg::From32 })?);
            }
        }
        self.code.push(l);
        Ok(())
    }

    /// The register that stands for a parameter of an inlined function.
    fn register_argument(&self, space: Space, address: &ast::Operand) -> Option<u32> {
        let (Space::Param, ast::Operand::Address(Some(name), 0)) = (space, address) else { return None };
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) if !name.starts_with('%') => Some(v),
            _ => None,
        }
    }

    fn move_argument(&mut self, i: &Instruction, data: &ast::Operand, v: u32, load: bool) -> Lower<()> {
        let wide = self.scopes.widths[v as usize] == 2;
        let name = format!("%argument_{v}");
        self.scopes.declare(&name, Meaning::Register(v));
        let argument = ast::Operand::Name(name);
        let operands = if load { vec![data.clone(), argument] } else { vec![argument, data.clone()] };
        let opcode = vec!["mov".to_string(), if wide { "b64" } else { "b32" }.into()];
        let instead = Instruction { opcode, operands, guard: i.guard.clone(), line: i.line };
        self.instruction(&instead, &[])
    }

    /// Notes an access of `bytes` bytes to shared memory.
    fn narrow(&mut self, bytes: usize) {
        self.shared_granule = self.shared_granule.min(bytes.trailing_zeros());
    }

    fn atomic(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        let p = parts(op);
        let rest: Vec<&str> = p.rest.iter().copied().filter(|r| *r != "noftz").collect();
        let ([name, ty], 1) = (&rest[..], p.vector) else {
            return Err("expected an operation and a type".into());
        };
        let operation = Operation::named(name, ty).ok_or_else(|| format!("unknown operation {name}.{ty}"))?;
        let ty = Type::named(ty).ok_or("unknown type")?;
        let wide = ty.bytes() == 8;
        let red = op[0] == "red";
        let run: Run<Atomic> = match p.space {
            Space::Global => atomic::global,
            Space::Shared => atomic::shared,
            Space::Generic => atomic::generic,
            _ => return Err("expected .global or .shared".into()),
        };
        if p.space != Space::Shared {
            self.serial = true;
        }
        if p.space != Space::Global {
            self.narrow(ty.bytes());
        }
        let mut operands = i.operands.iter();
        let destination = match red {
            true => Operand::Sink,
            false => self.destination(operands.next().ok_or("expected a destination")?, wide)?,
        };
        let (row, addressing, _) = self.address(operands.next().ok_or("expected an address")?)?;
        let memory = Atomic { addressing, operation, width: ty.bytes() as u8, wide };
        let mut l = self.begin(i, Ins::new(Step::Atomic(Access { run, memory }), Class::Atomic))?;
        l.rows.extend([row, destination]);
        l.writes = 1 << 1;
        let arg = if wide { Arg::From64 } else { Arg::From32 };
        let sources = 1 + usize::from(operation == Operation::CompareAndSwap);
        for _ in 0..sources {
            let o = operands.next().ok_or("expected a value")?;
            l.rows.push(self.source(o, arg)?);
        }
        if l.rows.len() == 3 {
            l.rows.push(Operand::Constant(0, wide));
        }
        if operands.next().is_some() {
            return Err("too many operands".into());
        }
        self.code.push(l);
        Ok(())
    }

    fn matrix(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        let load = op[0] == "ldmatrix";
        let (mut count, mut transposed, mut generic) = (0u8, false, true);
        for &part in &op[1..] {
            match part {
                "sync" | "aligned" | "m8n8" | "b16" => {}
                "x1" | "x2" | "x4" => count = part[1..].parse().unwrap_or(0),
                "trans" => transposed = true,
                "shared" | "shared::cta" => generic = false,
                _ => return Err(format!("unknown modifier .{part}").into()),
            }
        }
        let [data, address] = match (load, &i.operands[..]) {
            (true, [data, address]) => [data, address],
            (false, [address, data]) => [data, address],
            _ => return Err("expected a vector and an address".into()),
        };
        let data: Vec<&ast::Operand> = match data {
            ast::Operand::Vector(v) => v.iter().collect(),
            one => vec![one],
        };
        if count == 0 || data.len() != count as usize {
            return Err(format!("expected {count} registers, found {}", data.len()).into());
        }
        let (row, addressing, _) = self.address(address)?;
        let (run, class): (Run<Matrices>, Class) = if load {
            (matrix::load(self.level), Class::SharedLoad)
        } else {
            (matrix::store(self.level), Class::SharedStore)
        };
        let memory = Matrices { addressing, count, transposed, generic };
        let mut l = self.begin(i, Ins::new(Step::Matrices(Access { run, memory }), class))?;
        l.rows.push(row);
        for o in data {
            if load {
                l.writes |= 1 << l.rows.len();
                l.rows.push(self.destination(o, false)?);
            } else {
                l.rows.push(self.source(o, Arg::From32)?);
            }
        }
        self.code.push(l);
        Ok(())
    }

    fn async_copy(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        match op[2..] {
            ["commit_group"] => return self.copy_groups(i, CopyGroups::Commit),
            ["wait_all"] => return self.copy_groups(i, CopyGroups::WaitAll),
            ["wait_group"] => return self.wait_group(i),
            ["ca" | "cg", "shared" | "shared::cta", "global", ..] => {}
            _ => return Err("unknown kind of copy; bulk copies and mbarriers are not supported".into()),
        }
        if let Some(part) = op[5..].iter().find(|p| !HINTS.contains(p)) {
            return Err(format!("unknown modifier .{part}").into());
        }
        let [to, from, size, rest @ ..] = &i.operands[..] else {
            return Err("expected two addresses and a size".into());
        };
        let size = self.integer(size)?;
        if !matches!(size, 4 | 8 | 16) || op[2] == "cg" && size != 16 {
            return Err(format!("expected 4, 8 or 16 bytes (.cg: 16), found {size}").into());
        }
        self.narrow(size as usize);
        let (to_row, to, _) = self.address(to)?;
        let (from_row, from, _) = self.address(from)?;
        if !from.wide || i32::try_from(from.offset).is_err() {
            return Err("expected a 64-bit address with a 32-bit offset".into());
        }
        let mut memory = Copies { to, from, bytes: size as u8, sized: false };
        let mut l: Lowered = self.begin(i, Ins::new(Step::Nothing, Class::AsyncCopy))?;
        l.rows.extend([to_row, from_row]);
        match rest {
            [] => {}
            // A predicate says "ignore the source", a number how much of it to take.
            [o] if matches!(o, ast::Operand::Not(_)) || self.is_predicate(o) => {
                let (v, negated) = self.predicate(o)?;
                l.predicates.push(Some(v));
                l.ins.operands.negated = u16::from(negated);
            }
            [o] => {
                l.rows.push(self.source(o, Arg::From32)?);
                memory.sized = true;
            }
            _ => return Err("too many operands (cache policies are not supported)".into()),
        }
        l.ins.step = Step::Copy(Access { run: async_copy::copy(self.level), memory });
        self.code.push(l);
        Ok(())
    }

    fn wait_group(&mut self, i: &Instruction) -> Lower<()> {
        let pending = match &i.operands[..] {
            [o] => self.integer(o)?,
            [] => return Err("expected 1 operands".into()),
            more => return Err(format!("expected 1 operands, found {}", more.len()).into()),
        };
        let bare = Instruction { operands: Vec::new(), ..i.clone() };
        self.copy_groups(&bare, CopyGroups::Wait(pending as u32))
    }

    fn copy_groups(&mut self, i: &Instruction, what: CopyGroups) -> Lower<()> {
        let access = Access { run: async_copy::groups, memory: what };
        self.push(i, Ins::new(Step::CopyGroups(access), Class::AsyncCopy), &[])
    }

    fn is_predicate(&self, o: &ast::Operand) -> bool {
        self.predicate(o).is_ok()
    }
}
