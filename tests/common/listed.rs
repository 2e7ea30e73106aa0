//! Every file of a folder of tests is a module of its `main.rs`: one that is not would never run, and nothing would say so.

use std::fs;
use std::path::Path;

#[test]
fn every_file_is_a_module() {
    let binary = module_path!().split("::").next().expect("a path has a first part");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(binary);
    let main = fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|&module| module != "main") {
            let line = format!("mod {module};");
            assert!(main.lines().any(|l| l == line), "tests/{binary}/{name} never runs: main.rs lacks `{line}`");
        }
    }
}
