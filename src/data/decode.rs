//! Image files as 8-bit RGB, with the conventions of Pillow's `convert("RGB")`.
//!
//! Grey is repeated in three channels, palettes are looked up, alpha is dropped, orientation tags are ignored; CMYK is taken to be
//! stored inverted, as Adobe does. Of 16 bits, colour keeps the upper eight and grey is clipped at 255, odd as that is. Of several
//! frames or pages the first is taken; pixels that are no integers are refused.

use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::resize::Rgb8;
use crate::error::{Error, Result};
use crate::files;

/// Extensions of the formats that are understood, in lower case.
pub const EXTENSIONS: [&str; 12] =
    ["png", "jpg", "jpeg", "bmp", "pbm", "pgm", "ppm", "pnm", "webp", "tif", "tiff", "gif"];

/// Whether a file's name says that it is an image.
pub fn is_image(file: &Path) -> bool {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// Bytes that an image may take while it is decoded, its file included: that of Pillow's own limit, 89 million pixels of three bytes.
const MOST: u64 = 256 << 20;
/// The longest side, that of a JPEG.
const SIDE: u32 = 65_535;
/// Images that take more than this are decoded one at a time, whatever the number of threads.
const LARGE: u64 = 16 << 20;

/// The pixels of a file; its content decides the format.
///
/// # Errors
/// [`Error::File`] for another extension, a damaged or a truncated file, and an image larger than the limits, which are looked at
/// before it is decoded; [`Error::Io`] when it cannot be read.
pub fn decode(file: &Path) -> Result<Rgb8> {
    decode_if(file, None)?.map_err(|Other { found: (h, w), .. }| Error::file(file, format!("found {h}x{w} pixels")))
}

/// [`decode`] of an image whose header has the sides wanted, (height, width); of another its pixels are never made.
///
/// # Errors
/// As [`decode`].
pub fn decode_if(file: &Path, wanted: Option<(usize, usize)>) -> Result<Result<Rgb8, Other>> {
    if !is_image(file) {
        files::open(file, "open")?;
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        return Err(Error::file(file, format!("expected an image ({}), found `.{extension}`", EXTENSIONS.join(", "))));
    }
    let bytes = files::read(file, "open", MOST)?;
    decode_bytes_if(file, bytes, wanted)
}

/// The pixels of an image whose bytes lie elsewhere, by a name that says that it is one.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(file: &Path, bytes: Vec<u8>) -> Result<Rgb8> {
    if bytes.len() as u64 > MOST {
        return Err(Error::file(file, format!("expected at most {MOST} bytes, found {}", bytes.len())));
    }
    let found = decode_bytes_if(file, bytes, None)?;
    found.map_err(|Other { found: (h, w), .. }| Error::file(file, format!("found {h}x{w} pixels")))
}

fn decode_bytes_if(file: &Path, bytes: Vec<u8>, wanted: Option<(usize, usize)>) -> Result<Result<Rgb8, Other>> {
    static LARGE_ONES: Mutex<()> = Mutex::new(());
    let bytes = without_profile(bytes);
    let size = Size::of(file, &bytes)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != size.sides()) {
        return Ok(Err(Other { wanted, found: size.sides() }));
    }
    let _alone = (size.bytes > LARGE).then(|| LARGE_ONES.lock().unwrap_or_else(PoisonError::into_inner));
    pixels(file, bytes, size).map(Ok)
}

/// An image of other sides than wanted, (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    pub wanted: (usize, usize),
    pub found: (usize, usize),
}

/// The sides of an image, (height, width), as its header has them.
///
/// # Errors
/// As [`decode`].
pub fn sides(file: &Path) -> Result<(usize, usize)> {
    let bytes = without_profile(files::read(file, "open", MOST)?);
    Ok(Size::of(file, &bytes)?.sides())
}

/// A PNG without its colour profiles, at which nothing here looks and which may inflate to more than the image. Other files as they are.
fn without_profile(mut bytes: Vec<u8>) -> Vec<u8> {
    const BEGIN: &[u8] = b"\x89PNG\r\n\x1a\n";
    if !bytes.starts_with(BEGIN) {
        return bytes;
    }
    let (mut from, mut to) = (BEGIN.len(), BEGIN.len());
    while let Some([a, b, c, d, kind @ ..]) = bytes.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
        // Length and kind before the data, a checksum behind it.
        let profile = kind == b"iCCP";
        let end =
            from.saturating_add(12).saturating_add(u32::from_be_bytes([*a, *b, *c, *d]) as usize).min(bytes.len());
        if !profile {
            bytes.copy_within(from..end, to);
            to += end - from;
        }
        from = end;
    }
    bytes.copy_within(from.., to);
    bytes.truncate(to + bytes.len() - from);
    bytes
}

