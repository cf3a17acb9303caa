"""`correct.json`: for each test set the paths of its images, and each predictor's verdict on each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ipo.errors import RunError
from ipo.runs.folder import RESULT_FILE, read_run_json
from ipo.runs.result import CORRECT_FILE, RESTORE, Part, Predictor, Result, checked_content

_TOLERANCE = 1e-6
"""Most that an accuracy in `result.json` may differ from the share of right verdicts in `correct.json`."""


class _Content(Part):
    images: dict[str, list[str] | None]
    verdicts: dict[str, dict[str, Annotated[str, Field(pattern="^[01]*$")] | None]]


def read_verdicts(folder: Path, result: Result) -> tuple[dict[str, tuple[str, ...]], dict[str, dict[str, str]]]:
    """The paths of the test images of each test set, and each predictor's verdict on each, from `correct.json`.

    Test sets that were not used are left out, and where images have several labels there are no verdicts. Raises
    `RunError` where the file is damaged or not that of `result`.
    """
    content = read_run_json(folder, CORRECT_FILE)
    named = {"images": content.get("images"), "verdicts": {k: v for k, v in content.items() if k != "images"}}
    correct = checked_content(_Content, named, folder, CORRECT_FILE)
    images = {split: tuple(paths) for split, paths in correct.images.items() if paths}
    verdicts = {name: {split: bits for split, bits in own.items() if bits} for name, own in correct.verdicts.items()}
    for name, predictor in result.predictors.items():
        if result.metric == "accuracy" and not _belong_together(predictor, images, verdicts.get(name, {})):
            what = f"{RESULT_FILE} and {CORRECT_FILE} do not belong together: {name}"
            raise RunError(what, where=str(folder), remedy=RESTORE)
    return images, verdicts


def _belong_together(predictor: Predictor, images: dict[str, tuple[str, ...]], verdicts: dict[str, str]) -> bool:
    """Whether there is one verdict an image, and as many right ones as the accuracy says, on every test set."""
    figures = {"base": predictor.base} | ({"new": predictor.new} if predictor.new else {}) | predictor.targets
    if figures.keys() != verdicts.keys():
        return False
    return all(
        len(verdicts[split]) == len(images.get(split, ())) == figures[split].n
        and abs(verdicts[split].count("1") / len(verdicts[split]) - figures[split].value) < _TOLERANCE
        for split in figures
    )
