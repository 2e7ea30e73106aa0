//! A run in parts: joined it is one run byte for byte, whatever became of its processes; and who starts, stops and counts them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::*;

/// The page without its times and without what began the run.
fn page(place: &Place, run: &str) -> String {
    let text = place.read(&format!("{run}/report.html"));
    let (before, rest) = text.split_once("<!-- times").unwrap();
    let (_, after) = rest.split_once("<!-- end of times -->").unwrap();
    let lines = |text: &str| {
        let own = |line: &&str| !line.contains("<dt>command</dt>") && !line.contains("<dt>begun (UTC)</dt>");
        text.lines().filter(own).collect::<Vec<_>>().join("\n")
    };
    lines(before) + &lines(after)
}

/// What must be the same however a run was divided: records and results as they are, the page but for its times.
fn made(place: &Place, run: &str) -> [String; 3] {
    [place.read(&format!("{run}/records.jsonl")), place.results(run), page(place, run)]
}

fn quiet(place: &Place, args: &str) -> std::process::Child {
    place.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for_records(place: &Place, file: &str, count: usize) {
    let begin = Instant::now();
    while std::fs::read_to_string(place.path(file)).unwrap_or_default().lines().count() < count {
        assert!(begin.elapsed() < Duration::from_secs(240), "no records in {file}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn parts_of_several_processes_become_one_run() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    place.run("sweep --config small.toml --no-checks --out whole").ok();
    // Two at once, of which one is killed and goes on; the third knows its settings from the folder, and its part from the environment.
    let flags = "sweep --config small.toml --no-checks --out parts";
    let mut first = quiet(&place, &format!("{flags} --batch 1 --shard 1/3"));
    let mut second = quiet(&place, &format!("{flags} --batch 2 --shard 2/3"));
    wait_for_records(&place, "parts/records-2-of-3.jsonl", 4);
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(first.wait().unwrap().success());
    let status = place.run("status parts").ok().stdout;
    assert!(status.contains("part 1/3       done") && status.contains("part 2/3       stopped"), "{status}");
    assert!(status.contains("part 3/3       not begun") && status.contains("3 parts: 1 done, 1 stopped, 1 not begun"));
    place.run("merge parts").refused(1, &["nothing was changed", "part 2/3: unfinished", "part 3/3: missing"]);
    place.run("report parts").ok();
    assert!(place.read("parts/report.html").contains("records so far"));
    place.run(&format!("{flags} --shard 2/3")).ok();
    let mut third = place.command("sweep --no-checks --out parts --shard auto");
    let third: Ran = third.env("RANK", "2").env("WORLD_SIZE", "3").output().unwrap().into();
    assert!(third.ok().stderr.contains("part 3/3, by RANK and WORLD_SIZE"));
    assert!(place.run("status parts").ok().stdout.contains("3 parts: 3 done; next: rampart merge"));
    // Without its card nobody knows whether a part's records are those that it left.
    let card = place.read("parts/records-2-of-3.json");
    std::fs::remove_file(place.path("parts/records-2-of-3.json")).unwrap();
    place.run("merge --no-checks parts").refused(1, &["records-2-of-3.json is missing", "--shard 2/3"]);
    place.write("parts/records-2-of-3.json", card);
    let config = place.read("parts/config.toml");
    place.write("parts/config.toml", config.replace("seed = 0", "seed = 1"));
    place.run("merge --no-checks parts").refused(1, &["other settings"]);
    place.write("parts/config.toml", config);
    place.run("merge --no-checks parts").ok();
    assert_eq!(made(&place, "parts"), made(&place, "whole"));
    // Again there is nothing to join, and nothing changes.
    place.run("merge --no-checks parts").ok();
    assert_eq!(made(&place, "parts"), made(&place, "whole"));
    // What is left of a run can be done alone, too.
    place.run(&format!("{flags}-1 --shard 2/2")).ok();
    place.run("merge --partial parts-1").ok();
    // What is joined is no finished run, and joining attacks nothing.
    let all = made(&place, "whole")[0].lines().count() - 1;
    let done = place.records("parts-1").len();
    assert!(done < all, "{done} of {all}");
    let left = format!("{done} of {all} records");
    assert!(place.run("status parts-1").ok().stdout.contains(&left));
    for (format, part) in [("markdown", left.as_str()), ("json", &left), ("csv", "unfinished;")] {
        let told = place.run(&format!("report parts-1 --format {format}")).ok().stdout;
        assert!(told.contains(part), "{told}");
    }
    place.run("merge parts-1").refused(1, &[&left, "sweep --resume --out parts-1"]);
    place.run("sweep --resume --no-checks --out parts-1").ok();
    assert_eq!(made(&place, "parts-1"), made(&place, "whole"));
}

#[test]
#[cfg(unix)]
fn a_scheduler_may_end_a_part_between_two_batches() {
    let place = Place::new();
    let slow = SMALL.replace("steps = 3", "steps = 40");
    place.write("slow.toml", slow);
    let flags = "sweep --config slow.toml --no-checks --batch 1 --out a --shard 1/2";
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        let before = std::fs::read_to_string(place.path("a/records-1-of-2.jsonl")).unwrap_or_default().lines().count();
        let child = quiet(&place, &format!("{flags} --on-preempt 75"));
        wait_for_records(&place, "a/records-1-of-2.jsonl", before.max(1) + 2);
        // Somebody else may leave it, be refused, or wait.
        place.run(&format!("{flags} --if-running skip")).ok();
        place.run(flags).refused(2, &["--shard", "is working on a", "--if-running skip"]);
        place.run("merge a").refused(2, &["is working on a"]);
        assert!(place.run("status a").ok().stdout.contains("running"));
        // SAFETY: a plain system call; the child has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        let ran: Ran = child.wait_with_output().unwrap().into();
        assert_eq!(ran.code, Some(75), "{}", ran.stderr);
        let name = if signal == libc::SIGTERM { "SIGTERM" } else { "SIGUSR1" };
        for part in [name, "Go on with: rampart sweep --shard 1/2 --out a"] {
            assert!(ran.stderr.contains(part), "{}| {part}", ran.stderr);
        }
        let after = place.read("a/records-1-of-2.jsonl");
        assert!(after.ends_with('\n') && after.lines().count() > before);
    }
    let ran = place.run(&format!("{flags} --until 0.01"));
    ran.refused(0, &["--until 0.01: the next batch would end later"]);
    let card: serde_json::Value = serde_json::from_str(&place.read("a/records-1-of-2.json")).unwrap();
    let lines = place.read("a/records-1-of-2.jsonl").lines().count() as u64;
    assert_eq!((card["done"].as_bool(), card["records"].as_u64()), (Some(false), Some(lines - 1)));
}

#[test]
fn what_cannot_be_a_part_is_refused() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    let level = place.run("sweep --limit 1 --eps 0 --no-checks --out native --shard 1/2");
    level.ok();
    for (flags, code, parts) in [
        ("sweep --shard 3/2 --out a", 2, &["expected I/N"][..]),
        ("sweep --shard 1/2", 2, &["--out"]),
        ("sweep --shard auto --out a", 2, &["found none of them"]),
        ("sweep --shard 1/2 --resume --out a", 2, &["--resume", "leave out"]),
        ("sweep --if-running skip --out a", 2, &["--shard"]),
        ("sweep --until 0 --out a", 2, &["--until", "above 0"]),
        ("sweep --host-level fast --out a", 2, &["--host-level", "found `fast`"]),
        ("sweep --host-level native --device emulated --out a", 2, &["--host-level", "found emulated"]),
        ("sweep --device cuda:0,cuda:0", 2, &["listed twice"]),
        ("sweep --device host:1", 2, &["cuda:all"]),
        ("sweep --resume --out mistyped", 2, &["mistyped: no run to go on with"]),
        ("sweep --limit 1 --eps 0 --no-checks --out native --shard 2/3", 2, &["split into 2 parts", "--shard I/2"]),
        ("sweep --limit 2 --eps 0 --no-checks --out native --shard 2/2", 2, &["limit is 1 there and 2 here"]),
        ("merge nowhere", 2, &["expected a run directory"]),
        ("status nowhere", 2, &["expected a run directory"]),
        ("submit --out native --shards 3", 2, &["--shards", "into 2 parts already"]),
        ("submit --out b", 2, &["--shards", "number of parts"]),
        ("submit --out b --shards 2 -- --resume", 2, &["said by submit itself"]),
    ] {
        place.run(flags).refused(code, parts);
    }
    // The run was begun on another processor.
    let config = place.read("native/config.toml");
    let line = config.lines().find(|line| line.starts_with("processor = ")).unwrap();
    place.write("native/config.toml", config.replace(line, "processor = \"z900\""));
    let ran = place.run("sweep --limit 1 --eps 0 --no-checks --out native --shard 2/2");
    ran.refused(1, &["the level of the run is z900", "RAMPART_HOST_ARCH=all"]);
    place.write("native/config.toml", config.replace(line, "processor = \"native: mmx\""));
    if line.contains("native") {
        let ran = place.run("sweep --limit 1 --eps 0 --no-checks --out native --shard 2/2");
        ran.refused(2, &["run.processor is \"native: mmx\" there", "--host-level"]);
    }
}

#[test]
fn a_script_for_slurm_says_what_it_sends() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    let flags = "submit --config small.toml --out runs/a --shards 6 --throttle 2 --partition gpu --gpus 1 --time 10:00 --dry-run -- --no-checks --eps 0,0.01";
    let text = place.run(flags).ok().stdout;
    for part in [
        "#SBATCH --array=1-6%2",
        "#SBATCH --partition=gpu",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --time=10:00",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --requeue",
        "--on-preempt 75 --if-running wait --no-checks --eps '0,0.01' --shard \"$SLURM_ARRAY_TASK_ID/6\" &",
        "--dependency=afterok:$id --kill-on-invalid-dep=yes",
        "merge ",
    ] {
        assert!(text.contains(part), "{text}| {part}");
    }
    assert!(!place.path("runs").exists(), "nothing is written");
    // What is wrong behind -- is known before a job waits for it.
    for (behind, part) in [
        ("--epss 0.1", "unexpected argument '--epss'"),
        ("--eps 0,01", "what a decimal comma leaves"),
        ("--set attack.stepz=3", "attack.stepz"),
        ("--dry-run", "--dry-run is said by submit itself"),
        ("--until", "a value is required"),
    ] {
        place
            .run(&format!("submit --config small.toml --out runs/a --shards 6 --dry-run -- {behind}"))
            .refused(2, &[part]);
    }
    // Of a run under way the parts that are not done.
    place.run("sweep --config small.toml --limit 3 --eps 0 --no-checks --out runs/a --shard 2/6").ok();
    let text = place.run("submit --out runs/a --dry-run").ok().stdout;
    assert!(text.contains("#SBATCH --array=1,3-6\n"), "{text}");
    let other = place.run("submit --out runs/a --dry-run -- --no-checks --seed 9");
    other.refused(2, &["seed is 0 there and 9 here", "choose another --out"]);
}