/// What an image will take, by what its header says.
#[derive(Clone, Copy)]
struct Size {
    width: u32,
    height: u32,
    /// While it is decoded.
    bytes: u64,
}

impl Size {
    /// Height and width.
    fn sides(self) -> (usize, usize) {
        (self.height as usize, self.width as usize)
    }

    fn of(file: &Path, bytes: &[u8]) -> Result<Size> {
        let reader = reader(file, bytes)?;
        let format = reader.format();
        // The decoder fills what is missing of a JPEG with grey.
        if format == Some(ImageFormat::Jpeg) && !jpeg_is_whole(bytes) {
            return Err(unreadable(file, "the JPEG data is truncated"));
        }
        let decoder = reader.into_decoder().map_err(|e| unreadable(file, e))?;
        let ((width, height), color) = (decoder.dimensions(), decoder.color_type());
        let found = format!("{width}x{height} pixels of {} bytes", color.bytes_per_pixel());
        if width == 0 || height == 0 {
            return Err(Error::file(file, format!("expected at least one pixel, found {width}x{height}")));
        }
        if width > SIDE || height > SIDE {
            return Err(Error::file(file, format!("expected sides of at most {SIDE} pixels, found {found}")));
        }
        // What the result takes beside what is decoded, unless it is made in place, and what decoders keep besides.
        let converted = if matches!(color, ColorType::Rgb8 | ColorType::Rgba8) { 0 } else { 3 };
        let kept = match format {
            Some(ImageFormat::Jpeg) if is_progressive(bytes) => 6,
            Some(ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Tiff) => 4,
            _ => 0,
        };
        let per_pixel = u64::from(color.bytes_per_pixel()) + converted + kept;
        let pixels = u64::from(width) * u64::from(height);
        let needed = pixels.saturating_mul(per_pixel).saturating_add(bytes.len() as u64);
        if needed > MOST {
            let problem = format!("expected an image that takes at most {MOST} bytes, found one of {found}: {needed}");
            return Err(Error::file(file, problem));
        }
        Ok(Size { width, height, bytes: needed })
    }
}

fn reader<'a>(file: &Path, bytes: &'a [u8]) -> Result<ImageReader<Cursor<&'a [u8]>>> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Error::io(file, "read", e))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST);
    reader.limits(limits);
    Ok(reader)
}

fn unreadable(file: &Path, problem: impl Display) -> Error {
    Error::file(file, format!("not a readable image: {problem}"))
}

fn pixels(file: &Path, bytes: Vec<u8>, size: Size) -> Result<Rgb8> {
    let reader = reader(file, &bytes)?;
    let image = reader.decode().map_err(|e| unreadable(file, e))?;
    drop(bytes);
    if matches!(image, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)) {
        return Err(unreadable(file, "expected pixels of 8 or 16 bits, found floating-point values"));
    }
    let (height, width) = size.sides();
    let pixels = to_rgb(image);
    match pixels.len() == height * width * 3 {
        true => Ok(Rgb8 { height, width, pixels }),
        false => Err(unreadable(file, format!("expected {width}x{height} pixels, found {}", pixels.len() / 3))),
    }
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
        DynamicImage::ImageRgba8(rgba) => {
            // In place: both at once would be the most that any image takes.
            let mut raw = rgba.into_raw();
            let pixels = raw.len() / 4;
            (0..pixels).for_each(|i| raw.copy_within(4 * i..4 * i + 3, 3 * i));
            raw.truncate(3 * pixels);
            raw
        }
        other => other.into_rgb8().into_raw(),
    }
}

