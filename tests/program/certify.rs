//! `rampart certify`: what it leaves, whatever it was interrupted by and however it was split.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::*;

const FLAGS: &str = "certify --config one.toml --limit 4 --sigma 0.25 --n0 20 --n 60";

fn place() -> Place {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    place
}

/// Everything that depends on the draws alone: the table without its times, the page without its block of them.
fn made(place: &Place, out: &str) -> Vec<String> {
    let read =
        |name: &str| fs::read_to_string(place.path(&format!("{out}/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"));
    let tables = fs::read_dir(place.path(&format!("{out}/certify"))).unwrap().map(|entry| entry.unwrap().file_name());
    let mut tables: Vec<String> =
        tables.map(|name| name.into_string().unwrap()).filter(|n| n.ends_with(".tsv")).collect();
    tables.sort();
    let timeless = |text: String| {
        text.lines().map(|line| line.rsplit_once('\t').map_or(line, |(rest, _)| rest).to_owned() + "\n").collect()
    };
    let page = read("report.html");
    let (before, rest) = page.split_once("<!-- times").unwrap();
    let (_, after) = rest.split_once("<!-- end of times -->").unwrap();
    // When it was begun and how is another matter.
    let begun = |text: &str| {
        let cut = |text: String, name: &str| match text.split_once(&format!("<dt>{name}</dt>")) {
            Some((before, rest)) => before.to_owned() + rest.split_once("</dd>").unwrap().1,
            None => text,
        };
        cut(cut(text.to_owned(), "begun (UTC)"), "command")
    };
    let mut all: Vec<String> = tables.iter().map(|name| timeless(read(&format!("certify/{name}")))).collect();
    all.extend(["certify/certified.jsonl", "certify/curves.csv", "certify/table.md", "certify/table.tex"].map(read));
    all.extend([read("plots/certified.svg"), begun(before), begun(after)]);
    all
}

#[test]
fn neither_batches_nor_kills_nor_shards_change_a_certificate() {
    let place = place();
    place.run(&format!("{FLAGS} --batch 64 --out whole")).ok();
    let whole = made(&place, "whole");
    assert!(whole[0].starts_with("idx\tlabel\tpredict\tradius\tcorrect\n0\t9\t9\t0."), "{}", whole[0]);
    assert!(whole[1].contains("\"bound\":\"clopper-pearson\"") && whole[1].lines().count() == 4, "{}", whole[1]);

    let drawn = || fs::read_to_string(place.path("torn/draws.jsonl")).unwrap_or_default().lines().count();
    let mut child = place.command(&format!("{FLAGS} --batch 1 --out torn"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while drawn() < 8 {
        assert!(begin.elapsed() < Duration::from_secs(240), "no draws");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none() && !place.path("torn/report.html").exists());
    place.run(&format!("{FLAGS} --batch 7 --resume --out torn")).ok();
    assert_eq!(made(&place, "torn"), whole);

    // Two parts at once, then what joins them; the second part says nothing that the folder does not.
    let mut first = place.command(&format!("{FLAGS} --shard 1/2 --out parts"));
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.run(&format!("{FLAGS} --shard 2/2 --out parts")).ok();
    assert!(first.wait().unwrap().success());
    assert!(!place.path("parts/certify").exists());
    let status = place.run("status parts").ok().stdout;
    assert!(status.contains("certificates alone; next, once all parts have ended: rampart merge"), "{status}");
    assert!(status.contains("part 1/2") && status.contains("160 draws of 2 images"), "{status}");
    place.run("certify --shard 1/3 --out parts").refused(2, &["--shard I/2"]);
    place.run("merge parts --records").refused(2, &["--records", "certificates alone"]);
    place.run("merge parts").ok();
    assert_eq!(made(&place, "parts"), whole);
    // Joined again, or of one process: nothing is attacked.
    place.run("merge whole").ok();
    assert!(!place.path("whole/results.csv").exists() && !place.path("parts/results.csv").exists());
    assert!(place.run("status parts").ok().stdout.contains("certify/ is written"));
    fs::create_dir(place.path("half")).unwrap();
    for name in ["config.toml", "records.jsonl", "draws-2-of-2.jsonl"] {
        fs::copy(place.path(&format!("parts/{name}")), place.path(&format!("half/{name}"))).unwrap();
    }
    place.run("merge half").refused(1, &["part 1/2 has drawn nothing yet"]);
    for format in ["markdown", "latex", "json"] {
        let told = place.run(&format!("report half --format {format}")).ok().stdout;
        assert!(
            told.contains("Unfinished: certificates of resnet50-w16 at sigma 0.25: 2 of 4 images are done"),
            "{told}"
        );
    }

    // Tables of it know nothing of attacks.
    for format in ["markdown", "latex", "csv", "json"] {
        let text = place.run(&format!("report whole --format {format}")).ok().stdout;
        assert!(text.contains("0.25") && !text.contains("pgd") && !text.contains("nfinished: "), "{text}");
    }
    place.run("report whole parts --out both.html").ok();
    let page = place.read("both.html");
    assert!(page.matches("<h2>whole: Certified accuracy").count() == 1 && !page.contains("unfinished"), "{page}");
    let csv = place.run("report whole parts --format csv").ok().stdout;
    assert!(
        csv.starts_with("run,curve,sigma,radius,") && csv.contains("\nwhole,") && csv.contains("\nparts,"),
        "{csv}"
    );
    // All is done: nothing is drawn again, and every part knows.
    let before = fs::read(place.path("parts/draws-1-of-2.jsonl")).unwrap();
    place.run("certify --shard 1/2 --out parts").ok();
    assert_eq!(fs::read(place.path("parts/draws-1-of-2.jsonl")).unwrap(), before);
    place.run("certify --resume --seed 4 --out parts").refused(2, &["seed is 0 there and 4 here"]);
}

#[test]
fn anytime_certificates_end_early_whatever_the_batch() {
    let place = place();
    let flags = "certify --config one.toml --limit 5 --sigma 0.25 --n0 20 --n 200 --radius 0.1,0.25";
    place.run(&format!("{flags} --batch 64 --out a")).ok();
    place.run(&format!("{flags} --batch 3 --out b")).ok();
    let (a, b) = (made(&place, "a"), made(&place, "b"));
    assert_eq!(a, b);
    let draws: Vec<u64> = a[1]
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap())
        .collect();
    assert!(draws.iter().any(|&n| n < 100) && draws.iter().all(|&n| n <= 200), "{draws:?}");
    assert!(place.path("a/certify/resnet50-w16-sigma-0.25-anytime.tsv").exists(), "an extension is labelled");
    assert!(a[1].contains("\"bound\":\"anytime\"") && a[1].contains("\"reached\":[true,true]"), "{}", a[1]);
}

/// Noise that nothing takes away, the images of a list, and somebody else's table beside it.
#[test]
fn noise_alone_is_certified_and_compared() {
    let place = place();
    place.write(
        "theirs.tsv",
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t9\t9\t0.31\t1\t0:00:01\n2\t1\t-1\t0.0\t1\t0:00:01\n",
    );
    let flags =
        "certify demo:resnet50-w16 demo --sigma 0.05 --n0 10 --n 50 --skip 2 --max 6 --compare theirs.tsv --out a";
    place.run(flags).ok();
    fs::remove_file(place.path("theirs.tsv")).unwrap();
    place.run("report a").ok();
    let all = made(&place, "a");
    // The other table first.
    let images: Vec<&str> = all[1].lines().skip(1).map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(images, ["0", "2", "4"]);
    let curves = &all[3];
    assert!(curves.contains("\ntheirs,,0,0.000000,2,1,0.500000,"), "correct goes by label and prediction: {curves}");
    assert!(all[7].contains("noise alone"), "{}", all[7]);
}

/// Attacks of one run do not contradict its certificates, and a sweep that is over gets certificates.
#[test]
fn a_sweep_is_certified_and_the_two_are_compared() {
    let place = place();
    place.write(
        "certified.toml",
        "[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\nnorm = \"l2\"\nsteps = 2\n[certify]\nn = 60\nn0 = 20\n",
    );
    let flags = "sweep --config certified.toml --limit 4 --sigma 0.25 --eps 0,0.1 --draws 12 --no-checks --out a";
    let said = place.run(flags).ok().stdout;
    assert!(said.contains("certified accuracy in %"), "{said}");
    let page = fs::read_to_string(place.path("a/report.html")).unwrap();
    assert!(page.contains("attacked images lie inside their certified radius") && page.contains("id=\"certificate\""));
    let json: serde_json::Value = serde_json::from_str(&place.run("report a --format json").ok().stdout).unwrap();
    let of = &json["runs"][0]["certificates"];
    assert!(of["curves"][0]["at"][0]["accuracy"]["n"] == 4 && of["not_to_be_quoted"] == false, "{of}");
    let [markdown, latex] = ["markdown", "latex"].map(|f| place.run(&format!("report a --format {f}")).ok().stdout);
    assert!(markdown.contains("| certified accuracy, % | r = 0 |") && latex.contains("$r = 0$"), "{markdown}{latex}");
    // What was there before stays.
    let later =
        "sweep --config one.toml --limit 4 --sigma 0.25 --eps 0,0.1 --norm l2 --steps 2 --draws 12 --no-checks --out b";
    place.run(later).ok();
    let records = place.records("b");
    place.run("certify --resume --out b --n 60 --n0 20").ok();
    assert_eq!((place.records("b"), place.records("a")), (records.clone(), records));
    let of = |out: &str| fs::read_to_string(place.path(&format!("{out}/certify/certified.jsonl"))).unwrap();
    assert_eq!(of("a"), of("b"));
}

#[test]
fn what_cannot_be_certified_is_refused() {
    let place = place();
    for (flags, expected) in [
        ("certify --sigma 0", "noise of 0 certifies nothing"),
        ("certify --no-defense", "noise is what certifies"),
        ("certify demo:resnet50-w16 demo", "--sigma 0.25"),
        ("certify --alpha 0.5", "--alpha: expected a chance"),
        ("certify --n 0", "--n: expected 1 to 1048576 draws, found 0"),
        ("certify --n 9", "--n: 9 draws certify nothing at alpha 0.001, whatever the network: expected at least 10"),
        ("certify --eps 0.1", "--eps: no certificate depends on it"),
        ("certify --steps 5", "--steps: no certificate depends on it"),
        ("certify --draws 5", "--draws: no certificate depends on it"),
        ("certify --vote mean-logits", "--vote: no certificate depends on it"),
        ("certify --set defense.seeds=5", "--set defense.seeds: no certificate depends on it"),
        ("certify --procedure predict --tsv-rounding nearest", "--tsv-rounding: procedure = \"predict\" has no radius"),
        ("certify --resume --out none", "none: no run to go on with"),
        ("certify --radius 0.25,5 --sigma 0.25 --n 500", "500 draws at sigma 0.25 certify 0."),
        ("certify --radius 0,0.25", "--radius: expected L2 radii above 0"),
        ("certify --radius 0.25,0.25", "0.25 is listed twice"),
        ("certify --denoiser-size 64x64", "a certificate needs noise of sigma on the pixels themselves"),
        ("certify --procedure predict --radius 0.1", "--radius: procedure = \"predict\" has no radius"),
        ("certify --shard 3/2 --out a", "expected I/N"),
        ("certify --shard 1/2", "--out"),
        ("certify --skip 5000 --limit 3 --max 1 --compare nothing.tsv", "nothing.tsv"),
        ("sweep --config one.toml --sigma 0.25 --denoiser none --denoiser-size 64x64", "noise alone"),
    ] {
        place.run(flags).refused(2, &[expected]);
    }
    place.write("theirs.tsv", "not a table\n");
    let flags = "certify --limit 1 --n 10 --n0 1 --sigma 0.25 --compare theirs.tsv --out x";
    place.run(flags).refused(1, &["theirs.tsv", "line 1: expected the columns"]);
    let twice = "certify --limit 1 --n 10 --n0 1 --sigma 0.25 --compare theirs.tsv --compare theirs.tsv --out x";
    place.run(twice).refused(2, &["theirs.tsv is listed twice"]);
}

#[test]
fn predictions_have_no_radius() {
    let place = place();
    place.run("certify --config one.toml --limit 4 --sigma 0.25 --n 40 --procedure predict --out a").ok();
    let table = &made(&place, "a")[0];
    assert!(table.starts_with("idx\tlabel\tpredict\tcorrect\n0\t9\t9\t1\n"), "{table}");
    assert!(place.path("a/certify/resnet50-w16-sigma-0.25-predict.tsv").exists());
    let page = place.read("a/report.html");
    assert!(
        page.contains("Accuracy of the smoothed classifier")
            && page.contains(">predicted</th>")
            && !page.contains("over the L2 radius")
    );
    assert!(!place.read("a/certify/table.md").contains("certified"));
}
