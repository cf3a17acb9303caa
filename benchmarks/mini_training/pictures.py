"""From a picture of a source to training pictures in several looks: clip art, sketches, paintings, photographs.

A look is a domain; captions speak of it. Every choice comes from a generator seeded by the picture, so the same
packages give the same pictures.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import resvg_py
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, max_pool2d, pad

from mini_training.sources import Picture

Domain = Literal["clip", "render", "sketch", "gray", "silhouette", "painting", "blurry", "photo"]
DOMAINS: tuple[Domain, ...] = ("clip", "render", "sketch", "gray", "silhouette", "painting", "blurry", "photo")
SIZE = 224
CROPS = 150
"""Crops of each photograph."""

Look = tuple[Domain, Image.Image]


def looks(picture: Picture, photos: list[Image.Image], rng: random.Random) -> Iterator[Look]:
    """The training pictures of one source picture; `photos` serve as backgrounds."""
    if picture.kind == "photo":
        photo = opened(picture)
        yield from (("photo", varied(crop(photo, rng, 0.15), rng)) for _ in range(CROPS))
    elif picture.kind == "line":
        for _ in range(3):
            yield "sketch", warped(placed(rendered(picture, stroke=rng.uniform(0.25, 1.3)), white(), rng), rng)
    elif picture.kind == "silhouette":
        yield "silhouette", placed(rendered(picture), white(), rng)
        yield "sketch", warped(outlined(placed(rendered(picture), white(), rng), rng), rng)
    else:
        yield from _drawn_looks(picture, photos, rng)


def _drawn_looks(picture: Picture, photos: list[Image.Image], rng: random.Random) -> Iterator[Look]:
    drawing = rendered(picture)
    plain = rng.random() < 0.5
    background = (
        white() if plain else gradient(rng) if rng.random() < 0.6 else painted(crop(rng.choice(photos), rng), 4)
    )
    yield ("render" if picture.kind == "render" else "clip"), placed(drawing, background, rng)
    yield "sketch", warped(outlined(placed(drawing, white(), rng), rng), rng)
    yield "sketch", pencilled(placed(drawing, white(), rng), rng)
    share = rng.random()
    if share < 0.3:
        yield "gray", grayed(placed(drawing, white() if rng.random() < 0.7 else gradient(rng), rng))
    elif share < 0.8 or picture.kind == "render":
        under = crop(rng.choice(photos), rng) if rng.random() < 0.6 else gradient(rng)
        yield "painting", canvas(painted(varied(placed(drawing, under, rng), rng), rng.choice([2, 3, 4])), rng)
    else:
        yield "blurry", blurred(placed(drawing, gradient(rng), rng), rng)


def opened(picture: Picture, limit: int = 900) -> Image.Image:
    """The file of a picture, RGBA, at most `limit` pixels a side."""
    assert picture.path is not None
    with Image.open(picture.path) as file:
        file.draft("RGB", (limit, limit))
        image = file.convert("RGBA")
    image.thumbnail((limit, limit), Image.Resampling.BICUBIC)
    return image


def rendered(picture: Picture, stroke: float = 1.0) -> Image.Image:
    """A drawing, RGBA; lines of an SVG are `stroke` times as wide as they were."""
    if picture.path is not None:
        return opened(picture, 300)

    def scaled(match: re.Match[str]) -> str:
        return f'stroke-width="{stroke * float(match[1]):g}"'

    svg = re.sub(r'stroke-width="([\d.]+)"', scaled, picture.svg) if stroke != 1.0 else picture.svg
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=300))
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGBA")


def white() -> Image.Image:
    """An empty sheet."""
    return Image.new("RGB", (SIZE, SIZE), "white")


def gradient(rng: random.Random) -> Image.Image:
    """A background that runs from one colour to another."""
    one, other = (np.array([rng.randint(60, 255) for _ in range(3)]) for _ in range(2))
    share = np.linspace(0, 1, SIZE)[:, None, None]
    sheet = (one * (1 - share) + other * share) * np.ones((SIZE, SIZE, 1))
    return Image.fromarray((sheet if rng.random() < 0.5 else sheet.transpose(1, 0, 2)).astype("uint8"))


def crop(image: Image.Image, rng: random.Random, least: float = 0.4) -> Image.Image:
    """A square piece of a photograph, `least` of its shorter side or more, perhaps mirrored."""
    side = int(min(image.size) * rng.uniform(least, 1))
    x, y = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    piece = image.convert("RGB").crop((x, y, x + side, y + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def placed(drawing: Image.Image, background: Image.Image, rng: random.Random) -> Image.Image:
    """The drawing on a background: 55 to 100% of its side, anywhere, perhaps mirrored."""
    drawing = drawing.crop(drawing.getbbox() or (0, 0, *drawing.size))
    scale = SIZE * rng.uniform(0.55, 1.0) / max(drawing.size)
    size = (max(1, int(drawing.width * scale)), max(1, int(drawing.height * scale)))
    drawing = drawing.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        drawing = ImageOps.mirror(drawing)
    sheet = background.convert("RGB").copy()
    place = (rng.randint(0, max(0, SIZE - drawing.width)), rng.randint(0, max(0, SIZE - drawing.height)))
    sheet.paste(drawing, place, drawing)
    return sheet


def varied(image: Image.Image, rng: random.Random) -> Image.Image:
    """Other light, contrast and colours, and the traces of JPEG, as photographs differ."""
    values = np.asarray(image, np.float32) / 255
    values = values ** rng.uniform(0.6, 1.6)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.3, 1.5)
    values = (values - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
    varied_image = _image(values * 255)
    buffer = io.BytesIO()
    varied_image.save(buffer, "JPEG", quality=rng.randint(40, 95))
    with Image.open(buffer) as again:
        return again.convert("RGB")


def grayed(image: Image.Image) -> Image.Image:
    """Without colour."""
    return image.convert("L").convert("RGB")


def blurred(image: Image.Image, rng: random.Random) -> Image.Image:
    """Out of focus, or of few pixels."""
    if rng.random() < 0.5:
        return image.filter(ImageFilter.GaussianBlur(rng.choice([2, 3, 4])))
    side = rng.choice([28, 32, 48])
    small = image.resize((side, side), Image.Resampling.BOX)
    return small.resize((SIZE, SIZE), rng.choice([Image.Resampling.BICUBIC, Image.Resampling.NEAREST]))


def pencilled(image: Image.Image, rng: random.Random) -> Image.Image:
    """A shaded pencil drawing: the grey picture divided by its blurred negative (colour dodge)."""
    gray = image.convert("L")
    if rng.random() < 0.3:
        gray = ImageOps.equalize(gray)
    negative = ImageOps.invert(gray).filter(ImageFilter.GaussianBlur(rng.choice([2, 3, 5, 8])))
    dodged = np.asarray(gray, np.float32) * 255 / np.maximum(255 - np.asarray(negative, np.float32), 1)
    return _image(255 * (np.clip(dodged, 0, 255) / 255) ** rng.choice([1.0, 2.0, 4.0])).convert("RGB")


def outlined(image: Image.Image, rng: random.Random) -> Image.Image:
    """A line drawing: thin or thick dark lines where colours change."""
    values = _tensor(image.filter(ImageFilter.GaussianBlur(rng.choice([0, 1, 1.5]))))
    padded = pad(values[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]).abs().amax(0)
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]).abs().amax(0)
    threshold = rng.choice([30, 50, 80])
    lines = ((across + down - threshold) / threshold).clamp(0, 1)
    if rng.random() < 0.5:
        lines = (lines > 0.3).float()
    if rng.random() < 0.3:
        lines = max_pool2d(lines[None, None], 3, 1, 1)[0, 0]
    drawn = _image((255 - lines * rng.choice([255, 220, 170])).numpy())
    return drawn.filter(ImageFilter.GaussianBlur(rng.choice([0, 0.5]))).convert("RGB")


def warped(image: Image.Image, rng: random.Random) -> Image.Image:
    """Uneven, as an unsteady hand draws: a smooth random shift of up to some pixels, and a slight turn."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    shift = torch.randn(1, 2, 5, 5, generator=generator) * rng.uniform(0.0, 0.06)
    shift = interpolate(shift, (SIZE, SIZE), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    axis = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    angle = torch.tensor(rng.uniform(-0.2, 0.2))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    ink = 255 - _tensor(image)[None]
    return _image((255 - grid_sample(ink, (grid @ turn + shift)[None], align_corners=True)[0]).permute(1, 2, 0).numpy())


def painted(image: Image.Image, radius: int) -> Image.Image:
    """Brush strokes: each pixel takes the mean of the smoothest of the four squares beside it (Kuwahara's filter)."""
    padded = pad(_tensor(image)[None], (radius,) * 4, mode="replicate")
    mean = avg_pool2d(padded, radius + 1, 1)
    spread = (avg_pool2d(padded * padded, radius + 1, 1) - mean * mean).sum(1, keepdim=True)
    corners = [(y, x) for y in (0, radius) for x in (0, radius)]
    means = torch.stack([mean[:, :, y : y + SIZE, x : x + SIZE] for y, x in corners])
    spreads = torch.stack([spread[:, :, y : y + SIZE, x : x + SIZE] for y, x in corners])
    smoothest = spreads.argmin(0, keepdim=True).expand(1, -1, 3, -1, -1)
    return _image(means.gather(0, smoothest)[0, 0].permute(1, 2, 0).numpy())


def canvas(image: Image.Image, rng: random.Random) -> Image.Image:
    """The grain of a canvas over a picture."""
    generator = np.random.default_rng(rng.getrandbits(32))
    grain = _image(128 + generator.normal(0, rng.choice([20, 40]), (SIZE, SIZE))).filter(ImageFilter.GaussianBlur(1))
    return _image(np.asarray(image, np.float32) + (np.asarray(grain, np.float32) - 128)[..., None] * 0.6)


def _tensor(image: Image.Image) -> torch.Tensor:
    """RGB values (3, H, W) from 0 to 255."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32).copy()).permute(2, 0, 1)


def _image(values: NDArray[np.floating]) -> Image.Image:
    """The picture of values from 0 to 255; what is beyond them is cut."""
    return Image.fromarray(np.clip(values, 0, 255).astype("uint8"))
