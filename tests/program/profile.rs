//! `rampart profile` and the flags of the emulated GPU: counts against counts by hand, and what is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::place::Place;

fn rampart(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rampart")).args(args).output().expect("the program starts")
}

#[track_caller]
fn ok(args: &[&str]) -> String {
    let out = rampart(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let out = rampart(args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {said}| {part}");
    }
}

/// What `--json` writes.
fn counts(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.json");
    let mut all = vec!["profile", "--json", file.to_str().unwrap()];
    all.extend(args);
    ok(&all);
    serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| panic!("{v} is no count"))
}

/// Labels go up, loss, margin and prediction come down, images stay where they are.
#[test]
fn a_step_of_pgd_copies_no_image() {
    let config = r#"{"depth":18,"stem":"cifar","width":8,"attention":"none","classes":10}"#;
    let all = counts(&["--what", "pgd-step", "--config", config, "--size", "16x16", "--batch", "4"]);
    let driver = |name: &str| number(&all["driver"][name]);
    assert_eq!(driver("kernels"), all["launches"].as_array().unwrap().len() as u64);
    // A batch has 12288 bytes.
    assert!(driver("bytes_to_device") < 1024, "{}", all["driver"]);
    assert_eq!((driver("copies_to_host"), driver("bytes_to_host")), (3, 3 * 4 * 4), "{}", all["driver"]);
    assert_eq!(driver("copies_within_device"), 0);
}

/// Labels and keys go up once, the start is copied where steps are taken, and one log comes down.
#[test]
fn ten_steps_are_ten_launches_of_a_graph() {
    let config = r#"{"depth":18,"stem":"cifar","width":3,"attention":"none","classes":10}"#;
    // APGD copies the start as the iterate before it, too.
    for (what, copied) in [("pgd", 1), ("apgd", 2)] {
        let all = counts(&["--what", what, "--config", config, "--size", "8x8", "--batch", "2"]);
        let driver = |name: &str| number(&all["driver"][name]);
        assert_eq!(driver("kernels"), all["launches"].as_array().unwrap().len() as u64);
        assert_eq!((driver("graph_launches"), driver("copies_within_device")), (10, copied), "{}", all["driver"]);
        let copies = driver("copies_to_device") + driver("copies_to_host");
        assert!(copies < 20 && driver("synchronisations") < 20, "{}", all["driver"]);
    }
}

/// ResNet-18, width 64, of 4 images of 8x8: rows N*P*Q, output and input channels, taps of its 20 convolutions.
fn convolutions() -> Vec<[u64; 4]> {
    let mut all = vec![[256, 64, 3, 9]];
    all.extend([[256, 64, 64, 9]; 4]);
    for (rows, wide) in [(64, 128), (16, 256), (4, 512)] {
        all.push([rows, wide, wide / 2, 9]);
        all.push([rows, wide, wide / 2, 1]); // the shortcut
        all.extend([[rows, wide, wide, 9]; 3]);
    }
    all
}

#[test]
fn matrix_flops_of_convolutions_are_those_of_their_tiles() {
    let config = r#"{"depth":18,"stem":"cifar","width":64,"attention":"none","classes":10}"#;
    // The depth of a tile, 64 bytes; float32 takes three products of TF32.
    for (precision, kernel, depth, products, format) in
        [("bf16", "conv_bf16_small", 32, 1, "bf16"), ("f32", "conv_f32_small", 16, 3, "tf32")]
    {
        let flops = |[rows, o, c, taps]: [u64; 4]| {
            let up = |n: u64, tile: u64| n.div_ceil(tile) * tile;
            2 * products * up(rows, 64) * up(o, 64) * up(c, depth) * taps
        };
        let args = ["--config", config, "--size", "8x8", "--batch", "4", "--precision", precision];
        let all = counts(&args);
        let launches = all["launches"].as_array().unwrap();
        let counted = launches.iter().filter(|l| l["kernel"] == kernel);
        let mut counted: Vec<u64> = counted.map(|l| number(&l["total"]["flops"])).collect();
        let mut expected: Vec<u64> = convolutions().into_iter().map(flops).collect();
        // Without padding this is 2 * N*P*Q * K * C * R*S itself.
        assert!(expected.contains(&(products * 2 * 256 * 64 * 64 * 9)));
        counted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(counted, expected, "{precision}");

        let sum = all["kernels"].as_array().unwrap().iter().find(|k| k["kernel"] == kernel).unwrap();
        assert_eq!(number(&sum["launches"]), 20);
        assert_eq!(number(&sum["flops"][format]), expected.iter().sum::<u64>());
        assert_eq!(sum["flops"].as_object().unwrap().len(), 1);
    }
}

