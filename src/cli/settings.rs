//! The flags that say what is run: those of an experiment's keys, and `--set` for any of them.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args as ClapArgs, Command, FromArgMatches, ValueEnum};

use super::common::values;
use crate::config::keys::{Flag, KEYS, Key, Kind};
use crate::config::{Overrides, Set};
use crate::defense::Estimator;
use crate::device::Devices;
use crate::error::Result;
use crate::number::Number;
use crate::tape::Precision;

/// What an attack goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Through {
    /// noising, denoiser and classifier
    Defense,
    /// the same, by every attack of the adaptive suite
    Suite,
}

#[derive(Debug, ClapArgs)]
pub struct Settings {
    /// Where the kernels run: auto (CUDA where there is a GPU), host, cuda, emulated; cuda:0,cuda:2 or cuda:all share the work among GPUs,
    /// emulated:2 among two emulated ones
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Devices>,

    /// Budgets in pixel units of [0, 1], as in 0,0.01,8/255
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub eps: Option<Vec<Number>>,

    /// Noise of the denoised channel in pixel units of [0, 1], as in 0.25,0.5
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub sigma: Option<Vec<Number>>,

    /// The undefended channel only
    #[arg(long, conflicts_with = "sigma")]
    pub no_defense: bool,

    /// Draws of noise per image and sigma; they vote
    #[arg(long, value_name = "N")]
    pub draws: Option<u32>,

    /// Attack the defended pipeline as well, and report both attacks
    #[arg(long, value_name = "WHAT")]
    pub attack_through: Option<Through>,

    /// Draws of noise per step of the attack through the defence [default: 20]
    #[arg(long, value_name = "K")]
    pub eot: Option<u32>,

    /// How the gradient of the defended pipeline is estimated [default: eot_grad]
    #[arg(long)]
    pub estimator: Option<Estimator>,

    /// Images at most
    #[arg(long, value_name = "IMAGES")]
    pub limit: Option<usize>,

    /// Images per batch: changes speed and memory, never a result
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,

    /// Seed of all random draws
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Number format of weights and activations
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,

    /// Stop attacking an image at its first success; then any successful iterate counts
    #[arg(long)]
    pub early_stop: bool,

    /// Take budgets and noise as they stand, however unusual: grey levels, noise above 1, lists out of order
    #[arg(long)]
    pub as_written: bool,

    /// Any key of a config, as in attack.steps=50; `rampart config --keys` lists them. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    set: Vec<String>,

    #[command(flatten)]
    made: Made<All>,
}

impl Settings {
    /// What is said in place of a config.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] naming the flag.
    pub fn overrides(&self) -> Result<Overrides> {
        let numbers = |list: &Option<Vec<Number>>, flag, most| {
            let list = list.as_ref().map(|list| values(list, flag, most, self.as_written));
            list.transpose()
        };
        let made = self.made.sets();
        let mut set: Vec<Set> = Vec::new();
        for one in made.chain(self.set.iter().map(|text| Set::parse(text))) {
            let one = one?;
            // A repeated flag makes a list longer.
            match set
                .iter_mut()
                .find(|other| other.key == one.key && other.by == one.by && !one.by.starts_with("--set"))
            {
                Some(other) => {
                    if let (Some(list), toml::Value::Array(more)) = (other.value.as_array_mut(), one.value) {
                        list.extend(more);
                    }
                }
                None => set.push(one),
            }
        }
        Ok(Overrides {
            eps: numbers(&self.eps, "--eps", f64::INFINITY)?,
            sigma: numbers(&self.sigma, "--sigma", 1.0)?,
            draws: self.draws,
            attack_through: self.attack_through == Some(Through::Defense),
            suite: self.attack_through == Some(Through::Suite),
            eot: self.eot,
            estimator: self.estimator,
            limit: self.limit,
            batch: self.batch,
            seed: self.seed,
            precision: self.precision,
            device: self.device.as_ref().map(|devices| devices.kind),
            devices: self.device.as_ref().map(|devices| devices.which.clone()),
            early_stop: self.early_stop,
            as_written: self.as_written,
            no_defense: self.no_defense,
            certify: false,
            set,
        })
    }
}

/// The flags that say how networks are read, for a subcommand that attacks nothing.
#[derive(Debug, ClapArgs)]
pub struct OfNetworks {
    #[command(flatten)]
    made: Made<Networks>,
}

impl OfNetworks {
    /// What they set.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] naming the flag.
    pub fn sets(&self) -> Result<Vec<Set>> {
        self.made.sets().collect()
    }
}

/// Which of the table's flags a subcommand has.
trait Scope: Send + Sync + 'static {
    fn has(key: &Key) -> bool;
}

#[derive(Debug)]
enum All {}

impl Scope for All {
    fn has(_: &Key) -> bool {
        true
    }
}

#[derive(Debug)]
enum Networks {}

impl Scope for Networks {
    fn has(key: &Key) -> bool {
        // What a network should reach is said of a run.
        key.split().0 == "models" && key.name != "models.clean_test_accuracy"
    }
}

/// The flags that are made from the table of keys, and their texts: flag, key, text.
#[derive(Debug)]
struct Made<S>(Vec<(&'static str, &'static str, String)>, PhantomData<S>);

impl<S> Made<S> {
    fn sets(&self) -> impl Iterator<Item = Result<Set>> {
        self.0.iter().map(|(flag, key, text)| Set::flag(flag, key, text))
    }
}

fn rows<S: Scope>() -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter().filter(|key| S::has(key)).filter_map(|key| match key.flag {
        Flag::Made(flag) => Some((flag, key)),
        _ => None,
    })
}

impl<S: Scope> ClapArgs for Made<S> {
    fn augment_args(command: Command) -> Command {
        rows::<S>().fold(command, |command, (flag, key)| {
            let heading = match key.split().0 {
                "dataset" => "Images",
                "models" => "Network",
                "attack" => "Attack",
                "defense" => "Defence",
                _ => "Options",
            };
            let choices = match key.kind {
                Kind::Word(_) | Kind::Target => format!(" [{}]", key.kind.described()),
                _ => String::new(),
            };
            let default = key.literal().map_or(String::new(), |text| format!(" [default: {}]", text.replace('"', "")));
            let arg = Arg::new(key.name)
                .long(flag.trim_start_matches('-'))
                .value_name(key.kind.placeholder())
                .help(format!("{}{choices}{default}", key.help))
                .help_heading(heading)
                .allow_hyphen_values(true)
                .action(if matches!(key.kind, Kind::Texts | Kind::Paths) { ArgAction::Append } else { ArgAction::Set });
            command.arg(match key.kind {
                Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Scope> FromArgMatches for Made<S> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let texts = |(flag, key): (&'static str, &'static Key)| {
            let given = matches.get_many::<String>(key.name).into_iter().flatten();
            given.map(move |text| (flag, key.name, text.clone())).collect::<Vec<_>>()
        };
        Ok(Made(rows::<S>().flat_map(texts).collect(), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
