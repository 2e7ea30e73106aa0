//! What figures and strips share: the font, and SVG as PNG and as PDF.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use resvg::tiny_skia::{PixmapMut, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use svg2pdf::{ConversionOptions, PageOptions};

use crate::error::{Error, Result};

/// The families that an SVG asks for. PNG and PDF know the last alone, as the embedded font (Ubuntu Light): they are the same on
/// every machine.
pub(super) const FONT: &str = "Helvetica, Arial, sans-serif";
/// Pixels of a PNG per unit of its SVG, for screens that are as fine.
pub(super) const RATIO: usize = 2;

/// RGB rows as a PNG.
///
/// # Errors
/// [`Error::Failed`] when they cannot be encoded.
pub fn png(pixels: &[u8], (width, height): (u32, u32)) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new(&mut bytes)
        .write_image(pixels, width, height, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Failed(format!("a PNG of {width}x{height} cannot be encoded: {e}")))?;
    Ok(bytes.into_inner())
}

/// An SVG with its text shaped.
///
/// # Errors
/// [`Error::Failed`] when it is none.
pub(super) fn tree(svg: &str) -> Result<Tree> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let known = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        let family = fonts.faces().next().map(|face| face.families[0].0.clone());
        fonts.set_sans_serif_family(family.unwrap_or_default());
        Arc::new(fonts)
    });
    let options = Options { fontdb: Arc::clone(known), ..Options::default() };
    Tree::from_str(svg, &options).map_err(|e| Error::Failed(format!("a picture cannot be drawn: {e}")))
}

/// Draws an SVG over RGB rows that are [`RATIO`] times its size.
///
/// # Errors
/// [`Error::Failed`] when they are of another size.
pub(super) fn paint(tree: &Tree, pixels: &mut [u8], (width, height): (u32, u32)) -> Result<()> {
    let mut rgba: Vec<u8> = pixels.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
    let mut canvas = PixmapMut::from_bytes(&mut rgba, width, height)
        .ok_or_else(|| Error::Failed(format!("a picture of {width}x{height} cannot be drawn")))?;
    let ratio = RATIO as f32;
    resvg::render(tree, Transform::from_scale(ratio, ratio), &mut canvas);
    // Nothing shines through what was opaque, so that colours are not premultiplied.
    pixels.chunks_exact_mut(3).zip(rgba.chunks_exact(4)).for_each(|(to, from)| to.copy_from_slice(&from[..3]));
    Ok(())
}

/// An SVG as PNG on white, [`RATIO`] times its size.
///
/// # Errors
/// As [`paint`] and [`png`].
pub(super) fn raster(tree: &Tree) -> Result<Vec<u8>> {
    let size = tree.size().to_int_size();
    let size = (size.width() * RATIO as u32, size.height() * RATIO as u32);
    let mut pixels = vec![255; 3 * size.0 as usize * size.1 as usize];
    paint(tree, &mut pixels, size)?;
    png(&pixels, size)
}

/// An SVG as a page of PDF of its size, for papers: text stays text, lines stay lines.
///
/// # Errors
/// [`Error::Failed`] when it cannot be converted.
pub(super) fn pdf(tree: &Tree) -> Result<Vec<u8>> {
    // As wide on paper as on a screen of 96 pixels per inch.
    svg2pdf::to_pdf(tree, ConversionOptions::default(), PageOptions { dpi: 96.0 })
        .map(ordered)
        .map_err(|e| Error::Failed(format!("a PDF cannot be made: {e}")))
}

/// A PDF with the resources of its pages in the order of their names. svg2pdf writes them in that of a hash map, another one in each
/// run; one stands on a line, so that none of the objects moves.
fn ordered(mut pdf: Vec<u8>) -> Vec<u8> {
    const RESOURCES: [&[u8]; 6] =
        [b"/ColorSpace <<\n", b"/ExtGState <<\n", b"/Font <<\n", b"/Pattern <<\n", b"/Shading <<\n", b"/XObject <<\n"];
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    for kind in RESOURCES {
        let mut begin = 0;
        while let Some(at) = find(&pdf[begin..], kind) {
            begin += at + kind.len();
            let end = begin + find(&pdf[begin..], b">>").unwrap_or(0);
            // Behind the last line is what stands before the end.
            let end = begin + pdf[begin..end].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let mut lines: Vec<&[u8]> = pdf[begin..end].split_inclusive(|&b| b == b'\n').collect();
            lines.sort_unstable();
            let sorted = lines.concat();
            pdf[begin..end].copy_from_slice(&sorted);
        }
    }
    pdf
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn resources_of_a_pdf_are_in_the_order_of_their_names() {
        let pdf = |names: &[&str]| {
            let lines: String = names.iter().map(|name| format!("      /{name} 1 0 R\n")).collect();
            format!("<<\n /XObject <<\n{lines}    >>\n /Font <<\n      /fo0 9 0 R\n    >>\n>>\nstream\n/XObject <<")
        };
        let found = ordered(pdf(&["xo2", "xo0", "xo1"]).into_bytes());
        assert_eq!(String::from_utf8(found).unwrap(), pdf(&["xo0", "xo1", "xo2"]));
    }
}
