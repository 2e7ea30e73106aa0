//! PTX text against the syntax tree it stands for.

use ptx_emulator::ptx::ast::{Function, Initial, Instruction, Module, Operand, Space, Statement, Type, Variable};
use ptx_emulator::ptx::opcode::Opcode;
use ptx_emulator::ptx::parse;

const CALLS: &str = include_str!("ptx/calls.ptx");
/// Two lines in front of what a test is about, which begins on line 3.
const HEAD: &str = ".version 9.0 .target sm_80\n.address_size 64\n";

fn module(text: &str) -> Module {
    parse(&format!("{HEAD}{text}")).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Line and problem of text that is wrong.
fn problem(text: &str) -> (u32, String) {
    let e = parse(&format!("{HEAD}{text}")).expect_err(text);
    (e.line, e.problem)
}

/// Statements of a function; they begin on line 3.
fn body(text: &str) -> Vec<Statement> {
    let mut functions = module(&format!(".entry k() {{ {text}\n}}")).functions;
    functions.pop().and_then(|f| f.body).expect("a body")
}

fn name(n: &str) -> Operand {
    Operand::Name(n.into())
}

fn at(n: &str, offset: i64) -> Operand {
    Operand::Address(Some(n.into()), offset)
}

fn pair(a: &str, b: &str) -> Operand {
    Operand::Pair(Box::new(name(a)), Box::new(name(b)))
}

/// An instruction on a line without guard.
fn on(line: u32, opcode: &str, operands: Vec<Operand>) -> Instruction {
    Instruction { guard: None, opcode: Opcode::new(opcode), operands, line }
}

fn ins(opcode: &str, operands: Vec<Operand>) -> Statement {
    Statement::Instruction(on(3, opcode, operands))
}

fn guarded(predicate: &str, negated: bool, i: Instruction) -> Statement {
    Statement::Instruction(Instruction { guard: Some((predicate.into(), negated)), ..i })
}

fn label(n: &str, line: u32) -> Statement {
    Statement::Label(n.into(), line)
}

fn registers(ty: Type, n: &str, count: Option<u32>) -> Statement {
    Statement::Registers { ty, name: n.into(), count, line: 3 }
}

fn variable(space: Space, n: &str, ty: Type, align: usize, bytes: usize) -> Variable {
    Variable { space, name: n.into(), ty, align, bytes, external: false, initial: None, line: 3 }
}

fn bits(values: &[i64]) -> Option<Vec<Initial>> {
    Some(values.iter().map(|&v| Initial::Bits(v as u64)).collect())
}

/// A text of another encoding is told as that, and a character that cannot be seen by its number.
#[test]
fn what_cannot_be_seen_is_named() {
    let text = ".version 9.0\n.target sm_80\n.address_size 64\n";
    let e = parse(&format!("\u{feff}{text}")).unwrap_err();
    assert!(e.line == 1 && e.problem.contains("byte order mark") && e.problem.contains("without"), "{e}");
    for (hidden, words) in [('\u{feff}', "U+FEFF"), ('\u{a0}', "U+00A0"), ('\u{200b}', "U+200B"), ('\u{7f}', "U+007F")]
    {
        let e = parse(&format!("{text}{hidden}.visible .entry k() {{ ret; }}")).unwrap_err();
        assert!(e.line == 4 && e.problem.contains(words), "{e}");
    }
}

#[test]
fn versions_that_exist() {
    let of = |version: &str| parse(&format!(".version {version}\n.target sm_10\n.address_size 64\n"));
    // Those of CUDA 11.0 to 13.5, and the oldest.
    for version in ["7.0", "7.8", "8.0", "8.4", "8.8", "9.0", "9.5", "1.0", "6.5"] {
        of(version).unwrap_or_else(|e| panic!("{version}: {e}"));
    }
    for version in ["0.9", "1.6", "6.6", "7.9", "8.9", "8.10", "9.6", "10.0", "99.9", "4294967295.0"] {
        let e = of(version).expect_err(version);
        assert!(e.unknown_version && e.line == 1, "{e}");
        assert!(e.problem.contains(version) && e.problem.contains("9.0 to 9.5"), "{e}");
    }
    assert!(!of("nine").unwrap_err().unknown_version);
    // The newest target is loaded as far as its instructions are known.
    let newest = ".version 8.7\n.target sm_120\n.address_size 64\n.visible .entry k() { ret; }";
    assert_eq!(parse(newest).unwrap().target, "sm_120");
}

#[test]
fn the_head_of_a_module() {
    let m = parse("// a\n/* b\n */.version 8.0\n.target texmode_unified, sm_90a, debug\n.file 3 \"x.cu\"\0\0").unwrap();
    let files = vec![(3, "x.cu".to_string())];
    assert_eq!(m, Module { version: (8, 0), target: "sm_90a".into(), files, ..Module::default() });
    for (text, line, what) in [
        ("", 1, "expected `.version`, found the end of the file"),
        (".version 9\n.target sm_80", 1, "expected a version such as 9.0, found `9`"),
        (".version 9.0\n.visible", 2, "expected `.target`, found `.visible`"),
        (
            ".version 9.0 .target sm_80, map_f64_to_f32",
            1,
            "expected one architecture such as sm_80, found `map_f64_to_f32`",
        ),
        (".version 9.0 .target debug", 1, ".target without an architecture such as sm_80"),
        (".version 9.0 .target sm_80\n.address_size 32", 2, ".address_size 32: only 64 is supported"),
        (".version 9.0 .target sm_80\n\n/* ", 3, "a comment without its `*/`"),
    ] {
        let e = parse(text).unwrap_err();
        assert_eq!((e.line, e.problem.as_str()), (line, what));
    }
    assert_eq!(parse("\n.version x").unwrap_err().to_string(), "PTX line 2: expected a version, found `x`");
}

#[test]
fn variables_of_all_spaces() {
    let text = ".extern .shared .align 128 .b8 s[]; .common .global .v4 .f32 v[2]; .weak .const .u16 a, b[3][5];\
                .local .f64 l; .visible .global .align 2 .b8 c;";
    let shared = Variable { external: true, ..variable(Space::Shared, "s", Type::B8, 128, 0) };
    let expected = [
        shared,
        variable(Space::Global, "v", Type::F32, 16, 32),
        variable(Space::Const, "a", Type::U16, 2, 2),
        variable(Space::Const, "b", Type::U16, 2, 30),
        variable(Space::Local, "l", Type::F64, 8, 8),
        variable(Space::Global, "c", Type::B8, 2, 1),
    ];
    assert_eq!(module(text).variables, expected);
    for (text, what) in [
        (".global .b8 a[", "expected a number of elements, found the end of the file"),
        (".global .b8 a[];", "a has no elements"),
        (".global .pred a;", "a has type .pred, which only registers have"),
        (".global .texref a;", "unknown type .texref"),
        (".global .attribute(.managed) .b8 a;", "unknown type .attribute"),
        (".tex .u32 a;", "unknown directive .tex"),
        (".param .u32 a;", "unknown directive .param"),
        (".global .align 3 .b8 a;", ".align 3: expected a power of two up to 1048576"),
        (".global .b8 a[4294967295][4294967295][4294967295];", "a is too large"),
        (".global .b8 a[][0][4294967295][4294967295][4294967295];", "a is too large"),
        (".shared .b8 a[2] = {1, 2};", "a cannot have an initial value: only .global and .const of this module can"),
        (".extern .global .b8 a = 1;", "a cannot have an initial value: only .global and .const of this module can"),
    ] {
        assert_eq!(problem(text), (3, what.to_string()), "{text}");
    }
}

#[test]
fn initial_values() {
    let address = |n: &str, offset| Initial::Address(n.into(), offset);
    let minus_one = 0xbff0_0000_0000_0000u64 as i64;
    for (text, bytes, expected) in [
        (".s32 x = -1", 4, bits(&[0xffff_ffff])),
        (".b8 x[4] = {1, 0xff, -128, 0b11}", 4, bits(&[1, 255, 128, 3])),
        (".b8 x[4] = {}", 4, bits(&[])),
        (".u64 x[] = {18446744073709551615, 017U, 4+3-2}", 24, bits(&[-1, 15, 5])),
        (".s32 x[2][3] = {{1, 2}, {3}}", 24, bits(&[1, 2, 0, 3, 0, 0])),
        (".s16 x[][2] = {{1, 2}, 3, 4, {5}}", 12, bits(&[1, 2, 3, 4, 5, 0])),
        (".u8 x[2][2][2] = {{{1}, {2}}, {{}, {3, 4}}}", 8, bits(&[1, 0, 2, 0, 0, 0, 3, 4])),
        (".v2 .u8 x[2] = {{1}, {2, 3}}", 4, bits(&[1, 0, 2, 3])),
        (
            ".f32 x[5] = {1.5, 0fffc00001, -0f3f800000, 2, 0d3ff0000000000000}",
            20,
            bits(&[0x3fc0_0000, 0xffc0_0001, 0xbf80_0000, 0x4000_0000, 0x3f80_0000]),
        ),
        (".f64 x[3] = {-1e0, 0fbf800000, 0d8000000000000000}", 24, bits(&[minus_one, minus_one, i64::MIN])),
        (".b32 x = {0f3f800000}", 4, bits(&[0x3f80_0000])),
        (".u64 x = generic(arr)+12", 8, Some(vec![address("arr", 12)])),
        (
            ".u64 x[4] = {5, f, generic($s), y-8+-1}",
            32,
            Some(vec![Initial::Bits(5), address("f", 0), address("$s", 0), address("y", -9)]),
        ),
    ] {
        let v = module(&format!(".global {text};")).variables.remove(0);
        assert_eq!((v.bytes, v.initial), (bytes, expected), "{text}");
    }
    for (text, what) in [
        (".u8 x = 256", "initial value Integer(256) does not fit type U8"),
        (".u8 x = -129", "initial value Integer(-129) does not fit type U8"),
        (".s32 x = 1.0", "initial value F64(4607182418800017408) does not fit type S32"),
        (".f16 x = 1", "initial value Integer(1) does not fit type F16"),
        (".u8 x[2] = {0xff(y), 0xff00(y)}", "a mask over an address in an initialiser is not supported"),
        (".u32 x = y", "the address of y needs an element of 64 bits"),
        (".u8 x[2] = {1, 2, 3}", "expected at most 2 elements in these braces"),
        (".u8 x[2][2] = {{1, 2, 3}}", "expected at most 2 elements in these braces"),
        (".u8 x[2][2] = {{1}, {2}, {3}}", "expected at most 4 elements in these braces"),
        (".u8 x[2][1000000000] = {{1}, {2}}", "expected at most 16777216 elements in these braces"),
        (".u8 x[2] = 1", "expected `{`, found `1`"),
        (".u8 x[2] = {{1}}", "expected a number or an address, found `{`"),
        (".u8 x[] = {}", "x has no elements"),
        (".u8 x = 09", "`09` is not a number of PTX"),
        (".u8 x = 1", "expected `;`, found the end of the file"),
    ] {
        let end = if what.ends_with("file") { "" } else { ";" };
        assert_eq!(problem(&format!(".global {text}{end}")), (3, what.to_string()), "{text}");
    }
}

#[test]
fn heads_of_functions() {
    let m = module(
        ".entry a .maxntid 8 .reqntid 2,3 .maxnreg 32 .maxclusterrank 8 .explicitcluster .reqnctapercluster 2, 1, 1 \
         .pragma \"nounroll\", \"x\"; { ret; }\
         .extern .func b (.reg .u32 n, .reg .pred p) .noreturn .abi_preserve 4;\
         .weak .func (.param .b64 r, .param .v2 .f32 q) c (.param .u64 .ptr .shared x, .param .u64 .ptr .align 8 y, .param .b8 z[]);",
    );
    let a = Function {
        name: "a".into(),
        entry: true,
        max_threads: Some([8, 1, 1]),
        required_threads: Some([2, 3, 1]),
        body: Some(vec![ins("ret", vec![])]),
        line: 3,
        ..Function::default()
    };
    let parameters =
        vec![variable(Space::Generic, "n", Type::U32, 4, 4), variable(Space::Generic, "p", Type::Pred, 1, 0)];
    let b = Function { name: "b".into(), parameters, line: 3, ..Function::default() };
    let c = Function {
        name: "c".into(),
        returns: vec![variable(Space::Param, "r", Type::B64, 8, 8), variable(Space::Param, "q", Type::F32, 8, 8)],
        parameters: vec![
            variable(Space::Param, "x", Type::U64, 8, 8),
            variable(Space::Param, "y", Type::U64, 8, 8),
            variable(Space::Param, "z", Type::B8, 1, 0),
        ],
        line: 3,
        ..Function::default()
    };
    assert_eq!(m.functions, [a, b, c]);
    for (text, what) in [
        (".entry k .maxntid 0 {}", "an extent of [0, 1, 1] is not possible"),
        (".entry k .maxntid 65536, 65536 {}", "an extent of [65536, 65536, 1] is not possible"),
        (".entry k .surprise {}", "unknown directive .surprise in the head of k"),
        (".entry (.param .b32 r) k {}", "expected the name of a function, found `(`"),
        (".func k (.shared .b32 r);", "expected `.param`, found `.shared`"),
        (".func k (.param .pred r);", "r has type .pred, which only registers have"),
        (".func k (.reg .b32 r[2]);", "r is a register, not an array"),
        (".visible 3", "expected a function or variable, found `3`"),
        (".entry k { ret; ", "expected the `}` of k, found the end of the file"),
    ] {
        assert_eq!(problem(text), (3, what.to_string()), "{text}");
    }
}

#[test]
fn an_alias_is_its_target_under_another_name() {
    let m = module(
        ".func (.param .b32 r) f (.param .b32 a) { ret; }\n.func (.param .b32 r) g (.param .b32 b);\n.alias g, f;",
    );
    let mut expected = m.functions[0].clone();
    expected.name = "g".into();
    assert_eq!((m.functions.len(), &m.functions[2]), (3, &expected));
    assert_eq!(problem("\n.alias g, f;"), (4, "alias of f, which is not a function defined here".into()));
    assert_eq!(problem(".func f { } .func g { } .alias g, f;"), (3, "alias g has a body of its own".into()));
}

#[test]
fn operands_of_every_kind() {
    use Operand::{F32, F64, Integer, Not, Vector};
    for (text, opcode, operands) in [
        ("ret", "ret", vec![]),
        ("mov.u32 %r1, %tid.x", "mov.u32", vec![name("%r1"), name("%tid.x")]),
        ("mov.u64 %rd1, array+8", "mov.u64", vec![name("%rd1"), at("array", 8)]),
        ("mov.u32 %r1, WARP_SZ", "mov.u32", vec![name("%r1"), Integer(32)]),
        ("add.s32 a, -2147483648, 0xFFFFFFFFU", "add.s32", vec![name("a"), Integer(-2147483648), Integer(0xffff_ffff)]),
        ("add.s64 a, 0x8000000000000000, --5-3", "add.s64", vec![name("a"), Integer(i64::MIN), Integer(2)]),
        (
            "fma.rn.f32 f, 0f7F800000, -0f3f800000, 0.5",
            "fma.rn.f32",
            vec![name("f"), F32(0x7f80_0000), F32(0xbf80_0000), F64(0.5f64.to_bits())],
        ),
        (
            "add.f64 d, 0d3FF0000000000000, -2e-3",
            "add.f64",
            vec![name("d"), F64(1f64.to_bits()), F64((-2e-3f64).to_bits())],
        ),
        (
            "ld.global.L1::no_allocate.L2::128B.v2.f32 {%f1, _}, [%rd1+-16]",
            "ld.global.L1::no_allocate.L2::128B.v2.f32",
            vec![Vector(vec![name("%f1"), name("_")]), at("%rd1", -16)],
        ),
        ("st.shared.u8 [a-4], 1", "st.shared.u8", vec![at("a", -4), Integer(1)]),
        (
            "st.v4.b32 [%rd1], {%r1, 0, -1, %r2}",
            "st.v4.b32",
            vec![at("%rd1", 0), Vector(vec![name("%r1"), Integer(0), Integer(-1), name("%r2")])],
        ),
        ("ld.shared.u32 %r1, [ 256 + 4 ]", "ld.shared.u32", vec![name("%r1"), Operand::Address(None, 260)]),
        (
            "shfl.sync.up.b32 %r1|%p1, %r2, 1, 0, -1",
            "shfl.sync.up.b32",
            vec![pair("%r1", "%p1"), name("%r2"), Integer(1), Integer(0), Integer(-1)],
        ),
        (
            "setp.lt.and.s32 _ | q, a, 017, !%p3",
            "setp.lt.and.s32",
            vec![pair("_", "q"), name("a"), Integer(15), Not("%p3".into())],
        ),
        ("vadd.s32.s32.s32 d, a.b0, v.x", "vadd.s32.s32.s32", vec![name("d"), name("a.b0"), name("v.x")]),
        ("call f", "call", vec![name("f")]),
        ("call (r), f, ()", "call", vec![Operand::List(vec![name("r")]), name("f"), Operand::List(vec![])]),
        (
            "call %rd1, (a, 0f3f800000), proto",
            "call",
            vec![name("%rd1"), Operand::List(vec![name("a"), F32(0x3f80_0000)]), name("proto")],
        ),
    ] {
        assert_eq!(body(&format!("{text};")), [ins(opcode, operands)], "{text}");
    }
    for (text, what) in [
        ("mov.u32 %r1 %r2;", "expected `,` or `;`, found `%r2`"),
        ("mov.u32 %r1,;", "expected an operand, found `;`"),
        ("ld.u32 %r1, [%r1;", "expected `]`, found `;`"),
        ("ld.u32 %r1, [%r1+%r2];", "expected an integer, found `%r2`"),
        ("ld.u32 %r1, [1.5];", "expected an address, found a floating-point number"),
        (
            "tex.2d.v4.f32.f32 {a, b, c, d}, [t, {x, y}];",
            "an address with coordinates: textures, surfaces and tensor maps are not supported",
        ),
        ("mov.b32 {{a}}, b;", "expected an operand, found `{`"),
        ("mov.u32 a, 3|b;", "expected `,` or `;`, found `|`"),
        ("mov.u32 a, 0x;", "`0x` is not a number of PTX"),
        ("mov.u32 a, é;", "expected an operand, found `é`"),
        ("mov..u32 a, b;", "expected an operand, found `.`"),
        ("@%p1 { ret; }", "expected an instruction, found `{`"),
        ("@!3 ret;", "expected a predicate, found `3`"),
        ("a.b: ret;", "`a.b` cannot be a label"),
        (".extern .shared .b8 x[];", "unknown directive .extern in a function"),
        (".section .debug_str {}", "unknown directive .section in a function"),
        (".pragma nounroll;", "expected a string, found `nounroll`"),
        (".pragma \"nounroll", "a string without its closing quote"),
        (".loc 1 2", "expected a column, found `}`"),
        (".loc 1 2 3, elsewhere", "expected `function_name` or `inlined_at`, found `elsewhere`"),
        ("p: .callprototype q (.param .b32 _);", "prototype p: expected `_`, found `q`"),
        ("p: .callprototype _ () { }", "expected `;`, found `{`"),
    ] {
        assert_eq!(problem(&format!(".entry k() {{ {text} }}")), (3, what.to_string()), "{text}");
    }
}

#[test]
fn registers_and_variables_inside_a_function() {
    let text =
        ".reg .b32 %r<7>, x; .reg .pred p, q; .reg .v2 .f32 v; .param .align 4 .b8 t[40]; .shared .v2 .f64 s[4];";
    let expected = [
        registers(Type::B32, "%r", Some(7)),
        registers(Type::B32, "x", None),
        registers(Type::Pred, "p", None),
        registers(Type::Pred, "q", None),
        registers(Type::F32, "v.x", None),
        registers(Type::F32, "v.y", None),
        Statement::VectorRegister("v".into(), 2),
        Statement::Variable(variable(Space::Param, "t", Type::B8, 4, 40)),
        Statement::Variable(variable(Space::Shared, "s", Type::F64, 16, 64)),
    ];
    assert_eq!(body(text), expected);
}

#[test]
fn labels_guards_and_blocks_on_one_line() {
    let text = "a:b: ret;; { .reg .pred w; setp.ne.b32 w, x, 0; @w bra a; @! w bra b; { } }\nt: .branchtargets a,\nb; c: @%p1 exit;\n\
                 f: .calltargets g, h; d:";
    let inner = vec![
        registers(Type::Pred, "w", None),
        ins("setp.ne.b32", vec![name("w"), name("x"), Operand::Integer(0)]),
        guarded("w", false, on(3, "bra", vec![name("a")])),
        guarded("w", true, on(3, "bra", vec![name("b")])),
        Statement::Block(vec![]),
    ];
    let expected = [
        label("a", 3),
        label("b", 3),
        ins("ret", vec![]),
        Statement::Block(inner),
        Statement::BranchTargets("t".into(), vec!["a".into(), "b".into()]),
        label("c", 5),
        guarded("%p1", false, on(5, "exit", vec![])),
        Statement::CallTargets("f".into(), vec!["g".into(), "h".into()]),
        label("d", 6),
    ];
    assert_eq!(body(text), expected);
}

#[test]
fn source_lines() {
    let text = ".loc 1 355 0\n.loc 2 40 9, function_name $L__info_string1, inlined_at 1 357 3\n.loc 3 1 1, function_name L+24\n";
    let at = |file, line, inlined_at| Statement::Location { file, line, inlined_at };
    assert_eq!(body(text), [at(1, 355, None), at(2, 40, Some((1, 357))), at(3, 1, None)]);
}

#[test]
fn a_file_as_a_compiler_writes_it() {
    let m = parse(CALLS).unwrap();
    assert_eq!((m.version, m.target.as_str()), ((8, 8), "sm_90"));
    assert_eq!(m.files, [(1, "kernels/main.cu".to_string()), (2, "C:\\cuda\\include\\a \"b\".hpp".to_string())]);
    let names: Vec<_> = m.variables.iter().map(|v| (v.name.as_str(), v.bytes, v.line)).collect();
    assert_eq!(names, [("table", 48, 20), ("functions", 16, 21), ("$str", 4, 22), ("shared_memory", 0, 23)]);
    let heads: Vec<_> =
        m.functions.iter().map(|f| (f.name.as_str(), f.entry, f.parameters.len(), f.body.is_some(), f.line)).collect();
    let expected = [
        ("scale", false, 2, false, 8),
        ("vprintf", false, 2, false, 14),
        ("scale", false, 2, true, 25),
        ("main_kernel", true, 2, true, 41),
    ];
    assert_eq!(heads, expected);
    assert_eq!(m.functions[3].max_threads, Some([128, 1, 1]));
    let Some(body) = &m.functions[3].body else { panic!("no body") };
    assert_eq!(body.len(), 22);
    let Statement::Block(call) = &body[10] else { panic!("{:?}", body[10]) };
    let list = |names: &[&str]| Operand::List(names.iter().map(|n| name(n)).collect());
    let operands = vec![list(&["retval0"]), name("scale"), list(&["param0", "param1"])];
    assert_eq!(call[6], Statement::Instruction(on(67, "call.uni", operands)));
    let operands = vec![list(&["retval0"]), name("%rd1"), list(&["%r1", "%r2"]), name("prototype_1")];
    let Statement::Block(call) = &body[12] else { panic!("{:?}", body[12]) };
    let Statement::Prototype(prototype, head) = &call[1] else { panic!("{:?}", call[1]) };
    assert_eq!((prototype.as_str(), head.parameters.len(), head.returns.len()), ("prototype_1", 2, 1));
    assert_eq!(call[2], Statement::Instruction(on(79, "call", operands)));
}
