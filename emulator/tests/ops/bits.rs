//! Logic, shifts and bit manipulation, bit by bit.

use crate::harness::{Case, Out, Want, check, check_case, check_operands, is, predicates, refused};

const SIZES: [(u32, char); 3] = [(16, 'h'), (32, 'w'), (64, 'l')];

fn ones(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// Puts a value together from its bits.
fn by_bit(bits: u32, f: impl Fn(u32) -> bool) -> u64 {
    (0..bits).fold(0, |v, n| v | u64::from(f(n)) << n)
}

fn bit(v: u64, n: u32) -> bool {
    n < 64 && v >> n & 1 == 1
}

#[test]
fn logic() {
    for (bits, kind) in SIZES {
        let kinds = String::from_iter([kind; 2]);
        check(&format!("and.b{bits}"), &kinds, |l| is(by_bit(bits, |n| bit(l.s[0], n) && bit(l.s[1], n))));
        check(&format!("or.b{bits}"), &kinds, |l| is(by_bit(bits, |n| bit(l.s[0], n) || bit(l.s[1], n))));
        check(&format!("xor.b{bits}"), &kinds, |l| is(by_bit(bits, |n| bit(l.s[0], n) != bit(l.s[1], n))));
        check(&format!("not.b{bits}"), &kinds[1..], |l| is(by_bit(bits, |n| !bit(l.s[0], n))));
        check(&format!("cnot.b{bits}"), &kinds[1..], |l| is(u64::from(l.s[0] == 0)));
    }
    check_operands("and.pred", 3, "", |l| predicates(&[l.p[0] && l.p[1]]));
    check_operands("or.pred", 3, "", |l| predicates(&[l.p[0] || l.p[1]]));
    check_operands("xor.pred", 3, "", |l| predicates(&[l.p[0] != l.p[1]]));
    check_operands("not.pred", 2, "", |l| predicates(&[!l.p[0]]));
}

#[test]
fn lop3_of_every_table() {
    let immediates: Vec<u32> = (0..256).collect();
    fn case<'a>(opcode: &'a str, operands: usize, immediates: &[u32]) -> Case<'a> {
        Case { warps: 256, immediates: immediates.to_vec(), ..Case::new(opcode, operands, "www") }
    }
    let result = |l: &crate::harness::Lane| {
        let index = |n| u32::from(bit(l.s[0], n)) * 4 + u32::from(bit(l.s[1], n)) * 2 + u32::from(bit(l.s[2], n));
        by_bit(32, |n| l.immediate >> index(n) & 1 == 1)
    };
    check_case(&case("lop3.b32", 5, &immediates), |l| is(result(l)));
    for (op, and) in [("and", true), ("or", false)] {
        let opcode = format!("lop3.{op}.b32");
        check_case(&case(&opcode, 6, &immediates), |l| {
            let d = result(l);
            let p = if and { d != 0 && l.p[0] } else { d != 0 || l.p[0] };
            Out { d: vec![Want::Is(d)], p: vec![p], carry: None }
        });
    }
}

#[test]
fn shifts() {
    for (bits, kind) in SIZES {
        let kinds = String::from_iter([kind, 's']);
        check(&format!("shl.b{bits}"), &kinds, |l| {
            is(by_bit(bits, |n| u64::from(n) >= l.s[1] && bit(l.s[0], n - l.s[1] as u32)))
        });
        for ty in ["b", "u"] {
            check(&format!("shr.{ty}{bits}"), &kinds, |l| {
                is(by_bit(bits, |n| u64::from(n) + l.s[1] < u64::from(bits) && bit(l.s[0], n + l.s[1] as u32)))
            });
        }
        check(&format!("shr.s{bits}"), &kinds, |l| {
            is(by_bit(bits, |n| bit(l.s[0], (u64::from(n) + l.s[1]).min(u64::from(bits) - 1) as u32)))
        });
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let count = |c: u64| if clamp { c.min(32) } else { c % 32 };
        check(&format!("shf.l.{mode}.b32"), "wws", |l| {
            let both = u128::from(l.s[1]) << 32 | u128::from(l.s[0]);
            is((both << count(l.s[2]) >> 32) as u64 & ones(32))
        });
        check(&format!("shf.r.{mode}.b32"), "wws", |l| {
            let both = u128::from(l.s[1]) << 32 | u128::from(l.s[0]);
            is((both >> count(l.s[2])) as u64 & ones(32))
        });
    }
}

