"""Miniatures of datasets: real image files of a few pixels, split files and archives."""

import functools
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ipo.data.types import Dataset, Item


@functools.cache
def encoded(kind: str = "JPEG", colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, kind)
    return buffer.getvalue()


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded("PNG" if path.suffix == ".png" else "JPEG", colour))
    return path


def class_tree(folder: Path, classes: dict[str, int], suffix: str = ".jpg") -> Path:
    """One folder a class with so many pictures in it, no two of the same content."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            path = picture(folder / name / f"{index:03d}{suffix}")
            path.write_bytes(path.read_bytes() + str(path).encode())
    return folder


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def split_file(path: Path, **parts: list[tuple[str, int, str]]) -> Path:
    rows = {split: parts.get(split, []) for split in ("train", "val", "test")}
    return text(path, json.dumps(rows, ensure_ascii=False))


def pack_tar(
    path: Path, members: Mapping[str, bytes | tarfile.TarInfo], mode: Literal["w", "w:gz", "w:xz", "w:bz2"] = "w:gz"
) -> Path:
    """A tar file; a member is its content, or a ready header for a link or a device."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pack_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def toy_dataset(train: Sequence[int], val: Sequence[int] = (), test: Sequence[int] = (), classes: int = 0) -> Dataset:
    """A dataset that exists on paper: one item for each label given, in this order."""
    root = Path("/toy")
    parts: dict[str, Any] = {
        split: tuple(Item(root / f"{split}-{index}.jpg", label) for index, label in enumerate(labels))
        for split, labels in (("train", train), ("val", val), ("test", test))
    }
    count = classes or max([*train, *val, *test]) + 1
    names = tuple(f"class {label}" for label in range(count))
    return Dataset(
        name="toy", root=root, classnames=names, **parts, hand_crafted_prompt="a photo of a <CLASS>.",
        split_source="folders", split_hash="0",
    )  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, to show that nothing has changed. Lock files do not count."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }
