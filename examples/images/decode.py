"""One image file of any kind to 8-bit RGB: upright, and with transparency on white."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Transpose
from torchvision.transforms.functional import center_crop, resize

Image.init()
HEADERS_ONLY = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow needs another program to decode these
FORMATS = [name for name in Image.OPEN if name not in HEADERS_ONLY]
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
TURNS = {  # by EXIF orientation
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
LONGEST = 16  # times the shorter side: what lies beyond is cut before resizing, which would enlarge it too


def open_image(path: Path) -> Image.Image:
    """The image with its header read. A pipe is not opened, because that would wait for a writer."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    return Image.open(path, formats=FORMATS)


def decode(path: Path, size: int, *, square: bool = False) -> np.ndarray | str:
    """``(3, h, w)`` uint8 as in `shrink`, or the reason why the file cannot be read."""
    try:
        with open_image(path) as image:
            return shrink(to_rgb(image), size, square=square)
    except Exception as error:  # Pillow raises errors of many types for damaged files
        return f"{path}: {type(error).__name__}: {error}"


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, turned as its EXIF orientation says.

    Transparency is composited on white, as viewers show it; Pillow's ``convert`` would uncover the hidden colours.
    16-bit grey keeps its high byte, as Pillow does for 16-bit colour.

    Raises:
        ValueError: for float and 32-bit pixels, whose range is not known.
    """
    image.load()
    kind, turn = image.format, _turn(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in {"PNG", "PPM"}):  # these have 16 bits at most
        grey = np.array(image)
        if "transparency" in image.info:
            grey[grey == image.info["transparency"]] = 65535
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    if image.mode in {"F", "I"}:
        raise ValueError(f"pixels of mode {image.mode!r} have no known range")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except (struct.error, KeyError, SyntaxError, TypeError, ValueError, ZeroDivisionError):
        return None  # damaged EXIF data of a readable image


def shrink(image: Image.Image, size: int, *, square: bool = False) -> np.ndarray:
    """``(3, h, w)``: shorter side ``size`` pixels, longer side centre-cropped to at most ``2 · size``, or ``size``."""
    width, height = image.size
    image = resize(center_crop(image, [min(height, LONGEST * width), min(width, LONGEST * height)]), size)
    width, height = image.size
    most = size if square else 2 * size
    image = center_crop(image, [min(height, most), min(width, most)])
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
