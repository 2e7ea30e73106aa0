//! The PTX that nvcc emitted, on the emulated GPU with every checker on: dumps pass, schedules do not matter, and the host agrees.

use std::path::Path;
use std::process::{Command, Output};

fn rampart(seed: u32, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    command.env("PTX_EMULATOR_SEED", seed.to_string()).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replays the dumps of some ops; the report.
fn parity(seed: u32, precision: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folders: Vec<String> =
        ["conv2d", "matmul", "cbam", "softmax", "pgd_step", "resize", "group_norm", "attention", "q_sample", "dds"]
            .iter()
            .map(|op| fixtures.join(op).display().to_string())
            .collect();
    let mut args = vec!["parity", "--device", "emulated", "--precision", precision];
    args.extend(folders.iter().map(String::as_str));
    let out = rampart(seed, &args);
    let report = text(&out.stdout);
    assert!(out.status.success(), "seed {seed}, {precision}:\n{report}{}", text(&out.stderr));
    assert!(!text(&out.stderr).contains("emulator:"), "a checker spoke:\n{}", text(&out.stderr));
    report
}

#[test]
fn dumps_pass_whatever_the_order_of_warps_and_blocks() {
    for precision in ["f32", "bf16"] {
        let first = parity(0, precision);
        assert!(first.lines().count() > 60, "{first}");
        assert_eq!(first, parity(7, precision), "{precision}");
    }
}

#[test]
fn the_emulated_gpu_predicts_what_the_host_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let records = |device: &str| {
        let out = folder.path().join(device);
        let args = format!(
            "sweep --device {device} --limit 1 --eps 0.01 --sigma 0.25 --no-checks --noise-seeds 1 --set attack.steps=3 --out {}",
            out.display()
        );
        let done = rampart(0, &args.split(' ').collect::<Vec<_>>());
        assert!(done.status.success(), "{}", text(&done.stderr));
        let all = std::fs::read_to_string(out.join("records.jsonl")).unwrap();
        let prediction = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            ["model", "channel", "sigma", "eps", "image", "prediction"].map(|key| record[key].to_string())
        };
        all.lines().skip(1).map(prediction).collect::<Vec<_>>()
    };
    let host = records("host");
    assert_eq!(host.len(), 8, "two models, no budget and one, two channels, one image");
    assert_eq!(records("emulated"), host);
}
