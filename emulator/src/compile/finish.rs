//! From lowered instructions to a [`Program`]: joins, rows of registers, positions of labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::allocate::{self, Touches};
use super::compiler::Compiler;
use super::flow::{Blocks, Leave};
use super::lowered::{Lowered, Operand, TRUE};
use crate::ops::Class;
use crate::program::{Ins, Program, Step};
use crate::ptx::PtxError;
use crate::ptx::ast::Function;
use crate::registers::{NO_PREDICATE, Row};

/// Predicates 0, the carry flag, and 1, [`TRUE`], are nobody else's.
const RESERVED_PREDICATES: usize = 2;
/// Rows 0 and 1 are where results go that nobody reads.
const RESERVED_ROWS: usize = 2;

impl Compiler<'_> {
    /// Finds joins, gives registers rows, and resolves labels.
    pub fn finish(
        mut self,
        entry: &Function,
        parameters: Vec<(usize, usize)>,
        parameter_bytes: usize,
    ) -> Result<Program, PtxError> {
        self.insert_joins();
        let blocks = self.blocks();
        let touches: Vec<Touches> = self.code.iter().map(|l| l.touches(&self.scopes.widths, false)).collect();
        let rows = allocate::allocate(&blocks, &touches, &self.scopes.widths, RESERVED_ROWS);
        let touches: Vec<Touches> = self.code.iter().map(|l| l.touches(&self.scopes.widths, true)).collect();
        let as_predicates: Vec<u8> = self.scopes.widths.iter().map(|&w| u8::from(w == 0)).collect();
        let predicates = allocate::allocate(&blocks, &touches, &as_predicates, RESERVED_PREDICATES);

        let mut next = rows.rows;
        let mut fixed: BTreeMap<Operand, u16> = BTreeMap::new();
        let mut constants = Vec::new();
        let mut specials = Vec::new();
        let (mut code, mut locations) = (Vec::with_capacity(self.code.len()), Vec::with_capacity(self.code.len()));
        for (pc, l) in self.code.iter().enumerate() {
            let mut ins = l.ins;
            for (n, &operand) in l.rows.iter().enumerate() {
                ins.operands.slot[n] = match operand {
                    Operand::Register(v) => rows.slot[v as usize].unwrap_or(0),
                    Operand::Sink => 0,
                    Operand::Constant(bits, wide) => *fixed.entry(operand).or_insert_with(|| {
                        let at = next as u16;
                        next += 1 + usize::from(wide);
                        if wide {
                            let words: [u32; 64] =
                                std::array::from_fn(|i| if i % 2 == 0 { bits as u32 } else { (bits >> 32) as u32 });
                            let half = |first: usize| Row(std::array::from_fn(|i| words[first + i]));
                            constants.push((at, half(0)));
                            constants.push((at + 1, half(32)));
                        } else {
                            constants.push((at, Row([bits as u32; 32])));
                        }
                        at
                    }),
                    Operand::Special(special) => *fixed.entry(operand).or_insert_with(|| {
                        next += 1;
                        specials.push((next as u16 - 1, special));
                        next as u16 - 1
                    }),
                };
            }
            for (n, v) in l.predicates.iter().enumerate() {
                let slot = v.map(|v| match v {
                    TRUE => 1,
                    _ => predicates.slot[v as usize].unwrap_or(NO_PREDICATE),
                });
                ins.operands.predicate[n] = slot.unwrap_or(NO_PREDICATE);
            }
            if let Some((v, negated)) = l.guard {
                ins.guard = predicates.slot[v as usize].unwrap_or(NO_PREDICATE);
                ins.guard_negated = negated;
            }
            if let (Step::Branch { target, .. }, Some(&label)) = (&mut ins.step, l.targets.first()) {
                *target = self.labels[label] as u32;
            }
            if let Step::WarpWide { members, .. } = &mut ins.step
                && members.is_some()
            {
                *members = Some(ins.operands.slot[l.rows.len() - 1]);
            }
            ins.pc = pc as u32;
            code.push(ins);
            locations.push(l.location);
        }
        if next > usize::from(u16::MAX) - 1 {
            return Err(PtxError::new(
                entry.line,
                format!("{} needs {next} rows of registers, more than 65534", entry.name),
            ));
        }
        let tables = self.tables.iter().map(|t| t.iter().map(|&label| self.labels[label] as u32).collect()).collect();
        let max_threads = entry.required_threads.or(entry.max_threads).map_or(1024, |t| t.iter().product());
        Ok(Program {
            name: entry.name.clone(),
            code,
            locations,
            files: Arc::new(self.module.files.clone()),
            tables,
            rows: next,
            predicates: predicates.rows,
            constants,
            specials,
            undefined: rows.undefined.iter().filter_map(|&v| rows.slot[v as usize]).collect(),
            pressure: rows.pressure as u32,
            parameters,
            parameter_bytes,
            static_shared: self.static_shared,
            local_bytes: self.local_bytes,
            max_threads,
            required_threads: entry.required_threads,
            serial: self.serial,
            ordering: self.ordering,
            atomics: self.atomics,
            partial_barriers: self.partial_barriers,
            shared_granule: self.shared_granule,
        })
    }

    fn blocks(&self) -> Blocks {
        let targets: Vec<Vec<usize>> =
            self.code.iter().map(|l| l.targets.iter().map(|&t| self.labels[t]).collect()).collect();
        Blocks::new(self.code.len(), |i| {
            let l = &self.code[i];
            match l.ins.step {
                Step::Branch { .. } | Step::BranchTable { .. } => {
                    let falls = l.guard.is_some();
                    Some(Leave { targets: &targets[i], falls })
                }
                Step::Exit => Some(Leave { targets: &[], falls: l.guard.is_some() }),
                _ => None,
            }
        })
    }

    /// Puts a [`Step::Join`] wherever the sides of a branch meet, and tells the branch.
    fn insert_joins(&mut self) {
        // A label at the very end needs an instruction to stand before.
        let blocks = self.blocks();
        let meets = blocks.post_dominators();
        let mut join_of: Vec<(usize, usize)> = Vec::new(); // branch, instruction it joins at
        for (b, meet) in meets.iter().enumerate() {
            let last = blocks.first[b + 1] - 1;
            let l = &self.code[last];
            let splits = match l.ins.step {
                Step::Branch { .. } => l.guard.is_some(),
                Step::BranchTable { .. } => true,
                _ => false,
            };
            if let (true, Some(meet)) = (splits, meet) {
                join_of.push((last, blocks.first[*meet]));
            }
        }
        let mut at: Vec<usize> = join_of.iter().map(|&(_, at)| at).collect();
        at.sort_unstable();
        at.dedup();
        let moved = |i: usize| i + at.partition_point(|&j| j < i);
        for (branch, meet) in &join_of {
            let to = moved(*meet) as u32;
            match &mut self.code[*branch].ins.step {
                Step::Branch { join, .. } | Step::BranchTable { join, .. } => *join = to,
                _ => {}
            }
        }
        for label in self.labels.iter_mut().filter(|l| **l != usize::MAX) {
            *label = moved(*label);
        }
        let old = std::mem::take(&mut self.code);
        self.code.reserve(old.len() + at.len());
        for (i, l) in old.into_iter().enumerate() {
            if at.binary_search(&i).is_ok() {
                let location = l.location;
                self.code.push(Lowered::new(Ins::new(Step::Join, Class::Other), location));
            }
            self.code.push(l);
        }
    }
}
