"""Labels and official train/test lists of the benchmarks whose folders do not show the class.

They serve where CoOp's published split file is missing; with it, none of this is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ipo.data.splits import safe_path
from ipo.data.types import Item
from ipo.errors import DataError
from ipo.packages import extra_remedy

Find = Callable[..., Path]
Official = tuple[list[str], list[Item], list[Item]]
"""Class names, training items and official test items; no test items mean that there is no official test list."""


def pets(images: Path, find: Find) -> Official:
    """annotations/{trainval,test}.txt: `Abyssinian_100 1 1 1`, the second field counting classes from 1."""
    names: dict[int, str] = {}
    halves = []
    for part in ("trainval", "test"):
        items = []
        for line in find(f"annotations/{part}.txt", f"{part}.txt").read_text(encoding="utf-8").splitlines():
            stem, number = line.split()[:2]
            names[int(number) - 1] = stem.rpartition("_")[0].lower()
            items.append(Item(images / f"{stem}.jpg", int(number) - 1))
        halves.append(items)
    return [names[label] for label in sorted(names)], halves[0], halves[1]


def sun(images: Path, find: Find) -> Official:
    """ClassName.txt, Training_01.txt and Testing_01.txt with lines such as `/a/abbey/sun_aaa.jpg`."""
    classes = find("ClassName.txt").read_text(encoding="utf-8").split()
    label_of = {name: label for label, name in enumerate(classes)}
    halves = []
    for part in ("Training_01.txt", "Testing_01.txt"):
        file = find(part)
        lines = file.read_text(encoding="utf-8").split()
        halves.append([Item(safe_path(images, line[1:], file), label_of[line.rpartition("/")[0]]) for line in lines])
    # "/a/athletic_field/outdoor" is read "outdoor athletic_field"
    names = [" ".join(reversed(name.split("/")[2:])) for name in classes]
    return names, halves[0], halves[1]


def ucf(images: Path, find: Find) -> Official:
    """ucfTrainTestlist/: lines such as `YoYo/v_YoYo_g01_c01.avi 101`, whose middle frame is the image."""
    folder = "ucfTrainTestlist"
    rows = (line.split() for line in find(f"{folder}/classInd.txt").read_text(encoding="utf-8").splitlines())
    label_of = {action: int(number) - 1 for number, action in (row for row in rows if row)}
    halves = []
    for part in ("trainlist01.txt", "testlist01.txt"):
        items = []
        for line in find(f"{folder}/{part}").read_text(encoding="utf-8").splitlines():
            action, video = line.split()[0].split("/")
            items.append(Item(images / _words(action) / video.replace(".avi", ".jpg"), label_of[action]))
        halves.append(items)
    return [_words(action) for action in label_of], halves[0], halves[1]


def _words(action: str) -> str:
    return "_".join(re.findall("[A-Z][^A-Z]*", action))


def cars(images: Path, find: Find) -> Official:
    """devkit/*.mat: class names with the year moved to the front, file names and classes counted from 1."""
    meta = _mat(find("devkit/cars_meta.mat"))["class_names"][0]
    names = [_year_first(str(name[0])) for name in meta]
    halves = []
    for folder, files in (
        ("cars_train", ("devkit/cars_train_annos.mat",)),
        ("cars_test", ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")),
    ):
        rows = _mat(find(*files))["annotations"][0]
        halves.append([Item(images / folder / str(row["fname"][0]), int(row["class"][0, 0]) - 1) for row in rows])
    return names, halves[0], halves[1]


def _year_first(name: str) -> str:
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"


def flowers(images: Path, find: Find) -> Official:
    """imagelabels.mat (the class of image_00001.jpg and on, from 1) and cat_to_name.json."""
    labels = _mat(find("imagelabels.mat"))["labels"][0]
    names = json.loads(find("cat_to_name.json").read_text(encoding="utf-8"))
    items = [Item(images / f"image_{number:05d}.jpg", int(label) - 1) for number, label in enumerate(labels, 1)]
    return [names[str(label)] for label in range(1, len(names) + 1)], items, []


def _mat(file: Path) -> Any:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError(
            "scipy is needed to read this list",
            where=str(file),
            remedy=f"Run: {extra_remedy('mat')}, or get the split file",
        ) from error
    try:
        return loadmat(file)
    except (MatReadError, ValueError, OSError, TypeError) as error:
        raise DataError(f"cannot read MATLAB file: {error}", where=str(file)) from error


OFFICIAL: Mapping[str, Callable[[Path, Find], Official]] = {
    "oxford_pets": pets,
    "sun397": sun,
    "ucf101": ucf,
    "stanford_cars": cars,
    "oxford_flowers": flowers,
}
"""The reader of each benchmark's own lists, by its name in the catalogue."""
