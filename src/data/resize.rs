//! Resizing 8-bit images as Pillow does, byte for byte: horizontally first, then vertically, with an 8-bit image between the two.
//!
//! Weights are those of a filter as wide as an output pixel, renormalised at the borders, in fixed point with 22 fractional
//! bits. So did every Pillow up to 12; Pillow 13 passes over tall images vertically first and differs by up to 20 levels there.
//! Also OpenCV's default, two taps without antialias.

use std::collections::VecDeque;
use std::ops::Range;

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

/// The weights of some of `n_out` outputs, one after the other.
fn rows(n_in: usize, n_out: usize, outputs: Range<usize>, filter: Filter) -> impl Iterator<Item = Row> {
    let scale = n_in as f64 / n_out as f64;
    let wide = scale.max(1.0);
    let support = wide * if filter == Filter::Bilinear { 1.0 } else { 2.0 };
    outputs.map(move |i| {
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
    })
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

/// Bytes between the two passes up to which they are kept; beyond, lines are summed as they come.
const BETWEEN: usize = 64 << 20;

/// A part of a resized image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// The image at `height` x `width`. An image of no pixels gives one of zeros.
pub fn resize(image: &Rgb8, height: usize, width: usize, filter: Filter) -> Rgb8 {
    part(image, [height, width], &Part { rows: 0..height, columns: 0..width }, filter)
}

/// Rows and columns of the image at `height` x `width`, the same bytes as if all of it were made; nothing else is.
pub fn part(image: &Rgb8, [height, width]: [usize; 2], part: &Part, filter: Filter) -> Rgb8 {
    let (h, w) = (part.rows.len(), part.columns.len());
    if image.pixels.is_empty() {
        return Rgb8 { height: h, width: w, pixels: vec![0; h * w * 3] };
    }
    if filter == Filter::Opencv {
        return opencv(image, [height, width], part);
    }
    let same = height == image.height;
    // The lines that the second pass reads: its first and last output say which.
    let ends = |i: usize| rows(image.height, height, i..i + 1, filter).next();
    let lines = match (same, part.rows.end.checked_sub(1)) {
        (_, None) => 0..0,
        (true, Some(_)) => part.rows.clone(),
        (false, Some(last)) => {
            let (first, last) = (ends(part.rows.start), ends(last));
            first.map_or(0, |row| row.first)..last.map_or(0, |row| row.first + row.weights.len())
        }
    };
    let table: Option<Vec<Row>> =
        (width != image.width).then(|| rows(image.width, width, part.columns.clone(), filter).collect());
    let columns = |lines: Range<usize>| match &table {
        None => cut(image, lines, part.columns.clone()),
        Some(table) => horizontal(image, lines, table),
    };
    if same {
        return Rgb8 { height: h, width: w, pixels: columns(lines) };
    }
    let outputs = rows(image.height, height, part.rows.clone(), filter);
    let pixels = match lines.len().saturating_mul(3 * w) <= BETWEEN {
        true => vertical(&columns(lines.clone()), lines.start, w, outputs),
        false => summed(lines, w, outputs, |y| columns(y..y + 1)),
    };
    Rgb8 { height: h, width: w, pixels }
}

/// Lines and columns of an image as they are.
fn cut(image: &Rgb8, lines: Range<usize>, columns: Range<usize>) -> Vec<u8> {
    let line = |y: usize| &image.pixels[(y * image.width + columns.start) * 3..][..columns.len() * 3];
    lines.flat_map(line).copied().collect()
}

/// Columns of the lines at another width: an output of each line for every row of the table.
fn horizontal(image: &Rgb8, lines: Range<usize>, table: &[Row]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(lines.len() * table.len() * 3);
    for line in image.pixels.chunks_exact(image.width * 3).skip(lines.start).take(lines.len()) {
        for Row { first, weights } in table {
            let mut sums = [1i32 << (BITS - 1); 3];
            for (pixel, &w) in line[first * 3..].chunks_exact(3).zip(weights) {
                (0..3).for_each(|c| sums[c] += i32::from(pixel[c]) * w);
            }
            pixels.extend(sums.map(to_byte));
        }
    }
    pixels
}

/// Outputs of lines from line `top` on that are all there.
fn vertical(lines: &[u8], top: usize, width: usize, outputs: impl Iterator<Item = Row>) -> Vec<u8> {
    let len = width * 3;
    let mut pixels = Vec::new();
    let mut sums = vec![0i32; len];
    for Row { first, weights } in outputs {
        sums.fill(1 << (BITS - 1));
        for (line, &w) in lines[(first - top) * len..].chunks_exact(len.max(1)).zip(&weights) {
            sums.iter_mut().zip(line).for_each(|(sum, &v)| *sum += i32::from(v) * w);
        }
        pixels.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    pixels
}

/// The same of lines that are made one after the other, each once: more of them go into an output than memory is for.
fn summed(
    lines: Range<usize>,
    width: usize,
    mut outputs: impl Iterator<Item = Row>,
    line: impl Fn(usize) -> Vec<u8>,
) -> Vec<u8> {
    let mut pixels = Vec::new();
    let mut next = outputs.next();
    // The outputs that the line at hand goes into, in their order; both ends of an output's lines ascend.
    let mut open: VecDeque<(Row, Vec<i32>)> = VecDeque::new();
    for y in lines {
        while let Some(row) = next.take_if(|row| row.first <= y) {
            open.push_back((row, vec![1 << (BITS - 1); width * 3]));
            next = outputs.next();
        }
        let values = line(y);
        for (row, sums) in &mut open {
            let Some(&w) = row.weights.get(y - row.first) else { continue };
            sums.iter_mut().zip(&values).for_each(|(sum, &v)| *sum += i32::from(v) * w);
        }
        while open.front().is_some_and(|(row, _)| row.first + row.weights.len() <= y + 1) {
            let sums = open.pop_front().map_or_else(Vec::new, |(_, sums)| sums);
            pixels.extend(sums.into_iter().map(to_byte));
        }
    }
    pixels
}

/// Per output: the left (upper) of its two taps, and the weights of both in 2048ths.
fn taps(n_in: usize, n_out: usize, outputs: Range<usize>) -> impl Iterator<Item = (usize, usize, [i32; 2])> {
    let scale = n_in as f64 / n_out as f64;
    let tap = move |i: usize| {
        let at = ((i as f64 + 0.5) * scale - 0.5) as f32;
        let (first, t) = match at.floor() {
            low if low < 0.0 => (0, 0.0),
            low if low as usize >= n_in - 1 => (n_in - 1, 0.0),
            low => (low as usize, at - low),
        };
        let fixed = |w: f32| (w * 2048.0).round_ties_even() as i32;
        (first, (first + 1).min(n_in - 1), [fixed(1.0 - t), fixed(t)])
    };
    outputs.map(tap)
}

fn opencv(image: &Rgb8, [height, width]: [usize; 2], part: &Part) -> Rgb8 {
    let columns: Vec<_> = taps(image.width, width, part.columns.clone()).collect();
    let wide = |y: usize| -> Vec<i32> {
        let line = &image.pixels[y * image.width * 3..][..image.width * 3];
        let value = |at: usize, c: usize| i32::from(line[at * 3 + c]);
        columns.iter().flat_map(|&(a, b, [p, q])| (0..3).map(move |c| value(a, c) * p + value(b, c) * q)).collect()
    };
    let mut pixels = Vec::with_capacity(part.rows.len() * part.columns.len() * 3);
    // Both lines of an output are often those of the one above it.
    let mut known: VecDeque<(usize, Vec<i32>)> = VecDeque::new();
    for (a, b, [p, q]) in taps(image.height, height, part.rows.clone()) {
        known.retain(|&(y, _)| y >= a);
        for y in [a, b] {
            if known.iter().all(|&(other, _)| other != y) {
                known.push_back((y, wide(y)));
            }
        }
        // The order of shifts is that of OpenCV's vector code.
        let part = |sum: i32, w: i32| ((sum >> 4) * w) >> 16;
        let line = |y: usize| known.iter().find(|&&(other, _)| other == y).map_or(&[][..], |(_, line)| line);
        let both = line(a).iter().zip(line(b));
        pixels.extend(both.map(|(&s, &t)| ((part(s, p) + part(t, q) + 2) >> 2).clamp(0, 255) as u8));
    }
    Rgb8 { height: part.rows.len(), width: part.columns.len(), pixels }
}

/// The side lengths when the shorter side becomes `shorter`; the longer one is truncated, as torchvision does.
pub fn shorter_side(height: usize, width: usize, shorter: usize) -> (usize, usize) {
    let longer = |long: usize, short: usize| shorter * long / short.max(1);
    if height <= width { (shorter, longer(width, height)) } else { (longer(height, width), shorter) }
}

/// The middle `height` x `width` of an image of that size, or all of a smaller side. Odd margins are rounded half to even.
pub fn centre([h, w]: [usize; 2], height: usize, width: usize) -> Part {
    let range = |size: usize, wanted: usize| {
        let offset = (size.saturating_sub(wanted) as f64 / 2.0).round_ties_even() as usize;
        offset..(offset + wanted).min(size)
    };
    Part { rows: range(h, height), columns: range(w, width) }
}

/// The middle `height` x `width` of an image that is at least as large.
#[cfg(test)]
pub fn centre_crop(image: &Rgb8, height: usize, width: usize) -> Rgb8 {
    let Part { rows, columns } = centre([image.height, image.width], height, width);
    let (height, width) = (rows.len(), columns.len());
    Rgb8 { height, width, pixels: cut(image, rows, columns) }
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

    /// What is cut out is what the whole has there, by whichever way it is made.
    #[test]
    fn a_part_is_a_part_of_the_whole() {
        let image = Rgb8 { height: 23, width: 31, pixels: (0..23 * 31 * 3).map(|i| (i * i % 251) as u8).collect() };
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Opencv] {
            for [h, w] in [[23, 31], [40, 31], [23, 9], [7, 5], [50, 70], [1, 1], [5, 64]] {
                let whole = resize(&image, h, w, filter);
                for rows in [0..h, 0..1, h / 2..h, h / 3..h / 2, h - 1..h] {
                    for columns in [0..w, 0..1, w / 3..w / 2, w - 1..w] {
                        let wanted = Part { rows: rows.clone(), columns };
                        let found = part(&image, [h, w], &wanted, filter);
                        let want = cut(&whole, wanted.rows.clone(), wanted.columns.clone());
                        assert_eq!(found.pixels, want, "{filter} {h}x{w} {wanted:?}");
                        assert_eq!([found.height, found.width], [wanted.rows.len(), wanted.columns.len()]);
                    }
                }
                if filter != Filter::Opencv && h != 23 {
                    let table: Vec<Row> = rows(31, w, 0..w, filter).collect();
                    let lines = |y: usize| match w {
                        31 => cut(&image, y..y + 1, 0..31),
                        _ => horizontal(&image, y..y + 1, &table),
                    };
                    let found = summed(0..23, w, rows(23, h, 0..h, filter), lines);
                    assert_eq!(found, whole.pixels, "{filter} {h}x{w}, line by line");
                }
            }
        }
    }

    /// Sides of which the whole would take gigabytes.
    #[test]
    fn thin_images_take_no_more_than_they_hold() {
        for (height, width) in [(60_000, 1), (1, 60_000), (3, 65_535), (65_535, 2)] {
            let image = Rgb8 { height, width, pixels: (0..height * width * 3).map(|i| (i % 241) as u8).collect() };
            for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Opencv] {
                let (h, w) = shorter_side(height, width, 256);
                let found = part(&image, [h, w], &centre([h, w], 224, 224), filter);
                assert_eq!((found.height, found.width, found.pixels.len()), (224, 224, 224 * 224 * 3));
            }
        }
        let tall = Rgb8 { height: 65_535, width: 1, pixels: vec![9; 3 * 65_535] };
        assert!(resize(&tall, 4, 384, Filter::Bicubic).pixels.iter().all(|&v| v == 9));
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
