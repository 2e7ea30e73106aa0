//! Files that are no files, or more than they seem: the program names them and goes on or ends, with an exit code of its own.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rampart");

/// The exit code and standard error of a run in `folder`, which has a minute.
fn rampart(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let begin = Instant::now();
    let mut child = Command::new(PROGRAM)
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if begin.elapsed() > Duration::from_secs(60) => {
                child.kill().unwrap();
                panic!("{args:?} has no end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    (code, fs::read_to_string(folder.join("stderr")).unwrap_or_default())
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    pipe(&folder.join("pipe"));
    fs::create_dir_all(folder.join("run")).unwrap();
    pipe(&folder.join("run/config.toml"));
    fs::write(folder.join("run/records.jsonl"), "").unwrap();
    for source in ["pipe", "/dev/zero"] {
        let config = |text: &str| fs::write(folder.join("a.toml"), text).unwrap();
        let refused = |args: &[&str]| {
            let (code, stderr) = rampart(folder, args);
            assert!(matches!(code, Some(1 | 2)), "{args:?}: {code:?} {stderr}");
            assert!(stderr.contains("expected a regular file"), "{args:?}: {stderr}");
        };
        refused(&["sweep", "--config", source, "--dry-run"]);
        // Of a dump it is the verdict, on standard output.
        assert_eq!(rampart(folder, &["parity", source]).0, Some(1));
        config(&format!("[[models]]\nweights = \"{source}\"\n"));
        refused(&["sweep", "--config", "a.toml", "--dry-run"]);
        config(&format!(
            "[dataset]\nkind = \"fashion-mnist\"\nimages = \"{source}\"\nlabels = \"{source}\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n"
        ));
        refused(&["sweep", "--config", "a.toml", "--dry-run"]);
        config(&format!(
            "[dataset]\nkind = \"cifar10\"\npath = \"{source}\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n"
        ));
        refused(&["sweep", "--config", "a.toml", "--dry-run"]);
    }
    let (code, stderr) = rampart(folder, &["report", "run"]);
    assert!(matches!(code, Some(1 | 2)) && stderr.contains("run"), "{code:?} {stderr}");
}

/// Of a checkpoint of very many tensors.
#[test]
fn a_hundred_thousand_names_are_read_in_linear_time() {
    let place = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..100_000)
        .map(|i| format!("\"layer{i}.weight\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}"))
        .collect();
    let header = format!("{{{}}}", names.join(","));
    let mut file = File::create(place.path().join("a.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    fs::write(place.path().join("a.toml"), "[[models]]\nweights = \"a.safetensors\"\n").unwrap();
    for args in [&["sweep", "--config", "a.toml", "--dry-run"][..], &["parity", "a.safetensors"]] {
        let begin = Instant::now();
        let (code, stderr) = rampart(place.path(), args);
        assert!(matches!(code, Some(1 | 2)), "{stderr}");
        assert!(begin.elapsed() < Duration::from_secs(15), "{args:?}: {:?}", begin.elapsed());
        assert!(stderr.len() < 100_000, "{} bytes of message", stderr.len());
    }
}

/// A header of safetensors may be as long as its file; what is made of one takes ten times its length.
#[test]
fn a_header_that_no_network_needs_is_refused_unread() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.safetensors");
    let text = format!("{{\"__metadata__\":{{}}{}}}", " ".repeat(17 << 20));
    fs::write(&path, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
    fs::write(place.path().join("a.toml"), "[[models]]\nweights = \"a.safetensors\"\n").unwrap();
    let (code, stderr) = rampart(place.path(), &["sweep", "--config", "a.toml", "--dry-run"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("header has {} bytes, more than 16777216", text.len())), "{stderr}");
    let whole = rampart::data::tensors::TensorFile::owned(&path, fs::read(&path).unwrap()).map(drop);
    assert!(whole.unwrap_err().to_string().contains("more than 16777216"));
}

#[test]
fn no_message_repeats_a_file() {
    let place = tempfile::tempdir().unwrap();
    let long = "x".repeat(130_000);
    let header = |metadata: &str, name: &str| {
        let tensor = format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
        let text = format!("{{\"__metadata__\":{{{metadata}}},{tensor}}}");
        fs::write(
            place.path().join("a.safetensors"),
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 4]].concat(),
        )
        .unwrap();
    };
    let weights = "[[models]]\nweights = \"a.safetensors\"\n";
    let configs = [
        (format!("\"arch\":\"resnet\",\"config\":\"[{long}\""), "w", weights.to_owned()),
        (format!("\"arch\":\"{long}\",\"config\":\"{{}}\""), "w", weights.to_owned()),
        (String::new(), long.as_str(), weights.to_owned()),
        (String::new(), "w", format!("{long} = 1\n")),
        (String::new(), "w", format!("[attack]\nmethod = \"{long}\"\n")),
        (
            String::new(),
            "w",
            format!("[[models]]\nweights = \"a.safetensors\"\nname = \"{long}\"\narch = \"{long}\"\n"),
        ),
    ];
    for (metadata, name, config) in &configs {
        header(metadata, name);
        fs::write(place.path().join("a.toml"), config).unwrap();
        let (code, stderr) = rampart(place.path(), &["sweep", "--config", "a.toml", "--dry-run"]);
        assert!(matches!(code, Some(1 | 2)), "{stderr}");
        assert!((10..20_000).contains(&stderr.len()), "{} bytes: {}", stderr.len(), &stderr[..1000]);
    }
}

