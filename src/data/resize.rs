//! Resizing 8-bit images as Pillow does, byte for byte: horizontally first, then vertically, with an 8-bit image between the two.
//!
//! Weights are those of a filter as wide as an output pixel, renormalised at the borders, in fixed point with 22 fractional
//! bits. So did every Pillow up to 12; Pillow 13 passes over tall images vertically first and differs by up to 20 levels there.
//! Also OpenCV's default, two taps without antialias.

use crate::choice::choice;

choice! {
    /// The filter of an 8-bit resize.
    Filter {
        /// A triangle, antialiased.
        Bilinear = "bilinear",
        /// Keys 1981 with a = -1/2, antialiased.
        Bicubic = "bicubic",
        /// OpenCV's default: two taps at half-pixel centres, no antialias, weights of 11 bits.
        Opencv = "opencv",
    }
}

/// An RGB image, `(H, W, 3)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

/// Fractional bits of a weight: eight are the pixel's, two are room for overshoot.
const BITS: u32 = 32 - 8 - 2;

/// The weights of one output: those of inputs `first..first + weights.len()`.
struct Row {
    first: usize,
    weights: Vec<i32>,
}

fn rows(n_in: usize, n_out: usize, filter: Filter) -> Vec<Row> {
    let scale = n_in as f64 / n_out as f64;
    let wide = scale.max(1.0);
    let support = wide * if filter == Filter::Bilinear { 1.0 } else { 2.0 };
    let row = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = ((centre - support + 0.5) as i64).max(0) as usize;
        let end = ((centre + support + 0.5) as usize).min(n_in);
        let weight = |j: usize| kernel(filter, (j as f64 - centre + 0.5) * (1.0 / wide));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |w: &f64| {
            let w = if total == 0.0 { *w } else { w / total };
            // Halves away from zero.
            (w * f64::from(1 << BITS) + 0.5f64.copysign(w)) as i32
        };
        Row { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..n_out).map(row).collect()
}

