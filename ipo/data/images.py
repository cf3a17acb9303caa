"""One image file to an upright RGB picture, whatever it is stored as; or a `DataError` that names the file."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ipo.data.formats import HEIF_ADVICE, HEIF_INSTALLED, open_image
from ipo.errors import DataError

MAX_PIXELS = 1 << 27
"""Most pixels of an image: 512 MiB in RGB. Decoding takes 1.1 GB at most, of WebP and JPEG 2000 some 2.4 GB."""
MAX_SIDES = 500
"""Most times that an image may be as long as wide: scaled to a model's width, a strip would grow beyond all memory."""
MAX_FILE_BYTES = 1 << 30
"""Most bytes of an image file."""

_TOO_BIG = f"Scale it down: at most {MAX_PIXELS:,} pixels are read, one side at most {MAX_SIDES} times the other"
_UNREADABLE = "Replace or remove the file, or leave unreadable images out with --set data.skip_unreadable=true"
_THREADS = 8
"""Files opened at once: network disks like several requests."""
STRIP = 1 << 22
"""Pixels that are converted at once."""
_ORIENTATION = 0x0112
"""EXIF's tag of how the camera was held; 1 is upright."""
_FILE_TYPE = slice(4, 12)
"""Where a file of the MPEG family says what it is."""


def load_image(path: Path) -> Image.Image:
    """The first frame as RGB: turned as its EXIF says, transparency on white, 16 bits scaled to 8.

    Raises `DataError` naming the file if it is missing, empty, truncated, of no known format or above the bounds.
    """
    return decode_image(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The bytes of an image file, decoded or not; raises `DataError` naming it."""
    with _faults(path), _opened(path) as file:
        return file.read()


def decode_image(data: bytes, path: Path) -> Image.Image:
    """`load_image` of a file that was read; `path` is what errors name."""
    with _no_warnings(), _faults(path), open_image(io.BytesIO(data)) as image:
        _require_bounds(image, path)
        image.load()
        return to_rgb(upright(image))


def unopenable(paths: Iterable[Path]) -> dict[Path, str]:
    """The files that are missing, too large, or whose header is that of no image, with the reason.

    Pixels are not decoded: that a file is cut off, or damaged behind its header, is not seen.
    """

    def problem(path: Path) -> str:
        try:
            with _faults(path), _opened(path) as file, open_image(file) as image:
                _require_bounds(image, path)
                return ""
        except DataError as error:
            return error.what

    distinct = list(dict.fromkeys(paths))
    with _no_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        return {path: reason for path, reason in zip(distinct, pool.map(problem, distinct), strict=True) if reason}


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of odd EXIF data, which are passed over, and at half of its limit; our own bound decides."""
    with warnings.catch_warnings(action="ignore"):
        yield


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, if it is a plain one of bearable size: a pipe would be waited for without end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError("cannot read image: not a file", where=str(path), remedy=_UNREADABLE)
    if status.st_size > MAX_FILE_BYTES:
        raise DataError(f"image is too large: {status.st_size:,} bytes", where=str(path), remedy=_TOO_BIG)
    with path.open("rb") as file:
        yield file


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Whatever goes wrong with an image inside is a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"image is too large: {error}", where=str(path), remedy=_TOO_BIG) from error
    except Exception as error:
        raise DataError(f"cannot read image: {describe(error, path)}", where=str(path), remedy=_UNREADABLE) from error


def _require_bounds(image: Image.Image, path: Path) -> None:
    """Raise `DataError` for an image that would take too much memory, now or when it is scaled for a model."""
    short, long = sorted(image.size)
    if image.width * image.height > MAX_PIXELS or long > MAX_SIDES * max(1, short):
        size = f"{image.width} x {image.height} pixels"
        raise DataError(f"image is too large: {size}", where=str(path), remedy=_TOO_BIG)


def upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation says; as it is where the EXIF data are broken."""
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - as broken data are read, anything may be raised; the pixels are sound
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: grey repeated, palette and CMYK converted, alpha laid on white, deep grey scaled.

    All but plain conversions are made strip by strip, so that little more than source and result is in memory.
    """
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if not deep and not image.has_transparency_data:
        return image.convert("RGB")
    white = max((white_level(np.asarray(strip), image.mode) for _, strip in _strips(image)), default=1.0) if deep else 0
    result = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        if deep:
            made = Image.fromarray(deep_grey_to_bytes(np.asarray(strip), white)).convert("RGB")
        else:
            coloured = strip.convert("RGBA")
            made = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
        result.paste(made, (0, top))
    return result


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image over its whole width, from the top, with the height that each begins at."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def white_level(values: np.ndarray, mode: str) -> float:
    """The value that stands for white among grey values of a Pillow `mode` above 8 bits.

    It is 65535 for 16 bits; for `I` and `F`, which do not say, the lowest of 1 (floats only), 255 and 65535 that holds
    all values, or else the brightest one.
    """
    top = float(np.nan_to_num(np.asarray(values, dtype=np.float64)).max(initial=0.0))
    levels = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(mode, (65535.0,))
    return next((level for level in levels if top <= level), top)


def deep_grey_to_bytes(values: np.ndarray, white: float) -> np.ndarray:
    """Grey values (H, W) as bytes (H, W), so that `white` becomes 255."""
    levels = np.nan_to_num(np.asarray(values, dtype=np.float64))
    return np.clip(np.rint(levels * (255 / white)), 0, 255).astype(np.uint8)


def describe(error: BaseException, path: Path) -> str:
    """What is wrong with the file, in one short phrase without its path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        heif = f"; {HEIF_ADVICE}" if _is_heif(path) and not HEIF_INSTALLED else ""
        return f"no known image format{heif}"
    return str(error) or type(error).__name__


def _is_heif(path: Path) -> bool:
    """Whether a file, of whatever ending, is a picture as phones take them."""
    try:
        with path.open("rb") as file:
            return file.read(_FILE_TYPE.stop)[_FILE_TYPE] in (b"ftypheic", b"ftypheix", b"ftypmif1")
    except OSError:
        return False
