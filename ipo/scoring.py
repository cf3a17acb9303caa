"""P prompts x C classes x N images -> scores, in batches; and the one interface through which any method predicts.

Shape legend: P prompts, C classes, N images, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ipo import metrics
from ipo.clip.base import ClipModel
from ipo.config import LabelFreeRule, MetricName
from ipo.data.types import Item, UnlabelledItem
from ipo.errors import DataError, ModelError
from ipo.prompt import AnyScore, ConfidenceScore, MapScore, Prompt, Score
from ipo.screen import counted

CHUNK_LOGITS = 1 << 21
"""Logits that are scored at once: each takes some 40 bytes meanwhile."""

NOT_FINITE = "logits that are no finite numbers"


Aggregate = Literal["feature_mean", "score_mean"]
"""How several texts of a class become one classifier: the mean of their features made unit length again (the mean
direction), or the mean itself (the mean of their cosines), which favours classes whose texts are alike."""

TextsOf = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""From the class names that compete to the texts of each."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images with their features (N, D) under the frozen CLIP, of unit length, on its device."""

    items: tuple[Item, ...]
    features: Tensor

    @property
    def labels(self) -> Tensor:
        """Labels (N,) on the device of the features."""
        return torch.tensor([item.label for item in self.items], device=self.features.device)

    @property
    def metric(self) -> MetricName:
        """What a classifier of these images is scored by: mean average precision where they have several labels."""
        return "map" if any(item.labels for item in self.items) else "accuracy"

    def targets(self, classes: int) -> Tensor:
        """Truth values (N, C), on the CPU: which labels each image has."""
        rows = torch.zeros(len(self.items), classes, dtype=torch.bool)
        for row, item in zip(rows, self.items, strict=True):
            row[list(item.classes)] = True
        return rows

    def __len__(self) -> int:
        return len(self.items)

    def unlabelled(self) -> ImageSet:
        """The same images for those who are not to see their labels: to read one raises `ConfigError`."""
        return ImageSet(tuple(UnlabelledItem(item.path, domain=item.domain) for item in self.items), self.features)


@dataclass(frozen=True)
class ConfidenceImages(ImageSet):
    """Images without labels, and the rule by which they tell a good prompt."""

    rule: LabelFreeRule


