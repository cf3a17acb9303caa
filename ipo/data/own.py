"""One's own pictures: a folder of class folders."""

from __future__ import annotations

from pathlib import Path

from ipo.data.layouts import class_folders, labelled
from ipo.data.splits import Parts, assemble, hold_out, seeded_split
from ipo.data.types import Dataset, Split
from ipo.errors import DataError

OWN_PROMPT = "a photo of a <CLASS>."
"""The hand-crafted prompt where no paper gives one."""

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names under which the folder of a split is looked for."""


def read_folder(place: str, seed: int) -> Dataset:
    """`folder:PATH`: one folder a class, or `train/`, `val/` and `test/` above them.

    Without split folders the split is seeded, 50/20/30; with `train/` alone, 30% of it is kept for testing.
    """
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), remedy="Write folder:PATH with one folder a class inside")
    folders = {split: _split_folder(root, names) for split, names in SPLIT_FOLDERS.items()}
    if folders["train"] is None:
        classes = class_folders(root)
        parts, source = seeded_split(labelled(root, classes), seed), f"seeded ({seed})"
    else:
        present = {split: folder for split, folder in folders.items() if folder}
        classes = sorted({name for folder in present.values() for name in class_folders(folder)})
        parts = {split: labelled(folder, classes) for split, folder in present.items()}
        source = "folders"
        if not parts.get("test"):
            parts, source = _with_test(parts, seed), f"folders, seeded test ({seed})"
    check_not_empty(root, classes, parts)
    return assemble(root.resolve().name, root, classes, parts, prompt=OWN_PROMPT, source=source, own=True)


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _with_test(parts: Parts, seed: int) -> Parts:
    train, test = hold_out(parts["train"], 0.3, seed)
    return {**parts, "train": train, "test": test}


def check_not_empty(source: Path, classes: list[str], parts: Parts) -> None:
    """Raises `DataError` if there are fewer than two classes or no training images."""
    if len(classes) < 2:
        raise DataError(f"{len(classes)} class folders found", where=str(source), remedy="Two classes are the least")
    if not parts.get("train"):
        raise DataError("no training images found", where=str(source), remedy="Put images into the class folders")
