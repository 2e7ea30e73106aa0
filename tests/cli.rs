//! The program from outside: what it writes, how it stops and goes on, and how it refuses what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rampart");

/// One model, 20 images and an attack strong enough to be wrong about some of them.
const SMALL: &str = "limit = 20\n[defense]\nsigma = [0.25]\n[[models]]\nweights = \"demo:resnet50-cbam-w16\"\n[attack]\neps = [0, 0.005, 0.01]\nsteps = 3\n";

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Ended with `code` and a message on stderr, from the program and not from a panic, that holds all of `parts`.
    #[track_caller]
    fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{}| {part}", self.stderr);
        }
    }
}

/// A folder that the program runs in, on the host.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `sweep` takes its device from elsewhere when `args` name one.
    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.0.path()).args(args.split_whitespace());
        if args.starts_with("sweep") && !args.contains("--device") {
            command.args(["--device", "host"]);
        }
        command
    }

    fn run(&self, args: &str) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The records of a run directory in an order of their own: which image came first depends on where a run stopped.
    fn records(&self, run: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.read(&format!("{run}/records.jsonl")).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn results(&self, run: &str) -> String {
        self.read(&format!("{run}/results.csv"))
    }
}

#[test]
fn a_sweep_leaves_a_whole_run_directory() {
    let place = Place::new();
    let ran = place.run("sweep --limit 8 --eps 0,0.03 --out run").ok();
    assert!(ran.stderr.contains("2 models x 2 epsilons x 8 images of fashion-mnist"), "{}", ran.stderr);
    for part in ["resnet50-w16", "resnet50-cbam-w16", "the last iterate counts", "any successful iterate counts"] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }

    let results = place.results("run");
    let mut reader = csv::Reader::from_reader(results.as_bytes());
    let columns = "model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,accuracy,ci_low,ci_high,seed,\
                   device,precision";
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>().join(","), columns);
    let rows: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    let columns = ["model", "channel", "sigma", "eps", "n", "device"];
    let cells: Vec<[&str; 6]> = rows.iter().map(|r| columns.map(|column| r[column].as_str())).collect();
    let expected: Vec<[&str; 6]> = ["resnet50-w16", "resnet50-cbam-w16"]
        .iter()
        .flat_map(|m| [("1", ""), ("2", "0.25"), ("2", "0.5")].map(|c| (m, c)))
        .flat_map(|(m, (channel, sigma))| ["0", "0.03"].map(|eps| [m, channel, sigma, eps, "8", "host"]))
        .collect();
    assert_eq!(cells, expected);
    for row in &rows {
        let number = |column: &str| row[column].parse::<f64>().unwrap();
        assert_eq!(number("accuracy"), number("correct") / number("n"), "{row:?}");
        assert!(number("ci_low") <= number("accuracy") && number("accuracy") <= number("ci_high"), "{row:?}");
        let broken = row["eps"] != "0" && row["channel"] == "1";
        assert!(if broken { number("accuracy") < 0.5 } else { number("accuracy") > 0.4 }, "{row:?}");
    }

    let records = place.records("run");
    assert_eq!(records.len(), 2 * 2 * 8 * 3);
    for line in &records {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        if record["channel"] == 2 {
            assert_eq!((record["draws"].as_u64(), record["sigma"].is_f64()), (Some(1), true), "{line}");
            continue;
        }
        let (eps, linf) = (record["eps"].as_f64().unwrap(), record["linf"].as_f64().unwrap());
        assert!(linf <= eps + 1e-6 && record["violation"] == false, "{line}");
    }
    let config: toml::Table = place.read("run/config.toml").parse().unwrap();
    assert_eq!(config["run"]["device"].as_str(), Some("host"));
    assert!(place.read("run/plots/accuracy.svg").starts_with("<svg"));
    for picture in ["plots/accuracy", "images/resnet50-w16", "images/resnet50-cbam-w16"] {
        let bytes = fs::read(place.path(&format!("run/{picture}.png"))).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{picture}");
    }
}

#[test]
fn without_out_runs_are_numbered() {
    let place = Place::new();
    for number in 1..=2 {
        let ran = place.run("sweep --limit 1 --eps 0").ok();
        assert!(ran.stderr.contains(&format!("into runs/demo-{number}\n")), "{}", ran.stderr);
        assert!(place.results(&format!("runs/demo-{number}")).lines().count() == 7);
    }
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let place = Place::new();
    let ran = place.run("sweep --dry-run").ok();
    for part in ["2 models x 6 epsilons x 256 images", "pgd linf, 10 steps, 1 restart", "0.005", "resnet50-cbam-w16"] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    assert!(ran.stderr.is_empty() && fs::read_dir(place.0.path()).unwrap().next().is_none(), "{}", ran.stderr);
}

#[test]
fn info_lists_devices_and_kernels() {
    let place = Place::new();
    let ran = place.run("info").ok();
    for part in ["host (", "  cuda ", "CUDA images", "conv_f32", "pgd_step_linf", "kernels/cbam.cu"] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    assert!(!place.run("info --devices").ok().stdout.contains("kernels/"));
}

#[test]
fn bench_prints_one_json_object() {
    let place = Place::new();
    let config = r#"{"depth":50,"stem":"cifar","width":8,"attention":"cbam","classes":10}"#;
    for what in ["forward", "gradient", "pgd-step"] {
        let args = format!("bench --runs 1 --batch 2 --config {config} --what {what} --device host --json");
        let stdout = place.run(&args).ok().stdout;
        let timing: BTreeMap<String, f64> = serde_json::from_str(&stdout).unwrap();
        let keys = ["gflops", "images_per_s", "max_s", "median_s", "min_s", "peak_bytes"];
        assert_eq!(timing.keys().collect::<Vec<_>>(), keys);
        assert!(timing.values().all(|&v| v > 0.0), "{stdout}");
        assert!(timing["min_s"] <= timing["median_s"] && timing["median_s"] <= timing["max_s"], "{stdout}");
    }
    for (args, parts) in [
        ("--config {}", ["--config", "missing field `depth`"]),
        ("--arch vgg", ["--arch", "expected resnet, resnet_study or coatnet, or unet, found `vgg`"]),
        ("--size 32", ["--size", "such as 32x32, found `32`"]),
        ("--runs 0", ["--runs", "at least 1"]),
        ("--device tpu", ["--device", "found `tpu`"]),
        ("--precision f8", ["--precision", "f32, bf16, tf32"]),
    ] {
        place.run(&format!("bench {args}")).refused(2, &parts);
    }
}

// ------------------------------------------------------------------------------------------------ the same results

#[test]
fn neither_batch_size_nor_threads_nor_repetition_change_anything() {
    for (flags, attack) in [
        ("--eps 0,0.01", "restarts = 2"),
        ("--eps 0.3", "norm = \"l2\"\nloss = \"dlr\"\nearly_stop = true\ntargeted = \"second-likely\""),
        ("--eps 0.01 --precision bf16", "method = \"mim\""),
    ] {
        let place = Place::new();
        place.write("small.toml", format!("{SMALL}{attack}"));
        let run = |out: &str, batch, threads| {
            let args = format!("sweep --config small.toml --limit 10 {flags} --batch {batch} --out {out}");
            let ran: Ran = place.command(&args).env("RAYON_NUM_THREADS", threads).output().unwrap().into();
            ran.ok();
            (place.results(out), place.records(out))
        };
        let first = run("first", 64, "2");
        for (out, batch, threads) in [("again", 64, "2"), ("single", 1, "2"), ("odd", 7, "2"), ("thread", 64, "1")] {
            assert_eq!(run(out, batch, threads), first, "batch {batch}, {threads} threads, {flags} {attack}");
        }
        assert!(first.1.iter().any(|line| line.contains("\"correct_any\":true")), "{}", first.0);
        assert!(
            first.1.iter().any(|line| line.contains("\"correct_clean\":true,\"correct_last\":false")),
            "{}",
            first.0
        );
    }
}