#[test]
fn a_kernel_reads_its_inputs_once_and_writes_its_outputs_once() {
    let config = r#"{"depth":18,"stem":"cifar","width":64,"attention":"none","classes":10}"#;
    let once = |l: &Value, way: &str| number(&l["footprint"][way]["bytes"]);
    let least = |l: &Value, way: &str| once(l, way) == number(&l["footprint"][way]["buffers"]);
    for (precision, conv, size) in [("f32", "conv_f32_small", 4), ("bf16", "conv_bf16_small", 2)] {
        let args = ["--config", config, "--size", "8x8", "--batch", "4", "--precision", precision];
        let all = counts(&args);
        let convolutions: Vec<&Value> =
            all["launches"].as_array().unwrap().iter().filter(|l| l["kernel"] == conv).collect();
        // Rows of 64 channels, 9 taps of 64 x 64 weights, 64 biases; the second of a block reads what is added too.
        let (rows, weights) = (256 * 64 * size, 9 * 64 * 64 * size + 4 * 64);
        let with = |read| convolutions.iter().filter(|l| (once(l, "read"), once(l, "written")) == (read, rows)).count();
        assert_eq!((with(rows + weights), with(2 * rows + weights)), (2, 2), "{precision}");
        // Three shortcuts look at a quarter of their input.
        assert_eq!(convolutions.iter().filter(|l| !least(l, "read")).count(), 3, "{precision}");
        assert!(convolutions.iter().all(|l| least(l, "written")), "{precision}");
    }
    let all = counts(&["--arch", "unet", "--size", "8x8", "--what", "gradient"]);
    let mut seen = 0;
    for l in all["launches"].as_array().unwrap() {
        let kernel = l["kernel"].as_str().unwrap();
        if ["group_norm", "attention_f32", "concat", "accumulate"].iter().any(|name| kernel.starts_with(name)) {
            assert!(least(l, "read") && least(l, "written"), "{l}");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn bytes_sums_and_lines_agree_with_one_another_and_with_the_sizes() {
    let all = counts(&["--what", "pgd-step", "--size", "16x16", "--batch", "2"]);
    assert_eq!(all["emulator"]["checks"], false);
    let launches = all["launches"].as_array().unwrap();
    let of = |kernel: &str| launches.iter().filter(|l| l["kernel"] == kernel).collect::<Vec<_>>();
    // Per value: reads it, its channel's mean and deviation; writes it. Four bytes each.
    let (values, normalize) = (2 * 16 * 16 * 3, &of("normalize_f32")[0]["total"]);
    assert_eq!(number(&normalize["global_load_bytes"]), 12 * values);
    assert_eq!(number(&normalize["global_store_bytes"]), 4 * values);
    // A thread stores runs of 16 values as vectors of 16 bytes: each fills half of a sector of its own.
    assert_eq!(number(&normalize["global_store_sectors"]), 4 * values / 16);
    // Each byte once: the image, and means and deviations of 48 values, whole images' channels and whole runs.
    let once = |l: &Value, way: &str| number(&l["footprint"][way]["bytes"]);
    let normalize = of("normalize_f32")[0];
    assert_eq!((once(normalize, "read"), once(normalize, "written")), (4 * values + 2 * 4 * 48, 4 * values));
    // One step per image: it reads the iterate, the image and the gradient, and writes the new iterate.
    let step = of("pgd_step_linf");
    assert_eq!(step.len(), 1);
    assert_eq!(number(&step[0]["total"]["global_store_bytes"]), 4 * values);
    // Here the iterate is the image.
    assert_eq!((once(step[0], "read"), once(step[0], "written")), (2 * 4 * values, 4 * values));
    assert!(of("pack_weights_f32").is_empty(), "the first run packed them");

    for l in launches {
        let (total, instructions) = (&l["total"], number(&l["total"]["instructions"]));
        for (way, moved) in [("read", "global_load_sectors"), ("written", "global_store_sectors")] {
            let [bytes, sectors, buffers] =
                ["bytes", "sectors", "buffers"].map(|key| number(&l["footprint"][way][key]));
            assert!(bytes <= buffers && bytes <= 32 * sectors && sectors <= number(&total[moved]), "{l}");
        }
        let classes: u64 = l["classes"].as_object().unwrap().values().map(number).sum();
        assert_eq!(classes, instructions, "{l}");
        assert!(number(&total["threads"]) <= 32 * instructions && instructions > 0);
        let lines = l["lines"].as_array().unwrap();
        for key in ["instructions", "flops", "global_load_sectors", "shared_turns", "divergent_branches"] {
            assert_eq!(lines.iter().map(|line| number(&line[1][key])).sum::<u64>(), number(&total[key]), "{key}");
        }
    }
    for kernel in all["kernels"].as_array().unwrap() {
        let own = of(kernel["kernel"].as_str().unwrap());
        assert_eq!(number(&kernel["launches"]), own.len() as u64);
        let instructions: u64 = own.iter().map(|l| number(&l["total"]["instructions"])).sum();
        assert_eq!(number(&kernel["total"]["instructions"]), instructions);
        for e in kernel["estimates"].as_array().unwrap() {
            assert!(e["estimated_s"].as_f64().unwrap() > 0.0, "{e}");
        }
    }
}

#[test]
fn counts_do_not_depend_on_the_schedule_or_the_checks() {
    let with = |flags: &[&str]| {
        let mut args = vec!["--size", "8x8", "--precision", "bf16"];
        args.extend(flags);
        counts(&args)
    };
    let plain = with(&[]);
    let shuffled = with(&["--emulator-seed", "5", "--emulator-checks", "on"]);
    assert_eq!(shuffled["emulator"]["seed"], 5);
    assert_eq!(shuffled["emulator"]["checks"], true);
    assert_eq!(plain["launches"], shuffled["launches"]);
}

#[test]
fn tables_name_kernels_launches_and_lines() {
    let small = ["profile", "--size", "8x8"];
    let text = ok(&small);
    for part in ["resnet forward batch 1 f32", "conv_f32_small", "instructions by class", "ESTIMATE", "est. H100"] {
        assert!(text.contains(part), "{text}| {part}");
    }
    let text = ok(&[&small[..], &["--launches"]].concat());
    assert!(text.contains("\n1 normalize_f32 ") && text.contains("ESTIMATE"), "{text}");
    let text = ok(&[&small[..], &["--lines", "conv_f32_small"]].concat());
    assert!(text.contains("source lines of conv_f32_small") && text.contains("\nptx.cuh:"), "{text}");
    refused(&[&small[..], &["--lines", "conv"]].concat(), &["--lines", "conv_f32_small, ", "found `conv`"]);
}

#[test]
fn flags_of_the_emulator_need_it() {
    let dump = "tests/fixtures/softmax";
    refused(
        &["parity", dump, "--device", "host", "--emulator-seed", "1"],
        &["--emulator-seed", "--device emulated, found host"],
    );
    refused(&["bench", "--emulator-checks", "off"], &["--emulator-checks", "--device emulated, found auto"]);
    refused(&["sweep", "--device", "host", "--dry-run", "--emulator-seed", "1"], &["--emulator-seed", "found host"]);
    refused(&["profile", "--emulator-checks", "maybe"], &["--emulator-checks", "on, off"]);
    refused(&["profile", "--emulator-seed=-1"], &["--emulator-seed"]);
    refused(&["profile", "--batch", "0"], &["--batch", "at least 1"]);
    refused(&["profile", "--device", "host"], &["--device"]);
    let out = rampart(&["profile", "--size", "8x8", "--json", "tests/no-such-folder/x.json"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("write the counts"));
}

#[test]
fn a_sweep_records_how_it_was_emulated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let out = out.to_str().unwrap();
    let flags = "--eps 0 --limit 1 --no-defense --no-checks --emulator-checks off --out";
    let flags: Vec<&str> = flags.split(' ').chain([out]).collect();
    ok(&[&["sweep", "--device", "emulated", "--emulator-seed", "3"], &flags[..]].concat());
    let config: toml::Table = fs::read_to_string(Path::new(out).join("config.toml")).unwrap().parse().unwrap();
    let emulator = &config["run"]["emulator"];
    assert_eq!((emulator["seed"].as_integer(), emulator["checks"].as_bool()), (Some(3), Some(false)));
    assert!(emulator["model"].as_str().unwrap().contains("A100"));
    // Not to be mixed with another schedule.
    let other = [&["sweep", "--resume", "--device", "emulated", "--emulator-seed", "4"], &flags[..]].concat();
    refused(&other, &["run.emulator.seed is 3 there and 4 here"]);
}

#[test]
fn bits_are_those_of_every_output() {
    let folder = tempfile::tempdir().unwrap();
    let bits = |seed: &str| {
        let file = folder.path().join(seed);
        let dumps = ["tests/fixtures/softmax", "tests/fixtures/pgd_step"];
        let flags = ["--device", "emulated", "--emulator-seed", seed, "--bits", file.to_str().unwrap()];
        ok(&[&["parity"], &dumps[..], &flags[..]].concat());
        fs::read_to_string(&file).unwrap()
    };
    let first = bits("1");
    assert_eq!(first, bits("2"));
    for line in first.lines() {
        let [hash, file, tensor] = line.split("  ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(u64::from_str_radix(hash, 16).is_ok() && hash.len() == 16, "{line}");
        assert!(file.ends_with(".safetensors") && tensor.starts_with("out."), "{line}");
    }
    let dumps = ["softmax", "pgd_step"].map(|op| fs::read_dir(format!("tests/fixtures/{op}")).unwrap().count());
    assert!(first.lines().count() >= dumps.iter().sum(), "at least one output of each dump:\n{first}");
    assert!(first.contains("  out.dx\n"), "{first}");
}

#[test]
fn info_lists_the_emulated_gpu() {
    let text = ok(&["info", "--devices"]);
    let line = text.lines().find(|line| line.trim_start().starts_with("emulated ")).unwrap();
    assert!(line.contains("NVIDIA A100"), "{line}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    let out = command.args(["info", "--devices"]).env("PTX_EMULATOR_SEED", "soon").output().unwrap();
    assert!(out.status.success());
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("emulated not available: ") && text.contains("PTX_EMULATOR_SEED"), "{text}");
}

/// A copy of the program alone, as `cargo install` leaves it, runs the emulated GPU.
#[test]
fn the_emulated_gpu_is_in_the_program_itself() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("rampart");
    fs::copy(env!("CARGO_BIN_EXE_rampart"), &program).unwrap();
    let dumps = fs::canonicalize("tests/fixtures/softmax").unwrap();
    let mut command = Command::new(&program);
    let out = command.args(["parity", "--device", "emulated"]).arg(&dumps).current_dir(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("5 passed, 0 failed"), "{text}");
}

#[test]
fn info_names_the_host_kernels_and_refuses_a_level_it_lacks() {
    let text = ok(&["info"]);
    let line = text.lines().find(|line| line.starts_with("host kernels: ")).unwrap();
    assert!(line.contains(", by ") && line.contains("; running "), "{line}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rampart"));
    let command =
        command.args(["parity", "tests/fixtures/softmax", "--device", "host"]).env("RAMPART_HOST_LEVEL", "fast");
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let problem = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(problem.contains("RAMPART_HOST_LEVEL is fast; the host kernels in this program are for "), "{problem}");
}

/// Where nothing multiplies bf16 values, a run says that float32 is no slower.
#[test]
fn bf16_is_advised_against_where_nothing_multiplies_it() {
    let place = Place::new();
    let host = ok(&["info"]).lines().find(|line| line.starts_with("  host ")).unwrap_or_default().to_owned();
    let run = |precision: &str| {
        let flags = "--no-defense --limit 1 --eps 0 --no-checks --device host";
        let ran = place.run(&format!("sweep {flags} --precision {precision} --out {precision}")).ok();
        ran.stderr.contains("no matrix units")
    };
    assert_eq!((run("bf16"), run("f32")), (!host.contains("amx-bf16"), false), "{host}");
}
