//! The adaptive suite from the command line: what it leaves in tables, records and the page, whatever the batches.

use crate::place::*;

const FLAGS: &str = "--config one.toml --limit 4 --eps 0.02 --sigma 0.25 --draws 3 --attack-through suite --suite-steps 2 --eot 2 \
                     --selection 4 --no-checks";
const NAMES: [&str; 9] =
    ["a1-exact", "a1-start", "a2-prob", "a2-vote", "a3-bpda", "a4-apgd-ce", "a4-apgd-dlr", "a5-square", "a6-fixed"];

#[test]
fn every_attack_and_the_worst_case_are_told_and_batches_change_nothing() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let ran = place.run(&format!("sweep {FLAGS} --out a")).ok();
    for part in
        ["adaptive suite at sigma 0.25", "majority of 3 draws", "at eps 0.02, sigma 0.25", "decide", "a0-transferred"]
    {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    let (results, records) = (place.results("a"), place.records("a"));
    // Clean images under the same scoring stand beside: eps 0 was not asked for.
    for name in NAMES.into_iter().chain(["suite"]) {
        for eps in ["0", "0.02"] {
            let own = |line: &&str| line.split(',').nth(2) == Some(name) && line.split(',').nth(4) == Some(eps);
            assert_eq!(results.lines().filter(own).count(), 1, "{name} at {eps}\n{results}");
        }
    }
    let of = |attack: &str, eps: &str| -> Vec<String> {
        let own = |line: &&String| {
            line.contains(&format!("\"attack\":\"{attack}\"")) && line.contains(&format!("\"eps\":{eps},"))
        };
        let tail = |line: &String| line.split("\"image\"").nth(1).unwrap_or_default().to_owned();
        records.iter().filter(own).map(tail).collect()
    };
    // Nothing is attacked without a budget: all are scored alike, under the draws of the transferred attack.
    assert!(NAMES.iter().all(|name| of(name, "0.0") == of("suite", "0.0")), "{records:?}");
    assert_eq!(of("suite", "0.0").len(), 4);
    assert!(of("suite", "0.02") != of("suite", "0.0"));
    // Of each image the worst case is the point of one of the attacks, scored under the same draws.
    let worst = of("suite", "0.02");
    for (i, line) in worst.iter().enumerate() {
        let among = NAMES[..8].iter().any(|name| of(name, "0.02").get(i) == Some(line));
        assert!(among, "{line} is of no attack");
    }
    place.run(&format!("sweep {FLAGS} --batch 3 --out b")).ok();
    assert_eq!((place.results("b"), place.records("b")), (results, records));
    let page = place.read("a/report.html");
    assert!(page.contains("id=\"suite\"") && page.contains("the exact gradient is no weaker than BPDA"));
}

#[test]
fn settings_of_attacks_that_are_not_run_are_refused() {
    let place = Place::new();
    for (flags, parts) in [
        ("--suite-steps 9", ["--suite-steps", "--attack-through suite"]),
        ("--selection 9", ["--selection", "defense or suite"]),
        ("--antithetic", ["--antithetic", "defense or suite"]),
        ("--straight --attack-through suite", ["--straight", "attack = true"]),
        ("--straight --attack-through defense --estimator bpda", ["--straight", "no gradient through the clip"]),
        ("--antithetic --attack-through defense --eot 3", ["--antithetic", "even eot, found 3"]),
        ("--aa-compat", ["--aa-compat", "defense or suite"]),
        ("--aa-compat --attack-through suite --eot 1", ["--aa-compat", "an eot above 1"]),
        ("--aa-compat --attack-through defense", ["--aa-compat", "apgd-t and autoattack-rand, found pgd"]),
        (
            "--aa-compat --attack-through defense --method apgd-ce --estimator eot_logit",
            ["--aa-compat", "found eot_logit"],
        ),
        ("--attack-through suite --targeted next", ["--attack-through", "leave out attack.targeted"]),
        ("--attack-through defense --estimator vote_margin --loss dlr", ["--estimator", "leave out attack.loss"]),
        ("--attack-through suite --suite-steps 20000", ["--suite-steps", "1 to 13107, found 20000"]),
    ] {
        place.run(&format!("sweep {flags} --limit 2 --out run")).refused(2, &parts);
    }
}

/// Results name an attack by whose books it kept.
#[test]
fn books_by_the_last_draw_stand_under_their_own_name() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let flags = FLAGS.replace("--limit 4", "--limit 2");
    let plan = place.run(&format!("sweep {flags} --aa-compat --dry-run")).ok();
    assert!(plan.stdout.contains("draws a step, books of the last draw alone (aa_compat)"), "{}", plan.stdout);
    place.run(&format!("sweep {flags} --aa-compat --out suite")).ok();
    let results = place.results("suite");
    for name in ["a4-apgd-ce-aa_compat", "a4-apgd-dlr-aa_compat", "a1-exact", "a5-square"] {
        assert!(results.contains(&format!(",{name},")), "{name}: {results}");
    }
    assert!(place.read("suite/report.html").contains("APGD keeps books by the last, as AutoAttack"));
    let flags = "--config one.toml --limit 2 --eps 0.02 --sigma 0.25 --method apgd-ce --steps 3 --eot 3 --no-checks";
    place.run(&format!("sweep {flags} --attack-through defense --aa-compat --out through")).ok();
    assert!(place.results("through").contains(",apgd-ce-eot_grad-aa_compat,"));
}

