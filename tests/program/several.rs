//! Several GPUs in one process, emulated, with every checker on: they share the batches, and the records are those of one.

use crate::place::*;

#[test]
fn two_emulated_gpus_give_the_bytes_of_one() {
    let place = Place::new();
    let text = "limit = 2\nbatch = 1\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\neps = [0.01]\nsteps = 1\n";
    place.write("one.toml", text);
    // A part that is all of it: without pictures, which take the emulator longer than the records.
    let flags = "sweep --config one.toml --no-defense --emulator-checks on --shard 1/1";
    let one = place.run(&format!("{flags} --device emulated --out one")).ok();
    let two = place.run(&format!("{flags} --device emulated:2 --out two")).ok();
    for ran in [&one, &two] {
        assert!(!ran.stderr.contains("emulator:"), "a checker spoke: {}", ran.stderr);
    }
    assert!(two.stderr.contains("2 devices share the batches"), "{}", two.stderr);
    let records = place.read("two/records-1-of-1.jsonl");
    assert_eq!(records.lines().count(), 1 + 2, "two images below the settings");
    assert_eq!(records, place.read("one/records-1-of-1.jsonl"));
    let config = |run: &str| {
        let text = place.read(&format!("{run}/config.toml"));
        text.lines().filter(|l| !l.starts_with("date") && !l.starts_with("command")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(config("two"), config("one"), "how many devices there are decides nothing");
}
