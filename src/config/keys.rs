//! Every key that a config may have, in one table: the flags of the command line, `rampart config --keys` and docs/config.md are made
//! from it. A test compares it with what is read.

use std::fmt::Write as _;

use clap::ValueEnum;
use toml::Value;

use super::settings::{Procedure, Rounding, Score, SelectBy};
use crate::attack::{ATTACKS, HandOver, Loss, Norm, Profile, Space};
use crate::data::prepare::Fit;
use crate::data::saved::Format;
use crate::data::{SOURCES, resize};
use crate::defense::{Estimator, Vote};
use crate::device::DeviceChoice;
use crate::models::NETWORKS;
use crate::models::graph::{Channels, Layout};
use crate::models::metadata::MOST_CHANNELS;
use crate::tape::Precision;

/// A key, with its table in front of it.
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// As TOML in backticks, or in words.
    pub default: &'static str,
    pub help: &'static str,
    pub flag: Flag,
}

/// What stands for a key on the command line, besides `--set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    None,
    /// A flag that a subcommand has of its own.
    Own(&'static str),
    /// A flag that is made from this table.
    Made(&'static str),
}

impl Flag {
    pub fn name(self) -> Option<&'static str> {
        match self {
            Flag::None => None,
            Flag::Own(flag) | Flag::Made(flag) => Some(flag),
        }
    }
}

/// What a value is.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// A table, or its JSON as text.
    Json,
    /// A file or folder, relative to the config or, from the command line, to where one is.
    Path,
    /// A list of them.
    Paths,
    Word(fn() -> Vec<String>),
    /// A word or the number of a class.
    Target,
    Whole,
    /// A float.
    Share,
    /// A number or a fraction as text: `"8/255"`.
    Number,
    Switch,
    Texts,
    Numbers,
    /// Three floats.
    PerChannel,
    /// Height and width.
    Sides,
}

impl Kind {
    /// In words, for the reference.
    pub fn described(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Json => "table".into(),
            Kind::Path => "path".into(),
            Kind::Paths => "list of paths".into(),
            Kind::Word(words) => words().join(", "),
            Kind::Target => "none, random, least-likely, second-likely, next, or a class".into(),
            Kind::Whole => "integer".into(),
            Kind::Share => "number".into(),
            Kind::Number => "number or \"a/b\"".into(),
            Kind::Switch => "true, false".into(),
            Kind::Texts => "list of texts".into(),
            Kind::Numbers => "list of numbers or \"a/b\"".into(),
            Kind::PerChannel => "a number per channel, as in [r, g, b], or one".into(),
            Kind::Sides => "[height, width]".into(),
        }
    }

    /// As a flag's value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Text => "TEXT",
            Kind::Json => "JSON",
            Kind::Path | Kind::Paths => "PATH",
            Kind::Word(_) => "WORD",
            Kind::Target => "TARGET",
            Kind::Whole => "N",
            Kind::Share | Kind::Number => "NUMBER",
            Kind::Switch => "BOOL",
            Kind::Texts => "TEXT",
            Kind::Numbers => "LIST",
            Kind::PerChannel => "R,G,B",
            Kind::Sides => "HxW",
        }
    }

    /// The value as a flag or a shell spells it: `l2`, `8/255`, `224x224`, `0.5,0.5,0.5`.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let found = |expected: &str| format!("expected {expected}, found `{text}`");
        let whole = |text: &str| text.trim().parse::<i64>().ok().map(Value::Integer);
        let float = |text: &str| text.trim().parse::<f64>().ok().map(Value::Float);
        let list = |items: Option<Vec<Value>>| items.map(Value::Array);
        let parts = || text.split(',').map(str::trim);
        let string = |text: &str| Value::String(text.to_owned());
        match self {
            Kind::Text | Kind::Json | Kind::Path | Kind::Word(_) | Kind::Number => Ok(string(text)),
            Kind::Target => Ok(whole(text).unwrap_or_else(|| string(text))),
            Kind::Whole => whole(text).ok_or_else(|| found("a whole number")),
            Kind::Share => float(text).ok_or_else(|| found("a number")),
            Kind::Switch => text.parse().map(Value::Boolean).map_err(|_| found("true or false")),
            Kind::Paths => Ok(Value::Array(vec![string(text)])),
            Kind::Texts | Kind::Numbers => Ok(Value::Array(parts().map(string).collect())),
            Kind::PerChannel => list(parts().map(float).collect())
                .filter(|v| v.as_array().is_some_and(|v| (1..=MOST_CHANNELS).contains(&v.len())))
                .ok_or_else(|| found("a number per channel, as in 0.5,0.5,0.5, or one for all")),
            Kind::Sides => list(text.split(['x', ',']).map(whole).collect())
                .filter(|v| v.as_array().is_some_and(|v| v.len() == 2))
                .ok_or_else(|| found("HEIGHTxWIDTH, as in 224x224")),
        }
    }

    /// The value behind `--set KEY=`: TOML; or what is none and can be meant, as [`Kind::parse`] reads it.
    ///
    /// # Errors
    /// As [`Kind::parse`].
    pub fn typed(self, text: &str) -> Result<Value, String> {
        let table = format!("value = {text}").parse::<toml::Table>().ok().filter(|table| table.len() == 1);
        let is_text = matches!(self, Kind::Text | Kind::Path | Kind::Word(_));
        match table.and_then(|mut table| table.remove("value")) {
            Some(value) if !is_text || value.is_str() => Ok(value),
            _ => self.parse(text),
        }
    }
}

