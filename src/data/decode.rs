//! Image files as 8-bit RGB, with the conventions of Pillow's `convert("RGB")`.
//!
//! Grey is repeated in three channels, palettes are looked up, alpha is dropped, orientation tags are ignored; CMYK is taken to be
//! stored inverted, as Adobe does. Of 16 bits, colour keeps the upper eight and grey is clipped at 255, odd as that is. Of several
//! frames or pages the first is taken; pixels that are no integers are refused.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};

use super::resize::Rgb8;
use crate::error::{Error, Result};

/// Extensions of the formats that are understood, in lower case.
pub const EXTENSIONS: [&str; 12] =
    ["png", "jpg", "jpeg", "bmp", "pbm", "pgm", "ppm", "pnm", "webp", "tif", "tiff", "gif"];

/// Whether a file's name says that it is an image.
pub fn is_image(file: &Path) -> bool {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// The pixels of a file; its content decides the format.
///
/// # Errors
/// [`Error::File`] for another extension, a damaged or a truncated file; [`Error::Io`] when it cannot be read.
pub fn decode(file: &Path) -> Result<Rgb8> {
    if !is_image(file) {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        return Err(Error::file(file, format!("expected an image ({}), found `.{extension}`", EXTENSIONS.join(", "))));
    }
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, "open", e))?;
    let unreadable = |problem: String| Error::file(file, format!("not a readable image: {problem}"));
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| Error::io(file, "read", e))?;
    // The decoder fills what is missing of a JPEG with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_is_whole(&bytes) {
        return Err(unreadable("the JPEG data is truncated".into()));
    }
    let image = reader.decode().map_err(|e| unreadable(e.to_string()))?;
    if matches!(image, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)) {
        return Err(unreadable("expected pixels of 8 or 16 bits, found floating-point values".into()));
    }
    let (height, width) = (image.height() as usize, image.width() as usize);
    Ok(Rgb8 { height, width, pixels: to_rgb(image) })
}

fn to_rgb(image: DynamicImage) -> Vec<u8> {
    let upper = |values: &[u16], channels: usize| {
        values.chunks_exact(channels).flat_map(|pixel| [0, 1, 2].map(|c| (pixel[c] >> 8) as u8)).collect()
    };
    match image {
        DynamicImage::ImageLuma16(grey) => grey.into_raw().into_iter().flat_map(|v| [v.min(255) as u8; 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => {
            grey.into_raw().chunks_exact(2).flat_map(|pixel| [(pixel[0] >> 8) as u8; 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => upper(rgb.as_raw(), 3),
        DynamicImage::ImageRgba16(rgba) => upper(rgba.as_raw(), 4),
        other => other.into_rgb8().into_raw(),
    }
}

/// Whether the first scan is followed by an end marker: in coded data 0xff is never followed by 0xd9.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at < bytes.len() {
        at += match &bytes[at..] {
            [0xff, 0xda, scan @ ..] => return scan.windows(2).any(|pair| pair == [0xff, 0xd9]),
            [0xff, 0x01 | 0xd0..=0xd8, ..] => 2,
            // Markers may be padded, and decoders put up with bytes between segments.
            [0xff, 0xff, ..] => 1,
            [0xff, _, high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 1,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    fn decoded(name: &str, save: impl FnOnce(&Path)) -> Result<Rgb8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        save(&path);
        decode(&path)
    }

    #[test]
    fn sixteen_bits_become_eight_as_in_pillow() {
        let grey = decoded("a.png", |p| ImageBuffer::from_pixel(1, 1, Luma([300u16])).save(p).unwrap());
        assert_eq!(grey.unwrap().pixels, [255; 3]);
        let grey = decoded("a.png", |p| ImageBuffer::from_pixel(1, 1, Luma([77u16])).save(p).unwrap());
        assert_eq!(grey.unwrap().pixels, [77; 3]);
        let grey = decoded("a.png", |p| ImageBuffer::from_pixel(1, 1, LumaA([0x12ffu16, 9])).save(p).unwrap());
        assert_eq!(grey.unwrap().pixels, [0x12; 3]);
        let rgb = [0x12ffu16, 0xfe00, 0x00ff];
        let colour = decoded("a.png", |p| ImageBuffer::from_pixel(1, 1, Rgb(rgb)).save(p).unwrap());
        assert_eq!(colour.unwrap().pixels, [0x12, 0xfe, 0]);
        let rgba = Rgba([rgb[0], rgb[1], rgb[2], 0]);
        let colour = decoded("a.png", |p| ImageBuffer::from_pixel(1, 1, rgba).save(p).unwrap());
        assert_eq!(colour.unwrap().pixels, [0x12, 0xfe, 0]);
    }

    #[test]
    fn the_content_decides_and_not_the_name() {
        let found = decoded("a.JPEG", |p| {
            let image = ImageBuffer::from_pixel(2, 1, Rgb([1u8, 2, 3]));
            image.save_with_format(p, ImageFormat::Png).unwrap();
        });
        assert_eq!(found.unwrap(), Rgb8 { height: 1, width: 2, pixels: vec![1, 2, 3, 1, 2, 3] });
        let text = decoded("a.txt", |p| std::fs::write(p, "").unwrap()).unwrap_err().to_string();
        assert!(text.contains("expected an image"), "{text}");
    }

    #[test]
    fn lossless_formats_give_the_same_pixels() {
        let image = ImageBuffer::from_fn(5, 3, |x, y| Rgb([(x * 50) as u8, (y * 90) as u8, 7u8]));
        let want = decoded("a.png", |p| image.save(p).unwrap()).unwrap();
        for (name, format) in
            [("a.webp", ImageFormat::WebP), ("a.tif", ImageFormat::Tiff), ("a.TIFF", ImageFormat::Tiff)]
        {
            let found = decoded(name, |p| image.save_with_format(p, format).unwrap()).unwrap();
            assert_eq!(found, want, "{name}");
        }
        // A palette of a few colours loses nothing.
        let found =
            decoded("a.gif", |p| DynamicImage::from(image).save_with_format(p, ImageFormat::Gif).unwrap()).unwrap();
        assert_eq!(found, want);
        let float = ImageBuffer::from_pixel(2, 2, Rgb([0.5f32, 0.5, 0.5]));
        let refused = decoded("a.tif", |p| float.save(p).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("floating-point"), "{refused}");
    }

    #[test]
    fn every_truncation_of_a_jpeg_is_seen() {
        let mut bytes = Vec::new();
        let image = ImageBuffer::from_fn(40, 24, |x, y| Rgb([(x * 6) as u8, (y * 9) as u8, (x * y) as u8]));
        JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
        let whole = decoded("a.jpg", |p| std::fs::write(p, &bytes).unwrap()).unwrap();
        assert_eq!((whole.height, whole.width, whole.pixels.len()), (24, 40, 24 * 40 * 3));
        for len in 0..bytes.len() {
            let cut = decoded("a.jpg", |p| std::fs::write(p, &bytes[..len]).unwrap()).map(|_| ());
            let error = cut.expect_err(&format!("{len} of {} bytes", bytes.len())).to_string();
            assert!(error.contains("a.jpg: not a readable image"), "{error}");
        }
    }
}