#[test]
fn killed_and_resumed_it_ends_as_if_nothing_had_happened() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    place.run("sweep --config small.toml --out whole").ok();

    let written = || fs::read_to_string(place.path("torn/records.jsonl")).unwrap_or_default().lines().count();
    for (i, batch) in [2, 3].into_iter().enumerate() {
        let args = format!("sweep --config small.toml --out torn --batch {batch} --resume");
        let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (begin, before) = (Instant::now(), written());
        while written() < before + 5 {
            assert!(begin.elapsed() < Duration::from_secs(60), "no records");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was done before it could be killed");
        assert!((5..60).contains(&written()) && !place.path("torn/results.csv").exists(), "kill {i}");
    }
    let ran = place.run("sweep --out torn --batch 7 --resume").ok();
    assert!(ran.stderr.contains(" of 60 images were done before"), "{}", ran.stderr);
    assert_eq!(place.results("torn"), place.results("whole"));
    assert_eq!(place.records("torn"), place.records("whole"));
}

/// A limit on file sizes stands in for a full disk.
#[test]
#[cfg(unix)]
fn on_a_full_disk_earlier_records_survive() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    place.run("sweep --config small.toml --out whole").ok();

    let script = "trap '' XFSZ; ulimit -f 10; exec \"$0\" \"$@\"";
    let args = "sweep --config small.toml --device host --batch 4 --out full";
    let mut limited = Command::new("sh");
    limited.current_dir(place.0.path()).args(["-c", script, PROGRAM]).args(args.split_whitespace());
    let ran: Ran = limited.output().unwrap().into();
    ran.refused(1, &["full/records.jsonl", "append records", "--resume", "caused by:"]);
    let kept = place.read("full/records.jsonl");
    assert!(kept.ends_with('\n') && kept.lines().count() >= 4 && kept.lines().count().is_multiple_of(4), "{kept}");
    assert!(kept.lines().all(|line| place.records("whole").contains(&line.to_owned())));

    place.run("sweep --out full --resume").ok();
    assert_eq!(place.results("full"), place.results("whole"));
    assert!(place.read("full/records.jsonl").starts_with(&kept));
}

#[test]
#[cfg(target_os = "linux")]
fn printing_onto_a_full_disk_is_an_error() {
    for args in ["info", "sweep --dry-run"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran: Ran = Place::new().command(args).stdout(full).output().unwrap().into();
        ran.refused(1, &["standard output: write", "caused by: "]);
    }
}

// ------------------------------------------------------------------------------------------------ what is refused

#[test]
fn bad_flags_are_named() {
    let place = Place::new();
    for (args, parts) in [
        ("sweep --eps -0.1", &["--eps", "at least 0", "found -0.1"][..]),
        ("sweep --eps 0,nan", &["--eps", "at least 0", "found NaN"]),
        ("sweep --eps 8", &["--eps", "at most 1, found 8", "8/255"]),
        ("sweep --eps one", &["--eps", "a number or a fraction", "`one`"]),
        ("sweep --limit 0", &["--limit", "at least 1, found 0"]),
        ("sweep --limit -3", &["-3"]),
        ("sweep --batch 0", &["--batch", "at least 1, found 0"]),
        ("sweep --sigma 0.25,0.25", &["--sigma", "0.25 is listed twice"]),
        ("sweep --sigma 1e9", &["sigma", "expected at most", "found 1000000000"]),
        ("sweep --sigma 0.25 --no-defense", &["--sigma", "--no-defense"]),
        ("sweep --attack-through classifier", &["--attack-through", "defense"]),
        ("sweep --eot 3", &["--eot", "--attack-through defense"]),
        ("sweep --precision f8", &["--precision", "'f8'", "f32, bf16, tf32"]),
        ("sweep --device tpu", &["--device", "'tpu'", "auto, host, cuda, emulated"]),
        ("sweep --config none.toml", &["none.toml", "cannot read the config"]),
        ("sweep --resume", &["--resume", "--out DIR"]),
        ("sweep --speed 9", &["--speed"]),
        ("sweeep", &["sweeep", "sweep"]),
        ("", &["Usage"]),
    ] {
        place.run(args).refused(2, parts);
    }
    assert!(fs::read_dir(place.0.path()).unwrap().next().is_none(), "a refusal leaves no folder behind");
}

