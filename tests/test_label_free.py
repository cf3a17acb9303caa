"""A search that looks at no label: what a prompt is scored by, what the LLM is shown, and that labels play no part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.clip.lengths import TextRoom
from ipo.config import SearchOptions, SearchSettings, SelectionRule, StrategySettings
from ipo.config.settings import LabelFreeRule
from ipo.data.uses import Use
from ipo.errors import ConfigError
from ipo.methods import FitRun, Means
from ipo.metrics import confidence, mean_entropy
from ipo.prompt import ConfidenceScore, HistoryEntry, Prompt
from ipo.scoring import ConfidenceImages, ImageSet, score_prompts, text_features
from ipo.search.history import LABEL_FREE, History
from ipo.search.loop import Search, optimize
from ipo.search.method import METHOD, scored_on
from ipo.search.record import Record
from ipo.search.weighing import CONFIDENCES
from ipo.task import FewShotTask
from tests.fakes import FakeClip, ScriptedLLM, image_set
from tests.test_fit import UNTIMED, baseline, common, own_cache  # noqa: F401
from tests.test_optimize import CLASSNAMES, SCRIPT, make_search

PROMPTS = tuple(Prompt(text) for text in ("a photo of a <CLASS>.", "a small <CLASS> outside.", "the <CLASS> at night."))


def label_free(search: Search, rule: LabelFreeRule) -> Search:
    images = ConfidenceImages(search.images.unlabelled().items, search.images.features, rule)
    return replace(search, images=images, settings=search.settings.model_copy(update={"select": rule}))


@pytest.mark.parametrize("rule", LABEL_FREE)
def test_a_score_is_what_the_method_of_that_name_weighs_by_with_the_error_of_a_mean(rule):
    clip = FakeClip()
    images = image_set(clip, CLASSNAMES)
    scores = score_prompts(
        clip, PROMPTS, ConfidenceImages(images.unlabelled().items, images.features, rule), CLASSNAMES
    )
    for score, text in zip(scores, text_features(clip, PROMPTS, CLASSNAMES), strict=True):
        logits = clip.logit_scale * images.features @ text.T
        assert isinstance(score, ConfidenceScore)
        assert score.confidence == pytest.approx(float(CONFIDENCES[rule](logits).mean()) / clip.logit_scale, abs=1e-6)
        value, error = confidence(rule, logits)
        assert value > 0
        half = 1.959963984540054 * error / clip.logit_scale
        assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=2e-6)
        shares = logits.double().softmax(dim=-1)
        assert score.loss == pytest.approx(float(-(shares * shares.log()).sum(dim=-1).mean()), abs=1e-6)


def test_the_errors_are_those_of_means_by_hand():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) * 3
    rows = logits.double().numpy()
    top, taken = rows.max(axis=1), rows.argmax(axis=1)
    parts = [top[taken == c] for c in range(3)]
    expected = np.sqrt(sum(part.var() / len(part) for part in parts)) / 3
    assert confidence("carprt", logits)[1] == pytest.approx(expected)
    assert confidence("carprt", logits)[0] == pytest.approx(np.mean([part.mean() for part in parts]))
    centred = (rows - rows.mean(axis=0)).max(axis=1)
    assert confidence("zpe", logits) == pytest.approx((centred.mean(), centred.std() / np.sqrt(40)))
    assert mean_entropy(torch.zeros(2, 4)) == pytest.approx(np.log(4))


@pytest.mark.parametrize("rule", LABEL_FREE)
def test_the_order_of_images_and_their_labels_change_nothing(rule):
    clip = FakeClip()
    images = image_set(clip, CLASSNAMES)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    shuffled = tuple(images.items[index] for index in order)
    scores = [
        score_prompts(clip, PROMPTS, ConfidenceImages(items, features, rule), CLASSNAMES)
        for items, features in ((images.items, images.features), (shuffled, images.features[order]))
    ]
    for one, other in zip(*scores, strict=True):
        assert one.value == pytest.approx(other.value, abs=1.1e-6)
    assert len({score.value for score in scores[0]}) == len(PROMPTS)


@pytest.mark.parametrize("rule", LABEL_FREE)
def test_a_search_ranks_by_confidence_and_never_asks_for_a_label(rule):
    search = label_free(make_search(ScriptedLLM(SCRIPT)), rule)
    record = Record(rule)
    optimize(search, record)
    ranked = record.history.ranked()
    assert len(ranked) > 5
    values = [entry.score.value for entry in ranked if isinstance(entry.score, ConfidenceScore)]
    assert len(values) == len(ranked)
    assert values == sorted(values, reverse=True)
    with pytest.raises(ConfigError, match="label"):
        search.mistakes("a <CLASS>.")


@pytest.mark.parametrize("rule", LABEL_FREE)
def test_the_llm_is_shown_confidences_and_no_word_of_accuracy_or_loss(rule):
    llm = ScriptedLLM(SCRIPT)
    record = Record(rule)
    optimize(label_free(make_search(llm), rule), record)
    text = llm.asked[-1][0][0].content
    assert "classes nobody knows" in text
    assert "a higher confidence" in text
    assert "accuracy" not in text
    assert "loss" not in text
    best = next(entry for entry in record.history.ranked() if entry.step < 3)
    assert best.score is not None
    assert f"text prompt: {best.text}\nconfidence: {100 * best.score.value:.1f}" in text
    assert "\n\n\n" not in text


def test_a_history_of_confidences_comes_back_from_disk_and_an_impossible_one_does_not(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History("zpe", path)
    history.append([HistoryEntry(0, 0, "a <CLASS>.", score=ConfidenceScore(0.05, 1.5, 0.04, 0.06))])
    assert History.read("zpe", path).entries == history.entries
    for figures in ((0.05, 1.5, 0.06, 0.07), (3.0, 1.0, 2.9, 3.1), (0.05, -1.0, 0.04, 0.06)):
        with pytest.raises(ValueError, match="confidence"):
            ConfidenceScore(*figures).require_possible()


class _Task(FewShotTask):
    """The task of the fakes, as far as a search goes."""


def task_of(labels: str) -> FewShotTask:
    clip = FakeClip()
    train = image_set(clip, CLASSNAMES)
    if labels == "permuted":
        train = ImageSet(tuple(replace(item, label=(item.label + 2) % 5) for item in train.items), train.features)
    if labels == "hidden":
        train = train.unlabelled()
    room = TextRoom.of(clip, CLASSNAMES)
    return _Task("fake", CLASSNAMES, 4, 7, clip, "a photo of a <CLASS>.", room, train, train)


@pytest.mark.parametrize("rule", LABEL_FREE)
def test_the_history_is_the_same_to_the_byte_whatever_the_labels(rule, tmp_path):
    histories, found = [], []
    for labels in ("true", "permuted", "hidden"):
        settings = SearchSettings(steps=3, candidates=3, select=rule, controls=False)
        options = SearchOptions(search=settings, strategy=StrategySettings())
        folder = tmp_path / labels
        folder.mkdir()
        run = FitRun(folder, report=lambda _: None, means=Means(llm=ScriptedLLM(SCRIPT)))
        fitted = METHOD.fit(task_of(labels), options, run)
        histories.append((folder / "history.jsonl").read_bytes())
        found.append((fitted.found["best"]["text"], fitted.found["ensemble"]["prompts"]))
    assert histories[0] == histories[1] == histories[2]
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) == 5, "as many as the ensemble may hold"


def test_a_search_by_labels_is_stopped_where_it_may_see_none():
    options = SearchOptions(search=SearchSettings(steps=1, candidates=3, controls=False), strategy=StrategySettings())
    with pytest.raises(ConfigError, match="label"):
        METHOD.fit(task_of("hidden"), options, FitRun(means=Means(llm=ScriptedLLM(SCRIPT))))


def test_what_such_a_search_declares(tmp_path):
    def declared(select: SelectionRule) -> list[Use] | None:
        options = SearchOptions(search=SearchSettings(select=select), strategy=StrategySettings())
        return METHOD.uses_of(options, Means(), "fake", 4)

    assert declared("zpe") == declared("carprt") == ["unlabelled_images"]
    assert declared("loss") == ["labels"]
    images = scored_on(task_of("true"), SearchSettings(select="zpe"))
    with pytest.raises(ConfigError, match="label"):
        images.labels.sum()


@pytest.mark.parametrize("strategy", ["opro", "reflect"])
def test_a_strategy_that_looks_at_mistakes_is_refused_before_anything(strategy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = ["--select", "zpe", "--strategy", strategy, "--out", "../new"]
    result = CliRunner().invoke(app, ["optimize", "-d", ".", "--offline", *chosen])
    assert isinstance(result.exception, ConfigError)
    assert "needs labels" in str(result.exception)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_whole_run_without_labels_has_its_own_controls_and_goes_on_to_the_same(common, tmp_path):  # noqa: F811
    rule = "zpe"
    search = ["--set", "strategy.name=random", "--set", "search.steps=2", "--set", "search.candidates=3"]
    options = [*common, *search, "--set", f"search.select={rule}", "--set", "search.english_only=false"]
    result = baseline("ipo", *options, "--out", tmp_path / "run")
    assert result["uses"] == ["unlabelled_images"]
    assert {rule, "ensemble-80"} < result["predictors"].keys()
    assert "select-80" not in result["predictors"]
    assert result["predictors"][rule]["uses"] == ["unlabelled_images"]
    assert result["best"]["score"].keys() == {"confidence", "loss"}
    page = (tmp_path / "run" / "history.md").read_text()
    assert "| confidence, % | loss |" in page
    assert "their labels hidden" in page
    assert "confidence, without labels" in (tmp_path / "run" / "report.html").read_text()
    again = baseline("--resume", tmp_path / "run", "--set", "search.steps=3")
    whole = baseline("ipo", *options, "--set", "search.steps=3", "--out", tmp_path / "whole")
    assert {**again, **UNTIMED} == {**whole, **UNTIMED}
    lines = [(tmp_path / name / "history.jsonl").read_bytes() for name in ("run", "whole")]
    assert lines[0] == lines[1]
    shown = CliRunner().invoke(app, ["history", str(tmp_path / "run")], env={"COLUMNS": "200"}).output
    assert "confidence, %" in shown
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
