//! Values that a checkpoint's metadata or a config says of images: numbers per channel, sides.

use serde::Deserialize;

/// Means and deviations of pixels in [0, 1] lie below this; those of bytes lie far above.
const UNIT: f64 = 1.5;

/// The most channels that images have.
pub const MOST_CHANNELS: usize = 4;

/// A number per channel, or one for all.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum PerChannel {
    Each(Vec<f64>),
    All(f64),
}

impl From<PerChannel> for Vec<f64> {
    /// One for all stands as that of three channels, and fits any number of them ([`for_channels`]).
    fn from(values: PerChannel) -> Self {
        match values {
            PerChannel::Each(values) if values.len() == 1 => vec![values[0]; 3],
            PerChannel::Each(values) => values,
            PerChannel::All(value) => vec![value; 3],
        }
    }
}

/// A mean or deviation as images of so many channels need it: one number, or three equal ones as checkpoints have them, fit any.
///
/// # Errors
/// What was expected and found, in words.
pub fn for_channels(values: &[f64], channels: usize) -> Result<Vec<f64>, String> {
    match *values {
        _ if values.len() == channels => Ok(values.to_vec()),
        [first] => Ok(vec![first; channels]),
        [first, second, third] if first == second && first == third => Ok(vec![first; channels]),
        _ => {
            let one = if channels == 1 { "one number".into() } else { format!("{channels} numbers, or one for all") };
            Err(format!("expected {one}, as images have channels, found {values:?}"))
        }
    }
}

/// Refuses what cannot be a mean or deviation of pixels in [0, 1].
///
/// # Errors
/// What is wrong with it, in words.
pub fn unit(key: &str, values: &[f64]) -> Result<(), String> {
    if !(1..=MOST_CHANNELS).contains(&values.len()) {
        return Err(format!("`{key}`: expected one number to {MOST_CHANNELS}, found {}", values.len()));
    }
    if values.iter().any(|v| v.abs() > UNIT) {
        let divided: Vec<String> = values.iter().map(|v| format!("{:.4}", v / 255.0)).collect();
        let way_out = format!("divided by 255 these are [{}]", divided.join(", "));
        return Err(format!("`{key}`: expected values of pixels in [0, 1], found {values:?}: {way_out}"));
    }
    let good = values.iter().all(|&v| v.is_finite() && (key != "std" || v > 0.0));
    if good { Ok(()) } else { Err(format!("`{key}`: expected a finite mean and a positive std, found {values:?}")) }
}

/// Python's tuples as JSON has them.
pub fn as_list(text: &str) -> String {
    text.replace('(', "[").replace(",)", "]").replace(')', "]")
}

/// The beginning of a text, for a message.
pub fn short(text: &str) -> String {
    let shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() { format!("{shown}..") } else { shown }
}

/// Height and width of `[3, 224, 224]`, `(224, 224)` or `224`.
pub fn sides(said: &str) -> Option<[usize; 2]> {
    let said = serde_json::from_str::<Vec<usize>>(&as_list(said))
        .or_else(|_| said.parse().map(|side| vec![side, side]))
        .ok()?;
    match said[..] {
        [1..=MOST_CHANNELS, h, w] | [h, w] if h > 0 && w > 0 => Some([h, w]),
        _ => None,
    }
}
