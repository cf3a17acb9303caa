"""`predictions.json`: what each test image was taken for by each predictor, so that the report can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeInt, model_validator

from ipo.metrics import wilson_interval
from ipo.runs.folder import RunFolder, read_run_json
from ipo.runs.result import Figures, Part, checked_content
from ipo.store.files import json_text

if TYPE_CHECKING:  # torch takes seconds to import, and what was predicted is read without it
    from ipo.task import BaseToNew, BaseToNewResult

PREDICTIONS_FILE = "predictions.json"
SCHEMA = 1


class TestSet(Part):
    """The images of one test set, with what they are: labels are places among its class names."""

    __test__ = False

    classnames: list[str]
    images: list[str]
    """Paths below the folder of the dataset."""
    labels: list[NonNegativeInt]


class Predictions(Part):
    """The content of `predictions.json`."""

    schema_number: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    sets: dict[str, TestSet]
    predicted: dict[str, dict[str, list[NonNegativeInt]]]
    """For each predictor and test set the place of the class that each image was taken for."""
    before: str = ""
    """The predictor of the hand-crafted prompt, which the method is measured against; empty where it is the method."""
    before_prompt: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Predictions:
        """Every image has one label and one prediction a predictor, each of a class that there is."""
        for name, own in self.sets.items():
            rows = [own.labels, *(by_set[name] for by_set in self.predicted.values() if name in by_set)]
            if any(len(row) != len(own.images) or max(row, default=-1) >= len(own.classnames) for row in rows):
                raise ValueError(f"the predictions of {name} do not fit its images and classes")
        if {name for by_set in self.predicted.values() for name in by_set} - self.sets.keys():
            raise ValueError("predictions of a test set that is not there")
        return self

    def correct(self, predictor: str, test_set: str) -> list[bool]:
        """Whether a predictor was right on each image of a test set."""
        return [a == b for a, b in zip(self.predicted[predictor][test_set], self.sets[test_set].labels, strict=True)]

    def figures(self, predictor: str, test_set: str) -> Figures:
        """Accuracy of a predictor on a test set, with its interval."""
        hits = self.correct(predictor, test_set)
        share = sum(hits) / len(hits)
        low, high = wilson_interval(share, len(hits))
        return Figures(accuracy=share, low=low, high=high, n=len(hits))


def gather(
    protocol: BaseToNew, results: Mapping[str, BaseToNewResult], before: str = "", before_prompt: str = ""
) -> Predictions:
    """What was predicted by all predictors on all test sets."""
    sets = {
        name: TestSet(
            classnames=list(held_out.classnames),
            images=held_out.paths,
            labels=[item.label for item in held_out.images.items],
        )
        for name, held_out in protocol.test_sets().items()
    }
    predicted = {
        name: {test_set: list(evaluation.predicted) for test_set, evaluation in result.by_test_set().items()}
        for name, result in results.items()
    }
    return Predictions(sets=sets, predicted=predicted, before=before, before_prompt=before_prompt)


def write_predictions(folder: RunFolder, predictions: Predictions) -> None:
    """Write the file, on one line: it is for programs."""
    folder.write(PREDICTIONS_FILE, json_text(predictions.model_dump(mode="json", by_alias=True)) + "\n")


def read_predictions(folder: Path) -> Predictions | None:
    """What was predicted in a run; None for one without the file. Raises `RunError` for a damaged one."""
    if not (folder / PREDICTIONS_FILE).exists():
        return None
    return checked_content(Predictions, read_run_json(folder, PREDICTIONS_FILE), folder, PREDICTIONS_FILE)


def spread(images: Sequence[int], labels: Sequence[int], count: int) -> list[int]:
    """At most `count` of some images by their places, taking turns over their classes, in the order of the classes."""
    by_class: dict[int, list[int]] = {}
    for image in images:
        by_class.setdefault(labels[image], []).append(image)
    turns = sorted(
        ((turn, label, image) for label, own in by_class.items() for turn, image in enumerate(own)),
    )
    return [image for _, _, image in turns[:count]]
