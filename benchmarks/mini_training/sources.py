"""The pictures that `mini` is made from, each with what it shows: drawings and icons out of packages that allow it.

`fetch` gets the packages by name with the ordinary clients (`apt-get download`, `npm pack`). Nothing of the demo's
stamps, of Caltech101, PACS or CIFAR is among them.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Kind = Literal["clip", "render", "line", "silhouette", "photo"]
"""What a picture is by itself: flat or shaded clip art, line art, a black shape, or a photograph without a name."""


@dataclass(frozen=True)
class Source:
    """A package, under which licence its pictures come, and what kind they are."""

    package: str
    licence: str
    kind: Kind

    @property
    def file(self) -> str:
        """How the files of the package begin, in the folder of the packages."""
        return self.package.removeprefix("@").replace("/", "-")


ICON_SETS = (
    Source("@iconify-json/fluent-emoji", "MIT", "render"),
    Source("@iconify-json/fluent-emoji-flat", "MIT", "clip"),
    Source("@iconify-json/fluent-emoji-high-contrast", "MIT", "silhouette"),
    Source("@iconify-json/noto", "Apache-2.0", "clip"),
    Source("@iconify-json/noto-v1", "Apache-2.0", "clip"),
    Source("@iconify-json/fxemoji", "Apache-2.0", "clip"),
    Source("@iconify-json/twemoji", "CC-BY-4.0", "clip"),
    Source("@iconify-json/streamline-emojis", "CC-BY-4.0", "clip"),
    Source("@iconify-json/emojione-monotone", "CC-BY-4.0", "silhouette"),
    Source("@iconify-json/game-icons", "CC-BY-3.0", "silhouette"),
    Source("@iconify-json/mdi", "Apache-2.0", "silhouette"),
    Source("@iconify-json/icon-park", "Apache-2.0", "line"),
    Source("@iconify-json/ph", "MIT", "line"),
    Source("@iconify-json/tabler", "MIT", "line"),
    Source("@iconify-json/lucide", "ISC", "line"),
)
"""npm packages with an `icons.json`: SVG drawings by name."""
CLIP_ART = Source("openclipart-png", "public domain", "clip")
PHOTOS = (Source("lomiri-wallpapers-16.04", "CC0-1.0, CC-BY-4.0", "photo"),)
WORDNET = Source("wordnet-base", "WordNet 3.0", "line")
"""Not pictures: the list of nouns that names are checked against."""
DEBIAN = (CLIP_ART, *PHOTOS, WORDNET)


@dataclass(frozen=True)
class Picture:
    """One picture of a source: an SVG text or a file; `name` is empty where nobody says what it shows."""

    source: str
    key: str
    kind: Kind
    name: str
    svg: str = ""
    path: Path | None = None

    @property
    def digest(self) -> str:
        """What the picture is known by: the start of the SHA-256 of its file, or of its SVG text."""
        content = self.svg.encode() if self.path is None else self.path.read_bytes()
        return hashlib.sha256(content).hexdigest()[:16]


DIGESTS = Path(__file__).with_name("pictures.txt")
"""The digests of all pictures that the shipped weights were trained on, a line each; a test compares them."""


def fetch(folder: Path) -> None:
    """Download and unpack every package into `folder`; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in DEBIAN:
        place = folder / source.file
        if not place.is_dir():
            subprocess.run(["apt-get", "download", source.package], cwd=folder, check=True)
            [archive] = folder.glob(f"{source.package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, place], check=True)
    for source in ICON_SETS:
        place = folder / source.file
        if not place.is_dir():
            done = subprocess.run(
                ["npm", "pack", "--silent", source.package], cwd=folder, check=True, capture_output=True
            )
            with tarfile.open(folder / done.stdout.decode().split()[-1]) as archive_file:
                archive_file.extractall(place, filter="data")


def pictures(folder: Path) -> list[Picture]:
    """All pictures in a fixed order."""
    found = list(_clip_art(folder / CLIP_ART.file))
    for source in ICON_SETS:
        found += _icons(source, folder / source.file / "package" / "icons.json")
    for source in PHOTOS:
        found += _photos(source, folder / source.file)
    return found


_CATEGORIES = {"05": "animal", "06": "artifact", "08": "body", "13": "food", "17": "object", "18": "person",
               "19": "phenomenon", "20": "plant"}  # fmt: skip
"""WordNet's lexicographer files of things that can be drawn."""
_NO_NAMES = frozenset(
    [
        "simple",
        "color",
        "colour",
        "outline",
        "cartoon",
        "contour",
        "clip",
        "art",
        "symbol",
        "icon",
        "de",
        "la",
        "il",
        "star",
        "arch",
        "a",
        "r",
        "md",
        "sign",
        "set",
        "top",
        "bottom",
        "left",
        "right",
        "front",
        "back",
        "side",
        "view",
        "small",
        "big",
        "large",
        "old",
        "new",
        "red",
        "blue",
        "green",
        "yellow",
        "black",
        "white",
        "square",
        "circle",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "zero",
        "sm",
        "ar",
        "an",
        "be",
        "in",
        "at",
        "it",
        "m",
        "s",
        "t",
        "c",
        "b",
        "e",
        "i",
        "o",
        "u",
        "ma",
        "mo",
        "x",
        "y",
        "z",
        "jo",
        "he",
        "or",
        "as",
        "us",
        "pa",
        "ad",
        "gray",
        "grey",
        "brown",
        "pink",
        "purple",
        "orange-color",
        "mother",
        "father",
        "son",
        "can",
        "matt",
        "peter",
        "line",
        "point",
        "dot",
        "cross",
        "plus",
        "minus",
        "check",
        "card",
        "button",
        "arrow",
        "letter",
        "number",
        "text",
        "list",
        "table",
        "menu",
        "code",
        "key",
        "lock",
        "link",
        "tag",
        "chat",
        "user",
        "users",
        "group",
        "file",
        "folder",
        "note",
        "page",
        "copy",
        "paste",
        "cut",
        "frame",
        "layer",
        "layout",
        "align",
        "space",
        "stack",
        "track",
        "play",
        "pause",
        "stop",
        "record",
        "window",
        "windows",
        "tab",
        "bar",
        "handle",
        "head",
        "face",
        "hand",
        "body",
    ]
)
"""Nouns that say nothing of what a picture shows, or are words of a user interface."""
_ITALIAN = dict(
    pair.split(":")
    for pair in [
        "gatto:cat",
        "cane:dog",
        "cavallo:horse",
        "elefante:elephant",
        "pecora:sheep",
        "coniglio:rabbit",
        "canguro:kangaroo",
        "topo:mouse",
        "mucca:cow",
        "toro:bull",
        "antilope:antelope",
        "ape:bee",
        "coccinella:ladybug",
        "farfalla:butterfly",
        "libellula:dragonfly",
        "lumaca:snail",
        "mantide:mantis",
        "ragno:spider",
        "zanzara:mosquito",
        "formica:ant",
        "cavalletta:grasshopper",
        "pinguino:penguin",
        "trattore:tractor",
        "bicicletta:bicycle",
        "casa:house",
        "pesce:fish",
        "albero:tree",
        "fiore:flower",
        "gallina:hen",
        "gallo:rooster",
        "anatra:duck",
        "cammello:camel",
        "ambulanza:ambulance",
        "candela:candle",
        "chitarra:guitar",
        "rana:frog",
        "serpente:snake",
        "tartaruga:turtle",
        "squalo:shark",
        "delfino:dolphin",
        "balena:whale",
        "orso:bear",
        "leone:lion",
        "tigre:tiger",
        "scimmia:monkey",
        "giraffa:giraffe",
        "asino:donkey",
        "capra:goat",
        "maiale:pig",
        "mela:apple",
        "pera:pear",
        "foglia:leaf",
        "martello:hammer",
        "ombrello:umbrella",
        "barca:boat",
        "nave:ship",
        "treno:train",
        "aereo:airplane",
    ]
)
"""A large part of the clip art has Italian file names."""
_UNNAMED_FOLDERS = re.compile(
    r"computer/(icons|buttons)|shapes|signs_and_symbols|special|geography|buttons|logos|decorations"
    r"|transportation/(roadsigns|aiga)|recreation/games/cards"
)
_SKIPPED_ICONS = re.compile(
    r"skin|-(light|medium|dark|medium-light|medium-dark)$|^flag|flag-|button|arrow|square|circle|heart|clock-?\d|keycap"
    r"|^man-|^woman-|^person-|^people-|^men-|^women-|zodiac|input-|symbol|finger|hand|fist|thumb|smil|grin|eyes|face-with"
    r"|-face$|kiss|couple|family|medal|japanese|trigram|hexagram|letter|squared|-sign|off$|plus$|minus$|lock$|alert"
)
_LINE_STYLES = re.compile(r"-(thin|light|outline)$")


def _clip_art(folder: Path) -> Iterator[Picture]:
    root = folder / "usr" / "share" / "openclipart" / "png"
    for path in sorted(root.rglob("*.png")):
        place = path.relative_to(root).as_posix()
        if _UNNAMED_FOLDERS.match(place) or "duplicate" in place:
            continue
        words = [_ITALIAN.get(word, word) for word in re.sub(r"[^a-z]+", " ", path.stem.lower()).split()]
        if name := _named_thing(words):
            yield Picture(CLIP_ART.package, place, CLIP_ART.kind, name, path=path)


def _icons(source: Source, file: Path) -> Iterator[Picture]:
    icons = json.loads(file.read_text(encoding="utf-8"))
    emoji = "emoji" in source.package or "noto" in source.package
    for key, icon in sorted(icons["icons"].items()):
        kind, words = source.kind, key.split("-")
        if source.package.endswith("/ph"):  # Phosphor draws each thing in six styles
            if not (style := re.search(r"-(thin|light|fill)$", key)):
                continue
            kind, words = ("silhouette" if style[1] == "fill" else "line"), words[:-1]
        elif source.package.endswith(("/mdi", "/tabler")) and words[-1] in ("outline", "filled"):
            kind, words = ("line" if words[-1] == "outline" else "silhouette"), words[:-1]
        if _SKIPPED_ICONS.search("-".join(words)):
            continue
        name = " ".join(words)
        if not (_things_among(words) if emoji else name in things() and name not in _NO_NAMES and len(name) > 2):
            continue
        width, height = icon.get("width", icons.get("width", 24)), icon.get("height", icons.get("height", 24))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        yield Picture(source.package, key, kind, name, svg=svg.replace("currentColor", "#000"))


def _photos(source: Source, folder: Path) -> Iterator[Picture]:
    """The photographs of a package whose own licence allows it."""
    text = (folder / "usr/share/doc" / source.package / "copyright").read_text(encoding="utf-8")
    allowed = {licence.strip() for licence in source.licence.split(",")}
    for block in text.split("\n\n"):
        file, licence = re.search(r"^Files: (\S+\.jpg)$", block, re.M), re.search(r"^License: (\S+)$", block, re.M)
        if file and licence and licence[1] in allowed:
            for path in sorted(folder.rglob(Path(file[1]).name)):
                yield Picture(source.package, path.name, "photo", "", path=path)


def _named_thing(words: list[str]) -> str:
    """The longest run of words, of three at most, that names a thing; empty if there is none."""
    for size in (3, 2, 1):
        for start in range(len(words) - size + 1):
            name = " ".join(words[start : start + size])
            for form in (name, name[:-1] if size == 1 and name.endswith("s") else ""):
                if len(form) > 2 and form in things() and form not in _NO_NAMES:
                    return form
    return ""


def _things_among(words: Iterable[str]) -> bool:
    return any(word in things() and word not in _NO_NAMES and len(word) > 2 for word in words)


_wordnet_folder = Path()


def use_wordnet(folder: Path) -> None:
    """Where the packages lie; the nouns are read from there."""
    global _wordnet_folder
    _wordnet_folder = folder / WORDNET.file / "usr" / "share" / "wordnet"


@cache
def things() -> frozenset[str]:
    """Nouns one of whose three commonest senses is something that can be drawn."""
    category = {}
    for line in (_wordnet_folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            offset, file, _ = line.split(" ", 2)
            category[offset] = file
    found = set()
    for line in (_wordnet_folder / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            word, *rest = line.split()
            senses = rest[-int(rest[1]) :]
            if any(category[sense] in _CATEGORIES for sense in senses[:3]):
                found.add(word.replace("_", " "))
    return frozenset(found)