#[test]
fn attacks_stand_beside_each_other() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let flags = "--config one.toml --no-defense --limit 4 --eps 0.02 --no-checks --save npz --beside autoattack,fgsm";
    let ran = place.run(&format!("sweep {flags} --out a")).ok();
    for part in [
        "undefended at eps 0.02: pgd leaves",
        "stand against all of them",
        "autoattack, stage by stage",
        "resnet50-w16, undefended, fgsm",
    ] {
        assert!(ran.stdout.contains(part), "{}| {part}", ran.stdout);
    }
    let (results, records) = (place.results("a"), place.records("a"));
    let row = |attack: &str| results.lines().filter(|line| line.split(',').nth(2) == Some(attack)).count();
    assert_eq!(["pgd", "autoattack", "fgsm"].map(row), [1, 1, 1], "{results}");
    let page = place.read("a/report.html");
    assert!(page.contains("id=\"beside\"") && page.contains("id=\"stages\""));
    // Each as it is alone.
    let alone = "--config one.toml --no-defense --limit 4 --eps 0.02 --no-checks --method fgsm";
    place.run(&format!("sweep {alone} --out b")).ok();
    let of_fgsm: Vec<String> = records.into_iter().filter(|line| line.contains("\"attack\":\"fgsm\"")).collect();
    assert_eq!(place.records("b"), of_fgsm);
    let saved = std::fs::read_dir(place.path("a/adversarial")).unwrap().count();
    assert_eq!(saved, 3);
    // Its own config says the same again.
    place.run("sweep --resume --out a").ok();
    for (flags, part) in [
        ("--beside pgd", "pgd is attacked with already"),
        ("--beside fgsm --beside fgsm", "fgsm is attacked with already"),
        ("--beside nothing", "found `nothing`"),
        ("--beside mim --norm l2", "mim works in linf"),
        ("--beside fgsm --targeted next", "leave out targeted"),
    ] {
        place.run(&format!("sweep {flags} --limit 2 --out run")).refused(2, &["--beside", part]);
    }
}

/// The smallest budget of an image breaks it, and the one before it does not.
#[test]
fn smallest_budgets_are_those_of_the_attack_itself() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let sweep = |flags: &str, out: &str| {
        let flags = format!("sweep --config one.toml --no-defense --limit 6 --no-checks --steps 5 {flags} --out {out}");
        let ran = place.run(&flags).ok();
        let records =
            place.records(out).into_iter().map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
        (ran.stdout, records.collect::<Vec<_>>())
    };
    let (told, found) = sweep("--method min-norm --eps 0.02", "a");
    assert!(told.contains("are broken within 0.02; half of the "), "{told}");
    let radius = |record: &serde_json::Value| record["radius"].as_f64().map(|r| (record["image"].clone(), r));
    let (image, radius) = found.iter().find_map(radius).unwrap();
    let parts = radius / 0.02 * 128.0;
    assert!(parts == parts.round() && (1.0..=128.0).contains(&parts), "{radius}");
    let before = 0.02 * (parts - 1.0) / 128.0;
    let (_, checked) = sweep(&format!("--early-stop --eps {before},{radius}"), "b");
    let stands: Vec<bool> =
        checked.iter().filter(|r| r["image"] == image).map(|r| r["correct_any"].as_bool().unwrap()).collect();
    assert_eq!(stands, [true, false], "{image} at {radius}");
    assert!(place.read("a/plots/accuracy.svg").len() > 1000);
    place
        .run("sweep --method min-norm --limit 2 --out run")
        .refused(2, &["attack.eps", "all budgets up to one", "found 5"]);
}

/// An image that a smaller budget broke is not attacked again, and counts.
#[test]
fn budgets_nest() {
    let place = Place::new();
    place.write("one.toml", "[[models]]\nweights = \"demo:resnet50-w16\"\n");
    let sweep = |flags: &str, out: &str| {
        place
            .run(&format!(
                "sweep --config one.toml --no-defense --limit 8 --eps 0.005,0.01,0.02 --no-checks --steps 3 {flags} --out {out}"
            ))
            .ok();
        (place.results(out), place.records(out))
    };
    let (results, records) = sweep("--nest --batch 3", "a");
    assert_eq!(sweep("--nest --batch 64", "b"), (results.clone(), records.clone()));
    let all: Vec<serde_json::Value> = records.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let broken = |eps: f64| all.iter().filter(|r| r["eps"] == eps && r["correct_any"] == false).count();
    let nested = |eps: f64| all.iter().filter(|r| r["eps"] == eps && r["nested"].is_number()).count();
    assert_eq!((nested(0.005), nested(0.01), nested(0.02)), (0, broken(0.005), broken(0.01)));
    assert!(broken(0.005) > 0 && broken(0.005) < broken(0.02), "{results}");
    assert!(results.contains(",pgd-nested,"));
    let (_, plain) = sweep("", "c");
    // The first budget is attacked as ever.
    let first = |lines: &[String]| {
        let own = lines.iter().filter(|line| line.contains("\"eps\":0.005,"));
        own.map(|line| line.replace("pgd-nested", "pgd")).collect::<Vec<_>>()
    };
    assert_eq!(first(&records), first(&plain));
    place.run("sweep --nest --limit 2 --out run").refused(2, &["--nest", "leave out the defence"]);
}