fn words<T: ValueEnum>() -> Vec<String> {
    let name = |variant: &T| variant.to_possible_value().map(|value| value.get_name().to_owned());
    T::value_variants().iter().filter_map(name).collect()
}

fn methods() -> Vec<String> {
    ATTACKS.iter().map(|row| row.name.to_owned()).collect()
}

fn architectures() -> Vec<String> {
    NETWORKS.iter().map(|row| row.name.to_owned()).collect()
}

fn kinds() -> Vec<String> {
    SOURCES.iter().map(|row| row.name.to_owned()).collect()
}

const fn key(name: &'static str, kind: Kind, default: &'static str, flag: Flag, help: &'static str) -> Key {
    Key { name, kind, default, help, flag }
}

use Flag::{Made, Own};

/// Every key there is, table by table.
pub static KEYS: &[Key] = &[
    key("name", Kind::Text, "the config's file name", Made("--name"), "names the run directory"),
    key("seed", Kind::Whole, "`0`", Own("--seed"), "of all random draws"),
    key("limit", Kind::Whole, "by the kind: 256 for demo, else 1000", Own("--limit"), "images at most"),
    key("batch", Kind::Whole, "`64`", Own("--batch"), "images per batch: changes speed and memory, never a result"),
    key("precision", Kind::Word(words::<Precision>), "`\"f32\"`", Own("--precision"), "of weights and activations"),
    key("device", Kind::Word(words::<DeviceChoice>), "`\"auto\"`", Own("--device"), "where the kernels run"),
    key(
        "score",
        Kind::Word(words::<Score>),
        "\"last\"; \"any\" with early_stop or nest",
        Made("--score"),
        "what is right: the last iterate, or every iterate of every restart",
    ),
    key(
        "as_written",
        Kind::Switch,
        "`false`",
        Own("--as-written"),
        "take budgets and noise as they stand, however unusual: grey levels, noise above 1, lists out of order",
    ),
    key(
        "checks_budget",
        Kind::Share,
        "a tenth of the run's own passes",
        Made("--checks-budget"),
        "seconds that small extra attacks may take to check the attack; what finds no time is named; changes no result",
    ),
    key(
        "save",
        Kind::Word(words::<Format>),
        "none",
        Made("--save"),
        "keep the attacked images of every model and budget as arrays, under adversarial/ of the run",
    ),
    key("dataset.kind", Kind::Word(kinds), "`\"demo\"`", Made("--kind"), "the format of the images; see below"),
    key("dataset.path", Kind::Path, "none", Flag::None, "the folder or file of the images"),
    key(
        "dataset.images",
        Kind::Path,
        "none",
        Made("--images"),
        "the file of images, where labels have a file of their own",
    ),
    key("dataset.labels", Kind::Path, "none", Made("--labels"), "the file of labels"),
    key(
        "dataset.classes",
        Kind::Path,
        "the format's own",
        Made("--classes"),
        "a list of the classes, one per line, in the order of the network's logits",
    ),
    key(
        "dataset.list",
        Kind::Path,
        "none",
        Made("--list"),
        "a list of images, one FILE or CLASS/FILE per line: these alone, in its order",
    ),
    key(
        "dataset.class_order",
        Kind::Texts,
        "as the network says, else sorted",
        Flag::None,
        "the folders of the classes in the order of their numbers, as a run settled it",
    ),
    key(
        "dataset.select",
        Kind::Word(words::<SelectBy>),
        "\"balanced\" where a format lies sorted by class and nothing is listed, else \"first\"",
        Made("--select"),
        "which images a limit keeps",
    ),
    key("dataset.seed", Kind::Whole, "0 with select = \"random\"", Flag::None, "of a random selection"),
    key(
        "dataset.size",
        Kind::Sides,
        "as the network was tested",
        Made("--size"),
        "what images are resized to; of a folder without `fit`, the size that each must have",
    ),
    key(
        "dataset.fit",
        Kind::Word(words::<Fit>),
        "as the network was tested",
        Made("--fit"),
        "squash: both sides are resized; crop: the shorter side is, then the centre is cut out",
    ),
    key(
        "dataset.shorter",
        Kind::Whole,
        "of crop: as the network was tested",
        Made("--shorter"),
        "the shorter side before a crop",
    ),
    key(
        "dataset.filter",
        Kind::Word(words::<resize::Filter>),
        "as the network was tested",
        Made("--filter"),
        "of the resize, in 8 bits as Pillow does it; opencv: as OpenCV",
    ),
    key(
        "dataset.crc32",
        Kind::Text,
        "none",
        Flag::None,
        "checksum of the selected images, written by a run; a run refuses others",
    ),
    key("dataset.left_out", Kind::Whole, "none", Flag::None, "files that a run left out, written by it"),
    key(
        "models.name",
        Kind::Text,
        "the file's name",
        Flag::None,
        "what the network is called in tables, figures and files",
    ),
    key(
        "models.weights",
        Kind::Path,
        "of kind demo: the embedded ones",
        Flag::None,
        "safetensors, or what torch.save wrote (.pt, .pth)",
    ),
    key(
        "models.crc32",
        Kind::Text,
        "none",
        Flag::None,
        "checksum of the file, written by a run; a run refuses another",
    ),
    key(
        "models.strip",
        Kind::Text,
        "found where it can be",
        Made("--strip"),
        "what stands before the tensors' names in the file",
    ),
    key(
        "models.rename",
        Kind::Texts,
        "`[]`",
        Made("--rename"),
        "parts of the tensors' names that are read otherwise, as in linear.=fc.",
    ),
    key(
        "models.arch",
        Kind::Word(architectures),
        "the checkpoint's, else as its tensors tell",
        Made("--arch"),
        "what the tensors are those of",
    ),
    key(
        "models.config",
        Kind::Json,
        "the checkpoint's, else as its tensors tell",
        Made("--model-config"),
        "of that architecture: a table, or its JSON as text",
    ),
    key("models.mean", Kind::PerChannel, "the checkpoint's", Made("--mean"), "normalisation of pixels in [0, 1]"),
    key("models.std", Kind::PerChannel, "the checkpoint's", Made("--std"), "normalisation of pixels in [0, 1]"),
    key(
        "models.channels",
        Kind::Word(words::<Channels>),
        "the graph's",
        Made("--channels"),
        "channels that an ONNX graph takes, colours in which order",
    ),
    key(
        "models.layout",
        Kind::Word(words::<Layout>),
        "the graph's",
        Made("--layout"),
        "order of the axes that an ONNX graph takes",
    ),
    key(
        "models.input_range",
        Kind::Share,
        "the graph's",
        Made("--input-range"),
        "largest value of a pixel that an ONNX graph takes: 1 or 255",
    ),
    key(
        "models.clean_test_accuracy",
        Kind::Share,
        "the checkpoint's",
        Made("--clean-test-accuracy"),
        "share of test images that it should have right without an attack; check S1 compares",
    ),
    key("attack.method", Kind::Word(methods), "`\"pgd\"`", Made("--method"), "the attack; see below"),
    key(
        "attack.profile",
        Kind::Word(words::<Profile>),
        "`\"native\"`",
        Made("--profile"),
        "whose arithmetic and defaults the attack has",
    ),
    key(
        "attack.norm",
        Kind::Word(words::<Norm>),
        "`\"linf\"`",
        Made("--norm"),
        "how the size of a perturbation is measured",
    ),
    key(
        "attack.eps",
        Kind::Numbers,
        "linf: [0, 0.005, 0.01, 0.02, 0.03, 0.06]; l2: [0, 0.125, 0.25, 0.5, 1.0, 2.0]",
        Own("--eps"),
        "budgets, for pixels in [0, 1]",
    ),
    key("attack.steps", Kind::Whole, "by method and profile; pgd: 10", Made("--steps"), "steps of the attack"),
    key(
        "attack.step_size",
        Kind::Number,
        "by method and profile",
        Made("--step-size"),
        "size of a step, for pixels in [0, 1]",
    ),
    key(
        "attack.rel_step",
        Kind::Number,
        "by method and profile; pgd: 2.5 / steps",
        Made("--rel-step"),
        "size of a step as a share of epsilon",
    ),
    key(
        "attack.restarts",
        Kind::Whole,
        "`1`",
        Made("--restarts"),
        "independent starts; an image counts as right if it withstands all",
    ),
    key(
        "attack.random_start",
        Kind::Switch,
        "by method and profile; pgd: true",
        Made("--random-start"),
        "begin at a random point of the ball",
    ),
    key("attack.loss", Kind::Word(words::<Loss>), "`\"ce\"`", Made("--loss"), "what the attack raises"),
    key("attack.targeted", Kind::Target, "`\"none\"`", Made("--targeted"), "the class an image is driven to"),
    key("attack.decay", Kind::Number, "1 of mim", Made("--decay"), "of the momentum"),
    key(
        "attack.early_stop",
        Kind::Switch,
        "`false`",
        Own("--early-stop"),
        "stop attacking an image at its first success; then any successful iterate counts",
    ),
    key(
        "attack.stop_cycles",
        Kind::Switch,
        "`true`",
        Made("--stop-cycles"),
        "of pgd: end the work on an image whose iterates have come round in a circle; what is found stays the same",
    ),
    key(
        "attack.starts",
        Kind::Path,
        "none",
        Made("--starts"),
        "a safetensors file of start points in place of random ones",
    ),
    key(
        "attack.space",
        Kind::Word(words::<Space>),
        "`\"pixel\"`",
        Made("--space"),
        "what is moved and clipped: pixels, or the normalised tensor",
    ),
    key(
        "attack.hand_over",
        Kind::Word(words::<HandOver>),
        "`\"float\"`",
        Made("--hand-over"),
        "how attacked images are scored and denoised: as floats, or rounded to 8 bits, which leaves a budget that is no multiple of 1/255",
    ),
    key(
        "attack.nest",
        Kind::Switch,
        "`false`",
        Made("--nest"),
        "an image broken within one budget counts as broken within every larger one and is not attacked there; without a defence",
    ),
    key(
        "attack.compat",
        Kind::Switch,
        "`false`",
        Made("--compat"),
        "of square, also within autoattack: all images share the windows of a step, as published, and do not draw their own",
    ),
    key(
        "attack.beside",
        Kind::Texts,
        "none",
        Made("--beside"),
        "names of further attacks on the undefended classifier with the same norm and budgets, each as it is when nothing more is said",
    ),
    key(
        "defense.weights",
        Kind::Path,
        "of kind demo: the embedded one",
        Made("--denoiser"),
        "a diffusion network, as safetensors or .pt; none: noise alone, which the classifier then gets as it is",
    ),
    key(
        "defense.crc32",
        Kind::Text,
        "none",
        Flag::None,
        "checksum of the file, written by a run; a run refuses another",
    ),
    key(
        "defense.sigma",
        Kind::Numbers,
        "of kind demo: [0.25, 0.5]; else none",
        Own("--sigma"),
        "noise of the denoised channel, for pixels in [0, 1]; without it there is no such channel",
    ),
    key("defense.draws", Kind::Whole, "1", Own("--draws"), "draws of noise per image and sigma; they vote"),
    key(
        "defense.seeds",
        Kind::Whole,
        "3",
        Made("--noise-seeds"),
        "seeds of the noise that images are scored under; of several, mean and range stand beside the first",
    ),
    key(
        "defense.vote",
        Kind::Word(words::<Vote>),
        "\"majority\" of several draws",
        Made("--vote"),
        "how draws become one prediction",
    ),
    key("defense.attack", Kind::Switch, "`false`", Own("--attack-through"), "attack the defended pipeline as well"),
    key(
        "defense.suite",
        Kind::Switch,
        "`false`",
        Own("--attack-through"),
        "attack the defended pipeline by every attack of the adaptive suite; eps then begins with 0",
    ),
    key(
        "defense.steps",
        Kind::Whole,
        "200 of the suite",
        Made("--suite-steps"),
        "steps of the suite's PGD, half of them of its APGD and five times as many of its Square; 20 to 100 for images of ImageNet",
    ),
    key(
        "defense.selection",
        Kind::Whole,
        "64 of an attack through the defence",
        Made("--selection"),
        "draws of noise that choose among the points of an attack; the chosen one is scored under others",
    ),
    key(
        "defense.eot",
        Kind::Whole,
        "20 of an attack through the defence",
        Own("--eot"),
        "draws of noise per step of that attack",
    ),
    key(
        "defense.antithetic",
        Kind::Switch,
        "`false`",
        Made("--antithetic"),
        "every second of these draws is the one before with its sign turned",
    ),
    key(
        "defense.aa_compat",
        Kind::Switch,
        "`false`",
        Made("--aa-compat"),
        "APGD through the defence keeps books of its points by the last of these draws alone, as published, not by their mean and vote",
    ),
    key(
        "defense.straight",
        Kind::Switch,
        "`false`",
        Made("--straight"),
        "the clip of the denoiser's estimate passes gradients on as if it were not there",
    ),
    key(
        "defense.estimator",
        Kind::Word(words::<Estimator>),
        "\"eot_grad\" of an attack through the defence",
        Own("--estimator"),
        "how the gradient of the defended pipeline is estimated",
    ),
    key(
        "defense.size",
        Kind::Sides,
        "that of the images",
        Made("--denoiser-size"),
        "what the denoiser works at; resized there and back",
    ),
    key(
        "defense.filter",
        Kind::Word(words::<resize::Filter>),
        "\"bicubic\" with a size",
        Made("--denoiser-filter"),
        "of that resize; opencv is refused, having no gradient",
    ),
    key(
        "defense.rescale_input",
        Kind::Switch,
        "true",
        Flag::None,
        "false: the denoiser gets [0, 1] where it expects [-1, 1]",
    ),
    key(
        "defense.rescale_output",
        Kind::Switch,
        "true",
        Flag::None,
        "false: the classifier gets the denoiser's [-1, 1]",
    ),
    key(
        "certify.procedure",
        Kind::Word(words::<Procedure>),
        "`\"certify\"`",
        Made("--procedure"),
        "certify: a class and its radius; predict: a class alone, as Cohen's predict",
    ),
    key("certify.n0", Kind::Whole, "`100`", Made("--n0"), "draws of noise that choose the class of an image"),
    key(
        "certify.n",
        Kind::Whole,
        "1000 for demo, else 100000",
        Made("--n"),
        "draws that bound its share; with certify.radius at most",
    ),
    key("certify.alpha", Kind::Number, "`0.001`", Made("--alpha"), "chance of a wrong certificate, per image"),
    key(
        "certify.radius",
        Kind::Numbers,
        "none: n draws for every image",
        Made("--radius"),
        "L2 radii for pixels in [0, 1]: drawing ends once each is certified or out of reach, by a bound that holds at every n",
    ),
    key("certify.skip", Kind::Whole, "none", Made("--skip"), "only images whose number is a multiple of it"),
    key("certify.max", Kind::Whole, "none", Made("--max"), "only images of smaller numbers"),
    key(
        "certify.tsv_rounding",
        Kind::Word(words::<Rounding>),
        "`\"down\"`",
        Made("--tsv-rounding"),
        "how radii become the three digits of the published table; nearest: as the published code",
    ),
    key("certify.values", Kind::Whole, "none", Flag::None, "values of an image, written by a run"),
    key(
        "certify.compare",
        Kind::Paths,
        "none",
        Made("--compare"),
        "published tables of others (TSV), whose curves are drawn beside",
    ),
];

