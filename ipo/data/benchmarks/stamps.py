"""`stamps`: 18 classes of pictures from Debian's package tuxpaint-stamps-default; a demo needs no other site."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ipo.errors import DataError
from ipo.store.disk import writing

PACKAGE = "tuxpaint-stamps-default"
STAMPS_FOLDER = Path("usr/share/tuxpaint/stamps")
COPYRIGHT_FILE = Path("usr/share/doc") / PACKAGE / "copyright"
SYSTEM = Path("/")
"""Where installed packages are."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "bird": ("animals/birds/*",),
    "sea animal": ("animals/fish/*", "animals/shellfish/*", "animals/mammals/aquatic/*"),
    "insect": ("animals/insects/*", "animals/insects/cartoon/*"),
    "hoofed animal": tuple(f"animals/mammals/{kind}/*" for kind in ("bovines", "camel", "deer", "equines")),
    "furry animal": (
        *(f"animals/mammals/{kind}/*" for kind in ("apes", "bears", "cats", "dogs", "rodents")),
        *(f"animals/mammals/{name}" for name in ("badger.png", "ferret.png", "rabbit_little.png")),
        "animals/marsupials/*",
    ),
    "fruit": ("food/fruit/*",),
    "vegetable": ("food/vegetables/*",),
    "flower": ("plants/flowers/*", "plants/flowers/plastic/*"),
    "plant": ("plants/*", "plants/trees/*", "plants/mushrooms/*"),
    "clothing": ("clothes/t_*", "clothes/hats/*"),
    "tool": ("household/tools/*", "household/arttools/*"),
    "musical instrument": ("hobbies/music/*/*",),
    "Christmas decoration": ("seasonal/christmas/*",),
    "planet": ("space/planets/*", "space/moon/*"),
    "coin": tuple(f"symbols/money/{kind}" for kind in ("us/coins/*", "canadian/coins/*", "euro/coins/*", "japanese/*")),
    "building": ("town/houses/cartoon/*",),
    "road sign": ("town/roadsigns/*",),
    "vehicle": ("vehicles/garbagetruck.png", *(f"vehicles/{depth}" for depth in ("*/*", "*/cartoon/*", "*/planes/*"))),
}
"""Where the pictures of each class lie below the package's folder of stamps."""

LEFT_OUT = ("*_mirror.png", "sedan_police.png", "trainSign.png")
"""Mirror images, which would put one picture into two splits, and two that do not show their class."""


def class_pictures(stamps: Path, name: str) -> list[Path]:
    """The pictures of one class below the package's folder of stamps, sorted."""
    found = {path for pattern in CLASSES[name] for path in stamps.glob(pattern) if path.suffix == ".png"}
    return sorted(path for path in found if path.is_file() and not any(path.match(odd) for odd in LEFT_OUT))


def build_stamps(folder: Path, source: Path | None = None) -> None:
    """Copy the pictures into one folder a class below `folder`.

    They come from `source` (the package file, or a folder with its content), from the installed package, or from
    apt, which needs no rights to download. Raises `DataError` with the manual steps where none of these works.
    """
    with writing(folder, DataError), tempfile.TemporaryDirectory(prefix="ipo-stamps-") as scratch:
        system = open_package(Path(scratch), source)
        for name in CLASSES:
            _copy_class(stamps_below(system), name, folder / name)
        if (system / COPYRIGHT_FILE).is_file():
            shutil.copyfile(system / COPYRIGHT_FILE, folder / "COPYRIGHT")


def stamps_below(system: Path) -> Path:
    """The folder of stamps in the content of the package."""
    return system / STAMPS_FOLDER if (system / STAMPS_FOLDER).is_dir() else system


def _copy_class(stamps: Path, name: str, target: Path) -> None:
    target.mkdir()
    pictures = class_pictures(stamps, name)
    if not pictures:
        raise DataError(f"no pictures of '{name}'", where=str(stamps), remedy=f"Is this the content of {PACKAGE}?")
    for picture in pictures:
        shutil.copyfile(picture, target / "-".join(picture.relative_to(stamps).parts))


def open_package(scratch: Path, source: Path | None) -> Path:
    """The content of the package: of `source`, of the installed one, or fetched by apt and unpacked in `scratch`."""
    if source is not None:
        if source.is_dir():
            return source
        return _unpacked(source, scratch)
    if (SYSTEM / STAMPS_FOLDER).is_dir():
        return SYSTEM
    return _unpacked(_downloaded(scratch), scratch)


def _unpacked(package: Path, scratch: Path) -> Path:
    target = scratch / "content"
    _run(["dpkg-deb", "-x", str(package.absolute()), str(target)], scratch)
    return target


def _downloaded(scratch: Path) -> Path:
    try:
        _run(["apt-get", "download", PACKAGE], scratch)
    except DataError:
        if os.geteuid() != 0:  # only the administrator may fetch the list of packages
            raise
        _run(["apt-get", "update"], scratch)
        _run(["apt-get", "download", PACKAGE], scratch)
    return next(scratch.glob("*.deb"))


def _run(command: list[str], folder: Path) -> None:
    """Run one of Debian's tools; `DataError` with its last words and the manual steps if that fails."""
    steps = (
        f"By hand: on Debian or Ubuntu run `apt-get update` as root and `apt-get download {PACKAGE}`, "
        "then `ipo datasets prepare stamps --from THAT.deb` where dpkg-deb is installed"
    )
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DataError(f"'{command[0]}' is not installed here", remedy=steps) from error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or "").strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise DataError(f"`{' '.join(command)}` failed: {words[0]}", remedy=steps) from error
