"""What chance alone does: its figures, and the place of a result among them, in files, tables and sentences."""

from __future__ import annotations

import json
from statistics import fmean
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ipo.comparison.verdict import verdict
from ipo.data.types import Item
from ipo.draws import Draws, drawn_figures, percentile, summary
from ipo.prompt import Prompt
from ipo.report.pages import legend, result_rows
from ipo.runs import result as results
from ipo.runs.result import read_result
from ipo.scoring import ImageSet, PromptPredictor, evaluate_on
from ipo.task import BaseToNew
from tests.fakes import FakeClip, image_set
from tests.test_fit import baseline, common, own_cache  # noqa: F401 (fixtures)


def test_a_percentile_counts_what_is_worse_and_half_of_what_is_equal():
    assert percentile([0.1, 0.2, 0.3, 0.4], 0.25) == 50
    assert percentile([0.1, 0.2, 0.2, 0.4], 0.2) == 50
    assert (percentile([0.5] * 3, 0.5), percentile([0.5] * 3, 0.6), percentile([0.5] * 3, 0.4)) == (50, 100, 0)


def test_a_summary_is_mean_and_quantiles():
    values = list(np.random.default_rng(1).random(100))
    found = summary(values, 0.5)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert (found["values"], found["mean"]) == (values, pytest.approx(fmean(values)))
    assert summary([0.5], None) == {"values": [0.5], "mean": 0.5, "low": 0.5, "high": 0.5, "percentile": None}


@pytest.mark.parametrize(("name", "options"), [("random-k", {"k": 3, "draws": 6}), ("waffle", {"pairs": 2, "reps": 6})])
def test_draws_of_a_method_stand_in_its_result_and_pages(common, tmp_path, name, options):  # noqa: F811
    out = tmp_path / "run"
    given = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    result = baseline(name, *common, *given, "--target", common[1], "--out", out)
    drawn = result["draws"][name]
    assert {split: len(one["values"]) for split, one in drawn["sets"].items()} == {
        "base": 6, "new": 6, "H": 6, common[1]: 6,
    }  # fmt: skip
    figures = result["predictors"][name]
    for split in ("base", "new"):
        assert drawn["sets"][split]["values"][0] == figures[split]["accuracy"]
    assert drawn["sets"]["H"]["values"][0] == pytest.approx(figures["H"])
    read = read_result(out)
    *_, row = result_rows(read)
    assert row.name.endswith(", 6 draws")
    assert len(row.figures) == 4
    assert any(line.startswith("draws:") for line in legend(read))
    assert verdict(read) == []
    assert "6 draws" in (out / "result.md").read_text()
    assert "6 draws" in (out / "report.html").read_text()


def test_a_search_is_told_where_its_ensemble_stands_and_has_the_controls_as_rows(common, tmp_path):  # noqa: F811
    search = ["--set", "strategy.name=random", "--set", "search.steps=1", "--set", "search.class_names_allowed=true"]
    out = tmp_path / "run"
    result = baseline("ipo", *common, *search, "--out", out)
    assert {"select-80", "ensemble-80", "waffle"} <= set(result["predictors"])
    assert len(result["predictors"]["waffle"]["prompts"]) == 30
    drawn = result["draws"]["random-k"]
    size = len(result["ensemble"]["prompts"])
    assert (drawn["what"], drawn["beside"]) == (f"{size} of the 80 prompts", f"{result['headline']}-ensemble")
    reached = result["predictors"][drawn["beside"]]
    for split, accuracy in (("base", reached["base"]["accuracy"]), ("new", reached["new"]["accuracy"])):
        values = drawn["sets"][split]["values"]
        worse, same = sum(one < accuracy for one in values), sum(one == accuracy for one in values)
        assert len(values) == 100
        assert drawn["sets"][split]["percentile"] == worse + same / 2
    place = drawn["sets"]["H"]["percentile"]
    sentence = (
        f"Among 100 random draws of {size} of the 80 prompts, the ensemble stands at percentile {place:.0f} on base"
    )
    assert sentence in verdict(read_result(out))[-1]
    assert sentence in (out / "history.md").read_text()
    without = baseline("ipo", *common, *search, "--set", "search.controls=false", "--out", tmp_path / "without")
    assert "draws" not in without
    assert "waffle" not in without["predictors"]
    histories = [(tmp_path / name / "history.jsonl").read_bytes() for name in ("run", "without")]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("metric", ["accuracy", "map"])
def test_a_draw_has_the_value_that_its_prompts_have_as_a_predictor(metric):
    clip, names = FakeClip(), ("dog", "cat", "cow")
    images = image_set(clip, names, each=6, noise=0.9)
    if metric == "map":
        items = [
            Item(item.path, item.label, "", (item.label, (item.label + index) % 2))
            for index, item in enumerate(images.items)
        ]
        images = ImageSet(tuple(items), images.features)
    prompts = tuple(map(Prompt, ("a <CLASS>", "the big <CLASS>", "my old <CLASS>", "<CLASS> on grass")))
    sets = ((0, 1), (2,), (1, 2, 3))
    protocol = SimpleNamespace(test_sets=lambda: {"base": SimpleNamespace(images=images, classnames=names)})
    drawn = drawn_figures(Draws(clip, prompts, sets, "words"), cast(BaseToNew, protocol), {})["sets"]["base"]["values"]
    alone = [PromptPredictor(clip, tuple(prompts[place] for place in chosen)) for chosen in sets]
    assert drawn == pytest.approx([evaluate_on(one, images, names).value for one in alone])
    assert len(set(drawn)) > 1


def test_a_result_without_draws_is_read_and_one_with_wrong_ones_is_not(tmp_path):
    good = {"values": [0.5], "mean": 0.5, "low": 0.5, "high": 0.5, "percentile": 100.0}
    results.Draws.model_validate({"what": "x", "sets": {"base": good}})
    mistakes: list[dict[str, Any]] = [{"percentile": 101.0}, {"values": []}, {"mean": 2.0}, {"low": float("nan")}]
    for wrong in mistakes:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            results.Draws.model_validate(json.loads(json.dumps({"what": "x", "sets": {"base": good | wrong}})))
