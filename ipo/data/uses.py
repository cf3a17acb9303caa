"""What a method saw beside the test images that it is judged on: the words for it, which results record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Use = Literal[
    "labels",
    "val_labels",
    "new_names",
    "unlabelled_images",
    "unlabelled_test",
    "per_dataset_settings",
    "llm_saw_class_names",
]
"""One thing that a method saw."""

USES: dict[Use, tuple[str, str]] = {
    "labels": ("L", "labels of training images"),
    "val_labels": ("V", "labels of validation images"),
    "new_names": ("N", "names of new classes before the test"),
    "unlabelled_images": ("U", "images without labels, of training or of a folder"),
    "unlabelled_test": ("T", "test images without labels"),
    "per_dataset_settings": ("D", "settings or a prompt made for this dataset"),
    "llm_saw_class_names": ("C", "class names that a language model was shown"),
}
"""The letter of each in tables, and what it stands for."""

NOTHING, UNKNOWN = "-", "?"
"""What tables show in the place of letters."""


def in_order(uses: Iterable[Use]) -> list[Use]:
    """Each once, in the order of `USES`."""
    known = set(uses)
    return [use for use in USES if use in known]


def letters(uses: Iterable[Use] | None) -> str:
    """What was seen as letters, such as `LD`; None is what nobody declared."""
    if uses is None:
        return UNKNOWN
    return "".join(USES[use][0] for use in in_order(uses)) or NOTHING


def in_words(uses: Iterable[Use] | None) -> str:
    """What was seen, as a phrase."""
    if uses is None:
        return "not declared"
    return ", ".join(USES[use][1] for use in in_order(uses)) or "nothing beside the names of its classes"


def legend(shown: Iterable[str]) -> str:
    """What the letters in some cells mean, as one sentence."""
    cells = set(shown)
    known = [f"{letter} {what}" for letter, what in USES.values() if any(letter in cell for cell in cells)]
    ends = {NOTHING: "nothing of these", UNKNOWN: "not declared"}
    known += [f"{cell} {what}" for cell, what in ends.items() if cell in cells]
    return f"uses: what a method saw, beside the names of its own classes: {', '.join(known)}."
