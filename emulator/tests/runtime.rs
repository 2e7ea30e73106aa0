//! Device `assert` and `printf`, as nvcc compiles them.

use std::io::Write;
use std::sync::{Arc, Mutex};

use ptx_emulator::finding::{Finding, Kind};
use ptx_emulator::machine::{Launch, LaunchError, Machine, Options};

const PTX: &str = include_str!("kernels/asserts.ptx");

/// Output that a test can read.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `kernel(const T* x, int n)` over 4-byte elements; what it printed, and what was found.
fn run(ptx: &str, kernel: &str, x: &[[u8; 4]], blocks: u32, options: Options) -> (String, Option<Box<Finding>>) {
    let mut machine = Machine::new(options);
    let heard = Heard::default();
    machine.print_to(heard.clone());
    let mut module = machine.load(ptx).unwrap();
    let kernel = module.kernel(kernel).unwrap().unwrap_or_else(|e| panic!("{e}"));
    let at = machine.allocate(4 * x.len()).unwrap();
    machine.write(at, x.as_flattened()).unwrap();
    let mut parameters = at.to_le_bytes().to_vec();
    parameters.extend((x.len() as i32).to_le_bytes());
    let launch =
        Launch { grid: [blocks, 1, 1], block: [32, 1, 1], shared_bytes: 0, shared_limit: 0, parameters: &parameters };
    let found = match machine.launch(&kernel, &launch) {
        Ok(()) => None,
        Err(LaunchError::Found(finding)) => Some(finding),
        Err(LaunchError::Refused(code, why)) => panic!("refused with {code}: {why}"),
    };
    let text = heard.0.lock().unwrap().clone();
    (String::from_utf8(text).unwrap(), found)
}

fn counts(negative: Option<usize>) -> Vec<[u8; 4]> {
    (0..70).map(|i| if Some(i) == negative { (-1i32).to_le_bytes() } else { (i as i32).to_le_bytes() }).collect()
}

#[test]
fn an_assertion_that_holds_is_silent() {
    for checks in [true, false] {
        let (text, found) = run(PTX, "guarded", &counts(None), 3, Options { checks, ..Options::default() });
        assert!(text.is_empty() && found.is_none(), "{text} {found:?}");
    }
}

#[test]
fn an_assertion_that_fails_names_itself_and_its_thread() {
    // With checks off as well: it is the kernel's own word.
    for checks in [true, false] {
        let (_, found) = run(PTX, "guarded", &counts(Some(37)), 3, Options { checks, ..Options::default() });
        let found = found.expect("x[37] is negative");
        assert_eq!(found.kind, Kind::Assertion);
        assert_eq!(found.kind.cuda_error(), 710);
        assert_eq!(
            found.what,
            r#"`x[i] >= 0 && "counts are not negative"` at asserts.cu:7 in void guarded(const int *, int)"#
        );
        assert_eq!((found.kernel.as_deref(), &found.source), (Some("guarded"), &Some(("asserts.cu".into(), 7))));
        assert_eq!((found.block, found.thread), (Some([1, 0, 0]), Some([5, 0, 0])));
    }
}

#[test]
fn an_assertion_whose_text_is_unreadable_is_still_found() {
    let ptx = PTX.replace("st.param.b64 \t[param0+0], %rd6;", "st.param.b64 \t[param0+0], 16;");
    let (_, found) = run(&ptx, "guarded", &counts(Some(0)), 1, Options::default());
    let found = found.unwrap();
    assert_eq!(found.kind, Kind::Assertion);
    assert!(found.what.starts_with("`(unreadable at 0x10)` at asserts.cu:7"), "{found}");
}

fn floats(x: &[f32]) -> Vec<[u8; 4]> {
    x.iter().map(|v| v.to_le_bytes()).collect()
}

#[test]
fn printf_prints_lane_after_lane() {
    let (text, found) = run(PTX, "speaking", &floats(&[1.5, -20.25]), 1, Options::default());
    assert!(found.is_none(), "{found:?}");
    let lines = [
        "x[0] =   1.50, above 0 (nil) %",
        "x[1] = -20.25, below -7000000000 (nil) %",
        "q  -42|ff  |1.234e+03|+7|xy|    12|44",
        "done",
    ];
    // 1234.5 lies halfway between what three digits can say: C rounds to even.
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}

#[test]
fn blocks_that_print_do_so_in_order() {
    let kernel = "
.version 9.0 .target sm_80 .address_size 64
.extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
.global .align 1 .b8 text[7] = {37, 117, 44, 37, 117, 10};
.visible .entry speak(.param .u64 x, .param .u32 n) {
  .local .align 8 .b8 list[8];
  .reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .pred %p;
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;
  setp.ge.u32 %p, %r2, 2;
  @%p ret;
  mov.u64 %rd1, list;
  st.local.v2.u32 [%rd1], {%r1, %r2};
  cvta.local.u64 %rd2, %rd1;
  mov.u64 %rd3, text;
  { .param .b64 a; st.param.b64 [a], %rd3; .param .b64 b; st.param.b64 [b], %rd2; .param .b32 r;
    call.uni (r), vprintf, (a, b); ld.param.b32 %r3, [r]; }
  setp.ne.s32 %p, %r3, 2;
  @%p trap;
  ret;
}";
    let options = Options { threads: 2, ..Options::default() };
    let (text, found) = run(kernel, "speak", &floats(&[0.0]), 20, options);
    assert!(found.is_none(), "{found:?}");
    let expected: String = (0..40).map(|n| format!("{},{}\n", n / 2, n % 2)).collect();
    assert_eq!(text, expected);
}

#[test]
fn a_printf_that_cannot_be_read_is_found() {
    let null = PTX.replace("st.param.b64 \t[param1+0], %rd14;", "st.param.b64 \t[param1+0], 8;");
    let (_, found) = run(&null, "speaking", &floats(&[1.0]), 1, Options::default());
    let found = found.unwrap();
    assert_eq!((found.kind, &found.source), (Kind::Printf, &Some(("asserts.cu".into(), 13))));
    assert!(found.what.contains("argument of 4 bytes at 0x8 is unreadable"), "{found}");
}

#[test]
fn other_functions_without_a_body_are_refused_by_name() {
    let ptx = PTX.replace("vprintf", "malloc");
    let mut machine = Machine::new(Options::default());
    let mut module = machine.load(&ptx).unwrap();
    let error = module.kernel("speaking").unwrap().err().expect("malloc is not there").to_string();
    assert!(error.contains("malloc") && error.contains("no body"), "{error}");
}

/// A number of threads that no host has is taken for the most there can be, not allocated for.
#[test]
fn a_machine_of_too_many_threads() {
    let mut machine = Machine::new(Options { threads: usize::MAX, ..Options::default() });
    assert!(machine.allocate(4).is_some());
}
