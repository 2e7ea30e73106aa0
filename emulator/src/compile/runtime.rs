//! Calls of the CUDA runtime, whose functions a module declares without a body.

use super::compiler::Compiler;
use super::problem::Lower;
use super::scope::Meaning;
use crate::exec::runtime;
use crate::ops::{Arg, Class};
use crate::program::{Ins, Run, Step};
use crate::ptx::ast::{self, Instruction};

/// A function that the emulator brings.
pub(super) struct Function {
    run: Run<()>,
    /// Bits of the result, if there is one, and of the arguments.
    returns: Option<u32>,
    arguments: &'static [u32],
    /// Its effect is seen outside: blocks that call it run one after another.
    ordered: bool,
}

pub(super) fn named(name: &str) -> Option<Function> {
    Some(match name {
        "__assertfail" => {
            Function { run: runtime::assert_fail, returns: None, arguments: &[64, 64, 32, 64, 64], ordered: false }
        }
        "vprintf" => Function { run: runtime::print, returns: Some(32), arguments: &[64, 64], ordered: true },
        _ => return None,
    })
}

impl Compiler<'_> {
    /// Arguments become registers, the function one instruction on them, and its result goes where the caller reads it.
    pub(super) fn runtime_call(
        &mut self,
        i: &Instruction,
        function: &Function,
        returns: &[ast::Operand],
        arguments: &[ast::Operand],
    ) -> Lower<()> {
        if returns.len() != usize::from(function.returns.is_some()) || arguments.len() != function.arguments.len() {
            let (a, r) = (function.arguments.len(), usize::from(function.returns.is_some()));
            return Err(format!("expected {a} arguments and {r} results").into());
        }
        self.serial |= function.ordered;
        let (mut operands, mut args) = (Vec::new(), Vec::new());
        if let Some(bits) = function.returns {
            operands.push(self.scratch(bits));
            args.push(if bits == 64 { Arg::To64 } else { Arg::To32 });
        }
        for (argument, &bits) in arguments.iter().zip(function.arguments) {
            let register = self.scratch(bits);
            self.pass(i, ["ld", "param", if bits == 64 { "b64" } else { "b32" }], argument, &register)?;
            operands.push(register);
            args.push(if bits == 64 { Arg::From64 } else { Arg::From32 });
        }
        let call = Instruction { operands: operands.clone(), ..i.clone() };
        self.push(&call, Ins::new(Step::Call(function.run), Class::Other), &args)?;
        if let (Some(bits), [result]) = (function.returns, returns) {
            self.pass(i, ["st", "param", if bits == 64 { "b64" } else { "b32" }], result, &operands[0])?;
        }
        Ok(())
    }

    /// A register that no other name reaches.
    fn scratch(&mut self, bits: u32) -> ast::Operand {
        let register = self.scopes.fresh((bits / 32) as u8);
        let name = format!("%runtime_{register}");
        self.scopes.declare(&name, Meaning::Register(register));
        ast::Operand::Name(name)
    }

    /// Moves one parameter of a call from or to a register.
    fn pass(&mut self, i: &Instruction, op: [&str; 3], parameter: &ast::Operand, register: &ast::Operand) -> Lower<()> {
        let ast::Operand::Name(name) = parameter else {
            return Err(format!("expected a .param variable or register, found {parameter:?}").into());
        };
        let place = ast::Operand::Address(Some(name.clone()), 0);
        let operands = if op[0] == "ld" { vec![register.clone(), place] } else { vec![place, register.clone()] };
        let opcode = op.iter().map(|part| part.to_string()).collect();
        self.memory(&Instruction { opcode, operands, ..i.clone() }, &op)
    }
}
