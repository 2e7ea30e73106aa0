//! What the subcommands share: how they print, and how they read a size and a checkpoint.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::config;
use crate::data::demo;
use crate::models::card::Card;
use crate::models::weights::Weights;
use crate::number::{Number, plausible};
use crate::run::progress::note;
use crate::shown::plain;
use crate::{Error, Result};

/// Height and width from `HEIGHTxWIDTH`.
pub(super) fn sides(flag: &str, text: &str) -> Result<[usize; 2]> {
    let side = |text: &str| text.parse::<usize>().ok().filter(|&side| side > 0);
    let sides = text.split_once('x').and_then(|(h, w)| Some([side(h)?, side(w)?]));
    sides.ok_or_else(|| Error::usage(flag, format!("expected HEIGHTxWIDTH such as 32x32, found `{text}`")))
}

/// A checkpoint of `flag`: a file, or `demo:` and one of `known`.
pub(super) fn open(flag: &str, name: &str, known: &[&str]) -> Result<Weights> {
    if let Some(unknown) = name.strip_prefix("demo:").filter(|name| !known.contains(name)) {
        let known: Vec<String> = known.iter().map(|name| format!("demo:{name}")).collect();
        let problem = format!("expected a file or {}, found `demo:{unknown}`", known.join(", "));
        return Err(Error::usage(flag, problem));
    }
    config::open(name)
}

/// A classifier's checkpoint of `--weights`, and what it says of itself.
pub(super) fn classifier(name: &str) -> Result<(Weights, Card)> {
    let (weights, card, notes) = Card::find(open("--weights", name, &demo::MODELS)?)?;
    let doubts = card.doubts.iter().map(|doubt| format!("warning: metadata {doubt}"));
    notes.into_iter().chain(card.assumption()).chain(doubts).for_each(|text| note(format!("{name}: {text}")));
    Ok((weights, card))
}

/// Prints to standard output, which may be a file on a full disk.
pub(super) fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    // A file gets what was asked for, a terminal what cannot steer it.
    let text = if out.is_terminal() { plain(text) } else { text.into() };
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|e| Error::io(Path::new("standard output"), "write", e))
}

/// A setting of a layer below, by the flag that decides it here.
pub(super) fn renamed(error: Error, field: &str, flag: &str) -> Error {
    match error {
        Error::Usage { field: found, problem } if found == field => Error::usage(flag, problem),
        other => other,
    }
}

/// Whether an output is no folder and takes the place of none of these files.
///
/// # Errors
/// [`Error::Usage`] of the flag that names it.
pub(super) fn keeps(output: &Path, flag: &str, mut inputs: impl Iterator<Item = PathBuf>) -> Result<()> {
    if output.is_dir() {
        return Err(Error::usage(flag, format!("expected a file, found the folder {}", output.display())));
    }
    let Ok(place) = output.canonicalize() else { return Ok(()) };
    match inputs.find(|input| input.canonicalize().is_ok_and(|input| input == place)) {
        None => Ok(()),
        Some(input) => Err(Error::usage(
            flag,
            format!("{} would be replaced, which is read: choose another file", input.display()),
        )),
    }
}

/// The values of a list, unless something else was probably meant.
pub(super) fn values(list: &[Number], flag: &str, most: f64, as_written: bool) -> Result<Vec<f64>> {
    match plausible(list, most) {
        Err(problem) if !as_written => {
            Err(Error::usage(flag, format!("{problem}; --as-written takes numbers as they stand")))
        }
        _ => {
            let values: Vec<f64> = list.iter().map(|n| n.value).collect();
            let again = (1..values.len()).find(|&i| values[..i].contains(&values[i]));
            match again {
                Some(i) => Err(Error::usage(flag, format!("{} is listed twice", values[i]))),
                None => Ok(values),
            }
        }
    }
}
