"""tests/fixtures/imagenet: tiny images of every kind a folder may hold, and what Pillow and OpenCV make of them.

    python3 tools/reference/imagenet_fixtures.py tests/fixtures/imagenet [PHOTOGRAPHS]

Needs Pillow < 13 (later ones pass over tall images vertically first), NumPy and OpenCV. NAME.rgb.png is NAME after convert("RGB");
resizes.json lists checksums of resized images, opencv-*.png are enlarged as OpenCV does by default. Of a folder of photographs
photos-PIPELINE.png keeps scattered pixels after the whole preprocessing, a row per file: enough to compare, not to see.
"""

import json
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image


def noise(height, width, channels=3, seed=1):
    """The bytes that tests/imagenet.rs makes too: a linear congruential generator, upper byte first."""
    state, out = seed, []
    for _ in range(height * width * channels):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 56)
    return np.array(out, np.uint8).reshape(height, width, channels)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 3.1) + np.cos(y / 2.3), np.sin((x + y) / 4.7), np.cos(x / 5.3) * np.sin(y / 3.7)]
    return np.stack([(w - w.min()) / (w.max() - w.min()) * 255 for w in waves], -1).round().astype(np.uint8)


def kinds(folder):
    image, rough = Image.fromarray(smooth(21, 34)), Image.fromarray(noise(9, 13))
    alpha = Image.fromarray(noise(9, 13, 1, 7)[:, :, 0])
    grey = rough.convert("L")
    grey16 = Image.fromarray(noise(9, 13, 1, 3)[:, :, 0].astype(np.uint16) * 3)
    rough.save(folder / "rgb.png")
    grey.save(folder / "grey.png")
    Image.merge("LA", (grey, alpha)).save(folder / "grey-alpha.png")
    Image.merge("RGBA", (*rough.split(), alpha)).save(folder / "rgba.png")
    palette = rough.quantize(16)
    palette.save(folder / "palette.png", bits=4)
    palette.save(folder / "palette-transparent.png", transparency=3)
    grey.save(folder / "grey-transparent.png", transparency=17)
    grey.point(lambda v: 255 * (v > 127)).convert("1").save(folder / "one-bit.png")
    grey16.save(folder / "grey16.png")
    cv2.imwrite(str(folder / "rgb16.png"), noise(9, 26).reshape(-1).view(np.uint16).reshape(9, 13, 3))
    rough.save(folder / "rgb.bmp")
    image.save(folder / "colour.jpg", quality=90)
    image.save(folder / "colour444.jpg", quality=95, subsampling=0)
    image.save(folder / "progressive.jpg", quality=90, progressive=True)
    image.convert("L").save(folder / "grey.jpg", quality=90)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", quality=90, exif=exif)
    image.save(folder / "colour.webp", quality=90)
    Image.merge("RGBA", (*rough.split(), alpha)).save(folder / "rgba.webp", lossless=True, exact=True)
    rough.save(folder / "rgb.tif")
    rough.save(folder / "lzw.tiff", compression="tiff_lzw")
    grey16.save(folder / "grey16.tif")
    grey.point(lambda v: 255 * (v > 127)).convert("1").save(folder / "one-bit.tif", compression="group4")
    palette.save(folder / "palette.gif")
    palette.save(folder / "frames.gif", save_all=True, append_images=[grey.convert("P")], duration=40)
    for path in sorted(folder.iterdir()):
        Image.open(path).convert("RGB").save(folder / f"{path.name}.rgb.png")


def resizes():
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    cases = []
    sizes = [
        ((375, 500), (384, 384)),
        ((500, 375), (384, 384)),
        ((50, 37), (38, 38)),
        ((32, 32), (224, 224)),
        ((224, 224), (32, 32)),
        ((17, 200), (64, 64)),
        ((1, 1), (3, 5)),
        ((9, 1), (4, 4)),
        ((64, 64), (64, 20)),
        ((64, 64), (20, 64)),
        ((300, 7), (11, 13)),
        ((2, 3), (97, 101)),
    ]
    for (h, w), (to_h, to_w) in sizes:
        image = Image.fromarray(noise(h, w))
        for name, resample in filters.items():
            found = np.asarray(image.resize((to_w, to_h), resample))
            cases.append({"from": [h, w], "to": [to_h, to_w], "filter": name, "crc32": zlib.crc32(found.tobytes())})
    return cases


def crops():
    """Shorter side, then the centre, by torchvision's rules."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    cases = []
    for (h, w), shorter, crop in [
        ((375, 500), 256, 224),
        ((500, 333), 256, 224),
        ((224, 301), 224, 224),
        ((256, 257), 256, 224),
        ((259, 256), 256, 224),
        ((40, 40), 51, 45),
    ]:
        image = F.resize(Image.fromarray(noise(h, w)), shorter, InterpolationMode.BILINEAR)
        found = np.asarray(F.center_crop(image, crop))
        cases.append({"from": [h, w], "shorter": shorter, "crop": crop, "crc32": zlib.crc32(found.tobytes())})
    return cases


def photos(source, folder):
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    pipelines = {
        "squash": transforms.Resize((384, 384), InterpolationMode.BICUBIC),
        "crop": transforms.Compose([transforms.Resize(256, InterpolationMode.BILINEAR), transforms.CenterCrop(224)]),
    }
    for name, pipeline in pipelines.items():
        rows = []
        for path in sorted(source.glob("*.jpg")):
            image = np.asarray(pipeline(Image.open(path).convert("RGB"))).reshape(-1, 3)
            state, places = 1, []
            for _ in range(PIXELS):
                state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
                places.append((state >> 33) % len(image))
            rows.append(image[places])
        Image.fromarray(np.stack(rows)).save(folder / f"photos-{name}.png")


PIXELS = 256


def main():
    if int(PIL.__version__.split(".")[0]) >= 13:
        sys.exit(f"expected Pillow below 13, found {PIL.__version__}")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if not path.name.startswith("photos-"):
            path.unlink()
    kinds(folder)
    for h, w, to_h, to_w in [(8, 8, 56, 56), (11, 7, 30, 24), (30, 24, 11, 7)]:
        found = cv2.resize(noise(h, w), (to_w, to_h))
        Image.fromarray(found).save(folder / f"opencv-{h}x{w}-{to_h}x{to_w}.png")
    if len(sys.argv) > 2:
        photos(Path(sys.argv[2]), folder)
    made = {"pillow": PIL.__version__, "opencv": cv2.__version__, "resizes": resizes(), "crops": crops()}
    rows = ",\n".join(
        f"  {json.dumps(k)}: " + (json.dumps(v) if isinstance(v, str) else "[\n    " + ",\n    ".join(map(json.dumps, v)) + "\n  ]")
        for k, v in made.items()
    )
    (folder / "resizes.json").write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