class Predictor(Protocol):
    """What a fitted method is: logits for any images and any class names."""

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C), float32, scaled as in training; the largest is the prediction."""


@dataclass(frozen=True)
class PromptPredictor:
    """CLIP's zero-shot classifier with one prompt, or with several that every class shares."""

    clip: ClipModel
    prompts: tuple[Prompt, ...]
    aggregate: Aggregate = "feature_mean"

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x cosine of image and class features, or the mean over prompts of such."""
        classifier = ensemble_classifier(text_features(self.clip, self.prompts, classnames), self.aggregate)
        return self.clip.logit_scale * images.features @ classifier.T


@dataclass(frozen=True)
class ClassTextPredictor:
    """CLIP's zero-shot classifier where each class has texts of its own, such as descriptions."""

    clip: ClipModel
    texts: TextsOf
    aggregate: Aggregate

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C), as `PromptPredictor` gives them. Raises `DataError` for a class without a text."""
        classifier = class_text_classifier(self.clip, self.texts(classnames), self.aggregate)
        return self.clip.logit_scale * images.features @ classifier.T


def text_features(clip: ClipModel, prompts: Sequence[Prompt], classnames: Sequence[str]) -> Tensor:
    """Unit-length features (P, C, D) of every prompt filled with every class name."""
    texts = [prompt.fill(name) for prompt in prompts for name in classnames]
    return clip.encode_texts(texts).view(len(prompts), len(classnames), clip.dim)


def ensemble_classifier(features: Tensor, aggregate: Aggregate = "feature_mean") -> Tensor:
    """Class features (C, D) of a prompt ensemble (P, C, D): the mean over prompts, renormalised for `feature_mean`."""
    return _aggregated(features.mean(dim=0), aggregate)


def class_text_classifier(clip: ClipModel, texts: Sequence[Sequence[str]], aggregate: Aggregate) -> Tensor:
    """Class features (C, D) from the texts of each class, of which there may be more for one than for another.

    Raises `DataError` for a class without a text.
    """
    if not all(texts):
        raise DataError("a class has no text", remedy="Give each class a text, such as its name")
    features = clip.encode_texts([text for own in texts for text in own])
    parts = torch.split(features, [len(own) for own in texts])
    return _aggregated(torch.stack([part.mean(dim=0) for part in parts]), aggregate)


def _aggregated(means: Tensor, aggregate: Aggregate) -> Tensor:
    return normalize(means, dim=-1) if aggregate == "feature_mean" else means


def score_prompts(
    clip: ClipModel, prompts: Sequence[Prompt], images: ImageSet, classnames: Sequence[str]
) -> list[AnyScore]:
    """The score of each prompt on all `images` at once, in their order. Raises `ModelError` for one without a score."""
    scores = score_candidates(clip, prompts, images, classnames)
    for prompt, score in zip(prompts, scores, strict=True):
        if score is None:
            raise ModelError(f"{NOT_FINITE} for the prompt '{prompt.text}'", where=clip.fingerprint.name)
    return [score for score in scores if score is not None]


def score_candidates(
    clip: ClipModel, prompts: Sequence[Prompt], images: ImageSet, classnames: Sequence[str]
) -> list[AnyScore | None]:
    """As `score_prompts`, with None for a prompt whose logits are not finite, as half precision may give."""
    if not prompts:
        return []
    features = text_features(clip, prompts, classnames)
    return [score_classifier(clip, one, images) if bool(one.isfinite().all()) else None for one in features]


def require_finite(logits: Tensor, images: ImageSet, what: str) -> None:
    """Raise `ModelError` where logits (N, C) of `what` are not finite, naming the first image."""
    bad = (~logits.isfinite()).any(dim=-1).nonzero().flatten().tolist()
    if bad:
        place = f"{len(bad)} of {counted(len(images), 'image')}, such as {images.items[bad[0]].path}"
        raise ModelError(f"{NOT_FINITE} for {place}", where=what, remedy="Is it a damaged image or model? Try float32")


def score_classifier(clip: ClipModel, classifier: Tensor, images: ImageSet) -> AnyScore:
    """The score of class features (C, D) on `images`. Raises `ModelError` where it is not finite."""
    logits = clip.logit_scale * images.features @ classifier.T
    require_finite(logits, images, clip.fingerprint.name)
    if isinstance(images, ConfidenceImages):
        return _confidence_score(logits, images.rule, clip.logit_scale)
    return _map_score(logits, images) if images.metric == "map" else _accuracy_score(logits, images.labels)


def _confidence_score(logits: Tensor, rule: LabelFreeRule, logit_scale: float) -> ConfidenceScore:
    value, error = (figure / logit_scale for figure in metrics.confidence(rule, logits))
    return ConfidenceScore(
        confidence=round(value, 6),
        loss=round(metrics.mean_entropy(logits), 6),
        low=round(value - metrics.Z95 * error, 6),
        high=round(value + metrics.Z95 * error, 6),
    )


def _map_score(logits: Tensor, images: ImageSet) -> MapScore:
    found, targets = _mean_average_precision(logits, images), images.targets(logits.shape[-1])
    return MapScore(
        map=round(found.value, 6),
        loss=round(metrics.shared_cross_entropy(logits.cpu(), targets), 6),
        low=round(found.low, 6),
        high=round(found.high, 6),
        classes=len([one for one in found.per_class if one is not None]),
    )


def _mean_average_precision(logits: Tensor, images: ImageSet) -> metrics.MeanAveragePrecision:
    targets = images.targets(logits.shape[-1])
    return metrics.mean_average_precision(logits.cpu().double().numpy(), targets.numpy())


def _accuracy_score(logits: Tensor, labels: Tensor) -> Score:
    count = len(labels)
    hits = fold_hits = 0
    loss = margin = fold_loss = 0.0
    for part, own in _chunks(logits, labels):
        share, inside = len(own) / count, metrics.within_folds(part, own)
        hits += metrics.count_right(part, own)
        fold_hits += metrics.count_right(inside, own)
        loss += share * metrics.cross_entropy(part, own)
        margin += share * metrics.margin(part, own)
        fold_loss += share * metrics.cross_entropy(inside, own)
    low, high = metrics.wilson_interval(hits / count, count)
    return Score(
        accuracy=round(hits / count, 6),
        loss=round(loss, 6),
        low=round(low, 6),
        high=round(high, 6),
        margin=round(margin, 6),
        fold_accuracy=round(fold_hits / count, 6),
        fold_loss=round(fold_loss, 6),
    )


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N, C) with their labels, some at a time: figures are made in double precision, which needs room."""
    rows = max(1, CHUNK_LOGITS // logits.shape[1])
    return zip(torch.split(logits, rows), torch.split(labels, rows), strict=True)


@dataclass(frozen=True)
class Evaluation:
    """What a predictor did on `n` test images: accuracy, or mean average precision, in 0..1 with its 95% interval."""

    value: float
    low: float
    high: float
    n: int
    per_class: tuple[float | None, ...]
    """Recall of each class, or its average precision; None for a class without images."""
    correct: str
    """One character an image, `1` where the prediction is right; empty where images have several labels."""
    metric: MetricName = "accuracy"
    absent: tuple[str, ...] = ()
    """Names of the classes that no image has, which are left out of a mean average precision."""
    resampled: tuple[float, ...] = ()
    """Mean average precision on resamplings of the images, the same ones for all predictors."""
    predicted: tuple[int, ...] = ()
    """For each image the place of the class that it was taken for; none where images have several labels."""

    @property
    def interval(self) -> metrics.Interval:
        """The value with the ends of its interval."""
        return self.value, self.low, self.high

    def figures(self) -> dict[str, Any]:
        """The figures that `result.json` holds."""
        absent = {"absent": list(self.absent)} if self.absent else {}
        return {self.metric: self.value, "low": self.low, "high": self.high, "n": self.n} | absent


def evaluate_on(predictor: Predictor, images: ImageSet, classnames: Sequence[str]) -> Evaluation:
    """How well `predictor` tells `classnames` on `images`. `ModelError` where it cannot tell.

    Raises `DataError` where there is no image.
    """
    if not len(images):
        raise DataError("there is no image to test on", remedy="Add test images, or look at `ipo datasets check`")
    with torch.no_grad():
        logits = predictor.logits(images.unlabelled(), classnames)
    require_finite(logits, images, type(predictor).__name__)
    if images.metric == "map":
        found = _mean_average_precision(logits, images)
        absent = tuple(name for name, own in zip(classnames, found.per_class, strict=True) if own is None)
        return Evaluation(
            *(found.value, found.low, found.high, len(images), found.per_class, "", "map", absent, found.resampled)
        )
    labels = images.labels
    predicted = logits.argmax(dim=-1)
    hits = (predicted == labels).tolist()
    accuracy = metrics.accuracy(logits, labels)
    low, high = metrics.wilson_interval(accuracy, len(hits))
    recall = tuple(metrics.per_class_recall(logits, labels))
    correct = "".join("01"[hit] for hit in hits)
    return Evaluation(accuracy, low, high, len(hits), recall, correct, predicted=tuple(predicted.tolist()))