#[test]
fn a_missing_gpu_is_an_error() {
    let place = Place::new();
    let devices = place.run("info --devices").ok().stdout;
    let cuda = devices.lines().find(|line| line.starts_with("  cuda")).unwrap();
    if cuda.contains("not available") {
        let ran = place.run("sweep --limit 1 --device cuda --out run");
        ran.refused(1, &["CUDA"]);
        assert!(ran.stderr.trim_end().lines().count() <= 2 && !place.path("run").exists(), "{}", ran.stderr);
    } else {
        println!("there is a GPU: {cuda}");
    }
}

#[test]
fn run_directories_are_not_mixed_up() {
    let place = Place::new();
    let base = "sweep --limit 2 --eps 0 --out run";
    place.run(base).ok();
    let (results, records) = (place.results("run"), place.records("run"));
    place.run(base).refused(2, &["--out", "run exists and is not empty", "--resume"]);
    for (flags, field) in [
        ("--eps 0,0.01 --limit 2", "attack.eps is [0.0] there and [0.0, 0.01] here"),
        ("--eps 0 --limit 3", "limit is 2 there and 3 here"),
        ("--eps 0 --limit 2 --seed 1", "seed is 0 there and 1 here"),
        ("--eps 0 --limit 2 --precision bf16", "precision is \"f32\" there and \"bf16\" here"),
    ] {
        place.run(&format!("sweep {flags} --out run --resume")).refused(2, &["--resume", "run/config.toml", field]);
    }
    place.run(&format!("{base} --early-stop --resume")).refused(2, &["--early-stop", "score"]);
    place.run(&format!("{base} --batch 1 --resume")).ok();
    assert_eq!((place.results("run"), place.records("run")), (results, records.clone()));

    let mut torn = records;
    torn[1] = "{}".into();
    place.write("run/records.jsonl", torn.join("\n") + "\n");
    place.run(&format!("{base} --resume")).refused(1, &["run/records.jsonl", "line 2: not a record"]);
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    place.write("file", "");
    place.run("sweep --limit 1 --out file").refused(2, &["--out", "file exists and is no folder"]);
    place.run("sweep --limit 1 --out file/run").refused(1, &["file/run", "create the run directory", "caused by:"]);
    place.write("runs", "");
    place.run("sweep --limit 1").refused(1, &["runs", "create the folder of runs", "--out"]);
}

/// A demo checkpoint to spoil: dtype, shape and bytes by name.
struct Checkpoint {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Checkpoint {
    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/resnet50-w16.safetensors");

    fn load() -> Self {
        let bytes = fs::read(Self::SOURCE).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let own = |(name, t): (String, TensorView)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()));
        Checkpoint {
            tensors: file.tensors().into_iter().map(own).collect(),
            metadata: header.metadata().clone().unwrap(),
        }
    }

    fn save(&self, path: &Path) {
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).expect("bytes that fit the shape"))
        });
        safetensors::serialize_to_file(views, Some(self.metadata.clone()), path).unwrap();
    }
}

