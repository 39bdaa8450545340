"""Every kind of image file becomes the pixels that a viewer shows, or is refused with a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from examples.images import decode

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (32, 40), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (32, 40, 3), dtype=np.uint8)
HIDDEN = np.arange(40) < 20  # columns that are transparent
SHOWN_AS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}  # by EXIF orientation: where the first row and column of the file are shown


def rgb(image, kind, **settings):
    """``(h, w, 3)``: the image's pixels after it was saved as a file."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return np.asarray(decode.to_rgb(Image.open(file)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(kind):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(rgb(deep, kind), rgb(Image.fromarray(GREY), kind))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(dtype, tmp_path):
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "x.tif")
    reason = decode.decode(tmp_path / "x.tif", 32)
    assert reason.startswith(f"{tmp_path / 'x.tif'}: ValueError: pixels of mode ")


def transparent(mode):
    """An image whose `HIDDEN` columns are transparent, and the settings to save it with."""
    alpha = np.where(HIDDEN, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8)
    if mode == "RGBA":
        return Image.fromarray(np.dstack([COLOUR, alpha])), {}
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]), {}
    # One value is transparent, and only the hidden columns have it.
    key = np.where(HIDDEN, 7, np.maximum(GREY, 8)).astype(np.uint16)
    if mode == "P":
        image = Image.fromarray(key.astype(np.uint8)).convert("P")
        return image, {"transparency": 7}
    if mode == "RGB":
        return Image.fromarray(np.dstack([key, key, key]).astype(np.uint8)), {"transparency": (7, 7, 7)}
    if mode == "L":
        return Image.fromarray(key.astype(np.uint8)), {"transparency": 7}
    return Image.fromarray(key * 257), {"transparency": 7 * 257}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_transparency_is_white_and_hides_its_colour(mode):
    image, settings = transparent(mode)
    assert image.mode == mode
    pixels = rgb(image, "PNG", **settings)
    opaque = np.asarray(image.convert("RGB")) if mode != "I;16" else np.asarray(transparent("L")[0].convert("RGB"))
    assert (pixels[:, HIDDEN] == 255).all()
    np.testing.assert_array_equal(pixels[:, ~HIDDEN], opaque[:, ~HIDDEN])


def test_partial_transparency_is_a_blend_with_white():
    alpha = GENERATOR.integers(0, 256, (32, 40, 1), dtype=np.uint8)
    pixels = rgb(Image.fromarray(np.concatenate([COLOUR, alpha], 2)), "PNG")
    share = alpha / 255.0
    np.testing.assert_allclose(pixels, share * COLOUR + (1 - share) * 255, rtol=0, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", SHOWN_AS)
def test_images_are_turned_as_exif_says(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(rgb(Image.fromarray(COLOUR), kind, exif=exif), SHOWN_AS[orientation](COLOUR))


@pytest.mark.parametrize("exif", [b"not TIFF", b"MM\0*"])
def test_damaged_exif_leaves_an_image_as_it_is(exif):
    np.testing.assert_array_equal(rgb(Image.fromarray(COLOUR), "PNG", exif=exif), COLOUR)


def test_a_thin_image_is_cut_before_it_is_enlarged(monkeypatch):
    resized = []
    resize = decode.resize
    monkeypatch.setattr(decode, "resize", lambda image, size: resized.append(resize(image, size)) or resized[-1])
    assert decode.shrink(Image.new("RGB", (1, 10_000)), 32).shape == (3, 64, 32)
    assert max(resized[0].size) == 32 * 16


def test_formats_that_pillow_cannot_decode_are_not_images(tmp_path):
    assert {".tif", ".jfif", ".ppm", ".gif", ".jp2", ".jpg", ".png"} <= decode.SUFFIXES
    assert not {".h5", ".eps", ".mpg", ".txt", ".pdf"} & decode.SUFFIXES
    # Pillow would start Ghostscript.
    (tmp_path / "x.JPEG").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    assert "UnidentifiedImageError" in decode.decode(tmp_path / "x.JPEG", 32)
