"""One image file to an upright RGB picture, whatever it is stored as; or a `DataError` that names the file."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ipo.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif")
)
"""Endings, in lower case, of the files that count as images."""

MAX_PIXELS = 178_956_970
"""Most pixels of an image (a 512 MiB bitmap); a larger one is refused before it is decoded."""

_TOO_BIG = f"Scale it down: at most {MAX_PIXELS:,} pixels are read"
_THREADS = 8
"""Files opened at once: network disks like several requests."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)


def load_image(path: Path) -> Image.Image:
    """The first frame as RGB: turned as its EXIF says, transparency on white, 16 bits scaled to 8.

    Raises `DataError` naming the file if it is missing, empty, truncated, of no known format or above `MAX_PIXELS`.
    """
    with _no_warnings(), _opened(path) as image:
        image.load()
        return to_rgb(upright(image))


def unopenable(paths: Iterable[Path]) -> dict[Path, str]:
    """The files that are missing or whose first bytes are those of no image, with the reason. Nothing is decoded."""

    def problem(path: Path) -> str:
        try:
            with _opened(path):
                return ""
        except DataError as error:
            return error.what

    distinct = list(dict.fromkeys(paths))
    with _no_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        return {path: reason for path, reason in zip(distinct, pool.map(problem, distinct), strict=True) if reason}


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of odd EXIF data, which are passed over, and at half of its limit; our own bound decides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, not decoded yet. What goes wrong with it inside is a `DataError`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise DataError(f"image is too large: {size}", where=str(path), remedy=_TOO_BIG)
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"image is too large: {error}", where=str(path), remedy=_TOO_BIG) from error
    except _DECODE_ERRORS as error:
        raise DataError(
            f"cannot read image: {describe(error, path)}",
            where=str(path),
            remedy="Replace or remove the file, or leave unreadable images out with --set data.skip_unreadable=true",
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation says; as it is where the EXIF data are broken."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: grey repeated, palette and CMYK converted, alpha laid on white, deep grey scaled."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(deep_grey_to_bytes(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def deep_grey_to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values (H, W) of a Pillow `mode` above 8 bits as bytes (H, W).

    White is 65535 for 16 bits; for `I` and `F`, which do not say, the lowest of 1 (floats only), 255 and 65535 that
    holds all values, or else the brightest one.
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float64))
    top = float(values.max(initial=0.0))
    levels = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(mode, (65535.0,))
    white = next((level for level in levels if top <= level), top)
    return np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8)


def describe(error: BaseException, path: Path) -> str:
    """What is wrong with the file, in one short phrase without its path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    return str(error) or type(error).__name__
