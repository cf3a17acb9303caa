"""The score of a prompt: each figure from the whole table of logits, however many rows are looked at together."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from ipo import evaluate, metrics
from ipo.data.types import Item
from ipo.evaluate import ImageSet, score_classifier
from tests.fakes import FakeClip

CLASSES, IMAGES = 11, 160


@pytest.fixture
def images():
    features = normalize(torch.randn(IMAGES, FakeClip().dim, generator=torch.Generator().manual_seed(1)), dim=-1)
    return ImageSet(tuple(Item(Path("-"), index % CLASSES) for index in range(IMAGES)), features)


@pytest.mark.parametrize("rows", [1, 3, 32, IMAGES - 1, IMAGES, 1000])
def test_a_score_does_not_depend_on_how_many_images_are_scored_at_once(images, rows, monkeypatch):
    clip = FakeClip()
    classifier = normalize(images.features[:CLASSES] + images.features[CLASSES : 2 * CLASSES], dim=-1)
    logits, labels = clip.logit_scale * images.features @ classifier.T, images.labels
    monkeypatch.setattr(evaluate, "CHUNK_LOGITS", rows * CLASSES)
    score = score_classifier(clip, classifier, images)
    accuracy, (fold_accuracy, fold_loss) = metrics.accuracy(logits, labels), metrics.fold_scores(logits, labels)
    assert 0 < accuracy < 1
    assert (score.accuracy, score.fold_accuracy) == (round(accuracy, 6), round(fold_accuracy, 6))
    assert (score.loss, score.margin, score.fold_loss) == tuple(
        round(value, 6) for value in (metrics.cross_entropy(logits, labels), metrics.margin(logits, labels), fold_loss)
    )
    assert (score.low, score.high) == tuple(round(value, 6) for value in metrics.wilson_interval(accuracy, IMAGES))


def test_no_tensor_of_a_score_but_the_logits_has_a_row_for_every_image(images, monkeypatch):
    seen = []
    for name in ("cross_entropy", "margin", "fold_scores"):
        original = getattr(metrics, name)
        monkeypatch.setattr(metrics, name, lambda part, own, f=original: seen.append(len(part)) or f(part, own))
    monkeypatch.setattr(evaluate, "CHUNK_LOGITS", 32 * CLASSES)
    score_classifier(FakeClip(), images.features[:CLASSES], images)
    assert max(seen) == 32
