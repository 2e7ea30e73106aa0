//! `wmma`: products of fragments whose layout PTX leaves open. Here a fragment is one or two of `mma`'s, as in the machine code of
//! sm_80 and later, and a product is two of `mma`.

use super::compiler::Compiler;
use super::operands::{Given, Guard};
use super::problem::Lower;
use crate::exec::fragment;
use crate::ops::{Arg, Class};
use crate::program::{self, Access, Fragment, Ins, Run, Step};
use crate::ptx::ast::{self, Instruction, Operand, Space};

/// What `wmma` is told of types: bytes of an element of A and B, and registers of A and B by rows of 8 and columns of 8 that a warp
/// holds once, and the k of `mma`.
struct Format {
    bytes: u8,
    k: usize,
    shapes: &'static [(usize, usize)],
}

const WIDE: &[(usize, usize)] = &[(16, 16), (32, 8), (8, 32)];

fn format(ty: &str) -> Option<Format> {
    Some(match ty {
        "f16" | "bf16" => Format { bytes: 2, k: 16, shapes: WIDE },
        "s8" | "u8" => Format { bytes: 1, k: 16, shapes: WIDE },
        "tf32" => Format { bytes: 4, k: 8, shapes: &[(16, 16)] },
        "f64" => Format { bytes: 8, k: 4, shapes: &[(8, 8)] },
        _ => return None,
    })
}

