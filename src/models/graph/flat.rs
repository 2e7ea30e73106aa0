//! Inputs without the four axes of images: a row of values per image, as fully connected networks take it, and grey images without an
//! axis of channels. Images are reshaped to them.

use std::collections::BTreeMap;

use super::ir::{Attr, Constant, Ir, Node};
use crate::models::metadata::{MOST_CHANNELS, sides};

/// Channels, height and width of the images behind an input of two or three axes.
///
/// # Errors
/// What was expected and found, in words.
pub fn image(dims: &[Option<i64>], metadata: &BTreeMap<String, String>) -> Result<[i64; 3], String> {
    let all: Option<Vec<i64>> = dims[1..].iter().copied().collect();
    let values = match all.as_deref() {
        Some(&[values] | &[values, 1] | &[1, values]) => values,
        Some(&[height, width]) => return Ok([1, height, width]),
        _ => {
            return Err(format!(
                "expected images (N, C, H, W), or (N, values) of a fixed length, found {} axes of which not all are fixed",
                dims.len()
            ));
        }
    };
    let most = MOST_CHANNELS as i64;
    if let Some([height, width]) = metadata.get("input_size").and_then(|said| sides(said)) {
        let pixels = (height as i64).saturating_mul(width as i64);
        return match values / pixels.max(1) {
            channels if channels * pixels == values && (1..=most).contains(&channels) => {
                Ok([channels, height as i64, width as i64])
            }
            _ => {
                Err(format!("metadata `input_size`: {height}x{width} in 1 to {most} channels are not {values} values"))
            }
        };
    }
    let square = |pixels: i64| Some(pixels.isqrt()).filter(|side| side * side == pixels);
    // At most one of these: 3 has no whole root.
    let found =
        [1, 3].into_iter().find_map(|c| (values % c == 0).then(|| square(values / c)).flatten().map(|s| [c, s, s]));
    let way_out = "export it with metadata `input_size`, as in [2, 14, 28]";
    found.ok_or_else(|| format!("its rows of {values} values are no square image in 1 or 3 channels: {way_out}"))
}

/// Lets a graph take images of four axes where it took `dims`, all but the first of them fixed.
pub fn reshaped(ir: &mut Ir, dims: &[Option<i64>]) {
    // 0 stands for as many as there are.
    let to: Vec<i64> = std::iter::once(0).chain(dims[1..].iter().map(|d| d.unwrap_or(1))).collect();
    let (taken, name) = (ir.input, ir.values[ir.input].name.clone());
    let images = ir.add(format!("{name}.images"), None);
    let shape = ir.add_constant(format!("{name}.shape"), Constant::list(&to));
    let node = Node {
        name: format!("{name}.flat"),
        op: "Reshape".into(),
        inputs: vec![Some(images), Some(shape)],
        outputs: vec![taken],
        attrs: BTreeMap::from([("allowzero".into(), Attr::Int(0))]),
    };
    ir.nodes.insert(0, node);
    ir.input = images;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_values_are_images() {
        let of = |dims: &[i64], said: Option<&str>| {
            let dims: Vec<Option<i64>> = dims.iter().map(|&n| Some(n).filter(|&n| n > 0)).collect();
            image(&dims, &said.map(|said| ("input_size".to_owned(), said.to_owned())).into_iter().collect())
        };
        assert_eq!(of(&[0, 784], None), Ok([1, 28, 28]));
        assert_eq!(of(&[1, 784, 1], None), Ok([1, 28, 28]));
        assert_eq!(of(&[1, 1, 3072], None), Ok([3, 32, 32]));
        assert_eq!(of(&[0, 28, 20], None), Ok([1, 28, 20]));
        assert_eq!(of(&[0, 784], Some("[1, 14, 56]")), Ok([1, 14, 56]));
        assert_eq!(of(&[0, 784], Some("14")), Ok([4, 14, 14]));
        assert!(of(&[0, 800], None).unwrap_err().contains("800 values are no square image"));
        assert!(of(&[0, 784], Some("30")).unwrap_err().contains("30x30"));
        assert!(of(&[0, 0], None).unwrap_err().contains("of a fixed length"));
        assert!(of(&[0, 0, 8], None).unwrap_err().contains("3 axes of which not all"));
    }
}
