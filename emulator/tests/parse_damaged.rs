//! Damaged PTX and garbage: refused with a line, never a panic or an overflow of the stack.

use proptest::prelude::*;
use ptx_emulator::ptx::parse;

const CALLS: &str = include_str!("ptx/calls.ptx");
const HEAD: &str = ".version 9.0 .target sm_80\n";

fn problem(text: String) -> String {
    parse(&format!("{HEAD}{text}")).expect_err("this is not PTX").problem
}

#[test]
fn deep_nesting_is_an_error_and_not_an_overflow() {
    let deep = |s: &str| s.repeat(100_000);
    assert_eq!(problem(format!(".entry k {}", deep("{"))), "blocks nest deeper than 64");
    assert_eq!(problem(format!(".entry k {{ {}", deep("p: .callprototype _ () { "))), "expected `;`, found `{`");
    assert_eq!(
        problem(format!(".global .b8 x{} = {};", "[1]".repeat(9), deep("{"))),
        "an array of more than 8 dimensions"
    );
    for text in [deep("["), deep("{"), deep("("), deep("!"), deep("a|")] {
        problem(format!(".entry k {{ mov.b32 {text}"));
    }
    for text in [deep("{"), deep("generic(")] {
        problem(format!(".global .u64 x[2] = {text}"));
    }
    // Long, but flat.
    for text in
        [format!(".entry k {{ mov.b32 a, {}1; }}", deep("-")), format!(".section .s {{ {} {} }}", deep("{"), deep("}"))]
    {
        parse(&format!("{HEAD}{text}")).unwrap();
    }
}

/// Text that is nearly PTX: pieces of a good file removed, doubled, moved, or replaced by other tokens.
fn nearly() -> impl Strategy<Value = String> {
    let tokens = "{ } ( ) [ ] < > ; , : :: | ! @ + - = . _ \" \\ /* */ // \n \0 é 0x 0f 1.e 18446744073709551615 \
                  -9223372036854775808 99999999999999999999 .reg .v4 .align .loc .file .alias .section .entry .func .param \
                  .callprototype .branchtargets generic( %r1 a:";
    let token = prop::sample::select(tokens.split(' ').collect::<Vec<_>>());
    let edit = (any::<prop::sample::Index>(), 0usize..40, any::<prop::sample::Index>(), prop::option::of(token));
    (prop::collection::vec(edit, 1..6), any::<bool>(), any::<prop::sample::Index>()).prop_map(|(edits, cut, end)| {
        let mut text: Vec<char> = CALLS.chars().collect();
        for (at, length, from, token) in edits {
            let at = at.index(text.len() + 1);
            let until = (at + length).min(text.len());
            let new: Vec<char> = match token {
                Some(token) => token.chars().collect(),
                None => text.iter().copied().skip(from.index(text.len() + 1)).take(length).collect(),
            };
            text.splice(at..until, new);
        }
        if cut {
            text.truncate(end.index(text.len() + 1));
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_ptx_is_read_or_refused(text in nearly()) {
        if let Err(e) = parse(&text) {
            prop_assert!(e.line >= 1 && e.line as usize <= text.lines().count() + 1, "{}", e);
            prop_assert!(!e.problem.is_empty());
        }
    }

    #[test]
    fn garbage_is_read_or_refused(text in "\\PC{0,200}", tail in "[ -~\n]{0,400}") {
        let _ = parse(&text);
        let _ = parse(&format!("{HEAD}{tail}"));
        let _ = parse(&format!("{HEAD}.entry k {{ {tail}"));
    }
}
