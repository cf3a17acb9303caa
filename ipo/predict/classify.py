"""A run as a classifier of any pictures: class, calibrated confidence, and all probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.config import ClipSettings, Device, Settings
from ipo.data.types import UnlabelledItem
from ipo.errors import ConfigError, RunError
from ipo.predict.pictures import Picture, encoded
from ipo.progress import track
from ipo.runs.restore import restore_model, restore_predictor
from ipo.runs.result import Calibrated, Result
from ipo.scoring import ImageSet, Predictor

AT_ONCE = 64
"""Pictures that are classified together."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run says of one picture."""

    image: str
    """The path, or `image 0` and so on for pictures in memory."""
    classname: str | None
    """The most likely class; None where it is none of them, or where the picture cannot be read."""
    confidence: float | None
    """Its calibrated probability (0..1), that of the most likely class too where that is turned down."""
    probabilities: tuple[float, ...] = field(default=(), repr=False)
    """One for each class name, in their order."""
    classnames: tuple[str, ...] = field(default=(), repr=False)
    error: str | None = None
    """Why the picture cannot be read."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities, the first of them first."""
        pairs = sorted(zip(self.classnames, self.probabilities, strict=True), key=lambda pair: -pair[1])
        return pairs[:count]

    def to_json(self) -> dict[str, Any]:
        """Image, class, confidence and error."""
        return {"image": self.image, "class": self.classname, "confidence": self.confidence, "error": self.error}


@dataclass(frozen=True)
class Classifier:
    """A run's predictor with the classes that compete, and how its logits become probabilities."""

    clip: ClipModel
    predictor: Predictor
    classnames: tuple[str, ...]
    calibration: Calibrated
    settings: ClipSettings

    @classmethod
    def restore(
        cls,
        path: Path,
        settings: Settings,
        result: Result,
        own: Sequence[str],
        classnames: Sequence[str] | None = None,
        device: Device | None = None,
    ) -> Classifier:
        """The classifier of a finished run whose classes are its `own`, or of other `classnames`. Raises `RunError`."""
        names = tuple(own if classnames is None else classnames)
        if not names or any(not isinstance(name, str) or not name.strip() for name in names):
            raise ConfigError("a class name is empty, or there is none")
        if result.calibration is None:
            remedy = "Go on with it once where its dataset is, which writes them: ipo.resume or --resume"
            what = "an earlier version of ipo kept no confidences here"
            raise RunError(what, where=str(path), remedy=remedy)
        clip = restore_model(path, settings, result, device)
        predictor = restore_predictor(path, clip, result, result.main_predictor, tuple(own), names)
        calibration = result.calibration
        if names != tuple(own):
            calibration = calibration.model_copy(update={"thresholds": []})  # those of other classes say nothing
        return cls(clip, predictor, names, calibration, settings.clip)

    def predictions(self, pictures: Sequence[Picture], *, none: bool = False) -> Iterator[Prediction]:
        """A prediction for each picture, in order; with `none`, no class where no class is likely enough.

        Raises `ConfigError` where other classes than those of the run were named and `none` is asked for.
        """
        if none and len(self.calibration.thresholds) != len(self.classnames):
            raise ConfigError("from when on a picture is of none of the classes is known for those of the run only")
        waiting: list[tuple[Picture, Tensor | str]] = []
        outcomes = track(encoded(pictures, self.clip, self.settings), "pictures", len(pictures))
        for pair in zip(pictures, outcomes, strict=True):
            waiting.append(pair)
            if len(waiting) == AT_ONCE:
                yield from self._predicted(waiting, none)
                waiting = []
        yield from self._predicted(waiting, none)

    def _predicted(self, pairs: Sequence[tuple[Picture, Tensor | str]], none: bool) -> Iterator[Prediction]:
        read = [(picture, features) for picture, features in pairs if isinstance(features, Tensor)]
        rows = iter(self._probabilities(read) if read else ())
        for picture, features in pairs:
            if isinstance(features, str):
                yield Prediction(picture.name, None, None, error=features)
                continue
            probabilities = next(rows)
            place = max(range(len(probabilities)), key=probabilities.__getitem__)
            turned_down = none and probabilities[place] < self.calibration.thresholds[place]
            chosen = None if turned_down else self.classnames[place]
            yield Prediction(picture.name, chosen, probabilities[place], tuple(probabilities), self.classnames)

    def _probabilities(self, read: Sequence[tuple[Picture, Tensor]]) -> list[list[float]]:
        """Calibrated probabilities of each class for each picture."""
        items = tuple(UnlabelledItem(Path(picture.name)) for picture, _ in read)
        images = ImageSet(items, torch.stack([features for _, features in read]).to(self.clip.device))
        with torch.no_grad():
            logits = self.predictor.logits(images, self.classnames)
        found: list[list[float]] = (logits.double().cpu() / self.calibration.temperature).softmax(dim=-1).tolist()
        return found