#[test]
fn a_checkpoint_that_shrinks_while_it_is_read_is_no_signal() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.safetensors");
    let demo = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/resnet50-w16.safetensors")).unwrap();
    fs::write(&path, &demo).unwrap();
    let weights = rampart::models::weights::Weights::open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    // What was mapped would fault here.
    let name = weights.names().next().unwrap().to_owned();
    let shape = weights.shape_of(&name).unwrap();
    weights.get(&name, &shape).unwrap();
}

#[test]
fn names_steer_no_terminal() {
    let place = tempfile::tempdir().unwrap();
    fs::write(
        place.path().join("a.toml"),
        "[[models]]\nname = \"\\u001b[2Jred\"\nweights = \"no\\u001b]0;title\\u0007.safetensors\"\n",
    )
    .unwrap();
    let (code, stderr) = rampart(place.path(), &["sweep", "--config", "a.toml"]);
    assert!(matches!(code, Some(1 | 2)), "{stderr}");
    assert!(!stderr.contains('\u{1b}') && !stderr.contains('\u{7}') && stderr.contains("\\u{1b}"), "{stderr}");
}

#[test]
fn a_full_standard_error_is_an_exit_code() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let place = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| -> Output {
        let mut command = Command::new(PROGRAM);
        command.current_dir(place.path()).args(args).stderr(full.try_clone().unwrap()).output().unwrap()
    };
    assert_eq!(run(&["parity", "nowhere.safetensors"]).status.code(), Some(1));
    assert_eq!(run(&["sweep", "--config", "nowhere.toml"]).status.code(), Some(2));
    // Help that nobody gets is no success either.
    for args in [&["--help"][..], &["sweep", "--help"], &["--version"]] {
        let run = Command::new(PROGRAM).args(args).stdout(full.try_clone().unwrap()).output().unwrap();
        assert_eq!(run.status.code(), Some(1), "{args:?}");
    }
}

/// No user may start more threads than it has: what the system then refuses is said, as another user than the one that root is.
#[test]
fn without_threads_it_says_so() {
    let script = "ulimit -u 1; exec \"$0\" \"$@\"";
    let run = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script, PROGRAM, "info"])
        .env("RAYON_NUM_THREADS", "4")
        .output();
    let Ok(run) = run else { return };
    let stderr = String::from_utf8_lossy(&run.stderr);
    // Where this test is no root, or the program lies where that user may not look, there is nothing to see.
    if stderr.contains("setpriv") || stderr.contains("Permission denied") || stderr.contains("not found") {
        return;
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(run.status.code() == Some(0) || stderr.contains("refuses the threads"), "{:?} {stderr}", run.status.code());
}

#[test]
fn more_threads_than_any_machine_has_are_refused() {
    for args in [&["info"][..], &["sweep", "--dry-run"]] {
        let run = Command::new(PROGRAM).args(args).env("RAYON_NUM_THREADS", "100000").output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("RAYON_NUM_THREADS: expected at most 1024 threads, found 100000"), "{stderr}");
    }
}

#[test]
fn one_bad_dump_ends_no_replay() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root.join("fuzz/corpus/dump")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(root.join("tests/fixtures/relu/one.safetensors"), place.path().join("zz-good.safetensors")).unwrap();
    for device in ["host", "emulated"] {
        let run =
            Command::new(PROGRAM).current_dir(place.path()).args(["parity", ".", "--device", device]).output().unwrap();
        let stdout = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(run.status.code(), Some(1), "{stdout} {}", String::from_utf8_lossy(&run.stderr));
        assert!(stdout.contains("ok    ./zz-good.safetensors"), "{stdout}");
        assert!(stdout.contains("1 passed"), "{stdout}");
        let unsupported = stdout.lines().filter(|line| line.starts_with("UNSUPPORTED")).count();
        assert_eq!(unsupported + 2, stdout.lines().count(), "{stdout}");
    }
}
