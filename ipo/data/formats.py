"""The image formats that are read, by the names that Pillow gives them, and the endings of their files."""

from __future__ import annotations

import ctypes
import io
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image, _imaging

from ipo.packages import extra_remedy

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
}
"""All that Pillow is asked to try, whatever the ending: other formats of it start programs (EPS) or are no pictures."""

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Pictures of phones, which the extra `heic` (pillow-heif) reads."""

HEIF_INSTALLED = find_spec("pillow_heif") is not None

IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes) | frozenset(
    HEIF_SUFFIXES if HEIF_INSTALLED else ()
)
"""Endings, in lower case, of the files that count as images."""

HEIF_ADVICE = f"`{extra_remedy('heic')}` reads HEIC pictures"


def open_image(file: BinaryIO) -> Image.Image:
    """The image in a file, whose header alone was read yet; raises whatever a decoder may raise."""
    return Image.open(file, formats=_readable())


def suffix_of(data: bytes) -> str:
    """The ending that fits encoded image data; `.jpg` for what is no known image, which reading it will report."""
    try:
        with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(data)) as image:
            return FORMATS.get(image.format or "", (".jpg",))[0]
    except Exception:  # noqa: BLE001 - decoders meet damaged files with any of Python's errors
        return ".jpg"


@cache
def _readable() -> tuple[str, ...]:
    _silence_libtiff()
    if not HEIF_INSTALLED:
        return tuple(FORMATS)
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _silence_libtiff() -> None:
    """Of the decoders libtiff alone writes lines of its own to the screen; what is wrong, Pillow says anyway.

    Its function is looked up in Pillow's module, whose library it is; where it cannot be found there, the lines stay.
    """
    with suppress(OSError, AttributeError):
        silence = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        silence.argtypes, silence.restype = [ctypes.c_void_p], ctypes.c_void_p
        silence(None)