/// Whether the frame of a JPEG is progressive: all its coefficients are then kept until the last scan.
fn is_progressive(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some([0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xc2 | 0xc6 | 0xca | 0xce => return true,
            0xc0 | 0xc1 | 0xda => return false,
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }
    // Of what cannot be told, the worst.
    true
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

    /// A PNG of one colour deflates to next to nothing; its header says what it becomes.
    #[test]
    fn images_larger_than_the_limits_are_refused_before_they_are_decoded() {
        use image::codecs::png::{CompressionType, FilterType, PngEncoder};
        use image::{ExtendedColorType, ImageEncoder};
        let png = |path: &Path, width: u32, height: u32, color: ExtendedColorType| {
            let bytes =
                vec![0; (u64::from(width) * u64::from(height) * u64::from(color.bits_per_pixel()) / 8) as usize];
            let file = std::fs::File::create(path).unwrap();
            let encoder = PngEncoder::new_with_quality(file, CompressionType::Fast, FilterType::NoFilter);
            encoder.write_image(&bytes, width, height, color).unwrap();
        };
        for (width, height, color, part) in [
            (65_536, 1, ExtendedColorType::L8, "expected sides of at most 65535 pixels, found 65536x1"),
            (1, 65_536, ExtendedColorType::L8, "expected sides of at most 65535 pixels, found 1x65536"),
            (65_535, 1025, ExtendedColorType::L8, "expected an image that takes at most 268435456 bytes"),
            (8000, 4200, ExtendedColorType::Rgba16, "found one of 8000x4200 pixels of 8 bytes"),
        ] {
            let error = decoded("a.png", |p| png(p, width, height, color)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let thin = decoded("a.png", |p| png(p, 65_535, 2, ExtendedColorType::L8)).unwrap();
        assert_eq!((thin.width, thin.height), (65_535, 2));
    }

    /// A profile of 64 MB that deflates to 64 kB, in front of the pixels and between others.
    #[test]
    fn profiles_of_a_png_are_never_inflated() {
        use std::io::Write as _;
        let image = ImageBuffer::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 9u8]));
        let mut plain = Cursor::new(Vec::new());
        image.write_to(&mut plain, ImageFormat::Png).unwrap();
        let plain = plain.into_inner();
        let mut packed = flate2::write::ZlibEncoder::new(b"x\0\0".to_vec(), flate2::Compression::best());
        (0..64).for_each(|_| packed.write_all(&vec![0; 1 << 20]).unwrap());
        let data = packed.finish().unwrap();
        let mut checksum = flate2::Crc::new();
        checksum.update(&[b"iCCP", &data[..]].concat());
        let chunk = [&(data.len() as u32).to_be_bytes()[..], b"iCCP", &data, &checksum.sum().to_be_bytes()].concat();
        // Behind signature and header.
        let with = [&plain[..33], &chunk, &chunk, &plain[33..]].concat();
        assert_eq!(without_profile(with.clone()), plain);
        let found = decoded("a.png", |p| std::fs::write(p, &with).unwrap()).unwrap();
        assert_eq!(found.pixels, image.into_raw());
        // What is cut off stays as it is, to be refused by the decoder.
        for len in 0..plain.len() {
            assert_eq!(without_profile(plain[..len].to_vec()), plain[..len]);
        }
        assert!(decoded("a.png", |p| std::fs::write(p, &with[..100]).unwrap()).is_err());
    }

    #[test]
    fn an_image_without_pixels_is_refused() {
        for text in ["P5 0 0 255\n", "P5 0 5 255\n", "P6 5 0 255\n"] {
            let error = decoded("a.pgm", |p| std::fs::write(p, text).unwrap()).unwrap_err().to_string();
            assert!(error.contains("expected at least one pixel, found"), "{error}");
        }
    }

    #[test]
    fn an_image_of_other_sides_is_not_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ppm");
        // Its pixels are missing, which decoding would tell.
        std::fs::write(&path, "P6 7 5 255\n").unwrap();
        assert_eq!(sides(&path).unwrap(), (5, 7));
        assert_eq!(decode_if(&path, Some((4, 4))).unwrap(), Err(Other { wanted: (4, 4), found: (5, 7) }));
        assert!(decode_if(&path, Some((5, 7))).is_err() && decode_if(&path, None).is_err());
    }

    #[test]
    fn alpha_is_dropped_in_place() {
        let image = ImageBuffer::from_fn(5, 3, |x, y| Rgba([(x * 50) as u8, (y * 90) as u8, 7, (x + y) as u8]));
        let found = decoded("a.png", |p| image.save(p).unwrap()).unwrap();
        let want: Vec<u8> = image.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect();
        assert_eq!(found.pixels, want);
    }

    #[test]
    fn progressive_frames_are_known() {
        let sof =
            |marker: u8| [&[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, marker, 0, 17][..], &[0; 20]].concat();
        assert!(is_progressive(&sof(0xc2)) && !is_progressive(&sof(0xc0)) && is_progressive(&[0xff, 0xd8]));
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
