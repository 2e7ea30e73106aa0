//! What the build says of prebuilt PTX whose sources have changed, on a folder of made-up ones.

use std::fs;

#[path = "../../build/stale.rs"]
mod found;

const ARGS: &str =
    "// one\nstruct A {\n  int32_t x;  // side\n};\n\nstruct B {\n  A a;\n};\nstruct C {\n  float f;\n};\n";
const ADD: &str = "KERNEL(add, B, 32, 0) {}";

/// CRC-32 of the texts by Python's zlib: of ADD, and of `struct A` and `struct B` without the comments.
const RECORD: &str = "# head\nadd: args.h=d9d16096 add.cu=e159298c\n";

#[test]
fn a_change_is_seen_where_nvcc_would_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
    let changed = || found::changed(dir.path(), "add", RECORD).unwrap();
    put("args.h", ARGS);
    put("add.cu", ADD);
    assert_eq!(changed(), None);
    put("args.h", &ARGS.replace("float f", "float g").replace("side", "edge"));
    assert_eq!(changed(), None, "another struct and a comment");
    put("args.h", &ARGS.replace("int32_t x", "int32_t y"));
    assert_eq!(changed().as_deref(), Some("args.h"), "a struct within a struct");
    put("add.cu", "KERNEL(add, B, 32, 0) { }");
    assert_eq!(changed().as_deref(), Some("args.h, add.cu"));
    fs::remove_file(dir.path().join("args.h")).unwrap();
    assert_eq!(changed().as_deref(), Some("args.h, add.cu"));
}

#[test]
fn a_record_that_lacks_or_garbles_a_source_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let missing = found::changed(dir.path(), "conv", RECORD).unwrap();
    assert!(missing.unwrap().contains("SOURCES does not list"));
    let garbled = found::changed(dir.path(), "conv", "conv: args.h\n").unwrap_err();
    assert!(garbled.contains("`args.h` of conv: expected FILE=CRC"), "{garbled}");
}
