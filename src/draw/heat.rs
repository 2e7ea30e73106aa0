//! Numbers as colours, for pictures of maps: viridis, which colour-blind readers and grey printers can read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::picture;
use crate::data::grey::coloured;
use crate::error::Result;

/// The colour of a share of the scale, 0 to 1; what lies outside gets the colour of the nearer end, and NaN that of the lower.
///
/// Source: van der Walt & Smith 2015.
pub fn colour(share: f32) -> [u8; 3] {
    let share = if share.is_nan() { 0.0 } else { f64::from(share.clamp(0.0, 1.0)) };
    colorous::VIRIDIS.eval_continuous(share).as_array()
}

/// The scale as a style sheet writes it, from left to right.
pub fn css_gradient() -> String {
    let stops: Vec<String> = (0..=16).map(|i| format!("#{:x}", colorous::VIRIDIS.eval_rational(i, 17))).collect();
    format!("linear-gradient(to right, {})", stops.join(", "))
}

/// Values as RGB bytes on the scale from `lo` to `hi`.
pub fn colours(values: &[f32], (lo, hi): (f32, f32)) -> Vec<u8> {
    let range = if hi > lo { hi - lo } else { 1.0 };
    values.iter().flat_map(|v| colour((v - lo) / range)).collect()
}

/// A map `(h, w)` over an image `(H, W, 3)` in [0, 1]: each point of the image in grey below the colour of its place.
pub fn overlay(
    image: &[f32],
    [height, width]: [usize; 2],
    map: &[f32],
    [h, w]: [usize; 2],
    scale: (f32, f32),
) -> Vec<u8> {
    let heat = colours(map, scale);
    let mut bytes = Vec::with_capacity(image.len());
    for (p, pixel) in image.chunks_exact(3).enumerate() {
        let (y, x) = (p / width * h / height, p % width * w / width);
        let grey = 255.0 * (0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]);
        bytes.extend(
            (0..3).map(|k| (0.45 * grey + 0.55 * f32::from(heat[3 * (y * w + x) + k])).clamp(0.0, 255.0) as u8),
        );
    }
    bytes
}

/// RGB bytes as a PNG within the page itself.
///
/// # Errors
/// As [`picture::png`].
pub fn data_uri(pixels: &[u8], size: [usize; 2]) -> Result<String> {
    let png = picture::png(pixels, (size[1] as u32, size[0] as u32))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

/// An image `(H, W, C)` in [0, 1] as `(H, W, 3)` no side of which is longer than `side`: means of squares of pixels.
pub fn thumbnail(image: &[f32], [h, w]: [usize; 2], side: usize) -> (Vec<f32>, [usize; 2]) {
    let image = &*coloured(image, image.len() / (h * w).max(1));
    let factor = h.max(w).div_ceil(side).max(1);
    if factor == 1 {
        return (image.to_vec(), [h, w]);
    }
    let (rows, cols) = (h.div_ceil(factor), w.div_ceil(factor));
    let mut small = Vec::with_capacity(rows * cols * 3);
    for y in 0..rows {
        for x in 0..cols {
            let (y1, x1) = (((y + 1) * factor).min(h), ((x + 1) * factor).min(w));
            let count = ((y1 - y * factor) * (x1 - x * factor)) as f32;
            for k in 0..3 {
                let part = (y * factor..y1).flat_map(|r| (x * factor..x1).map(move |c| image[3 * (r * w + c) + k]));
                small.push(part.sum::<f32>() / count);
            }
        }
    }
    (small, [rows, cols])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_run_from_violet_to_yellow() {
        assert_eq!((colour(0.0), colour(1.0), colour(7.0)), ([68, 1, 84], [253, 231, 37], [253, 231, 37]));
        assert_eq!((colour(0.5), colour(f32::NAN)), ([32, 144, 140], [68, 1, 84]));
        let css = css_gradient();
        assert!(css.starts_with("linear-gradient(to right, #440154, ") && css.ends_with(", #fde725)"), "{css}");
        assert_eq!(colours(&[2.0, 4.0], (2.0, 4.0)), [68, 1, 84, 253, 231, 37]);
        assert_eq!(colours(&[3.0], (3.0, 3.0)), [68, 1, 84]);
    }

    #[test]
    fn an_overlay_repeats_the_map() {
        let bytes = overlay(&[0.0; 4 * 2 * 3], [4, 2], &[0.0, 1.0], [2, 1], (0.0, 1.0));
        let ends = [colour(0.0), colour(1.0)].map(|c| c.map(|v| (0.55 * f32::from(v)) as u8));
        assert_eq!((&bytes[..3], &bytes[21..]), (&ends[0][..], &ends[1][..]));
    }

    #[test]
    fn thumbnails_are_means() {
        let image: Vec<f32> = (0..3 * 2).flat_map(|p| [p as f32; 3]).collect();
        let (small, size) = thumbnail(&image, [3, 2], 2);
        assert_eq!((size, small), ([2, 1], vec![1.5, 1.5, 1.5, 4.5, 4.5, 4.5]));
        assert_eq!(thumbnail(&image, [3, 2], 3).0, image);
    }

    #[test]
    fn pictures_decode_again() {
        let uri = data_uri(&[1, 2, 3, 4, 5, 6], [1, 2]).unwrap();
        let png = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        assert_eq!(image::load_from_memory(&png).unwrap().to_rgb8().into_raw(), [1, 2, 3, 4, 5, 6]);
    }
}
