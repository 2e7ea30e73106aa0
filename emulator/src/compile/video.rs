//! Video instructions: `vadd.s32.u32.s32.sat d.h1, a.b0, b.h0, c` and `vadd4.u32.u32.u32.add d.b10, a, b, c`.

use super::compiler::Compiler;
use super::operands::{Given, Guard};
use super::problem::Lower;
use crate::ops::lanes::video::{Kind, Second, Video, video};
use crate::ops::{Arg, Class};
use crate::program::{Ins, Step};
use crate::ptx::ast::Operand;

/// Mnemonic without its number of elements, and what it does; a comparison is told by its modifier.
fn kind(name: &str) -> Option<(Option<Kind>, u8)> {
    let (name, lanes) = match name.strip_suffix('2').map(|n| (n, 2)).or(name.strip_suffix('4').map(|n| (n, 4))) {
        Some(found) => found,
        None => (name, 0),
    };
    let kind = match name {
        "vadd" => Kind::Add,
        "vsub" => Kind::Sub,
        "vabsdiff" => Kind::AbsDiff,
        "vmin" => Kind::Min,
        "vmax" => Kind::Max,
        "vset" => return Some((None, lanes)),
        "vavrg" if lanes > 0 => Kind::Average,
        "vshl" if lanes == 0 => Kind::ShiftLeft,
        "vshr" if lanes == 0 => Kind::ShiftRight,
        "vmad" if lanes == 0 => Kind::MultiplyAdd,
        _ => return None,
    };
    Some((Some(kind), lanes))
}

fn comparison(name: &str) -> Option<Kind> {
    Some(match name {
        "eq" => Kind::Eq,
        "ne" => Kind::Ne,
        "lt" => Kind::Lt,
        "le" => Kind::Le,
        "gt" => Kind::Gt,
        "ge" => Kind::Ge,
        _ => return None,
    })
}

/// Whether a mnemonic belongs here.
pub(super) fn is_video(name: &str) -> bool {
    name.starts_with('v') && kind(name).is_some()
}

