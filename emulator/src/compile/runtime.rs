//! Calls of the CUDA runtime, whose functions a module declares without a body.

use super::compiler::Compiler;
use super::operands::Given;
use super::problem::Lower;
use crate::exec::runtime;
use crate::ops::{Arg, Class};
use crate::program::{Ins, Run, Step};
use crate::ptx::ast::{self, Space, Type};
use crate::ptx::opcode::{Elements, Order};

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
        function: &Function,
        returns: &[ast::Operand],
        arguments: &[ast::Operand],
    ) -> Lower<()> {
        if returns.len() != usize::from(function.returns.is_some()) || arguments.len() != function.arguments.len() {
            let (a, r) = (function.arguments.len(), usize::from(function.returns.is_some()));
            return Err(format!("expected {a} arguments and {r} results").into());
        }
        self.serial |= function.ordered;
        let guard = None;
        let (mut operands, mut args) = (Vec::new(), Vec::new());
        if let Some(bits) = function.returns {
            operands.push(Given::Register(self.scopes.fresh((bits / 32) as u8)));
            args.push(if bits == 64 { Arg::To64 } else { Arg::To32 });
        }
        for (argument, &bits) in arguments.iter().zip(function.arguments) {
            let register = Given::Register(self.scopes.fresh((bits / 32) as u8));
            self.load_to(guard, parameter(bits), register, &place(argument)?)?;
            operands.push(register);
            args.push(if bits == 64 { Arg::From64 } else { Arg::From32 });
        }
        self.push_given(guard, Ins::new(Step::Call(function.run), Class::Other), &args, &operands)?;
        if let (Some(bits), [result]) = (function.returns, returns) {
            self.store_from(guard, parameter(bits), operands[0], &place(result)?)?;
        }
        Ok(())
    }
}

/// One parameter of a call.
fn parameter(bits: u32) -> Elements {
    Elements {
        space: Space::Param,
        vector: 1,
        ty: if bits == 64 { Type::B64 } else { Type::B32 },
        order: Order::default(),
    }
}

/// Where the variable or register lies that an argument or result names.
fn place(parameter: &ast::Operand) -> Lower<ast::Operand> {
    match parameter {
        ast::Operand::Name(name) => Ok(ast::Operand::Address(Some(name.clone()), 0)),
        _ => Err(format!("expected a .param variable or register, found {parameter}").into()),
    }
}
