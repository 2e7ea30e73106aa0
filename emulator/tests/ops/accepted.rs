//! Opcodes that nvcc emits are known, and mnemonics of other families are left alone.

use ptx_emulator::ops::select::select;
use ptx_emulator::registers::Level;

/// Register instructions of nvcc 13.0 for these kernels and of older releases; the number of operands as written.
const EMITTED: &[(usize, &str)] = &[
    (
        2,
        "mov.f32 mov.b32 mov.u32 mov.b64 mov.u64 mov.pred mov.u16 mov.f64 not.pred not.b32 neg.f32 neg.s32 neg.s64 abs.f32",
    ),
    (2, "cvt.s64.s32 cvt.u16.u32 cvt.rzi.s32.f32 cvt.u32.u64 cvt.u64.u32 cvt.rn.f32.s32 cvt.u32.u16 cvt.rzi.u32.f32"),
    (2, "cvt.f64.f32 cvt.rn.f32.u32 cvt.rn.f32.f64 cvt.rn.bf16.f32 cvt.rna.tf32.f32 cvt.f32.bf16 cvt.rni.f32.f32"),
    (2, "rcp.rn.f32 sqrt.rn.f32 rsqrt.approx.ftz.f32 ex2.approx.ftz.f32 lg2.approx.f32 sin.approx.f32 cos.approx.f32"),
    (
        3,
        "add.s32 add.rn.f32 add.f32 add.rz.f32 add.rn.f64 add.s64 sub.s32 sub.s64 sub.rn.f32 sub.rn.f64 mul.rn.f32 mul.f32",
    ),
    (
        3,
        "mul.rn.f64 mul.lo.s64 mul.lo.s32 mul.wide.s32 mul.wide.u32 mul.wide.u16 mul.hi.u32 div.rn.f32 div.rn.f64 div.u32",
    ),
    (
        3,
        "div.s32 div.s64 rem.u32 rem.s32 min.s32 min.s64 min.f32 min.f64 max.s32 max.f32 shl.b32 shl.b64 shr.u32 shr.s32",
    ),
    (3, "shr.u64 and.b16 and.b32 and.b64 and.pred or.b16 or.b32 or.b64 or.pred xor.b32 xor.pred cvt.rn.bf16x2.f32"),
    (3, "setp.lt.s32 setp.gt.f32 setp.lt.f32 setp.eq.s32 setp.lt.u32 setp.ge.s32 setp.eq.s64 setp.gt.u32 setp.nan.f32"),
    (
        3,
        "setp.gt.s32 setp.ne.s32 setp.eq.f32 setp.eq.b32 setp.leu.f32 setp.num.f32 setp.eq.b16 setp.lt.s64 setp.le.s32",
    ),
    (3, "setp.le.u32 setp.eq.s16 setp.neu.f32 setp.ne.s64 setp.geu.f32 setp.ge.u64 setp.lt.u64"),
    (
        4,
        "fma.rn.f32 fma.rn.f64 mad.lo.s32 mad.lo.s64 mad.wide.u32 selp.f32 selp.u32 selp.b32 selp.u16 selp.b64 selp.f64",
    ),
    (4, "prmt.b32 shf.l.wrap.b32 shf.r.wrap.b32 bfe.u32 bfe.s32 setp.lt.and.f32 fma.rn.bf16x2 fma.rn.f16x2"),
    (5, "bfi.b32 lop3.b32"),
];

#[test]
fn what_nvcc_emits_is_accepted() {
    for (operands, opcodes) in EMITTED {
        for opcode in opcodes.split(' ') {
            let parts: Vec<&str> = opcode.split('.').collect();
            let recipe = select(&parts, *operands, &vec![0; *operands], Level::of_this_machine());
            assert!(matches!(recipe, Ok(Some(_))), "{opcode}: {:?}", recipe.map(|r| r.is_some()));
        }
    }
}

#[test]
fn other_families_are_left_alone() {
    for opcode in [
        "ld.global.f32",
        "st.shared.u32",
        "atom.global.add.u32",
        "red.global.add.f32",
        "bra.uni",
        "ret",
        "bar.sync",
        "cvta.to.global.u64",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        "shfl.sync.bfly.b32",
        "vote.sync.any.pred",
        "movmatrix.sync.aligned",
        "redux.sync.add.s32",
        "activemask.b32",
        "cp.async.commit_group",
        "nanosleep.u32",
        "tex.2d.v4.f32.s32",
    ] {
        let parts: Vec<&str> = opcode.split('.').collect();
        assert!(matches!(select(&parts, 1, &[0], Level::Portable), Ok(None)), "{opcode}");
    }
    assert!(matches!(select(&[], 0, &[], Level::Portable), Ok(None)));
}

#[test]
fn vectors_are_refused_where_they_make_no_sense() {
    assert!(select(&["add", "s32"], 3, &[0, 2, 0], Level::Portable).is_err());
    assert!(select(&["mov", "b32"], 2, &[0, 3], Level::Portable).is_err());
    assert!(select(&["mov", "b32"], 2, &[2, 2], Level::Portable).is_err());
}
