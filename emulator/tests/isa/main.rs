//! PTX whose effect is known by the PTX ISA or by what ptxas 13.0 makes of it: values, or what a checker must find.
//!
//! `cases/*.ptx` are modules that ptxas accepts. Each entry is a case, `k(.param .u64 out, .param .u64 a)`, and the comments before it
//! say how it runs:
//!
//! | comment | |
//! |---|---|
//! | `//: block=64 grid=2 a=0x10 shared=256 lints` | threads, blocks, the value of `a`, dynamic shared memory; 1, 1, 0, 0 and no lints unless said |
//! | `//< u32 1 2 3` | `a` is the address of a buffer with these |
//! | `//> u32 0 9` | what lies at `out`, which is zero before; several lines follow one another |
//! | `//! block-race text; text` | the kind that is found, and what the report says |
//!
//! Types are `u8` to `u64`, `s8` to `s64`, `f32` and `f64`; numbers are decimal, `0x...`, or `7*3` for seven threes. Every case runs in
//! four schedules.

mod case;
mod since;

use std::path::{Path, PathBuf};

use case::{Case, cases_of};

fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isa/cases");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).expect("the folder").map(|f| f.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|f| cases_of(f)).collect()
}

#[test]
fn every_case_gives_what_it_must() {
    let cases = all();
    let failed: Vec<String> = cases.iter().filter_map(|case| case.run().err()).collect();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    // A file that is lost, or an entry whose comments are, would not be missed otherwise.
    assert!(cases.len() >= 275, "{} cases", cases.len());
}

/// A case that expects nothing proves only that it loads and runs; there are few.
#[test]
fn most_cases_expect_something() {
    let cases = all();
    let silent = cases.iter().filter(|case| case.expects_nothing()).count();
    assert!(silent * 5 < cases.len(), "{silent} of {} cases expect nothing", cases.len());
}

#[test]
fn a_wrong_value_is_noticed() {
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n//> u32 7\n.visible .entry k(.param .u64 out, .param .u64 a)\n\
        { .reg .b64 %o; ld.param.u64 %o, [out]; st.global.u32 [%o], 8; ret; }\n";
    let cases = case::cases_in(Path::new("wrong.ptx"), ptx);
    let problem = cases[0].run().unwrap_err();
    assert!(problem.contains("wrong.ptx") && problem.contains("0x8") && problem.contains("0x7"), "{problem}");
}

#[test]
fn eviction_from_the_second_cache_is_of_32_bytes() {
    use ptx_emulator::machine::{Machine, Options};
    let ptx = ".version 8.8\n.target sm_100\n.address_size 64\n.visible .entry k(.param .u64 out)\n\
        { .reg .b64 %o; ld.param.b64 %o, [out]; ld.global.L2::evict_first.u64 %o, [%o]; ret; }\n";
    let mut module = Machine::new(Options::default()).load(ptx).expect("it parses");
    let problem = module.kernel("k").expect("it is there").map(drop).expect_err("it is refused").to_string();
    assert!(problem.contains("only .v8 of 32 bits and .v4 of 64"), "{problem}");
}

/// What is no PTX is refused with a reason, whatever comes of it.
#[test]
fn what_does_not_exist_is_refused() {
    use ptx_emulator::machine::{Machine, Options};
    for (line, words) in [
        ("wmma.load.c.sync.aligned.row.m1n1k16.f32 {%r}, [%o];", "m1n1k16"),
        ("wmma.load.a.sync.aligned.row.m300n16k16.f16 {%r}, [%o];", "m300n16k16"),
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%r}, {%r}, {%r}, {%r};", "8 registers of d"),
        ("vadd.s32.u32.u32 %r.b7, %r, %r, %r;", ".b0 to .b3"),
        ("vmad.s32.s32.s32 %r, -%r, %r, -%r;", "either the product or"),
        ("vmad.s32.s32.s32.po %r, -%r, %r, %r;", "with .po nothing"),
        ("vadd.s32.s32.s32 %r, -%r, %r;", "-%r"),
        ("add.s32 %r, -%r, %r;", "-%r"),
        ("mov.v2.b32 {%r, %r}, %r;", "two vectors"),
        ("vadd4.u32.u32.u32 %r, %r.b0199, %r, %r;", "elements"),
        ("vshl4.u32.u32.u32 %r, %r, %r, %r;", "unknown opcode"),
        ("cvt.rn.e4m3x2.f32 %r, %r, %r;", "satfinite"),
        ("atom.shared.add.noftz.v2.f16x2 {%r, %r}, [%o], {%r, %r};", "vector"),
        ("red.global.add.noftz.v2.f16x2 [%o], {%r};", "vector of 2"),
        ("mov.u64 %o, %o[3];", "no variable"),
        ("st.global.u32 [%o], %r+4;", "%r+4"),
        ("call %o, (), nowhere;", "nowhere"),
        ("@%q ret;", "unknown predicate %q"),
        ("st.acquire.gpu.u32 [%o], %r;", "unknown opcode"),
        ("ld.release.gpu.u32 %r, [%o];", "unknown opcode"),
        ("createpolicy.range.b64 %o, [%o];", "4 operands"),
        ("mbarrier.init.shared.b64 [%r];", "expected a count"),
        ("mbarrier.init.shared.b32 [%r], 1;", "expected .b64"),
        ("mbarrier.arrive.shared.b64 [%r];", "address"),
        ("mbarrier.arrive.expect_tx.shared.b64 %o, [%r];", "expected a count"),
        ("mbarrier.arrive.acquire.cta.shared.b64 %o, [%r];", "unknown modifier .acquire"),
        ("mbarrier.test_wait.shared.b64 %o, [%r], %o;", "predicate"),
        ("mbarrier.try_wait.shared::cluster.b64 %p, [%r], %o;", "unknown modifier .shared::cluster"),
        ("mbarrier.hold.shared.b64 [%r];", "unknown operation"),
        ("cp.async.mbarrier.arrive.noinc.shared::cluster.b64 [%r];", "expected .shared"),
        ("cp.async.bulk.global.shared::cta.bulk_group [%o], [%r], 16;", "bulk copies"),
        ("cp.async.bulk.tensor.1d.shared::cluster.global.tile [%r], [%o, {%r}], [%r];", "tensor maps"),
        ("barrier.cluster.arrive.aligned;", "clusters"),
        ("fma.rn.oob.f16x2 %r, %r, %r, %r;", ".oob is not supported"),
        ("redux.sync.min.abs.f32 %r, %r, %r;", "sm_100a"),
        ("min.f32 %r, %r, %r, %r;", ".target sm_100"),
        ("max.NaN.abs.f32 %r, %r, %r, %r;", ".version 8.8"),
        ("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32 {%r}, {%r}, {%r}, {%r};", ".version 8.4"),
        ("ld.global.L2::evict_first.u32 %r, [%o];", ".version 8.8"),
        ("mov.u32 %r, %envreg3;", "register %envreg3 is not supported"),
        ("mov.u64 %o, %gridid;", "register %gridid is not supported"),
    ] {
        let ptx = format!(
            ".version 8.1\n.target sm_90\n.address_size 64\n.visible .entry k() {{ .reg .b32 %r; .reg .b64 %o; .reg .pred %p;\n{line}\nret; }}\n"
        );
        let mut machine = Machine::new(Options::default());
        let found = machine.load(&ptx).and_then(|mut module| module.kernel("k").expect("it is there").map(drop));
        let problem = found.expect_err(line).to_string();
        assert!(problem.contains(words) && problem.contains("PTX line 5"), "{line}: {problem}");
    }
}
