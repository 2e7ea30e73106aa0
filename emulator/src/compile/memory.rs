//! Memory instructions: state space, element type and vector become an [`Ins`] with its address in slot 0.

use super::compiler::Compiler;
use super::lowered::{Lowered, Operand};
use super::operands::{Given, Guard, written};
use super::problem::Lower;
use super::scope::Meaning;
use crate::exec::{async_copy, atomic, global, matrix, private, shared};
use crate::ops::{Arg, Class};
use crate::program::{Access, Addressing, Atomic, Copies, CopyGroups, Elements, Ins, Matrices, Run, Step};
use crate::ptx::ast::{self, Instruction, Space, Type};
use crate::ptx::opcode::{self, AtomicKind};

/// Elements of a load or store, the row of their address, and the registers they go to or come from.
struct Placed<'a> {
    space: Space,
    row: Operand,
    data: Vec<Given<'a>>,
    memory: Elements,
}

impl Compiler<'_> {
    /// The row, how it becomes addresses, and the state space of a variable that the address names.
    pub(super) fn address(&self, o: &ast::Operand) -> Lower<(Operand, Addressing, Option<Space>)> {
        let (base, offset) = match o {
            ast::Operand::Address(base, offset) => (base.as_deref(), *offset),
            // `ld.shared.b32 %r, array[3]`
            ast::Operand::Element(name, n) => match self.scopes.find(name) {
                Some(Meaning::Variable(_, _, bytes)) => (Some(&name[..]), n.wrapping_mul(i64::from(bytes))),
                _ => return Err(format!("{name}[{n}]: {name} is no variable").into()),
            },
            _ => return Err(format!("expected an address in brackets, found {o}").into()),
        };
        let Some(name) = base else {
            return Ok((Operand::Constant(offset as u64, true), Addressing { wide: true, offset: 0 }, None));
        };
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) => match self.scopes.widths[v as usize] {
                0 => Err(format!("{name} is a predicate, not an address").into()),
                width => Ok((Operand::Register(v), Addressing { wide: width == 2, offset }, None)),
            },
            Some(Meaning::Variable(space, at, _)) => {
                Ok((Operand::Constant(at, true), Addressing { wide: true, offset }, Some(space)))
            }
            Some(Meaning::Argument(_)) => {
                Err(format!("{name} is a value that a call gave: only `ld.param` and `st.param` of all of it reach it")
                    .into())
            }
            Some(Meaning::Vector(_)) => Err(format!("{name} is a vector register, not an address").into()),
            None => Err(format!("unknown name {name}").into()),
        }
    }

    pub(super) fn load(&mut self, i: &Instruction, elements: opcode::Elements) -> Lower<()> {
        let [data, address] = &i.operands[..] else { return Err("expected a register and an address".into()) };
        self.load_to(i.guard.as_ref(), elements, Given::Written(data), address)
    }

    pub(super) fn store(&mut self, i: &Instruction, elements: opcode::Elements) -> Lower<()> {
        let [address, data] = &i.operands[..] else { return Err("expected a register and an address".into()) };
        self.store_from(i.guard.as_ref(), elements, Given::Written(data), address)
    }

    pub(super) fn load_to(
        &mut self,
        guard: Option<&Guard>,
        elements: opcode::Elements,
        to: Given,
        address: &ast::Operand,
    ) -> Lower<()> {
        // `ld.param` from a parameter that a call bound to a register.
        if let Some(v) = self.register_argument(elements.space, address) {
            return self.compute(guard, &["mov", self.bits_of(v)], &[to, Given::Register(v)]);
        }
        let place = self.place(elements, to, address)?;
        let (run, class): (Run<Elements>, Class) = match place.space {
            Space::Global | Space::Const => (global::load(self.level), Class::GlobalLoad),
            Space::Shared => (shared::load(self.level), Class::SharedLoad),
            Space::Local => (private::load, Class::OtherMemory),
            Space::Param => (private::load_parameter, Class::OtherMemory),
            Space::Generic => (global::load_generic, Class::GlobalLoad),
        };
        let memory = Elements { signed: elements.ty.signed(), ..place.memory };
        let mut l = self.begin(guard, Ins::new(Step::Elements(Access { run, memory }), class))?;
        l.rows.push(place.row);
        for o in place.data {
            l.writes |= 1 << l.rows.len();
            l.rows.push(self.destination(o, memory.wide)?);
        }
        self.code.push(l);
        Ok(())
    }

    pub(super) fn store_from(
        &mut self,
        guard: Option<&Guard>,
        elements: opcode::Elements,
        from: Given,
        address: &ast::Operand,
    ) -> Lower<()> {
        if let Some(v) = self.register_argument(elements.space, address) {
            return self.compute(guard, &["mov", self.bits_of(v)], &[Given::Register(v), from]);
        }
        let place = self.place(elements, from, address)?;
        let (run, class): (Run<Elements>, Class) = match place.space {
            Space::Global => (global::store(self.level), Class::GlobalStore),
            Space::Shared => (shared::store(self.level), Class::SharedStore),
            Space::Local => (private::store, Class::OtherMemory),
            Space::Generic => (global::store_generic, Class::GlobalStore),
            Space::Param | Space::Const => return Err("this state space cannot be written".into()),
        };
        let memory = place.memory;
        let mut l = self.begin(guard, Ins::new(Step::Elements(Access { run, memory }), class))?;
        l.rows.push(place.row);
        for o in place.data {
            l.rows.push(self.source(o, if memory.wide { Arg::From64 } else { Arg::From32 })?);
        }
        self.code.push(l);
        Ok(())
    }

    /// Where elements lie in memory and in registers.
    fn place<'o>(&mut self, elements: opcode::Elements, data: Given<'o>, address: &ast::Operand) -> Lower<Placed<'o>> {
        let opcode::Elements { space, vector, ty, order } = elements;
        let (row, addressing, named) = self.address(address)?;
        let data = match data {
            Given::Written(ast::Operand::Vector(v)) => written(v),
            one => vec![one],
        };
        if data.len() != vector as usize || data.len() * ty.bytes() > 32 {
            return Err(format!("expected a vector of {vector}, found {}", data.len()).into());
        }
        // Variables of a call's parameters lie in local memory.
        let space = match (space, named) {
            (Space::Param, Some(Space::Local)) => Space::Local,
            (s, _) => s,
        };
        let wide = match data.iter().map(|&o| self.register_width(o)).max() {
            Some(2) => true,
            Some(1) => false,
            _ => ty.bytes() == 8,
        };
        if order.strong && !matches!(space, Space::Local | Space::Param | Space::Const) {
            self.ordering = true;
            self.serial |= space != Space::Shared && order.scope == opcode::Scope::Device;
        }
        let memory = Elements { addressing, width: ty.bytes() as u8, count: vector, signed: false, wide, order };
        if matches!(space, Space::Shared | Space::Generic) {
            self.narrow(memory.bytes());
        }
        Ok(Placed { space, row, data, memory })
    }

    /// The type of `mov` for a register.
    fn bits_of(&self, v: u32) -> &'static str {
        if self.scopes.widths[v as usize] == 2 { "b64" } else { "b32" }
    }

    /// The register that stands for a parameter of an inlined function.
    fn register_argument(&self, space: Space, address: &ast::Operand) -> Option<u32> {
        let (Space::Param, ast::Operand::Address(Some(name), 0)) = (space, address) else { return None };
        match self.scopes.find(name) {
            Some(Meaning::Argument(v)) => Some(v),
            _ => None,
        }
    }

    /// Notes an access of `bytes` bytes to shared memory.
    pub(super) fn narrow(&mut self, bytes: usize) {
        self.shared_granule = self.shared_granule.min(bytes.trailing_zeros());
    }

    /// A vector is so many atomics, each of which is one by itself.
    pub(super) fn atomics(
        &mut self,
        i: &Instruction,
        what: (Space, AtomicKind, Type, opcode::Order),
        vector: u8,
        result: bool,
    ) -> Lower<()> {
        if vector == 1 {
            return self.atomic(i, what, result);
        }
        let at = usize::from(result);
        let Some(ast::Operand::Address(base, offset)) = i.operands.get(at) else {
            return Err("expected an address in brackets".into());
        };
        let element = |o: &ast::Operand, n: usize| match o {
            ast::Operand::Vector(v) if v.len() == usize::from(vector) => Ok(v[n].clone()),
            _ => Err(format!("expected a vector of {vector}")),
        };
        for n in 0..usize::from(vector) {
            let mut operands = Vec::new();
            for (k, o) in i.operands.iter().enumerate() {
                operands.push(match k == at {
                    true => ast::Operand::Address(base.clone(), offset + (n * what.2.bytes()) as i64),
                    false => element(o, n)?,
                });
            }
            self.atomic(&Instruction { operands, ..i.clone() }, what, result)?;
        }
        Ok(())
    }

    fn atomic(&mut self, i: &Instruction, what: (Space, AtomicKind, Type, opcode::Order), result: bool) -> Lower<()> {
        let (space, kind, ty, order) = what;
        self.ordering |= order.acquire || order.release;
        self.atomics = true;
        let wide = ty.bytes() == 8;
        let run: Run<Atomic> = match space {
            Space::Shared => atomic::shared,
            Space::Generic => atomic::generic,
            _ => atomic::global,
        };
        if space != Space::Shared {
            self.serial = true;
        }
        if space != Space::Global {
            self.narrow(ty.bytes());
        }
        let mut operands = i.operands.iter();
        let destination = match result {
            true => self.destination(Given::Written(operands.next().ok_or("expected a destination")?), wide)?,
            false => Operand::Sink,
        };
        let (row, addressing, _) = self.address(operands.next().ok_or("expected an address")?)?;
        let memory = Atomic { addressing, kind, width: ty.bytes() as u8, wide, order };
        let mut l = self.begin(i.guard.as_ref(), Ins::new(Step::Atomic(Access { run, memory }), Class::Atomic))?;
        l.rows.extend([row, destination]);
        l.writes = 1 << 1;
        let arg = if wide { Arg::From64 } else { Arg::From32 };
        let sources = 1 + usize::from(kind == AtomicKind::CompareAndSwap);
        for _ in 0..sources {
            let o = operands.next().ok_or("expected a value")?;
            l.rows.push(self.source(Given::Written(o), arg)?);
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

    pub(super) fn matrix(&mut self, i: &Instruction, matrices: opcode::Matrices, load: bool) -> Lower<()> {
        let opcode::Matrices { count, transposed, generic } = matrices;
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
        let mut l = self.begin(i.guard.as_ref(), Ins::new(Step::Matrices(Access { run, memory }), class))?;
        l.rows.push(row);
        for o in data {
            if load {
                l.writes |= 1 << l.rows.len();
                l.rows.push(self.destination(Given::Written(o), false)?);
            } else {
                l.rows.push(self.source(Given::Written(o), Arg::From32)?);
            }
        }
        self.code.push(l);
        Ok(())
    }

    pub(super) fn async_copy(&mut self, i: &Instruction, cg: bool) -> Lower<()> {
        let [to, from, size, rest @ ..] = &i.operands[..] else {
            return Err("expected two addresses and a size".into());
        };
        let size = self.integer(size)?;
        if !matches!(size, 4 | 8 | 16) || cg && size != 16 {
            return Err(format!("expected 4, 8 or 16 bytes (.cg: 16), found {size}").into());
        }
        self.narrow(size as usize);
        let (to_row, to, _) = self.address(to)?;
        let (from_row, from, _) = self.address(from)?;
        if !from.wide || i32::try_from(from.offset).is_err() {
            return Err("expected a 64-bit address with a 32-bit offset".into());
        }
        let mut memory = Copies { to, from, bytes: size as u8, sized: false };
        let mut l: Lowered = self.begin(i.guard.as_ref(), Ins::new(Step::Nothing, Class::AsyncCopy))?;
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
                l.rows.push(self.source(Given::Written(o), Arg::From32)?);
                memory.sized = true;
            }
            _ => return Err("too many operands".into()),
        }
        l.ins.step = Step::Copy(Access { run: async_copy::copy(self.level), memory });
        self.code.push(l);
        Ok(())
    }

    pub(super) fn wait_group(&mut self, i: &Instruction) -> Lower<()> {
        let pending = match &i.operands[..] {
            [o] => self.integer(o)?,
            others => return Err(format!("expected one operand, found {}", others.len()).into()),
        };
        self.push_given(i.guard.as_ref(), groups(CopyGroups::Wait(pending as u32)), &[], &[])
    }

    pub(super) fn copy_groups(&mut self, i: &Instruction, what: CopyGroups) -> Lower<()> {
        self.push(i, groups(what), &[])
    }

    fn is_predicate(&self, o: &ast::Operand) -> bool {
        self.predicate(o).is_ok()
    }
}

fn groups(memory: CopyGroups) -> Ins {
    Ins::new(Step::CopyGroups(Access { run: async_copy::groups, memory }), Class::AsyncCopy)
}