#[test]
fn bad_weights_name_file_and_tensor() {
    let place = Place::new();
    place.write("try.toml", "limit = 1\n[[models]]\nweights = \"w.safetensors\"\n[attack]\neps = [0]\n");
    let refused = |parts: &[&str]| {
        let ran = place.run("sweep --config try.toml --out run");
        ran.refused(1, parts);
        ran.refused(1, &["w.safetensors"]);
        assert!(!place.path("run").exists(), "a refusal leaves no folder behind");
    };
    let spoilt = |spoil: &dyn Fn(&mut Checkpoint), parts: &[&str]| {
        let mut checkpoint = Checkpoint::load();
        spoil(&mut checkpoint);
        checkpoint.save(&place.path("w.safetensors"));
        refused(parts);
    };

    let whole = fs::read(Checkpoint::SOURCE).unwrap();
    for bytes in [&whole[..whole.len() / 2], &whole[..100], &whole[..4], b"", b"not a checkpoint at all"] {
        place.write("w.safetensors", bytes);
        refused(&["expected a safetensors file"]);
    }

    const NAME: &str = "layer2.1.conv2.weight";
    let rename = |c: &mut Checkpoint| {
        let tensor = c.tensors.remove(NAME).unwrap();
        c.tensors.insert("layer2.1.conv2.wieght".into(), tensor);
    };
    spoilt(&rename, &[NAME, "no such name", "nearest is `layer2.1.conv2.wieght`"]);
    let transpose = |c: &mut Checkpoint| c.tensors.get_mut(NAME).unwrap().1.rotate_left(1);
    spoilt(&transpose, &[NAME, "expected shape [32, 32, 3, 3]", "found [32, 3, 3, 32]"]);
    let nan = |c: &mut Checkpoint| c.tensors.get_mut(NAME).unwrap().2[10..12].copy_from_slice(&[0x00, 0x7e]);
    spoilt(&nan, &[NAME, "expected finite values, found NaN at index 5"]);
    let integers = |c: &mut Checkpoint| c.tensors.get_mut(NAME).unwrap().0 = Dtype::I16;
    spoilt(&integers, &[NAME, "expected F32, F16 or BF16, found I16"]);
    let extra = |c: &mut Checkpoint| {
        c.tensors.insert("layer2.1.conv4.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
    };
    spoilt(&extra, &["layer2.1.conv4.weight", "no such tensor", "nearest it has is `layer2.1.conv"]);

    let says = |key: &'static str, value: &'static str| {
        move |c: &mut Checkpoint| {
            c.metadata.insert(key.into(), value.into());
        }
    };
    spoilt(&says("arch", "vgg"), &["expected the architecture resnet, resnet_study or coatnet, found `vgg`"]);
    spoilt(&says("std", "[0, 1, 1]"), &["positive std"]);
    spoilt(&says("mean", "0.5"), &["metadata `mean`"]);
    spoilt(&says("config", r#"{"depth":34,"stem":"cifar","width":16,"classes":10}"#), &["tensor `", "shape"]);
    spoilt(
        &says("config", r#"{"depth":51,"stem":"cifar","width":16,"classes":10}"#),
        &["metadata: config `depth`", "18, 34 or 50, found 51"],
    );
    spoilt(&|c| drop(c.metadata.remove("arch")), &["expected `arch` in the metadata"]);

    Checkpoint::load().save(&place.path("w.safetensors"));
    place.run("sweep --config try.toml --out run").ok();
}

#[test]
fn bad_images_name_the_file() {
    let place = Place::new();
    place.write("idx.toml", "[dataset]\nkind = \"fashion-mnist\"\nimages = \"images\"\nlabels = \"labels\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let images = |count: u32, bytes: usize| {
        let words = [0x0803, count, 28, 28].map(u32::to_be_bytes).concat();
        [words, vec![7; bytes]].concat()
    };
    let labels =
        |labels: &[u8]| [[0x0801, labels.len() as u32].map(u32::to_be_bytes).concat(), labels.to_vec()].concat();
    for (i, l, parts) in [
        (images(2, 2 * 784 - 1), labels(&[0, 1]), ["images: truncated", "expected 1568 bytes", "found 1567"]),
        (images(2, 2 * 784 + 1), labels(&[0, 1]), ["images: too long", "expected 1568 bytes", "more"]),
        (images(2, 2 * 784), labels(&[0, 10]), ["labels: label of image 1", "expected 0 to 9", "found 10"]),
        (images(2, 2 * 784), labels(&[0]), ["labels", "2", "1"]),
        (labels(&[0, 1]), labels(&[0, 1]), ["images", "expected", "found"]),
        (vec![], labels(&[0, 1]), ["images", "expected", "found"]),
    ] {
        place.write("images", i).write("labels", l);
        place.run("sweep --config idx.toml --out run").refused(1, &parts);
    }

    place.write(
        "cifar.toml",
        "[dataset]\nkind = \"cifar10\"\npath = \"test_batch.bin\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n",
    );
    let record = |label: u8, bytes: usize| [vec![label], vec![9; bytes]].concat();
    for (bytes, parts) in [
        (record(3, 3071), ["test_batch.bin", "3073", "3072"]),
        ([record(3, 3072), record(10, 3072)].concat(), ["label of image 1", "expected 0 to 9", "found 10"]),
    ] {
        place.write("test_batch.bin", bytes);
        place.run("sweep --config cifar.toml --out run").refused(1, &["test_batch.bin"]);
        place.run("sweep --config cifar.toml --out run").refused(1, &parts);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn bad_configs_name_the_field() {
    let place = Place::new();
    for (text, parts) in [
        ("[attack]\nepsilon = 1", ["try.toml", "unknown field `epsilon`", "`eps`"]),
        ("[attack]\neps = [-1]", ["try.toml: attack.eps", "at least 0", "found -1"]),
        ("[attack]\nloss = \"l\"", ["try.toml", "unknown variant `l`", "`ce`, `dlr`"]),
        ("[attack]\ntargeted = \"worst\"", ["try.toml", "\"worst\"", "\"second-likely\""]),
        ("precision = \"f8\"", ["try.toml", "unknown variant `f8`", "`bf16`"]),
        ("[[models]]\nweights = \"none\"", ["try.toml: models.weights", "none", "No such file"]),
    ] {
        place.write("try.toml", text);
        place.run("sweep --config try.toml --out run").refused(2, &parts);
    }
    place.write("try.toml", "[attack]\ntargeted = 10");
    place.run("sweep --config try.toml --out run").refused(2, &["expected a class below 10, found 10"]);
}

#[test]
fn every_example_can_be_run() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<PathBuf> = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    assert!(files.len() >= 3, "{files:?}");
    let place = Place::new();
    for file in files {
        let ran: Ran = place.command("sweep --limit 1 --dry-run").arg("--config").arg(&file).output().unwrap().into();
        // What is not in the repository may be missing; the fields have been read by then.
        if ran.code == Some(2) && ran.stderr.contains("/../../") {
            println!("skipped, its files are not here: {}", ran.stderr.trim_end());
        } else {
            ran.ok();
        }
    }
}

#[test]
fn a_run_opens_as_one_page_and_is_reported_again() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    place.run("sweep --config small.toml --limit 6 --out a").ok();
    place.run("sweep --config small.toml --limit 6 --seed 1 --no-checks --out b").ok();
    let page = place.read("a/report.html");
    for part in [
        "id=\"figure\"",
        "id=\"accuracy\"",
        "class=\"strip\"",
        "id=\"maps\"",
        "class=\"verdict\"",
        "spatial_gate",
        "prefers-color-scheme",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page asks for something from elsewhere");
    let pictures = page.matches("src=\"data:image/png;base64,iVBORw0KGgo").count();
    assert_eq!(pictures, page.matches("<img ").count());
    assert!(place.path("a/trials.json").exists() && !place.path("b/trials.json").exists());
    assert!(place.read("b/report.html").contains("needs trials.json"));

    fs::remove_file(place.path("a/report.html")).unwrap();
    place.run("report a").ok();
    assert_eq!(place.read("a/report.html"), page);
    place.run("report a b --out both.html").ok();
    assert!(place.read("both.html").contains("The same model in two runs"));
    let csv = place.run("report a b --format csv").ok().stdout;
    assert_eq!(csv.lines().count(), 1 + 2 * place.results("a").lines().skip(1).count(), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&place.run("report a --format json").ok().stdout).unwrap();
    assert_eq!(json["runs"][0]["cells"][0]["n"], 6);
    let markdown = place.run("report a --format markdown").ok().stdout;
    assert!(markdown.contains("| ε | 0 | 0.005 | 0.01 |") && markdown.contains("n = 6 images"), "{markdown}");

    place.run("report a b").refused(2, &["--out", "several runs"]);
    place.run("report nowhere").refused(2, &["nowhere", "expected a run directory"]);
    place.run("report a --format xml").refused(2, &["xml"]);
    let records = place.read("a/records.jsonl");
    place.write("a/records.jsonl", format!("oops\n{records}"));
    place.run("report a").refused(1, &["records.jsonl: line 1: not a record"]);
    assert_eq!(place.read("a/report.html"), page, "a failed report must leave the page as it was");
}

#[test]
fn maps_of_files_of_ones_own() {
    let place = Place::new();
    let grey = |seed: u32| image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * y * seed % 251) as u8; 3]));
    grey(3).save(place.path("one.png")).unwrap();
    grey(5).save(place.path("two.png")).unwrap();
    place.run("maps one.png two.png --eps 0.01,0.03 --sigma 0.25 --device host --out m").ok();
    let csv = place.read("m/maps.csv");
    let rows: Vec<Vec<String>> = csv::Reader::from_reader(csv.as_bytes())
        .records()
        .map(|r| r.unwrap().iter().map(str::to_owned).collect())
        .collect();
    // Two images, five stages and four gates of either kind, four states.
    assert_eq!(rows.len(), 2 * (5 + 8) * 4, "{csv}");
    for row in &rows {
        let shift: f64 = row[3].parse().unwrap();
        assert!(if row[2] == "clean" { shift == 0.0 } else { shift > 0.0 && shift.is_finite() }, "{row:?}");
    }
    let page = place.read("m/maps.html");
    assert_eq!(page.matches("<img ").count(), 2 * (4 + 13 * 4));
    place
        .run("maps one.png --layers relu,layer9.0 --device host")
        .refused(2, &["--layers", "layer9.0", "layer4.2.cbam.spatial_gate"]);
    place.run("maps one.png --eps 8 --device host").refused(2, &["--eps", "at most 1"]);
    place.run("maps one.png --weights demo:vgg --device host").refused(2, &["--weights", "demo:vgg"]);
    place.write("no.png", "not a picture");
    place.run("maps no.png --device host").refused(1, &["no.png", "not a readable image"]);
    image::RgbImage::new(30, 30).save(place.path("odd.png")).unwrap();
    place.run("maps odd.png --sigma 0.25 --device host").refused(1, &["odd.png", "a multiple of", "--denoiser-size"]);
    place.run("maps odd.png --sigma 0.25 --denoiser-size 32x32 --eps 0.01 --steps 1 --layers relu --device host --out odd").ok();
    place.run("maps odd.png --sigma 0.25 --denoiser-size 32 --device host").refused(2, &["--denoiser-size", "`32`"]);
}

/// The CoAtNet of a dump, for images of 48x48, with a head of 1000 classes.
fn write_coatnet(path: &Path) {
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/feature_map/coatnet_rollout.safetensors");
    let bytes = fs::read(dump).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let attrs: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["attrs"]).unwrap();
    let mut config = attrs["config"].clone();
    config["classes"] = 1000.into();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let head = |name: &str, shape: &[usize]| -> (String, Vec<usize>, Vec<u8>) {
        let values = rampart::models::weights::fill(name, shape);
        (name.into(), shape.into(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let heads = [head("head.fc.weight", &[1000, 16]), head("head.fc.bias", &[1000])];
    let tensors = all.tensors();
    let body = tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix("w.")?.to_owned(), t.clone())));
    let body = body.filter(|(name, _)| !name.starts_with("head.fc."));
    let heads = heads
        .iter()
        .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let half = "[0.5,0.5,0.5]".to_owned();
    let metadata = [("arch", "coatnet".into()), ("config", config.to_string()), ("mean", half.clone()), ("std", half)];
    let metadata = metadata.map(|(k, v)| (k.to_owned(), v)).into();
    safetensors::serialize_to_file(body.chain(heads), Some(metadata), path).unwrap();
}

