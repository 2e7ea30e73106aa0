//! One channel for networks that take one, and three for people.

use std::borrow::Cow;

use super::unit::{to_bytes, unit};

/// `(.., 3)` values in [0, 1] as `(.., 1)`: what all three channels have; of colours ITU-R 601-2 luma, of bytes rounded as Pillow's mode `L`
/// rounds it.
pub fn luma(rgb: &[f32]) -> Vec<f32> {
    let one = |pixel: &[f32]| {
        let &[r, g, b] = pixel else { return 0.0 };
        // Not a number is none in any channel.
        if r.to_bits() == g.to_bits() && g.to_bits() == b.to_bits() {
            return r;
        }
        let bytes = to_bytes(pixel);
        if bytes.iter().zip(pixel).all(|(&byte, &value)| unit(byte) == value) {
            let [r, g, b] = [bytes[0], bytes[1], bytes[2]].map(u32::from);
            return unit(((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8);
        }
        0.299 * r + 0.587 * g + 0.114 * b
    };
    rgb.chunks_exact(3).map(one).collect()
}

/// Whether images become grey to fit a network, or fit as they are; three channels fit no network of two or four.
///
/// # Errors
/// What was expected and found, in words, and the way out.
pub fn fits(network: usize, images: usize) -> Result<bool, String> {
    let way_out = match (network, images) {
        _ if network == images => return Ok(false),
        (1, 3) => return Ok(true),
        (2 | 4, _) => "arrays (.npz, .npy, .safetensors, .pt) can hold as many",
        _ if images > network => "leave the others out of the arrays",
        _ => "give it arrays or image files of as many",
    };
    Err(format!("the network takes images of {network} channels, found {images}: {way_out}"))
}

/// Values of `channels` channels as three, which pictures have: of two the first as grey, of four the first three.
pub fn coloured(values: &[f32], channels: usize) -> Cow<'_, [f32]> {
    match channels {
        1 | 2 => Cow::Owned(values.iter().step_by(channels).flat_map(|&v| [v; 3]).collect()),
        4 => Cow::Owned(values.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect()),
        _ => Cow::Borrowed(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_is_that_of_pillow() {
        // PIL.Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
        for (colour, grey) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([10, 200, 30], 124),
            ([1, 2, 3], 2),
            ([7, 7, 7], 7),
        ] {
            assert_eq!(luma(&colour.map(unit)), [unit(grey)], "{colour:?}");
        }
        assert!((luma(&[0.1234, 0.5, 0.25])[0] - 0.358_897).abs() < 1e-6);
        assert_eq!(luma(&[0.3; 6]), [0.3; 2]);
    }

    #[test]
    fn other_channels_than_a_network_takes_are_refused() {
        assert_eq!((fits(3, 3), fits(4, 4), fits(1, 3)), (Ok(false), Ok(false), Ok(true)));
        for (network, images) in [(4, 3), (2, 3), (3, 4), (1, 2)] {
            let problem = fits(network, images).unwrap_err();
            assert!(problem.contains(&format!("of {network} channels, found {images}")), "{problem}");
        }
    }

    #[test]
    fn one_channel_is_shown_as_three() {
        assert_eq!(*coloured(&[0.1, 0.2], 1), [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]);
        assert_eq!(*coloured(&[0.1, 0.2, 0.3], 3), [0.1, 0.2, 0.3]);
        assert_eq!(*coloured(&[0.1, 0.9, 0.2, 0.8], 2), [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]);
        assert_eq!(*coloured(&[0.1, 0.2, 0.3, 0.9], 4), [0.1, 0.2, 0.3]);
    }
}