fn kernel(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Filter::Bicubic => 0.0,
        Filter::Bilinear | Filter::Opencv => (1.0 - x).max(0.0),
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The image at `height` x `width`. An image of no pixels gives one of zeros.
pub fn resize(image: &Rgb8, height: usize, width: usize, filter: Filter) -> Rgb8 {
    if image.pixels.is_empty() {
        return Rgb8 { height, width, pixels: vec![0; height * width * 3] };
    }
    if filter == Filter::Opencv {
        return opencv(image, height, width);
    }
    let wide = if width == image.width { image.clone() } else { horizontal(image, width, filter) };
    if height == image.height { wide } else { vertical(&wide, height, filter) }
}

fn horizontal(image: &Rgb8, width: usize, filter: Filter) -> Rgb8 {
    let table = rows(image.width, width, filter);
    let mut pixels = Vec::with_capacity(image.height * width * 3);
    for line in image.pixels.chunks_exact(image.width * 3) {
        for Row { first, weights } in &table {
            let mut sums = [1i32 << (BITS - 1); 3];
            for (pixel, &w) in line[first * 3..].chunks_exact(3).zip(weights) {
                (0..3).for_each(|c| sums[c] += i32::from(pixel[c]) * w);
            }
            pixels.extend(sums.map(to_byte));
        }
    }
    Rgb8 { height: image.height, width, pixels }
}

fn vertical(image: &Rgb8, height: usize, filter: Filter) -> Rgb8 {
    let len = image.width * 3;
    let mut pixels = Vec::with_capacity(height * len);
    let mut sums = vec![0i32; len];
    for Row { first, weights } in rows(image.height, height, filter) {
        sums.fill(1 << (BITS - 1));
        for (line, &w) in image.pixels[first * len..].chunks_exact(len).zip(&weights) {
            sums.iter_mut().zip(line).for_each(|(sum, &v)| *sum += i32::from(v) * w);
        }
        pixels.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    Rgb8 { height, width: image.width, pixels }
}

/// Per output: the left (upper) of its two taps, and the weights of both in 2048ths.
fn taps(n_in: usize, n_out: usize) -> Vec<(usize, usize, [i32; 2])> {
    let scale = n_in as f64 / n_out as f64;
    let tap = |i: usize| {
        let at = ((i as f64 + 0.5) * scale - 0.5) as f32;
        let (first, t) = match at.floor() {
            low if low < 0.0 => (0, 0.0),
            low if low as usize >= n_in - 1 => (n_in - 1, 0.0),
            low => (low as usize, at - low),
        };
        let fixed = |w: f32| (w * 2048.0).round_ties_even() as i32;
        (first, (first + 1).min(n_in - 1), [fixed(1.0 - t), fixed(t)])
    };
    (0..n_out).map(tap).collect()
}

fn opencv(image: &Rgb8, height: usize, width: usize) -> Rgb8 {
    let columns = taps(image.width, width);
    let wide = |y: usize| -> Vec<i32> {
        let line = &image.pixels[y * image.width * 3..][..image.width * 3];
        let value = |at: usize, c: usize| i32::from(line[at * 3 + c]);
        columns.iter().flat_map(|&(a, b, [p, q])| (0..3).map(move |c| value(a, c) * p + value(b, c) * q)).collect()
    };
    let lines: Vec<Vec<i32>> = (0..image.height).map(wide).collect();
    let mut pixels = Vec::with_capacity(height * width * 3);
    for (a, b, [p, q]) in taps(image.height, height) {
        // The order of shifts is that of OpenCV's vector code.
        let part = |sum: i32, w: i32| ((sum >> 4) * w) >> 16;
        let both = lines[a].iter().zip(&lines[b]);
        pixels.extend(both.map(|(&s, &t)| ((part(s, p) + part(t, q) + 2) >> 2).clamp(0, 255) as u8));
    }
    Rgb8 { height, width, pixels }
}

/// The side lengths when the shorter side becomes `shorter`; the longer one is truncated, as torchvision does.
pub fn shorter_side(height: usize, width: usize, shorter: usize) -> (usize, usize) {
    let longer = |long: usize, short: usize| shorter * long / short.max(1);
    if height <= width { (shorter, longer(width, height)) } else { (longer(height, width), shorter) }
}

/// The middle `height` x `width` of an image that is at least as large. Odd margins are rounded half to even.
pub fn centre_crop(image: &Rgb8, height: usize, width: usize) -> Rgb8 {
    let offset = |size: usize, wanted: usize| (size.saturating_sub(wanted) as f64 / 2.0).round_ties_even() as usize;
    let (top, left) = (offset(image.height, height), offset(image.width, width));
    let lines = (top..(top + height).min(image.height)).flat_map(|y| {
        let line = &image.pixels[(y * image.width + left) * 3..];
        &line[..width.min(image.width - left) * 3]
    });
    Rgb8 { height: height.min(image.height), width: width.min(image.width), pixels: lines.copied().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three equal channels of a grey image.
    fn grey(height: usize, width: usize, value: impl Fn(usize, usize) -> usize) -> Rgb8 {
        let at = |i: usize| value(i / width, i % width) as u8;
        Rgb8 { height, width, pixels: (0..height * width).flat_map(|i| [at(i); 3]).collect() }
    }

    fn red(image: &Rgb8) -> Vec<u8> {
        image.pixels.iter().step_by(3).copied().collect()
    }

    /// Known results for `(29 i^2 + 47 j + 13 i j) mod 256`, 5 rows of 7, under Pillow 11.
    #[test]
    fn bytes_are_those_of_pillow() {
        let image = grey(5, 7, |i, j| (29 * i * i + 47 * j + 13 * i * j) % 256);
        let cases: [(Filter, usize, usize, &[u8]); 4] = [
            (Filter::Bicubic, 3, 4, &[33, 127, 146, 113, 106, 91, 114, 113, 98, 138, 131, 95]),
            (Filter::Bilinear, 3, 4, &[40, 122, 139, 114, 103, 94, 118, 112, 100, 138, 126, 96]),
            (
                Filter::Bicubic,
                6,
                9,
                &[
                    0, 28, 66, 102, 138, 183, 239, 174, 12, 14, 49, 106, 164, 203, 67, 64, 108, 117, 88, 144, 113, 62,
                    139, 97, 133, 141, 82, 64, 137, 127, 51, 29, 114, 202, 160, 12, 41, 57, 131, 168, 56, 75, 153, 132,
                    5, 223, 95, 75, 178, 255, 117, 151, 149, 28,
                ],
            ),
            (
                Filter::Bilinear,
                6,
                9,
                &[
                    0, 31, 68, 104, 141, 178, 214, 165, 26, 22, 60, 104, 148, 192, 87, 88, 111, 106, 80, 125, 111, 80,
                    133, 103, 132, 134, 80, 70, 122, 117, 71, 49, 110, 171, 146, 28, 56, 72, 121, 147, 68, 87, 143,
                    126, 15, 208, 103, 95, 172, 249, 127, 147, 139, 34,
                ],
            ),
        ];
        for (filter, height, width, want) in cases {
            assert_eq!(red(&resize(&image, height, width, filter)), want, "{filter} {height}x{width}");
        }
    }

    #[test]
    fn a_pass_is_left_out_where_the_size_stays() {
        let image = grey(4, 6, |i, j| (i * 31 + j * 57) % 256);
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Opencv] {
            assert_eq!(resize(&image, 4, 6, filter), image, "{filter}");
        }
        let one = grey(1, 1, |_, _| 77);
        assert!(resize(&one, 3, 5, Filter::Bicubic).pixels.iter().all(|&v| v == 77));
        assert!(resize(&one, 3, 5, Filter::Opencv).pixels.iter().all(|&v| v == 77));
    }

    #[test]
    fn sides_are_rounded_as_torchvision_does() {
        assert_eq!(shorter_side(375, 500, 256), (256, 341));
        assert_eq!(shorter_side(500, 375, 256), (341, 256));
        assert_eq!(shorter_side(256, 256, 256), (256, 256));
        // The margins of 341, 257 and 259 less 224.
        for (size, offset) in [(341, 58), (257, 16), (259, 18), (224, 0)] {
            let line = grey(1, size, |_, j| j % 256);
            assert_eq!(usize::from(red(&centre_crop(&line, 1, 224))[0]), offset, "{size}");
        }
        let image = grey(5, 4, |i, j| 10 * i + j);
        assert_eq!(red(&centre_crop(&image, 3, 2)), [11, 12, 21, 22, 31, 32]);
    }
}
