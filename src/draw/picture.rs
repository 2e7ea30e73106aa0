//! What figures and strips share: a font and PNG.

use std::io::Cursor;
use std::sync::OnceLock;

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use plotters::style::{FontStyle, register_font};

use crate::error::{Error, Result};

/// The families that an SVG asks for; in a PNG the embedded font (Ubuntu Light) answers to the same name.
pub(super) const FONT: &str = "Helvetica, Arial, sans-serif";

/// Makes the embedded font known, once.
///
/// # Errors
/// [`Error::Failed`] when it does not parse.
pub(super) fn fonts() -> Result<()> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known =
        *KNOWN.get_or_init(|| register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok());
    if known { Ok(()) } else { Err(Error::Failed("the embedded font does not parse".into())) }
}

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
