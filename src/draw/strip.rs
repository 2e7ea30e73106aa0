//! Images side by side: clean, attacked, denoised, each with the predicted label and its confidence, as a PNG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::picture::{self, RATIO};
use crate::data::resize::{Filter, Rgb8, resize};
use crate::data::to_bytes;
use crate::error::{Error, Result};

/// The side of a picture at least, after enlarging by a whole number; like all lengths here in units of [`RATIO`] pixels.
const SIDE: usize = 96;
/// Larger pictures are shrunk to this.
const LARGEST: usize = 224;
const GAP: usize = 10;
const LINE: usize = 20;
const NAMES: usize = 150;
const INK: RGBColor = RGBColor(34, 34, 34);
const WRONG: RGBColor = RGBColor(190, 40, 20);

/// One picture and what the classifier says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// `(H, W, 3)` in [0, 1]
    pub pixels: Vec<f32>,
    pub label: String,
    /// 0 to 1
    pub confidence: f32,
    pub correct: bool,
}

/// A row of pictures under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub tiles: Vec<Tile>,
}

/// All rows below each other; pictures are `height` x `width`. Small images are enlarged by repeating pixels, large ones resized.
///
/// # Errors
/// [`Error::Shape`] for a tile of another size, [`Error::Failed`] when the strip cannot be drawn.
pub fn png(title: &str, rows: &[Row], [height, width]: [usize; 2]) -> Result<Vec<u8>> {
    for tile in rows.iter().flat_map(|row| &row.tiles) {
        if tile.pixels.len() != height * width * 3 {
            return Err(Error::shape("strip", "pixels of a tile", height * width * 3, tile.pixels.len()));
        }
    }
    // The longer side decides, so that the aspect ratio stays.
    let longest = height.max(width);
    let largest = LARGEST * RATIO;
    let (from, shrinks) = ((height, width), longest > largest);
    let side = |side: usize| if shrinks { (side * largest / longest).max(1) } else { side };
    let (height, width) = (side(height), side(width));
    let scale = (SIDE * RATIO).div_ceil(width.max(1)).max(1);
    let columns = rows.iter().map(|row| row.tiles.len()).max().unwrap_or(0);
    let (picture_w, picture_h) = ((width * scale).div_ceil(RATIO), (height * scale).div_ceil(RATIO));
    let (cell_w, cell_h) = (picture_w + GAP, picture_h + 2 * LINE + GAP);
    let size = (NAMES + columns * cell_w + GAP, 2 * LINE + GAP + rows.len() * cell_h);
    let mut pixels = vec![255u8; 3 * size.0 * size.1 * RATIO * RATIO];
    for (r, row) in rows.iter().enumerate() {
        for (c, tile) in row.tiles.iter().enumerate() {
            let mut bytes = to_bytes(&tile.pixels);
            if shrinks {
                let image = Rgb8 { height: from.0, width: from.1, pixels: bytes };
                bytes = resize(&image, height, width, Filter::Bicubic).pixels;
            }
            let (left, top) = (RATIO * (NAMES + c * cell_w), RATIO * (2 * LINE + GAP + r * cell_h));
            for y in 0..height * scale {
                for x in 0..width * scale {
                    let from = 3 * (y / scale * width + x / scale);
                    let to = 3 * ((top + y) * size.0 * RATIO + left + x);
                    pixels[to..to + 3].copy_from_slice(&bytes[from..from + 3]);
                }
            }
        }
    }
    let size = (size.0 as u32, size.1 as u32);
    let mut svg = String::new();
    write(SVGBackend::with_string(&mut svg, size), title, rows, (cell_w, cell_h, picture_h))
        .map_err(|e| Error::Failed(format!("a strip cannot be drawn: {e}")))?;
    let size = (size.0 * RATIO as u32, size.1 * RATIO as u32);
    picture::paint(&picture::tree(&svg)?, &mut pixels, size)?;
    picture::png(&pixels, size)
}