#[test]
fn maps_of_a_transformer_take_photos_of_any_size() {
    use rampart::data::{
        decode::decode,
        imagenet::{Fit, Prepare},
    };
    let place = Place::new();
    write_coatnet(&place.path("coatnet.safetensors"));
    let photo =
        image::RgbImage::from_fn(91, 70, |x, y| image::Rgb([(x * 2) as u8, (y * 3) as u8, (x * y % 251) as u8]));
    photo.save(place.path("photo.png")).unwrap();
    let run = |file: &str, more: &str, out: &str| {
        let flags = "--weights coatnet.safetensors --eps 0.01,0.03 --steps 3 --device host";
        place.run(&format!("maps {file} {flags} {more} --out {out}"))
    };
    run("photo.png", "--sigma 0.25 --denoiser-size 32x32", "a").ok();
    let page = place.read("a/maps.html");
    for part in ["stages.2.attention_rollout", "rolled out over the stage", "3x3x1", "6x6x1"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<b>class "), "ImageNet's classes have names");
    let csv = place.read("a/maps.csv");
    // Three stages and two of them of attention, four states.
    assert_eq!(csv.lines().count(), 1 + (3 + 2) * 4, "{csv}");
    for line in csv.lines().skip(1) {
        let shift: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        assert_eq!(shift == 0.0, line.contains("\"clean\""), "{line}");
    }

    // As if the image had been prepared before, in either way.
    let mut both = Vec::new();
    for (fit, name) in [(Fit::Squash, "squash"), (Fit::Crop, "crop")] {
        let small = Prepare::at([48, 48], fit).apply(&decode(&place.path("photo.png")).unwrap());
        let file = format!("{name}.png");
        image::RgbImage::from_raw(48, 48, small.pixels).unwrap().save(place.path(&file)).unwrap();
        run(&file, "", "small").ok();
        run("photo.png", &format!("--fit {name}"), "large").ok();
        let csv = place.read("large/maps.csv");
        assert_eq!(csv.replace("photo", name), place.read("small/maps.csv"));
        both.push(csv);
    }
    assert_ne!(both[0], both[1]);

    run("photo.png", "--layers stages.1.blocks.2.attn.weights", "weights").ok();
    assert!(place.read("weights/maps.html").contains("36x36"));
    run("photo.png", "--layers stages.1.blocks.2.attn", "no").refused(
        2,
        &["--layers", "stages.1.blocks.2.attn.weights", "stages.1.attention_rollout", "found `stages.1.blocks.2.attn`"],
    );
}

/// CoAtNet from end to end: folder, attack at its own size, denoiser at another, page with its attention.
#[test]
fn a_transformer_is_swept_behind_the_denoiser() {
    let place = Place::new();
    write_coatnet(&place.path("coatnet.safetensors"));
    for (class, seed) in [("n01440764", 3u32), ("n01443537", 5)] {
        let folder = place.path(&format!("val/{class}"));
        fs::create_dir_all(&folder).unwrap();
        let photo = image::RgbImage::from_fn(70, 53, |x, y| {
            image::Rgb([(x * 3) as u8, (y * 4) as u8, (x * y * seed % 251) as u8])
        });
        photo.save(folder.join("1.png")).unwrap();
    }
    place.write(
        "c.toml",
        "limit = 2\n[dataset]\nkind = \"imagenet\"\npath = \"val\"\nfit = \"squash\"\nsize = [48, 48]\nfilter = \"bicubic\"\n\
         [[models]]\nweights = \"coatnet.safetensors\"\n[attack]\neps = [0, \"8/255\"]\nsteps = 2\n\
         [defense]\nweights = \"demo:unet-small\"\nsigma = [0.25]\nsize = [32, 32]\nfilter = \"bicubic\"\n",
    );
    let ran = place.run("sweep --config c.toml --device host --no-checks --out r").ok();
    assert!(ran.stdout.contains("top-5 accuracy in %") && ran.stderr.contains("denoised at 32x32"), "{}", ran.stderr);
    let records = place.read("r/records.jsonl");
    // Two images at two epsilons in two channels.
    assert_eq!(records.lines().count(), 2 * 2 * 2, "{records}");
    for line in records.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["prediction"].as_u64().unwrap() < 1000);
        if let Some(linf) = record["linf"].as_f64() {
            let eps = record["eps"].as_f64().unwrap();
            assert!(linf <= eps + 1e-6 && (linf > 0.0) == (eps > 0.0), "{line}");
        }
    }
    let page = place.read("r/report.html");
    for part in ["stages.2.attention_rollout", "48x48", "denoiser at", "32x32"] {
        assert!(page.contains(part), "{part}");
    }
}
