//! How images of any size become images of one, as Pillow and the libraries around it do.

use super::resize::{Filter, Rgb8, centre, part, resize, shorter_side};
use crate::choice::choice;

choice! {
    /// How an image of any size becomes one of the network's.
    Fit {
        /// Both sides are resized, whatever the aspect ratio.
        Squash = "squash",
        /// The shorter side is resized, then the centre is cut out.
        Crop = "crop",
    }
}

/// How files become images of one size, in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    pub fit: Fit,
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Length of the shorter side before the crop, at least that of both sides of the result; unused by [`Fit::Squash`].
    pub shorter: usize,
    pub filter: Filter,
}

impl Prepare {
    /// What timm gives a network for 384x384 pixels with `crop_mode` squash.
    pub const SQUASH: Prepare = Prepare { fit: Fit::Squash, size: [384, 384], shorter: 384, filter: Filter::Bicubic };
    /// What torchvision gives a ResNet-50.
    pub const CROP: Prepare = Prepare { fit: Fit::Crop, size: [224, 224], shorter: 256, filter: Filter::Bilinear };

    /// What timm gives a network for images of this size that wants all of the image, or else its centre.
    pub fn at(size: [usize; 2], fit: Fit) -> Prepare {
        Prepare { fit, size, shorter: size[0].max(size[1]), filter: Filter::Bicubic }
    }

    /// The image at the size wanted.
    pub fn apply(&self, image: &Rgb8) -> Rgb8 {
        let [height, width] = self.size;
        match self.fit {
            Fit::Squash => resize(image, height, width, self.filter),
            Fit::Crop => {
                let (h, w) = shorter_side(image.height, image.width, self.shorter);
                // Of a thin image the whole would be larger than any memory.
                part(image, [h, w], &centre([h, w], height, width), self.filter)
            }
        }
    }

    pub(super) fn image_len(&self) -> usize {
        self.size[0] * self.size[1] * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crop_is_cut_out_after_the_resize() {
        let image = Rgb8 { height: 4, width: 6, pixels: (0..72).collect() };
        let prepare = Prepare { fit: Fit::Crop, size: [2, 4], shorter: 4, filter: Filter::Bilinear };
        let cut = prepare.apply(&image);
        assert_eq!((cut.height, cut.width), (2, 4));
        assert_eq!(cut.pixels[..3], image.pixels[(6 + 1) * 3..][..3]);
        let squashed = Prepare { fit: Fit::Squash, ..prepare }.apply(&image);
        assert_eq!((squashed.height, squashed.width), (2, 4));
    }
}