/// The words of a strip.
fn write(
    canvas: SVGBackend,
    title: &str,
    rows: &[Row],
    (cell_w, cell_h, picture_h): (usize, usize, usize),
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = canvas.into_drawing_area();
    let style = |size: i32, colour: RGBColor, h: HPos| {
        (picture::FONT, size).into_font().color(&colour).pos(Pos::new(h, VPos::Top))
    };
    root.draw_text(title, &style(20, INK, HPos::Left), (GAP as i32, 8))?;
    for (r, row) in rows.iter().enumerate() {
        let top = 2 * LINE + GAP + r * cell_h;
        root.draw_text(&row.name, &style(17, INK, HPos::Left), (GAP as i32, (top + picture_h / 2 - 8) as i32))?;
        for (c, tile) in row.tiles.iter().enumerate() {
            let x = (NAMES + c * cell_w) as i32;
            let colour = if tile.correct { INK } else { WRONG };
            let y = (top + picture_h) as i32;
            root.draw_text(&shortened(&tile.label, cell_w - GAP), &style(15, colour, HPos::Left), (x, y + 3))?;
            let confidence = format!("{:.0} %", 100.0 * tile.confidence);
            root.draw_text(&confidence, &style(15, colour, HPos::Left), (x, y + LINE as i32))?;
        }
    }
    root.present()?;
    Ok(())
}

/// A name of at most about `width` pixels.
fn shortened(name: &str, width: usize) -> String {
    /// A letter of the font at the size of labels, on average.
    const LETTER: usize = 7;
    let most = width / LETTER;
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_shrunk_and_long_names_cut() {
        let tile = Tile { pixels: vec![0.5; 896 * 600 * 3], label: "x".into(), confidence: 1.0, correct: true };
        let rows = [Row { name: "clean".into(), tiles: vec![tile] }];
        let decoded = image::load_from_memory(&png("t", &rows, [896, 600]).unwrap()).unwrap().to_rgb8();
        assert_eq!(decoded.width() as usize, RATIO * (NAMES + 150 + 2 * GAP));
        assert_eq!(
            decoded.get_pixel((RATIO * NAMES) as u32 + 299, (RATIO * (2 * LINE + GAP)) as u32 + 447).0,
            [128; 3]
        );
        assert_eq!(shortened("tench", 96), "tench");
        assert_eq!(shortened("standard schnauzer", 96), "standard sch…");
    }

    fn tile(value: f32) -> Tile {
        Tile { pixels: vec![value; 2 * 3 * 3], label: "Bag".into(), confidence: 0.5, correct: value > 0.5 }
    }

    #[test]
    fn pictures_are_enlarged_pixel_by_pixel() {
        let rows = [
            Row { name: "clean".into(), tiles: vec![tile(1.0), tile(0.0)] },
            Row { name: "attacked".into(), tiles: vec![tile(0.25)] },
        ];
        let decoded = image::load_from_memory(&png("t", &rows, [2, 3]).unwrap()).unwrap().to_rgb8();
        // Two by three pixels, each 64 wide and high.
        let at = |n: usize| (RATIO * n) as u32;
        let (names, cell) = (at(NAMES), 3 * 64 + at(GAP));
        assert_eq!(decoded.width(), names + 2 * cell + at(GAP));
        let top = at(2 * LINE + GAP);
        assert_eq!(decoded.get_pixel(names + cell, top).0, [0; 3]);
        assert_eq!(decoded.get_pixel(names + cell + 191, top + 127).0, [0; 3]);
        assert_eq!(decoded.get_pixel(names + cell + 192, top).0, [255; 3]);
        let second = top + 2 * 64 + at(2 * LINE + GAP);
        assert_eq!(decoded.get_pixel(names, second).0, [64; 3]);
    }

    #[test]
    fn a_tile_of_another_size_is_refused() {
        let rows = [Row { name: "clean".into(), tiles: vec![tile(1.0)] }];
        assert!(matches!(png("t", &rows, [3, 3]), Err(Error::Shape { .. })));
    }
}
