"""The score of a prompt: each figure from the whole table of logits, however many rows are looked at together."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ipo import metrics, scoring
from ipo.clip.lengths import TextRoom
from ipo.config import LLMSettings, SearchSettings
from ipo.data.types import Item
from ipo.errors import DataError, ModelError, RunError
from ipo.prompt import Prompt, Score
from ipo.scoring import (
    ClassTextPredictor,
    ImageSet,
    PromptPredictor,
    class_text_classifier,
    evaluate_on,
    score_candidates,
    score_classifier,
    score_prompts,
)
from ipo.search.history import History
from ipo.search.loop import Search, optimize
from ipo.search.record import Record
from tests.fakes import FakeClip, ScriptedLLM

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
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", rows * CLASSES)
    score = score_classifier(clip, classifier, images)
    assert isinstance(score, Score)
    accuracy, inside = metrics.accuracy(logits, labels), metrics.within_folds(logits, labels)
    fold_accuracy, fold_loss = metrics.accuracy(inside, labels), metrics.cross_entropy(inside, labels)
    assert 0 < accuracy < 1
    assert (score.accuracy, score.fold_accuracy) == (round(accuracy, 6), round(fold_accuracy, 6))
    assert (score.loss, score.margin, score.fold_loss) == tuple(
        round(value, 6) for value in (metrics.cross_entropy(logits, labels), metrics.margin(logits, labels), fold_loss)
    )
    assert (score.low, score.high) == tuple(round(value, 6) for value in metrics.wilson_interval(accuracy, IMAGES))


def test_no_tensor_of_a_score_but_the_logits_has_a_row_for_every_image(images, monkeypatch):
    seen = []
    for name in ("cross_entropy", "margin", "within_folds"):
        original = getattr(metrics, name)

        def noted(part: Tensor, own: Tensor, original=original) -> object:
            seen.append(len(part))
            return original(part, own)

        monkeypatch.setattr(metrics, name, noted)
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", 32 * CLASSES)
    score_classifier(FakeClip(), images.features[:CLASSES], images)
    assert max(seen) == 32


class BlindClip(FakeClip):
    """Half precision that overflows: texts with the word `huge` have no feature."""

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        features = super().encode_texts(texts, unit)
        features[["huge" in text for text in texts]] = float("nan")
        return features


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["accuracy", "loss", "low", "high", "margin", "fold_accuracy", "fold_loss"])
def test_a_score_holds_numbers_only(field, value):
    with pytest.raises(ValueError, match=f"{field} of a score is"):
        replace(Score(0.5, 1.0, 0.1, 0.9, 0.0, 0.5, 1.0), **{field: value})


def test_a_prompt_without_finite_logits_is_an_error_that_names_it_and_the_model(images):
    prompts, names = [Prompt("a <CLASS>"), Prompt("a huge <CLASS>")], [f"name{index}" for index in range(CLASSES)]
    assert [score is None for score in score_candidates(BlindClip(), prompts, images, names)] == [False, True]
    with pytest.raises(ModelError, match=r"no finite numbers for the prompt 'a huge <CLASS>' \(fake\)"):
        score_prompts(BlindClip(), prompts, images, names)


def test_an_image_without_finite_features_is_an_error_that_names_it(images):
    clip, features = FakeClip(), images.features.clone()
    features[3, 1] = float("nan")
    broken = ImageSet((*images.items[:3], Item(Path("odd.png"), 0), *images.items[4:]), features)
    names = [f"name{index}" for index in range(CLASSES)]
    with pytest.raises(ModelError, match=rf"1 of {IMAGES} images, such as odd\.png \(fake\)"):
        score_prompts(clip, [Prompt("a <CLASS>")], broken, names)
    with pytest.raises(ModelError, match=rf"1 of {IMAGES} images, such as odd\.png \(PromptPredictor\)"):
        evaluate_on(PromptPredictor(clip, (Prompt("a <CLASS>"),)), broken, names)


@pytest.mark.parametrize("rule", ["accuracy", "loss", "margin", "fold_accuracy", "fold_loss"])
def test_a_proposal_without_a_number_is_a_reject_and_never_wins(images, rule):
    names = tuple(f"name{index}" for index in range(CLASSES))
    clip, llm = BlindClip(), ScriptedLLM([["a huge <CLASS>.", "a red <CLASS>."]])
    limits = SearchSettings(steps=1, candidates=2, select=rule)
    room = TextRoom.of(clip, names)
    search = Search(
        settings=limits, sampling=LLMSettings(), clip=clip, llm=llm, images=images, classnames=names, room=room,
        captions=(), seed=1,
    )  # fmt: skip
    record = Record(rule)
    optimize(search, record)
    reasons = {entry.text: entry.reason for entry in record.history}
    assert reasons["a huge <CLASS>."] == "no score: logits that are no finite numbers"
    assert record.history.best().text in ("a photo of a <CLASS>.", "a red <CLASS>.")
    first = replace(search, settings=SearchSettings(first_prompts=("a huge <CLASS>.",)))
    with pytest.raises(ModelError, match="a huge <CLASS>"):
        optimize(first, Record(rule))


def test_a_history_with_a_score_that_is_no_number_is_damaged(tmp_path):
    score = dict.fromkeys(("accuracy", "low", "high", "margin", "fold_accuracy", "fold_loss"), 0.5)
    row = {"id": 0, "step": 0, "text": "a <CLASS>", "score": score | {"loss": float("nan")}}
    (tmp_path / "history.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RunError, match=r"damaged.*loss"):
        History.read("accuracy", tmp_path / "history.jsonl")


NAMES = ("red thing", "green", "blue stone")
TEXTS = [["a red thing", "red", "crimson and big"], ["green"], ["a blue stone", "cold and blue"]]


def test_score_mean_is_the_mean_of_the_cosines_with_each_text(images):
    clip = FakeClip()
    got = ClassTextPredictor(clip, lambda _: TEXTS, "score_mean").logits(images, NAMES)
    rows = [sum(images.features @ clip.encode_texts([text])[0] for text in own) / len(own) for own in TEXTS]
    assert torch.allclose(got, clip.logit_scale * torch.stack(rows, dim=1), atol=1e-5)


def test_feature_mean_is_the_cosine_with_the_mean_direction_and_not_the_score_mean(images):
    clip = FakeClip()
    got = ClassTextPredictor(clip, lambda _: TEXTS, "feature_mean").logits(images, NAMES)
    means = [torch.stack([clip.encode_texts([text])[0] for text in own]).mean(0) for own in TEXTS]
    rows = [torch.cosine_similarity(images.features, mean[None]) for mean in means]
    assert torch.allclose(got, clip.logit_scale * torch.stack(rows, dim=1), atol=1e-5)
    scores = ClassTextPredictor(clip, lambda _: TEXTS, "score_mean").logits(images, NAMES)
    norms = torch.stack([mean.norm() for mean in means])
    assert torch.allclose(scores, got * norms, atol=1e-5)
    assert not torch.allclose(scores, got, atol=1e-2)


@pytest.mark.parametrize("aggregate", ["feature_mean", "score_mean"])
def test_one_text_a_class_equal_to_the_filled_prompt_is_zero_shot(images, aggregate):
    clip, prompt = FakeClip(), Prompt("a photo of a <CLASS>.")
    expected = PromptPredictor(clip, (prompt,)).logits(images, NAMES)
    filled = ClassTextPredictor(clip, lambda names: [[prompt.fill(name)] for name in names], aggregate)
    assert torch.allclose(filled.logits(images, NAMES), expected, atol=1e-5)
    assert torch.allclose(PromptPredictor(clip, (prompt,), aggregate).logits(images, NAMES), expected, atol=1e-5)


@pytest.mark.parametrize("aggregate", ["feature_mean", "score_mean"])
def test_prompts_that_all_classes_share_are_class_texts(images, aggregate):
    clip, prompts = FakeClip(), tuple(map(Prompt, ("a photo of a <CLASS>.", "the <CLASS>", "itap of my <CLASS>")))
    texts = ClassTextPredictor(clip, lambda names: [[one.fill(name) for one in prompts] for name in names], aggregate)
    expected = PromptPredictor(clip, prompts, aggregate).logits(images, NAMES)
    assert torch.allclose(texts.logits(images, NAMES), expected, atol=1e-5)


@pytest.mark.parametrize("aggregate", ["feature_mean", "score_mean"])
def test_classes_together_are_as_one_by_one(images, aggregate):
    clip = FakeClip()
    together = class_text_classifier(clip, TEXTS, aggregate)
    alone = torch.cat([class_text_classifier(clip, [own], aggregate) for own in TEXTS])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_class_without_a_text_is_an_error_and_not_a_guess(images):
    with pytest.raises(DataError, match="no text"):
        ClassTextPredictor(FakeClip(), lambda _: [["x"], []], "score_mean").logits(images, NAMES[:2])
