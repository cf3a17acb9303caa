"""A contact sheet: some images of each class, with the class names, as one picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ipo.data.check import all_items
from ipo.data.images import load_image
from ipo.data.types import Dataset
from ipo.errors import DataError
from ipo.store.files import write_atomic

THUMBNAIL, MARGIN, NAME_WIDTH = 96, 4, 200
"""Sizes in pixels."""


def contact_sheet(dataset: Dataset, each: int = 8, classes: int = 50) -> Image.Image:
    """One row a class: its name and its first `each` images, for the first `classes`. Grey means unreadable."""
    rows: list[list[Path]] = [[] for _ in dataset.classnames[:classes]]
    for item in all_items(dataset):
        if item.label < len(rows) and len(rows[item.label]) < each:
            rows[item.label].append(item.path)
    step = THUMBNAIL + MARGIN
    sheet = Image.new("RGB", (NAME_WIDTH + each * step, max(1, len(rows)) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, paths in enumerate(rows):
        draw.text((MARGIN, row * step + THUMBNAIL / 2), _short(dataset.classnames[row]), fill="black", font=font)
        for column, path in enumerate(paths):
            sheet.paste(_thumbnail(path), (NAME_WIDTH + column * step, row * step))
    return sheet


def _short(name: str, longest: int = 26) -> str:
    return name if len(name) <= longest else name[: longest - 3] + "..."


def _thumbnail(path: Path) -> Image.Image:
    try:
        image = load_image(path)
    except DataError:
        return Image.new("RGB", (THUMBNAIL, THUMBNAIL), "lightgrey")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def save_sheet(sheet: Image.Image, path: Path) -> Path:
    """Write the sheet as PNG in one step."""
    encoded = BytesIO()
    sheet.save(encoded, "PNG")
    write_atomic(path, encoded.getvalue())
    return path
