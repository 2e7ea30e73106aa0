//! `rampart report`: the page of a run, and tables of several.

use std::fs;

use crate::place::*;

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
    // The columns and numbers of results.csv behind the name of the run.
    let one = place.run("report a --format csv").ok().stdout;
    let cut = |line: &str| line.split_once(',').map(|(_, rest)| format!("{rest}\n"));
    assert_eq!(one.lines().filter_map(cut).collect::<String>(), place.results("a"));
    assert!(one.lines().skip(1).all(|line| line.starts_with("a,")), "{one}");
    let json: serde_json::Value = serde_json::from_str(&place.run("report a --format json").ok().stdout).unwrap();
    assert_eq!(json["runs"][0]["cells"][0]["n"], 6);
    let markdown = place.run("report a --format markdown").ok().stdout;
    assert!(markdown.contains("| ε | 0 | 0.005 | 0.01 |") && markdown.contains("n = 6 images"), "{markdown}");

    // Two folders of one name are told apart by what they lie in.
    fs::create_dir_all(place.path("old/a")).unwrap();
    for file in ["config.toml", "records.jsonl"] {
        fs::copy(place.path(&format!("a/{file}")), place.path(&format!("old/a/{file}"))).unwrap();
    }
    // The records alone do not say that it came to its end.
    for format in ["csv", "json", "markdown", "latex"] {
        let of = |run: &str| place.run(&format!("report {run} --format {format}")).ok().stdout.to_lowercase();
        let says = |text: &str| text.contains("unfinished") && !text.contains("\"unfinished\": null");
        assert!(says(&of("old/a")) && !says(&of("a")), "{format}");
    }
    let records = place.read("a/records.jsonl");
    place.run("report a --format csv --out a/records.jsonl").refused(2, &["--out", "would be replaced"]);
    assert_eq!(place.read("a/records.jsonl"), records);
    let csv = place.run("report a old/a --format csv").ok().stdout;
    assert!(csv.lines().any(|line| line.starts_with("old/a,")), "{csv}");
    for file in ["plots/accuracy.pdf", "plots/accuracy.png", "plots/accuracy.svg"] {
        assert!(place.path(&format!("a/{file}")).is_file() && page.contains(file), "{file}");
    }
    assert!(page.contains("sweep --config small.toml --limit 6 --out a"), "the page tells the command");

    place.run("report a b").refused(2, &["--out", "several runs"]);
    place.run("report nowhere").refused(2, &["nowhere", "expected a run directory"]);
    place.run("report a --format xml").refused(2, &["xml"]);
    let records = place.read("a/records.jsonl");
    place.write("a/records.jsonl", format!("oops\n{records}"));
    place.run("report a").refused(1, &["records.jsonl: line 1: not a record"]);
    assert_eq!(place.read("a/report.html"), page, "a failed report must leave the page as it was");
}

/// Images of one number in two files of one name are two images: nothing is compared image by image, and the page says why.
#[test]
fn runs_on_other_images_are_not_paired() {
    let place = Place::new();
    place.write("small.toml", SMALL);
    place.run("sweep --config small.toml --limit 6 --no-defense --no-checks --out a").ok();
    place.run("sweep --config small.toml --limit 6 --no-defense --no-checks --seed 2 --out b").ok();
    place.run("sweep --config small.toml --limit 4 --no-defense --no-checks --out c").ok();
    let paired = |runs: &str| {
        let json = place.run(&format!("report {runs} --format json")).ok().stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        (json["paired"].as_array().unwrap().len(), json["unpaired"].as_array().unwrap().len())
    };
    assert!(paired("a b").0 > 0 && paired("a b").1 == 0);
    // Some of the same images, as labels and clean predictions say.
    assert!(paired("a c").0 > 0 && paired("a c").1 == 0);
    let config = place.read("b/config.toml");
    let data = config.split("[[models]]").next().unwrap();
    let crc = data.lines().find(|line| line.starts_with("crc32")).unwrap();
    place.write("b/config.toml", config.replace(crc, "crc32 = \"00000000\""));
    place.write("b/records.jsonl", headless(&place.read("b/records.jsonl")));
    assert_eq!(paired("a b"), (0, 1));
    place.run("report a b --out both.html").ok();
    let page = place.read("both.html");
    assert!(page.contains("not compared image by image") && page.contains("other checksums"), "{page}");
}

/// Records without the line of settings, as older versions left them.
fn headless(records: &str) -> String {
    records.lines().skip(1).map(|line| format!("{line}\n")).collect()
}
