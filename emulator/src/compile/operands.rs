//! Resolves operands: names become registers, constants and special registers.

use super::compiler::Compiler;
use super::lowered::{Lowered, Operand, TRUE};
use super::problem::Lower;
use super::scope::{Meaning, function_address};
use crate::ops::Arg;
use crate::program::{Ins, LaneMask, Special};
use crate::ptx::ast::{self, Instruction};
use crate::ptx::since;

/// The predicate before an instruction, and whether it is negated.
pub(super) type Guard = (String, bool);

/// An operand: as written, or a register that only the compiler knows, of the width that is wanted.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Written(&'a ast::Operand),
    Register(u32),
}

impl<'a> Given<'a> {
    fn written(self) -> Lower<&'a ast::Operand> {
        match self {
            Given::Written(o) => Ok(o),
            Given::Register(_) => Err("expected a predicate or a number, found a register".into()),
        }
    }
}

pub(super) fn written(operands: &[ast::Operand]) -> Vec<Given<'_>> {
    operands.iter().map(Given::Written).collect()
}

/// The elements of a vector or pair, or the operand itself.
pub(super) fn flat(given: Given) -> Vec<Given> {
    match given {
        Given::Written(ast::Operand::Vector(v)) => written(v),
        Given::Written(ast::Operand::Pair(a, b)) => vec![Given::Written(a), Given::Written(b)],
        one => vec![one],
    }
}

impl Compiler<'_> {
    /// Resolves the operands of an instruction by `args` and appends it.
    pub(super) fn push(&mut self, i: &Instruction, ins: Ins, args: &[Arg]) -> Lower<()> {
        self.push_given(i.guard.as_ref(), ins, args, &written(&i.operands))
    }

    /// The same for operands of which some were never written.
    pub(super) fn push_given(
        &mut self,
        guard: Option<&Guard>,
        ins: Ins,
        args: &[Arg],
        operands: &[Given],
    ) -> Lower<()> {
        let mut l = self.begin(guard, ins)?;
        let mut next = operands.iter().flat_map(|&given| flat(given));
        let pair = matches!(operands.first(), Some(Given::Written(ast::Operand::Pair(..))));
        let mut source_predicates = 0;
        for &arg in args {
            if arg == Arg::ToPredicateToo && !pair {
                l.predicates.push(None);
                l.predicate_writes |= 1 << (l.predicates.len() - 1);
                continue;
            }
            let given = next.next().ok_or_else(|| format!("expected {} operands", args.len()))?;
            match arg {
                Arg::To32 | Arg::To64 => {
                    l.writes |= 1 << l.rows.len();
                    l.rows.push(self.destination(given, arg == Arg::To64)?);
                }
                Arg::From32 | Arg::From64 | Arg::From16 => l.rows.push(self.source(given, arg)?),
                Arg::ToPredicate | Arg::ToPredicateToo => {
                    l.predicate_writes |= 1 << l.predicates.len();
                    let predicate = match given {
                        Given::Written(ast::Operand::Name(n)) if n == "_" => None,
                        Given::Register(v) => Some(v),
                        _ => Some(self.predicate(given.written()?)?.0),
                    };
                    l.predicates.push(predicate);
                }
                Arg::FromPredicate => {
                    let (v, negated) = match given {
                        Given::Register(v) => (v, false),
                        Given::Written(ast::Operand::Integer(v)) => (TRUE, *v == 0),
                        Given::Written(o) => self.predicate(o)?,
                    };
                    l.predicates.push(Some(v));
                    l.ins.operands.negated |= u16::from(negated) << source_predicates;
                    source_predicates += 1;
                }
                Arg::Immediate => l.ins.operands.extra = self.integer(given.written()?)? as u32,
            }
        }
        if next.next().is_some() {
            return Err(format!("expected {} operands, found {}", args.len(), operands.len()).into());
        }
        if l.rows.len() > 16 || l.predicates.len() > 4 {
            return Err("too many operands".into());
        }
        self.code.push(l);
        Ok(())
    }

    /// The instruction with its guard.
    pub(super) fn begin(&self, guard: Option<&Guard>, ins: Ins) -> Lower<Lowered> {
        let mut l = Lowered::new(ins, self.location);
        if let Some((name, negated)) = guard {
            l.guard = Some((self.named_predicate(name)?, *negated));
        }
        Ok(l)
    }

    pub(super) fn destination(&self, given: Given, wide: bool) -> Lower<Operand> {
        let o = match given {
            Given::Register(v) => return self.check_width("a parameter", v, wide).map(|()| Operand::Register(v)),
            Given::Written(o) => o,
        };
        let ast::Operand::Name(name) = o else {
            return Err(format!("expected a register to write, found {o}").into());
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
    pub(super) fn register_width(&self, given: Given) -> u8 {
        match given {
            Given::Register(v) => self.scopes.widths[v as usize],
            Given::Written(ast::Operand::Name(n)) => match self.scopes.find(n) {
                Some(Meaning::Register(v)) => self.scopes.widths[v as usize],
                _ => 0,
            },
            _ => 0,
        }
    }

    pub(super) fn source(&self, given: Given, arg: Arg) -> Lower<Operand> {
        let o = match given {
            Given::Register(v) => {
                return self.check_width("a parameter", v, arg == Arg::From64).map(|()| Operand::Register(v));
            }
            Given::Written(o) => o,
        };
        let wide = arg == Arg::From64;
        let constant = |bits: u64| Operand::Constant(if wide { bits } else { bits & 0xffff_ffff }, wide);
        match o {
            ast::Operand::Name(name) => {
                if let Some(value) = of_cluster(name).filter(|_| !wide) {
                    return match since::capability(&self.module.target) {
                        90.. => Ok(constant(value)),
                        _ => Err(format!("{name} needs .target sm_90 or higher").into()),
                    };
                }
                if let Some(special) = special(name) {
                    return if wide {
                        Err(format!("{name} has 32 bits").into())
                    } else {
                        Ok(Operand::Special(special))
                    };
                }
                match self.scopes.find(name) {
                    Some(Meaning::Register(v)) => self.check_width(name, v, wide).map(|()| Operand::Register(v)),
                    Some(Meaning::Variable(_, at, _)) => Ok(constant(at)),
                    Some(Meaning::Argument(_)) => {
                        Err(format!("{name} is a value that a call gave, which has no address").into())
                    }
                    Some(Meaning::Vector(_)) => Err(format!("{name} is a vector register").into()),
                    None if name == "WARP_SZ" => Ok(constant(32)),
                    None => match function_address(self.module, name) {
                        Some(at) => Ok(constant(at)),
                        None if is_unsupported(name) => Err(format!("register {name} is not supported").into()),
                        None => Err(format!("unknown name {name}").into()),
                    },
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
                Some(Meaning::Variable(_, at, _)) => Ok(constant(at.wrapping_add(*offset as u64))),
                Some(Meaning::Register(_)) => {
                    let sum = format!("{name}{offset:+}");
                    Err(format!("{sum}: a value is a register or a number, not their sum; add it before").into())
                }
                _ => Err(format!("unknown variable {name}").into()),
            },
            ast::Operand::Element(name, n) => match self.scopes.find(name) {
                // `mov.u64 %rd, array[3]`
                Some(Meaning::Variable(_, at, bytes)) => {
                    Ok(constant(at.wrapping_add(n.wrapping_mul(i64::from(bytes)) as u64)))
                }
                _ => Err(format!("{name}[{n}]: {name} is no variable").into()),
            },
            _ => Err(format!("expected a register or a number, found {o}").into()),
        }
    }

    pub(super) fn predicate(&self, o: &ast::Operand) -> Lower<(u32, bool)> {
        let (name, negated) = match o {
            ast::Operand::Name(n) => (n, false),
            ast::Operand::Not(n) => (n, true),
            _ => return Err(format!("expected a predicate, found {o}").into()),
        };
        self.named_predicate(name).map(|v| (v, negated))
    }

    fn named_predicate(&self, name: &str) -> Lower<u32> {
        match self.scopes.find(name) {
            Some(Meaning::Register(v)) if self.scopes.widths[v as usize] == 0 => Ok(v),
            Some(_) => Err(format!("expected a predicate, found {name}, which is none").into()),
            None => Err(format!("unknown predicate {name}").into()),
        }
    }

    pub(super) fn integer(&self, o: &ast::Operand) -> Lower<i64> {
        match o {
            ast::Operand::Integer(v) => Ok(*v),
            ast::Operand::Name(n) if n == "WARP_SZ" => Ok(32),
            _ => Err(format!("expected a number, found {o}").into()),
        }
    }

    pub(super) fn label(&self, o: &ast::Operand) -> Lower<usize> {
        let ast::Operand::Name(name) = o else { return Err(format!("expected a label, found {o}").into()) };
        self.named_label(name)
    }

    pub(super) fn named_label(&self, name: &str) -> Lower<usize> {
        self.scopes.find_label(name).ok_or_else(|| format!("unknown label {name}").into())
    }
}

/// Special registers of a cluster, which is one block.
fn of_cluster(name: &str) -> Option<u64> {
    match name {
        "%cluster_ctaid.x" | "%cluster_ctaid.y" | "%cluster_ctaid.z" | "%cluster_ctarank" => Some(0),
        "%cluster_nctaid.x" | "%cluster_nctaid.y" | "%cluster_nctaid.z" | "%cluster_nctarank" => Some(1),
        _ => None,
    }
}

/// Special registers of the PTX ISA whose value means nothing here: counters, the environment of another language, graphs.
fn is_unsupported(name: &str) -> bool {
    let numbered =
        |stem: &str| name.strip_prefix(stem).is_some_and(|n| n.trim_end_matches("_64").parse::<u8>().is_ok());
    numbered("%envreg")
        || numbered("%pm")
        || name.starts_with("%reserved_smem_offset_")
        || matches!(name, "%gridid" | "%aggr_smem_size" | "%current_graph_exec" | "%is_explicit_cluster")
}

/// Special registers whose value is fixed while a block runs.
fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| ["x", "y", "z"].iter().position(|a| *a == rest).map(|a| a as u8);
    if let Some((base, rest)) = name.split_once('.') {
        let axis = axis(rest)?;
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            // A cluster is one block.
            "%ctaid" | "%clusterid" => Special::Ctaid(axis),
            "%nctaid" | "%nclusterid" => Special::Nctaid(axis),
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