#[test]
fn counts() {
    for (bits, kind) in &SIZES[1..] {
        let (bits, kinds) = (*bits, kind.to_string());
        check(&format!("popc.b{bits}"), &kinds, |l| is((0..bits).filter(|n| bit(l.s[0], *n)).count() as u64));
        check(&format!("clz.b{bits}"), &kinds, |l| is((0..bits).rev().take_while(|n| !bit(l.s[0], *n)).count() as u64));
        check(&format!("brev.b{bits}"), &kinds, |l| is(by_bit(bits, |n| bit(l.s[0], bits - 1 - n))));
        for (ty, signed) in [("u", false), ("s", true)] {
            let found = |v: u64| {
                let sign = signed && bit(v, bits - 1);
                (0..bits).rev().find(|n| bit(v, *n) != sign)
            };
            check(&format!("bfind.{ty}{bits}"), &kinds, |l| is(found(l.s[0]).map_or(ones(32), u64::from)));
            check(&format!("bfind.shiftamt.{ty}{bits}"), &kinds, |l| {
                is(found(l.s[0]).map_or(ones(32), |n| u64::from(bits - 1 - n)))
            });
            check(&format!("bfe.{ty}{bits}"), &format!("{kinds}ss"), |l| {
                let (position, length) = ((l.s[1] & 255) as u32, (l.s[2] & 255) as u32);
                let msb = bits - 1;
                let sign = signed && length > 0 && bit(l.s[0], (position + length.max(1) - 1).min(msb));
                is(by_bit(bits, |n| if n < length && position + n <= msb { bit(l.s[0], position + n) } else { sign }))
            });
        }
        check(&format!("bfi.b{bits}"), &format!("{kinds}{kinds}ss"), |l| {
            let (position, length) = ((l.s[2] & 255) as u32, (l.s[3] & 255) as u32);
            is(by_bit(bits, |n| {
                let inside = n >= position && n - position < length;
                if inside { bit(l.s[0], n - position) } else { bit(l.s[1], n) }
            }))
        });
    }
}

#[test]
fn masks_and_extension() {
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        let limit = |v: u64| if clamp { v.min(32) } else { v % 32 };
        check(&format!("bmsk.{mode}.b32"), "ss", |l| {
            let (a, b) = (limit(l.s[0]), limit(l.s[1]));
            is(by_bit(32, |n| u64::from(n) >= a && u64::from(n) < a + b))
        });
        for (ty, signed) in [("u32", false), ("s32", true)] {
            check(&format!("szext.{mode}.{ty}"), "ws", |l| {
                let n = limit(l.s[1]) as u32;
                is(by_bit(32, |i| if i < n { bit(l.s[0], i) } else { signed && n > 0 && bit(l.s[0], n - 1) }))
            });
        }
    }
}

#[test]
fn nth_set_bit() {
    let case = |kinds| Case { warps: 60, ..Case::new("fns.b32", 4, kinds) };
    let oracle = |l: &crate::harness::Lane| {
        let (set, base, offset) = (l.s[0], l.s[1] as i64, l.s[2] as i32);
        if base > 31 {
            return Out { d: vec![Want::Any], ..Out::default() };
        }
        if offset == 0 {
            return is(if bit(set, base as u32) { base as u64 } else { ones(32) });
        }
        let (mut position, mut left) = (base, i64::from(offset).abs());
        while (0..32).contains(&position) {
            left -= i64::from(bit(set, position as u32));
            if left == 0 {
                return is(position as u64);
            }
            position += i64::from(offset.signum());
        }
        is(ones(32))
    };
    check_case(&case("wsw"), oracle);
    check_case(&case("wss"), oracle);
}

#[test]
fn permutations() {
    // Which byte goes where, most significant first, for each value of the two control bits (PTX ISA 9.7.9, prmt).
    let modes: [(&str, [[u32; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    let byte = |l: &crate::harness::Lane, n: u32| (l.s[1] << 32 | l.s[0]) >> (8 * n) & 255;
    for (mode, table) in modes {
        check(&format!("prmt.b32.{mode}"), "www", |l| {
            is(table[(l.s[2] & 3) as usize].iter().fold(0, |d, n| d << 8 | byte(l, *n)))
        });
    }
    check("prmt.b32", "www", |l| {
        is((0..4).fold(0, |d, n| {
            let selector = (l.s[2] >> (4 * n)) as u32;
            let b = byte(l, selector & 7);
            let b = if selector & 8 == 0 { b } else { 255 * (b >> 7) };
            d | b << (8 * n)
        }))
    });
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("and.u32", 3, "u32"),
        ("shl.s32", 3, "s32"),
        ("popc.b16", 2, "b16"),
        ("bfe.b32", 4, "b32"),
        ("shf.l.b32", 4, "clamp"),
        ("prmt.b64", 4, "b32"),
        ("prmt.b32.f4f", 4, "f4f"),
        ("lop3.xor.b32", 6, "xor"),
        ("lop3.b64", 5, "b64"),
        ("bmsk.b32", 3, "clamp"),
        ("not.s32", 2, "s32"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