/// The tables, and what each is about.
pub const TABLES: [(&str, &str); 6] = [
    ("", "At the top of the file"),
    ("dataset", "the images"),
    ("models", "once per network"),
    ("attack", "the attack"),
    ("defense", "the denoised channel"),
    ("certify", "certificates of randomised smoothing, at the sigmas of `[defense]`; its presence asks for them"),
];

impl Key {
    /// Its table and its name in it.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// The default, if it is a value and not said in words.
    pub fn literal(&self) -> Option<&'static str> {
        self.default.strip_prefix('`')?.strip_suffix('`')
    }
}

/// The key of this name.
///
/// # Errors
/// The nearest one, in words.
pub fn find(name: &str) -> Result<&'static Key, String> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Ok(key);
    }
    // A key of the table that was named, or else one that is called alike; whose name is the longer, more of it may differ.
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let alike = |a: &str, b: &str| (1000.0 * strsim::normalized_levenshtein(a, b)) as i64;
    let table = name.split_once('.').map(|(table, _)| table);
    let distance = |key: &&Key| {
        let near = alike(key.name, name).max(alike(&last(key.name), &last(name)));
        (table.is_some_and(|table| near < 800 && key.split().0 != table), -near, key.name)
    };
    let nearest = KEYS.iter().min_by_key(distance).map_or("", |key| key.name);
    let shown: String = name.chars().take(60).collect();
    Err(format!("no such key: `{shown}`; the nearest is `{nearest}`, `rampart config --keys` lists all"))
}

