//! Defaults, overrides and refusals of a config.

use std::fs;

use super::*;
use crate::attack::{Loss, Norm, Profile, StepSize, Target};
use crate::data::demo;
use crate::defense::Estimator;

fn load(text: &str) -> Result<Config> {
    load_with(text, &Overrides::default())
}

fn load_with(text: &str, overrides: &Overrides) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("starts.safetensors"), "").unwrap();
    let path = dir.path().join("try.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), overrides)
}

#[test]
fn without_a_config_it_is_the_demo() {
    let config = Config::load(None, &Overrides::default()).unwrap();
    assert_eq!((config.name.as_str(), config.limit, config.score), ("demo", 256, Score::Last));
    assert_eq!(config.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), demo::MODELS);
    assert!(matches!(config.models[1].weights(), Weights::Embedded(_)));
    assert_eq!(config.attack.label(), "pgd");
    assert_eq!((config.attack.eps.len(), config.attack.step_size(0.04)), (6, 0.25 * 0.04));
    assert_eq!(config.dataset.load(config.limit).unwrap().len(), 256);
    assert_eq!(load("").unwrap(), Config { name: "try".into(), ..config });
}

#[test]
fn everything_can_be_said() {
    let config = load(
        r#"
        name = "all"
        seed = 5
        as_written = true
        limit = 10
        batch = 2
        precision = "bf16"
        device = "host"
        score = "any"
        [[models]]
        name = "a"
        weights = "demo:resnet50-w16"
        [[models]]
        name = "b"
        weights = "demo:resnet50-w16"
        [attack]
        profile = "art"
        method = "pgd"
        norm = "l2"
        eps = ["1/2", 2, 0.25]
        steps = 7
        step_size = "1/255"
        restarts = 3
        random_start = true
        loss = "dlr"
        targeted = "least-likely"
        early_stop = true
        [defense]
        sigma = []
        "#,
    )
    .unwrap();
    let attack = &config.attack;
    assert_eq!((attack.eps.as_slice(), attack.step_size(9.0)), (&[0.25, 0.5, 2.0][..], 1.0 / 255.0));
    assert_eq!((attack.profile, attack.norm, attack.loss), (Profile::Art, Norm::L2, Loss::Dlr));
    assert_eq!((attack.targeted, attack.label().as_str()), (Target::LeastLikely, "art-pgd-dlr-targeted"));
}

#[test]
fn profiles_bring_their_defaults() {
    let attack = |text: &str| load(&format!("[attack]\n{text}")).unwrap().attack;
    let torch = attack("profile = \"torchattacks\"");
    assert_eq!((torch.steps, torch.step, torch.random_start), (10, StepSize::Absolute(2.0 / 255.0), true));
    let foolbox = attack("profile = \"foolbox\"\nnorm = \"l2\"");
    assert_eq!((foolbox.steps, foolbox.step_size(2.0), foolbox.random_start), (50, 0.05, true));
    let art = attack("profile = \"art\"");
    assert_eq!((art.steps, art.step, art.random_start), (100, StepSize::Absolute(0.1), false));
    let clever = attack("profile = \"cleverhans\"\nsteps = 4\nstep_size = 0.01\neps = [0.01]");
    assert_eq!((clever.steps, clever.step), (4, StepSize::Absolute(0.01)));
    let fgsm = attack("method = \"fgsm\"");
    assert_eq!((fgsm.method, fgsm.steps, fgsm.step_size(0.03), fgsm.random_start), ("fgsm", 1, 0.03, false));
    let mim = attack("method = \"mim\"");
    assert_eq!((mim.decay, mim.random_start), (1.0, false));
    assert!(!attack("starts = \"starts.safetensors\"").random_start);
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        eps: Some(vec![0.5]),
        limit: Some(3),
        batch: Some(4),
        seed: Some(9),
        precision: Some(Precision::Tf32),
        device: Some(DeviceChoice::Emulated),
        early_stop: true,
        sigma: Some(vec![]),
        ..Default::default()
    };
    let config = load_with("seed = 1\nlimit = 1\n[attack]\neps = [0.1]", &overrides).unwrap();
    assert_eq!((config.seed, config.limit, config.batch, config.score), (9, 3, 4, Score::Any));
    assert_eq!((config.precision, config.device), (Precision::Tf32, DeviceChoice::Emulated));
    assert_eq!((config.attack.eps, config.attack.early_stop), (vec![0.5], true));
}