/// `m16n16k16` is (16, 16, 16).
fn shape(part: &str) -> Option<(usize, usize, usize)> {
    let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

/// The registers of an operand.
fn registers(o: &Operand) -> Vec<Operand> {
    match o {
        Operand::Vector(v) => v.clone(),
        one => vec![one.clone()],
    }
}

impl Compiler<'_> {
    pub(super) fn wmma(&mut self, i: &Instruction, op: &[&str]) -> Lower<()> {
        match op {
            ["wmma", "load", which @ ("a" | "b" | "c"), "sync", "aligned", layout, rest @ ..] => {
                self.fragment(i, which, layout, rest, true)
            }
            ["wmma", "store", "d", "sync", "aligned", layout, rest @ ..] => self.fragment(i, "d", layout, rest, false),
            ["wmma", "mma", "sync", "aligned", a, b, rest @ ..]
                if [a, b].iter().all(|l| matches!(**l, "row" | "col")) =>
            {
                self.multiply(i, rest)
            }
            _ => Err("expected wmma.load, wmma.store or wmma.mma, .sync.aligned and the layouts".into()),
        }
    }

    /// `wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 r, [p], stride;`
    fn fragment(&mut self, i: &Instruction, which: &str, layout: &str, rest: &[&str], load: bool) -> Lower<()> {
        let by_columns = match layout {
            "row" => false,
            "col" => true,
            _ => return Err(format!("unknown layout .{layout}").into()),
        };
        let [shape_part, middle @ .., ty] = rest else { return Err("expected a shape and a type".into()) };
        let (m, n, k) = shape(shape_part).ok_or_else(|| format!("unknown shape .{shape_part}"))?;
        let space = match middle {
            [] => Space::Generic,
            ["global"] => Space::Global,
            ["shared" | "shared::cta"] => Space::Shared,
            _ => return Err(format!("unknown modifier .{}", middle.join(".")).into()),
        };
        let sum = matches!(which, "c" | "d");
        // The sums of 8-bit products are s32; f64 stays f64; all others are f32 or f16.
        let bytes = match (sum, *ty) {
            (true, "f16") => 2,
            (true, "f32" | "s32") => 4,
            (true, "f64") => 8,
            (false, ty) => format(ty).ok_or_else(|| format!("unknown type .{ty}"))?.bytes,
            (true, ty) => return Err(format!("unknown type .{ty}").into()),
        };
        let depth = match (sum, *ty, k) {
            (true, "f64", 4) => (m, n) == (8, 8),
            (true, "f32", 8) => (m, n) == (16, 16),
            (true, _, k) => k == 16 && WIDE.contains(&(m, n)),
            (false, ty, k) => format(ty).is_some_and(|f| f.k == k && f.shapes.contains(&(m, n))),
        };
        if !depth {
            return Err(format!("unknown shape .{shape_part} for .{ty}").into());
        }
        let ([data, address], stride) = match (load, &i.operands[..]) {
            (true, [data, address, stride @ ..]) => ([data, address], stride),
            (false, [address, data, stride @ ..]) => ([data, address], stride),
            _ => return Err("expected a vector and an address".into()),
        };
        let (rows, columns) = match which {
            "a" => (m, k),
            "b" => (k, n),
            _ => (m, n),
        };
        // 8 rows of D are computed as 32 columns of its transpose.
        let flipped = m == 8 && n == 32;
        let kind = match (which, flipped) {
            ("a", false) | ("b", true) => program::Operand::A,
            ("a", true) | ("b", false) => program::Operand::B,
            _ => program::Operand::Sum,
        };
        let memory = Fragment {
            kind,
            rows: rows as u8,
            columns: columns as u8,
            flipped,
            by_columns,
            doubled: !sum && *ty == "f16",
            bytes,
            space,
            load,
            count: 0,
            offset: 0,
        };
        let names = registers(data);
        let (distinct, expected) = (fragment::registers(&memory), fragment::written(&memory));
        if names.len() != expected {
            return Err(format!("expected {expected} registers, found {}", names.len()).into());
        }
        let usual = if by_columns { rows } else { columns };
        let usual = Operand::Integer(usual as i64);
        let stride = match stride {
            [] => &usual,
            [stride] => stride,
            _ => return Err("too many operands".into()),
        };
        // f16 fragments of A and B have each element twice.
        for (second, half) in names.chunks(distinct).enumerate() {
            if second > 0 && !load {
                break;
            }
            let mut memory = Fragment { count: half.len() as u8, ..memory };
            let (row, addressing, _) = self.address(address)?;
            if !addressing.wide {
                return Err("expected a 64-bit address".into());
            }
            memory.offset = addressing.offset;
            if space != Space::Global {
                self.narrow(usize::from(bytes));
            }
            let run: Run<Fragment> = fragment::run;
            let class = match (space, load) {
                (Space::Shared, true) => Class::SharedLoad,
                (Space::Shared, false) => Class::SharedStore,
                (_, true) => Class::GlobalLoad,
                (_, false) => Class::GlobalStore,
            };
            let mut l = self.begin(i.guard.as_ref(), Ins::new(Step::Fragment(Access { run, memory }), class))?;
            l.rows.push(row);
            l.rows.push(self.source(Given::Written(stride), Arg::From32)?);
            for name in half {
                if load {
                    l.writes |= 1 << l.rows.len();
                    l.rows.push(self.destination(Given::Written(name), bytes == 8)?);
                } else {
                    let arg = if bytes == 8 { Arg::From64 } else { Arg::From32 };
                    l.rows.push(self.source(Given::Written(name), arg)?);
                }
            }
            self.code.push(l);
        }
        Ok(())
    }

    /// `wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 d, a, b, c;`
    fn multiply(&mut self, i: &Instruction, rest: &[&str]) -> Lower<()> {
        let [shape_part, types @ ..] = rest else { return Err("expected a shape".into()) };
        let (m, n, k) = shape(shape_part).ok_or_else(|| format!("unknown shape .{shape_part}"))?;
        let finite = types.last() == Some(&"satfinite");
        let types = if finite { &types[..types.len() - 1] } else { types };
        let (d, a, b, c) = match types {
            [d @ ("f16" | "f32"), c @ ("f16" | "f32")] => (*d, "f16", "f16", *c),
            ["rn", "f64", "f64", "f64", "f64"] => ("f64", "f64", "f64", "f64"),
            [d, a, b, c] => (*d, *a, *b, *c),
            _ => return Err("expected the types of the matrices".into()),
        };
        let known = format(a).filter(|f| f.k == k && f.shapes.contains(&(m, n)) && (a == b));
        let format = known.ok_or_else(|| format!("unknown shape .{shape_part} for .{a}"))?;
        let [to, first, second, added] = &i.operands[..] else { return Err("expected 4 operands".into()) };
        let (to, added) = (registers(to), registers(added));
        let flipped = m == 8 && n == 32;
        let (mut first, mut second) = (registers(first), registers(second));
        if flipped {
            std::mem::swap(&mut first, &mut second);
        }
        // Registers of one `mma`: A has 16 rows (f64: 8), B 8 columns.
        let (bands, per) = if format.bytes == 8 { (1, 1) } else { (2, 4 / usize::from(format.bytes)) };
        let blocks = k / (4 * per);
        let (of_a, of_b) = (bands * blocks, blocks);
        let products = (m * n) / (64 * bands);
        // Which `mma` fragments a product takes: along the rows of A or the columns of B.
        let along_a = flipped || m == 32;
        let sixteen = |ty: &str| ty == "f16";
        let of = |ty: &str| if sixteen(ty) { bands } else { 2 * bands };
        if to.len() != products * of(d) || added.len() != products * of(c) {
            let (d, c) = (products * of(d), products * of(c));
            return Err(
                format!("expected {d} registers of d and {c} of c, found {} and {}", to.len(), added.len()).into()
            );
        }
        let need = (if along_a { products * of_a } else { of_a }, if along_a { of_b } else { products * of_b });
        if first.len() < need.0 || second.len() < need.1 {
            return Err("too few registers of a or b".into());
        }
        let guard = i.guard.as_ref();
        // Where d and c differ, one is f16 and the other f32.
        let sum = if d == c { d } else { "f32" };
        let part = if format.bytes == 8 { format!("m8n8k{k}") } else { format!("m16n8k{k}") };
        for p in 0..products {
            let a_part = if along_a { &first[p * of_a..][..of_a] } else { &first[..of_a] };
            let b_part = if along_a { &second[..of_b] } else { &second[p * of_b..][..of_b] };
            let c_part = self.sums(guard, &added[p * of(c)..][..of(c)], c, sum)?;
            let d_part: Vec<Operand> = to[p * of(d)..][..of(d)].to_vec();
            let mut op = vec!["mma", "sync", "aligned", &part, "row", "col"];
            if finite {
                op.push("satfinite");
            }
            op.extend([sum, a, b, sum]);
            let (va, vb) = (Operand::Vector(a_part.to_vec()), Operand::Vector(b_part.to_vec()));
            let widened = sum != d;
            let registers: Vec<u32> =
                if widened { (0..of(sum)).map(|_| self.scopes.fresh(1)).collect() } else { Vec::new() };
            self.matrix_product(guard, &op, &d_part, &registers, [&va, &vb], &c_part)?;
            for (n, pair) in registers.chunks(2).enumerate() {
                let operands = [Given::Written(&d_part[n]), Given::Register(pair[1]), Given::Register(pair[0])];
                self.compute(guard, &["cvt", "rn", "f16x2", "f32"], &operands)?;
            }
        }
        Ok(())
    }

    /// The sums that are added, as registers of the type that `mma` takes: names, or registers that only the compiler knows.
    fn sums(&mut self, guard: Option<&Guard>, c: &[Operand], from: &str, to: &str) -> Lower<Vec<Sum>> {
        if from == to {
            return Ok(c.iter().cloned().map(Sum::Named).collect());
        }
        let mut all = Vec::new();
        for o in c {
            // Two f16 become two f32.
            let halves = [self.scopes.fresh(1), self.scopes.fresh(1)];
            let high = self.scopes.fresh(1);
            let sixteen = Operand::Integer(16);
            self.compute(guard, &["cvt", "f32", "f16"], &[Given::Register(halves[0]), Given::Written(o)])?;
            let shift = [Given::Register(high), Given::Written(o), Given::Written(&sixteen)];
            self.compute(guard, &["shr", "u32"], &shift)?;
            self.compute(guard, &["cvt", "f32", "f16"], &[Given::Register(halves[1]), Given::Register(high)])?;
            all.extend(halves.map(Sum::Fresh));
        }
        Ok(all)
    }

    /// One `mma`, some of whose registers were never written.
    fn matrix_product(
        &mut self,
        guard: Option<&Guard>,
        op: &[&str],
        d: &[Operand],
        fresh: &[u32],
        [a, b]: [&ast::Operand; 2],
        c: &[Sum],
    ) -> Lower<()> {
        let d: Vec<Given> = match fresh {
            [] => d.iter().map(Given::Written).collect(),
            _ => fresh.iter().map(|&v| Given::Register(v)).collect(),
        };
        let c: Vec<Given> = c
            .iter()
            .map(|s| match s {
                Sum::Named(o) => Given::Written(o),
                Sum::Fresh(v) => Given::Register(*v),
            })
            .collect();
        let length = |o: &Operand| if let Operand::Vector(v) = o { v.len() } else { 1 };
        let vectors = [d.len(), length(a), length(b), c.len()];
        let recipe = crate::ops::matrix::select(op, 4, &vectors, self.level)?.ok_or("unknown opcode")?;
        let mut ins = Ins::new(Step::WarpWide { exec: recipe.exec, members: None }, recipe.class);
        ins.product = crate::ops::formats::MatrixFormat::of(op)
            .map(|format| crate::ops::formats::Product { format, flops: recipe.flops });
        ins.operands.extra = recipe.extra;
        let mut operands = d;
        operands.extend([Given::Written(a), Given::Written(b)]);
        operands.extend(c);
        self.push_given(guard, ins, &recipe.args, &operands)
    }
}

enum Sum {
    Named(Operand),
    Fresh(u32),
}
