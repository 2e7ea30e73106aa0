//! Several GPUs in one process, emulated, with every checker on: they share the batches, and the records are those of one.

use crate::place::*;

#[test]
fn two_emulated_gpus_give_the_bytes_of_one() {
    let place = Place::new();
    let flags = "sweep --limit 4 --eps 0.01 --sigma 0.25 --noise-seeds 1 --set attack.steps=2 --batch 1 --no-checks --emulator-checks on";
    let one = place.run(&format!("{flags} --device emulated --out one")).ok();
    let two = place.run(&format!("{flags} --device emulated:2 --out two")).ok();
    for ran in [&one, &two] {
        assert!(!ran.stderr.contains("emulator:"), "a checker spoke: {}", ran.stderr);
    }
    assert!(two.stderr.contains("2 devices share the batches"), "{}", two.stderr);
    assert_eq!(place.read("two/records.jsonl"), place.read("one/records.jsonl"));
    assert_eq!(place.results("two"), place.results("one"));
    let config = |run: &str| {
        let text = place.read(&format!("{run}/config.toml"));
        text.lines().filter(|l| !l.starts_with("date") && !l.starts_with("command")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(config("two"), config("one"), "how many devices there are decides nothing");
}