fn heading(table: &str, about: &str) -> String {
    match table {
        "" => about.to_owned(),
        "models" => format!("`[[models]]`: {about}"),
        _ => format!("`[{table}]`: {about}"),
    }
}

/// The reference, for a terminal.
pub fn listed() -> String {
    let mut out = String::new();
    for (table, about) in TABLES {
        let _ = writeln!(out, "{}\n", heading(table, about).replace('`', ""));
        for key in KEYS.iter().filter(|key| key.split().0 == table) {
            let flag = key.flag.name().map_or(String::new(), |flag| format!(", {flag}"));
            let _ = writeln!(out, "  {}{flag}\n      {}", key.name, key.help);
            let _ = writeln!(out, "      {}; default: {}", key.kind.described(), key.default.replace('`', ""));
        }
        out.push('\n');
    }
    for (title, rows) in kinds_of_kinds() {
        let _ = writeln!(out, "{}\n", title.replace('`', ""));
        rows.iter().for_each(|(name, help)| {
            let _ = writeln!(out, "  {name}\n      {help}");
        });
        out.push('\n');
    }
    out
}

/// Formats and attacks, which have tables of their own.
fn kinds_of_kinds() -> [(&'static str, Vec<(&'static str, String)>); 2] {
    let formats = SOURCES.iter().map(|row| {
        let takes = if row.takes.is_empty() { String::new() } else { format!("; takes {}", row.takes.join(", ")) };
        (row.name, format!("{}{takes}", row.help))
    });
    let attacks = ATTACKS.iter().map(|row| {
        let ignores =
            if row.ignores.is_empty() { String::new() } else { format!("; has no {}", row.ignores.join(", ")) };
        (row.name, format!("{}{ignores}", row.help))
    });
    [("`dataset.kind`", formats.collect()), ("`attack.method`", attacks.collect())]
}