impl Compiler<'_> {
    pub(super) fn video(&mut self, guard: Option<&Guard>, op: &[&str], operands: &[Operand]) -> Lower<()> {
        let (found, lanes) = kind(op[0]).ok_or("unknown opcode")?;
        let mut how = Video {
            kind: found.unwrap_or(Kind::Eq),
            signed: [false; 3],
            saturate: false,
            wrap: false,
            scale: 0,
            plus_one: false,
            negated: [false; 2],
            part: [6; 3],
            second: Second::Merge,
            lanes,
            mask: 0xf,
        };
        // Types first: of d, a and b; a comparison gives none of d.
        let mut types = if found.is_none() { 1 } else { 0 };
        let mut compared = found.is_some();
        for &part in &op[1..] {
            match part {
                "u32" | "s32" if types < 3 => {
                    how.signed[types] = part == "s32";
                    types += 1;
                }
                "sat" => how.saturate = true,
                "clamp" => {}
                "wrap" => how.wrap = true,
                "po" => how.plus_one = true,
                "shr7" => how.scale = 7,
                "shr15" => how.scale = 15,
                "add" => how.second = Second::Add,
                "min" if lanes == 0 => how.second = Second::Min,
                "max" if lanes == 0 => how.second = Second::Max,
                _ => match comparison(part) {
                    Some(kind) if !compared => (how.kind, compared) = (kind, true),
                    _ => return Err(format!("unknown modifier .{part}").into()),
                },
            }
        }
        if types != 3 || !compared {
            return Err("expected the types of the operands and what vset compares".into());
        }
        let (needs_c, n) = (lanes > 0 || found == Some(Kind::MultiplyAdd), operands.len());
        if !(3..=4).contains(&n) || needs_c && n != 4 {
            return Err(format!("expected {} operands, found {n}", if needs_c { "4" } else { "3 or 4" }).into());
        }
        let mut names = Vec::new();
        let mut choices: [Option<Vec<u8>>; 3] = [None, None, None];
        for (n, o) in operands.iter().enumerate() {
            let positive;
            let o = match o {
                Operand::Negated(name) if found == Some(Kind::MultiplyAdd) && n > 0 => {
                    how.negated[usize::from(n == 3)] ^= true;
                    positive = Operand::Name(name.clone());
                    &positive
                }
                o => o,
            };
            let (o, digits) = self.selected(o);
            if let (Some(digits), true) = (&digits, n < 3) {
                choices[n] = Some(digits.clone());
            }
            names.push(o);
        }
        match how.negated {
            [true, true] => return Err("either the product or the third source may be negated".into()),
            [false, false] => {}
            _ if how.plus_one => return Err("with .po nothing may be negated".into()),
            _ => {}
        }
        if lanes == 0 {
            for (part, choice) in how.part.iter_mut().zip(&choices) {
                if let Some(choice) = choice {
                    let [kind @ (b'b' | b'h'), n @ 0..=3] = choice[..] else {
                        return Err("expected one part of the register: .b0 to .b3, .h0, .h1".into());
                    };
                    if kind == b'h' && n > 1 {
                        return Err("expected one half of the register: .h0 or .h1".into());
                    }
                    *part = if kind == b'h' { 4 + n } else { n };
                }
            }
            if n == 3 && (how.part[0] != 6 || how.second != Second::Merge) {
                return Err("expected a third source".into());
            }
        } else if let Some(choice) = &choices[0] {
            if choice[1..].iter().any(|n| *n >= lanes) {
                return Err(format!("expected elements from 0 to {} to write", lanes - 1).into());
            }
            how.mask = choice[1..].iter().fold(0, |mask, n| mask | 1 << n);
        }
        let zero = Operand::Integer(0);
        let mut given: Vec<Given> = names.iter().map(Given::Written).collect();
        if n == 3 {
            given.push(Given::Written(&zero));
        }
        if lanes > 0 {
            for (n, default) in [(1, 0u8), (2, lanes)] {
                let usual: Vec<u8> = (0..lanes).map(|k| default + lanes - 1 - k).collect();
                let chosen = choices[n].as_ref().map_or(usual.clone(), |c| c[1..].to_vec());
                if chosen == usual {
                    continue;
                }
                if chosen.len() != usize::from(lanes) || chosen.iter().any(|&c| c >= 2 * lanes) {
                    return Err(format!("expected {lanes} elements of the sources to choose").into());
                }
                // The elements of both sources in one row, as `prmt` numbers their bytes.
                let bytes = 4 / u32::from(lanes);
                let selector = chosen.iter().fold(0i64, |all, &c| {
                    (0..bytes).rev().fold(all, |all, byte| all << 4 | i64::from(u32::from(c) * bytes + byte))
                });
                let selector = Operand::Integer(selector);
                let row = Given::Register(self.scopes.fresh(1));
                let (a, b) = (Given::Written(&names[1]), Given::Written(&names[2]));
                self.compute(guard, &["prmt", "b32"], &[row, a, b, Given::Written(&selector)])?;
                given[n] = row;
            }
        }
        let mut ins = Ins::new(Step::Compute(video(self.level)), Class::Integer);
        ins.operands.extra = how.pack();
        self.push_given(guard, ins, &[Arg::To32, Arg::From32, Arg::From32, Arg::From32], &given)
    }

    /// A register and what is chosen of it: `%r1.b2` is `%r1` and b, 2.
    fn selected(&self, o: &Operand) -> (Operand, Option<Vec<u8>>) {
        if let Operand::Name(name) = o
            && self.scopes.find(name).is_none()
            && let Some((register, choice)) = name.rsplit_once('.')
            && let [kind @ (b'b' | b'h'), digits @ ..] = choice.as_bytes()
            && !digits.is_empty()
            && digits.iter().all(u8::is_ascii_digit)
        {
            let digits = [*kind].into_iter().chain(digits.iter().map(|d| d - b'0'));
            return (Operand::Name(register.into()), Some(digits.collect()));
        }
        (o.clone(), None)
    }
}