#[test]
fn bad_configs_name_file_field_found_and_expected() {
    for (text, field, problem) in [
        ("speed = 1", "try.toml", "unknown field `speed`"),
        ("[attack]\nstepz = 1", "try.toml", "unknown field `stepz`"),
        ("[attack]\nnorm = \"l1\"", "try.toml", "unknown variant `l1`, expected `linf` or `l2`"),
        ("seed = -1", "try.toml", "-1"),
        ("limit = 0", "try.toml: limit", "found 0"),
        ("batch = 0", "try.toml: batch", "found 0"),
        ("name = \"a/b\"", "try.toml: name", "a/b"),
        ("[attack]\neps = []", "try.toml: attack.eps", "found none"),
        ("[attack]\neps = [0.1, -0.1]", "try.toml: attack.eps", "at least 0, found -0.1"),
        ("[attack]\neps = [nan]", "try.toml: attack.eps", "found NaN"),
        ("[attack]\neps = [8]", "try.toml: attack.eps", "write 8/255"),
        ("[attack]\neps = [\"1/0\"]", "try.toml: attack.eps", "found inf"),
        ("[attack]\neps = [\"x\"]", "try.toml", "fraction like 8/255, found `x`"),
        ("[attack]\neps = [0.1, 0.1]", "try.toml: attack.eps", "0.1 is listed twice"),
        ("[attack]\nsteps = 0", "try.toml: attack.steps", "found 0"),
        ("[attack]\nstep_size = 0", "try.toml: attack.step_size", "above 0, found 0"),
        ("[attack]\nstep_size = 1\nrel_step = 1", "try.toml: attack.rel_step", "found both"),
        ("[attack]\nrestarts = 0", "try.toml: attack.restarts", "found 0"),
        ("[attack]\nrestarts = 2\nrandom_start = false", "try.toml: attack.restarts", "random_start"),
        ("[attack]\nprofile = \"cleverhans\"", "try.toml: attack.steps", "no default for pgd"),
        ("[attack]\nmethod = \"mim\"\nnorm = \"l2\"", "try.toml: attack.norm", "found l2"),
        ("[attack]\nmethod = \"fgsm\"\nsteps = 3", "try.toml: attack.steps", "takes one step of size eps"),
        ("[attack]\nspace = \"normalised\"\nnorm = \"l2\"", "try.toml: attack.space", "found pgd in l2"),
        ("[attack]\nhand_over = \"8-bit\"\ntargeted = \"random\"", "try.toml: attack.hand_over", "leave out targeted"),
        ("[attack]\nspace = \"normalised\"\n[defense]\nattack = true", "try.toml: defense.attack", "attack.space"),
        ("[defense]\nsize = [0, 32]", "try.toml: defense.size", "found [0, 32]"),
        ("[defense]\nfilter = \"bicubic\"", "try.toml: defense.filter", "expected a size"),
        ("[defense]\nsize = [32, 32]\nfilter = \"opencv\"", "try.toml: defense.filter", "found opencv"),
        ("[dataset]\nseed = 1", "try.toml: dataset.seed", "found select = \"first\""),
        (
            "[dataset]\nkind = \"cifar10\"\npath = \".\"\nfilter = \"bicubic\"",
            "try.toml: dataset.filter",
            "nothing is resized",
        ),
        ("[dataset]\nclasses = \"x\"", "try.toml: dataset.classes", "found kind demo"),
        ("[dataset]\nkind = \"imagenet\"", "try.toml: dataset.path", "expected the folder of images"),
        (
            "[dataset]\nkind = \"imagenet\"\npath = \".\"\nfit = \"crop\"\nshorter = 100",
            "try.toml: dataset.shorter",
            "[224, 224], found 100",
        ),
        (
            "[dataset]\nkind = \"imagenet\"\npath = \".\"\nshorter = 400",
            "try.toml: dataset.shorter",
            "found fit = \"squash\"",
        ),
        ("[attack]\ndecay = 1", "try.toml: attack.decay", "pgd has none"),
        ("[attack]\nstarts = \"none\"", "try.toml: attack.starts", "No such file"),
        (
            "[attack]\nstarts = \"starts.safetensors\"\nrandom_start = true",
            "try.toml: attack.random_start",
            "expected false",
        ),
        ("score = \"last\"\n[attack]\nearly_stop = true", "try.toml: score", "score = \"any\""),
        ("[defense]\nsigma = [-0.25]", "try.toml: defense.sigma", "at least 0, found -0.25"),
        ("[defense]\nsigma = [0.5, 0.5]", "try.toml: defense.sigma", "0.5 is listed twice"),
        ("[defense]\nweights = \"demo:vgg\"", "try.toml: defense.weights", "expected one of unet-small"),
        ("[defense]\ndraws = 0", "try.toml: defense.draws", "found 0"),
        ("[defense]\neot = 5", "try.toml: defense.eot", "attack = true"),
        ("[defense]\nattack = true\neot = 0", "try.toml: defense.eot", "found 0"),
        ("[defense]\nattack = true\n[attack]\nearly_stop = true", "try.toml: defense.attack", "early stop"),
        ("[defense]\nattack = true\n[attack]\nmethod = \"autoattack\"", "try.toml: defense.attack", "autoattack-rand"),
        ("[defense]\nattack = true\n[attack]\nmethod = \"square\"", "try.toml: defense.attack", "found square"),
        (
            "[defense]\nattack = true\nestimator = \"eot_prob\"\n[attack]\nloss = \"dlr\"",
            "try.toml: defense.estimator",
            "cross-entropy",
        ),
        (
            "[dataset]\nkind = \"folder\"\npath = \".\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n[defense]\nsigma = [0.25]",
            "try.toml: defense.sigma",
            "needs a denoiser",
        ),
        ("[[models]]\nweights = \"demo:vgg\"", "try.toml: models.weights", "found `vgg`"),
        ("[[models]]\nweights = \"none.safetensors\"", "try.toml: models.weights", "No such file"),
        ("[[models]]\nweights = \"\"", "try.toml: models.weights", "found an empty one"),
        ("score = \"last\"\n[attack]\nnest = true\n[defense]\nsigma = []", "try.toml: score", "nest counts any"),
        ("[dataset]\nkind = \"folder\"\npath = \"\"", "try.toml: dataset.path", "found an empty one"),
        ("[[models]]\nname = \"a\"", "try.toml", "missing field `weights`"),
        ("[dataset]\nkind = \"cifar10\"", "try.toml: dataset.path", "expected a .bin file"),
        (
            "[dataset]\nkind = \"mnist\"",
            "try.toml: dataset.kind",
            "expected one of demo, fashion-mnist, cifar10, cifar100, svhn, tiny-imagenet, folder, imagenet",
        ),
        ("[dataset]\nkind = \"fashion-mnist\"\nimages = \"x\"", "try.toml: dataset", "images and labels"),
        ("[dataset]\npath = \"x\"", "try.toml: dataset.path", "found kind demo"),
        ("[dataset]\nkind = \"folder\"\npath = \"none\"", "try.toml: dataset.path", "No such file"),
        ("[dataset]\nkind = \"folder\"\npath = \".\"", "try.toml: models", "found none"),
        ("[dataset]\nsize = [1, 1]", "try.toml: dataset.size", "found kind demo"),
        (
            "[[models]]\nweights = \"demo:resnet50-w16\"\n[[models]]\nweights = \"demo:resnet50-w16\"",
            "try.toml: models.name",
            "found `resnet50-w16` again",
        ),
        ("[[models]]\nname = \"../x\"\nweights = \"demo:resnet50-w16\"", "try.toml: models.name", "found `/`"),
    ] {
        let error = load(text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        let message = error.to_string();
        assert!(message.contains(field) && message.contains(problem), "{message}\n| {field} | {problem}");
    }
}

#[test]
fn settings_without_effect_are_refused() {
    let none = "[dataset]\nkind = \"folder\"\npath = \".\"\n[[models]]\nweights = \"demo:resnet50-w16\"\n";
    for (text, field, needs) in [
        (format!("{none}[defense]\nweights = \"demo:unet-small\""), "defense.weights", "defense.sigma"),
        (format!("{none}[defense]\ndraws = 3"), "defense.draws", "defense.sigma"),
        (format!("{none}[defense]\nattack = true"), "defense.attack", "defense.sigma"),
        (format!("{none}[defense]\nsize = [8, 8]"), "defense.size", "defense.sigma"),
        ("[defense]\nsigma = []\nvote = \"majority\"".into(), "defense.vote", "defense.sigma"),
        ("[defense]\nvote = \"mean-logits\"".into(), "defense.vote", "draws above 1"),
    ] {
        let message = load(&text).unwrap_err().to_string();
        assert!(message.contains(&format!("try.toml: {field}: ")) && message.contains(needs), "{message}");
    }
    let base = Overrides::default;
    for (overrides, flag) in [
        (Overrides { no_defense: true, draws: Some(2), ..base() }, "--draws"),
        (Overrides { no_defense: true, attack_through: true, ..base() }, "--attack-through"),
        (Overrides { sigma: Some(vec![]), eot: Some(2), ..base() }, "--eot"),
    ] {
        let message = Config::load(None, &overrides).unwrap_err().to_string();
        assert!(message.starts_with(flag), "{message}");
    }
    let defended = Overrides { no_defense: true, ..base() };
    assert_eq!(load_with("[defense]\nsigma = [0.25]\ndraws = 3", &defended).unwrap().defense, DefenseConfig::default());
}

#[test]
fn numbers_that_cannot_be_meant_are_asked_about() {
    for (text, field, hint) in [
        ("[attack]\neps = [0, 8]", "attack.eps", "8/255"),
        ("[attack]\neps = [0.1, 0.05]", "attack.eps", "write 0.05,0.1"),
        ("[attack]\nnorm = \"l2\"\neps = [0, 3]", "attack.eps", "else 3.0"),
        ("[attack]\nstep_size = 2", "attack.step_size", "2/255"),
        ("[attack]\nrel_step = 25", "attack.rel_step", "write 0.25 if percent"),
        ("[defense]\nsigma = [64]", "defense.sigma", "64/255"),
        ("[defense]\nsigma = [0.25, 1.5]", "defense.sigma", "beyond 1"),
    ] {
        let message = load(text).unwrap_err().to_string();
        assert!(message.contains(field) && message.contains(hint) && message.contains("as_written"), "{message}");
    }
    load("as_written = true\n[defense]\nsigma = [0.25, 1.5]\n[attack]\nnorm = \"l2\"\neps = [3, 0]\nrel_step = 25")
        .unwrap();
    load("[attack]\nnorm = \"l2\"\nstep_size = 2.0").unwrap();
}

/// What is accepted, resolved, written and read again is the same.
#[test]
fn a_resolved_config_reads_back_the_same() {
    use std::fmt::Write as _;
    const ATTACK: [&[&str]; 15] = [
        &["profile = \"torchattacks\"", "profile = \"foolbox\"", "profile = \"cleverhans\"", "profile = \"art\""],
        &[
            "method = \"fgsm\"",
            "method = \"mim\"",
            "method = \"random\"",
            "method = \"pgd\"",
            "method = \"apgd-ce\"",
            "method = \"apgd-t\"",
            "method = \"fab-t\"",
            "method = \"square\"",
            "method = \"autoattack\"",
            "method = \"autoattack-plus\"",
            "method = \"fab\"",
            "method = \"ddn\"\nnorm = \"l2\"\neps = [0.5]",
            "method = \"fmn\"\neps = [0, 0.02]",
            "method = \"square\"\ncompat = true",
        ],
        &["norm = \"l2\"", "norm = \"linf\""],
        &["eps = [0, 0.01]", "eps = [\"8/255\"]", "eps = [0.0, 0.25, 1.0]", "eps = [0]"],
        &["steps = 1", "steps = 7", "steps = 40"],
        &["step_size = \"1/255\"", "step_size = 0.01"],
        &["rel_step = 0.25", "rel_step = 0.1"],
        &["restarts = 1", "restarts = 3"],
        &["random_start = true", "random_start = false"],
        &["loss = \"dlr\"", "loss = \"margin\""],
        &["targeted = \"random\"", "targeted = 3", "targeted = \"none\""],
        &["decay = 0.5", "decay = 1.0"],
        &["early_stop = true", "early_stop = false"],
        &["stop_cycles = false", "stop_cycles = true"],
        &["space = \"normalised\"", "hand_over = \"8-bit\"", "space = \"pixel\""],
    ];
    const DEFENSE: [&[&str]; 10] = [
        &["sigma = [0.25, 0.5]", "sigma = [0]", "sigma = []"],
        &["draws = 1", "draws = 5"],
        &["vote = \"mean-logits\"", "vote = \"majority\""],
        &["attack = true", "attack = false"],
        &["eot = 4"],
        &["estimator = \"bpda\"", "estimator = \"eot_prob\""],
        &["size = [64, 64]"],
        &["filter = \"bilinear\"", "filter = \"bicubic\""],
        &["rescale_input = false", "rescale_input = true"],
        &["rescale_output = false"],
    ];
    const TOP: [&[&str]; 6] = [
        &["seed = 7"],
        &["limit = 3"],
        &["batch = 2"],
        &["score = \"any\"", "score = \"last\""],
        &["as_written = true"],
        &["precision = \"bf16\""],
    ];
    const DATASET: [&[&str]; 2] = [&["select = \"random\"", "select = \"balanced\""], &["seed = 3"]];
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let (mut accepted, mut methods) = (0, std::collections::BTreeSet::new());
    for _ in 0..8000 {
        let mut text = String::new();
        // Few settings at a time: of many, some always contradict each other.
        let odds = 2 + random(6);
        let mut table = |text: &mut String, keys: &[&[&str]]| {
            for values in keys {
                if random(odds) == 0 {
                    writeln!(text, "{}", values[random(values.len())]).unwrap();
                }
            }
        };
        table(&mut text, &TOP);
        text.push_str("[dataset]\n");
        table(&mut text, &DATASET);
        text.push_str("[attack]\n");
        table(&mut text, &ATTACK);
        text.push_str("[defense]\n");
        table(&mut text, &DEFENSE);
        let Ok(config) = load(&text) else { continue };
        accepted += 1;
        methods.insert(config.attack.method);
        let written = toml::to_string(&config).unwrap();
        let again = load(&written).unwrap_or_else(|e| panic!("{e}\n{text}\n---\n{written}"));
        assert_eq!(again, config, "{text}\n---\n{written}");
    }
    assert!(accepted > 800 && methods.len() == 13, "{accepted} of 8000 accepted: {methods:?}");
}

#[test]
fn bad_flags_are_named() {
    let base = Overrides::default;
    for (overrides, expected) in [
        (Overrides { eps: Some(vec![-0.1]), ..base() }, "--eps: expected a number of at least 0, found -0.1"),
        (Overrides { limit: Some(0), ..base() }, "--limit: "),
        (Overrides { batch: Some(0), ..base() }, "--batch: "),
        (Overrides { seed: Some(u64::MAX), ..base() }, "--seed: expected at most 9223372036854775807"),
        (Overrides { sigma: Some(vec![f64::NAN]), ..base() }, "--sigma: expected a number of at least 0, found NaN"),
        (Overrides { draws: Some(0), ..base() }, "--draws: expected 1 to 65536, found 0"),
        (Overrides { eot: Some(4), ..base() }, "--eot: belongs to an attack through the defence"),
        (Overrides { estimator: Some(Estimator::Bpda), ..base() }, "--estimator: belongs to"),
    ] {
        let error = Config::load(None, &overrides).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = Config::load(Some(Path::new("none.toml")), &base()).unwrap_err();
    assert!(error.to_string().starts_with("none.toml: cannot read") && error.exit_code() == 2);
}

#[test]
fn the_demo_is_denoised() {
    let config = Config::load(None, &Overrides::default()).unwrap();
    let defense = &config.defense;
    assert_eq!((defense.sigma.as_slice(), defense.draws(), defense.attack), (&[0.25, 0.5][..], 1, false));
    assert_eq!(defense.weights.as_deref(), Some("demo:unet-small"));
    let through = Overrides { attack_through: true, sigma: Some(vec![0.5, 0.1]), ..Default::default() };
    let defense = Config::load(None, &through).unwrap().defense;
    assert_eq!(
        (defense.sigma.as_slice(), defense.eot, defense.estimator),
        (&[0.1, 0.5][..], Some(20), Some(Estimator::EotGrad))
    );
    let none = Overrides { sigma: Some(vec![]), ..Default::default() };
    assert_eq!(Config::load(None, &none).unwrap().defense, DefenseConfig::default());
}

#[test]
fn pinned_files_must_not_change() {
    let mut config = Config::load(None, &Overrides::default()).unwrap();
    let dataset = config.dataset.load(5).unwrap();
    config.pin(&dataset).unwrap();
    assert!(config.models.iter().all(|m| m.crc32.as_ref().is_some_and(|crc| crc.len() == 8)));
    config.pin(&dataset).unwrap();
    let error = config.pin(&dataset.take(4).unwrap()).unwrap_err().to_string();
    assert!(error.contains("fashion-mnist: crc32: the config expects"), "{error}");
}

/// The table of keys is that of what is read: serde lists the fields of each table where one is unknown.
#[test]
fn every_field_is_a_key_and_every_key_a_field() {
    for (table, _) in keys::TABLES {
        let text = match table {
            "" => "nothing_of_this_name = 1\n".to_owned(),
            "models" => "[[models]]\nweights = \"demo:resnet50-w16\"\nnothing_of_this_name = 1\n".to_owned(),
            _ => format!("[{table}]\nnothing_of_this_name = 1\n"),
        };
        let error = toml::from_str::<file::File>(&text).map(|_| ()).unwrap_err().message().to_owned();
        let (_, listed) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        let mut fields: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
        // Tables themselves, and what a run writes of itself.
        let written = ["run", "dataset", "models", "attack", "defense", "certify"];
        fields.retain(|field| !table.is_empty() || !written.contains(field));
        let mut named: Vec<&str> =
            keys::KEYS.iter().map(|key| key.split()).filter(|k| k.0 == table).map(|k| k.1).collect();
        fields.sort_unstable();
        named.sort_unstable();
        assert_eq!(fields, named, "[{table}]");
    }
}

#[test]
fn of_a_key_that_is_none_the_nearest_is_named() {
    for (wrong, nearest) in [
        ("attack.step", "attack.steps"),
        ("atack.steps", "attack.steps"),
        ("steps", "attack.steps"),
        ("attack.restart", "attack.restarts"),
        ("dataset.limits", "limit"),
        ("sigma", "defense.sigma"),
        ("attack.sigma", "defense.sigma"),
        ("models.weight", "models.weights"),
        ("attack.norms", "attack.norm"),
    ] {
        let problem = keys::find(wrong).map(|key| key.name).unwrap_err();
        assert!(problem.contains(&format!("the nearest is `{nearest}`")), "{wrong}: {problem}");
    }
    // Where nothing is near, a key of the table that was named.
    let problem = keys::find("attack.nix").map(|key| key.name).unwrap_err();
    assert!(problem.contains("the nearest is `attack."), "{problem}");
}

/// What only says how to certify makes no certificates by itself.
#[test]
fn certificates_are_asked_for() {
    let with = |text: &str, sets: &[&str]| {
        let set = sets.iter().map(|text| Set::parse(text).unwrap()).collect();
        load_with(text, &Overrides { set, ..Overrides::default() })
    };
    for alone in ["certify.n=500", "certify.tsv_rounding=nearest", "certify.alpha=0.01", "certify.skip=2"] {
        let error = with("limit = 2", &[alone]).unwrap_err().to_string();
        assert!(error.contains("nothing asks for them") && error.contains("--procedure certify"), "{alone}: {error}");
        for asked in ["certify.procedure=certify", "certify.radius=[0.25]"] {
            assert!(with("limit = 2", &[alone, asked]).unwrap().certify.is_some(), "{alone} {asked}");
        }
        assert!(with("[certify]", &[alone]).unwrap().certify.is_some(), "{alone}");
        let set = vec![Set::parse(alone).unwrap()];
        let by_command = Overrides { certify: true, set, ..Overrides::default() };
        assert!(load_with("limit = 2", &by_command).unwrap().certify.is_some());
    }
}

#[test]
fn what_would_keep_nothing_is_refused() {
    for (text, good) in [("eps = [0]", false), ("eps = [0, 0.01]", true)] {
        let found = load(&format!("save = \"npz\"\n[defense]\nsigma = []\n[attack]\n{text}"));
        assert_eq!(found.is_ok(), good, "{text}");
        let said = found.map_or_else(|e| e.to_string(), |_| "an epsilon above 0".into());
        assert!(said.contains("an epsilon above 0"), "{said}");
    }
}

/// What `init` writes is the experiment that its flags say, and no other.
#[test]
fn a_starter_config_says_what_was_said() {
    let numbers = |text: &str| Some(text.split(',').map(|n| n.parse().unwrap()).collect::<Vec<f64>>());
    let set = |text: &str| Set::parse(text).unwrap();
    let plain = Overrides { set: vec![set("models.weights=\"demo:resnet50-w16\"")], ..Overrides::default() };
    let with = |lines: &[&str]| {
        let more = lines.iter().map(|text| set(text));
        Overrides { set: plain.set.iter().cloned().chain(more).collect(), ..plain.clone() }
    };
    for overrides in [
        plain.clone(),
        Overrides { seed: Some(9), batch: Some(7), precision: Some(Precision::Bf16), ..plain.clone() },
        Overrides { eps: numbers("0.01,0.5"), device: Some(DeviceChoice::Host), as_written: true, ..plain.clone() },
        Overrides { early_stop: true, no_defense: true, ..plain.clone() },
        Overrides { attack_through: true, eot: Some(3), draws: Some(5), ..plain.clone() },
        Overrides { suite: true, ..plain.clone() },
        with(&["attack.restarts=3", "attack.step_size=\"1/255\"", "attack.loss=\"margin\"", "name=\"mine\""]),
        with(&["attack.profile=\"torchattacks\"", "attack.random_start=false", "attack.hand_over=\"8-bit\""]),
        with(&["attack.targeted=3", "attack.rel_step=0.1", "attack.stop_cycles=false", "save=\"npz\""]),
        with(&["attack.beside=[\"square\", \"apgd-ce\"]", "checks_budget=5.0", "score=\"any\""]),
        with(&["defense.seeds=2", "defense.draws=3", "defense.vote=\"mean-logits\"", "defense.sigma=[0.5]"]),
        with(&["certify.n=500", "certify.alpha=0.01", "certify.radius=[0.25]"]),
        with(&["attack.nest=true", "score=\"any\"", "defense.sigma=[]"]),
    ] {
        let config = Config::load(None, &overrides).unwrap_or_else(|e| panic!("{overrides:?}: {e}"));
        let text = starter::commented(&config, &overrides, &["head".into()]).unwrap();
        let again = load(&text).unwrap_or_else(|e| panic!("{e}:\n{text}"));
        let toml = |config: &Config| toml::to_string(config).unwrap();
        let name = |text: String, name: &str| text.replace(&format!("name = \"{name}\"\n"), "");
        // Without a name it is that of the file.
        let (want, found) = (name(toml(&config), &config.name), name(toml(&again), &again.name));
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn what_a_run_finds_out_is_no_setting_and_a_checksum_is_one_wherever_it_stands() {
    for (text, part) in [
        ("dataset.left_out=7", "leave it out"),
        ("certify.values=3", "leave it out"),
        ("dataset.class_order=[\"0\", \"1\", \"1\"]", "found \"1\" twice"),
    ] {
        let problem = Set::parse(text).map(|set| set.key).unwrap_err().to_string();
        assert!(problem.contains(part), "{text}: {problem}");
    }
    let set = ["dataset.crc32=\"deadbeef\"", "dataset.kind=\"demo\""].map(|text| Set::parse(text).unwrap());
    let config = Config::load(None, &Overrides { set: set.to_vec(), ..Overrides::default() }).unwrap();
    assert_eq!(config.dataset.crc32.as_deref(), Some("deadbeef"));
}