/// docs/config.md.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Keys of a config\n\n\
         Made by `rampart config --keys --markdown` from the table that the program reads flags by; a test compares the two.\n\n\
         Every key has a default, and an unknown one is an error. Paths are relative to the config. On the command line each key is\n\
         reached by its flag, or by `--set KEY=VALUE` with the value as TOML has it (`--set attack.steps=50`; quotes may be left out);\n\
         paths are then relative to where one is. `models.KEY` means every network of the config, `models.0.KEY` the first.\n\
         `rampart config` prints a config with every default filled in, `rampart init WEIGHTS DATA` writes one for a network and\n\
         images of one's own.\n",
    );
    let cell = |text: &str| text.replace('|', "\\|");
    for (table, about) in TABLES {
        let _ = writeln!(out, "\n## {}\n", heading(table, about));
        out.push_str("| key | values | default | flag | |\n|---|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.split().0 == table) {
            let flag = key.flag.name().map_or(String::new(), |flag| format!("`{flag}`"));
            let values = cell(&key.kind.described());
            let _ = writeln!(
                out,
                "| `{}` | {values} | {} | {flag} | {} |",
                key.split().1,
                cell(key.default),
                cell(key.help)
            );
        }
    }
    for (title, rows) in kinds_of_kinds() {
        let _ = writeln!(out, "\n## {title}\n\n| | |\n|---|---|");
        for (name, help) in rows {
            let _ = writeln!(out, "| `{name}` | {} |", cell(&help));
        }
    }
    out
}
