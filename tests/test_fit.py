"""Whole runs of `ipo baseline` on pictures of one's own and a tiny open_clip model with random weights."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.comparison.trials import read_trials
from ipo.errors import ConfigError, IpoError, RunError, UnknownName
from ipo.methods import FitRun
from ipo.store.tensors import load_tensors
from tests.baselines.tiny import save_openclip

NAMES = ("blue", "green", "grey", "red")


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Arguments that name a small folder of pictures and a small model."""
    folder = tmp_path_factory.mktemp("fit")
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in NAMES:
            (folder / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / split / name / f"{index}.png")
    data = ["--dataset", f"folder:{folder / 'pictures'}", "--shots", "2", "--classes", "base", "--offline"]
    return [*data, "--clip", save_openclip(folder / "model"), "--device", "cpu", "--set", "clip.workers=0"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))


UNTIMED = {"seconds": 0, "evaluation_seconds": 0, "usage": 0}
"""What two equal runs may differ in."""


def baseline(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["baseline", *map(str, arguments), "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_a_run_folder_has_settings_curve_tensors_verdicts_and_pages(common, tmp_path):
    out = tmp_path / "run"
    result = baseline("coop", *common, "--set", "epochs=3", "--out", out)
    files = {path.name for path in out.iterdir()}
    assert files >= {"config.toml", "run.json", "result.json", "result.md", "report.html", "correct.json"}
    assert result == json.loads((out / "result.json").read_text())
    assert (result["method"], result["headline"], result["options"]["epochs"]) == ("coop", "coop", 3)
    assert [json.loads(line)["epoch"] for line in (out / "curves.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert load_tensors(out / "learned.safetensors")[0]["context"].shape == (1, 4, 32)
    correct, figures = json.loads((out / "correct.json").read_text()), result["predictors"]["coop"]
    for half in ("base", "new"):
        assert figures[half]["accuracy"] == correct["coop"][half].count("1") / 4
        assert len(correct["images"][half]) == figures[half]["n"] == 4
    assert correct["images"]["base"][0] == "test/blue/0.png"
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    assert "nearest to the learned context" in (out / "result.md").read_text()
    (trial,) = read_trials(out)
    assert trial.base == figures["base"]["accuracy"]
    assert trial.sentences == (result["figures"]["reading"]["sentence"],)


def test_a_run_that_ended_early_goes_on_to_the_same_result(common, tmp_path, monkeypatch):
    whole = baseline("coop", *common, "--set", "epochs=4", "--out", tmp_path / "whole")
    broken, save = tmp_path / "broken", FitRun.save

    def save_and_end(run, tensors, done):
        save(run, tensors, done)
        if done == 2:
            raise RuntimeError("ended")

    with monkeypatch.context() as patch:
        patch.setattr(FitRun, "save", save_and_end)
        with pytest.raises(RuntimeError, match="ended"):
            baseline("coop", *common, "--set", "epochs=4", "--out", broken)
    assert not (broken / "result.json").exists()
    assert len((broken / "curves.jsonl").read_text().splitlines()) == 2
    resumed = baseline("--resume", broken)
    assert {**resumed, **UNTIMED} == {**whole, **UNTIMED}
    tensors = [load_tensors(folder / "learned.safetensors")[0]["context"] for folder in (tmp_path / "whole", broken)]
    assert tensors[0].equal(tensors[1])
    assert (broken / "curves.jsonl").read_bytes() == (tmp_path / "whole" / "curves.jsonl").read_bytes()


def test_a_run_under_other_conditions_is_not_resumed(common, tmp_path):
    out = tmp_path / "run"
    baseline("zero-shot", *common, "--out", out)
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(facts | {"split_hash": "another"}))
    with pytest.raises(RunError, match="split_hash"):
        baseline("--resume", out)


def test_a_fit_records_and_reads_nothing_of_the_search(common, tmp_path):
    out = tmp_path / "run"
    baseline("zero-shot", *common, "--out", out)
    assert tomllib.loads((out / "config.toml").read_text()).keys() == {
        "data",
        "clip",
        "report",
        "seed",
        "tracker",
        "offline",
    }


def test_what_changes_no_result_may_be_another_on_resume(common, tmp_path):
    out, moved = tmp_path / "run", tmp_path / "moved"
    options = ["--set", "steps=2", "--set", "workers=0"]
    first = baseline("wise-ft", *common, *options, "--out", out)
    shutil.copytree(common[1].removeprefix("folder:"), moved)
    again = baseline("--resume", out, "--dataset", moved, "--set", "workers=1", "--set", "clip.workers=1")
    others = {"dataset": 0, "options": 0, **UNTIMED}
    assert {**again, **others} == {**first, **others}
    run = json.loads((out / "run.json").read_text())
    assert (run["dataset"], run["options"]["workers"]) == ("moved", 1)
    assert {row["setting"] for row in run["changes"]} == {"data.dataset", "clip.workers", "workers"}
    for assigned, words in (
        ("steps=3", "steps was 2, is 3"),
        ("alpha=0.9", "alpha was"),
        ("seed=2", "seed was 1, is 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            baseline("--resume", out, "--set", assigned)
    with pytest.raises(ConfigError, match=r"does not read the setting 'search\.steps'"):
        baseline("--resume", out, "--set", "search.steps=4")
    with pytest.raises(RunError, match="ipo baseline --resume"):
        CliRunner().invoke(app, ["optimize", "--resume", str(out)], catch_exceptions=False)


def test_targets_are_tested_beside_the_reference(common, tmp_path):
    target = common[1]
    out = tmp_path / "run"
    options = ["--set", "steps=2", "--set", "workers=0"]
    result = baseline("wise-ft", *common, *options, "--target", target, "--out", out)
    assert result["predictors"]["wise-ft"]["targets"][target]["n"] == 8
    assert result["figures"]["feature_distortion"] >= 0
    assert len(json.loads((out / "correct.json").read_text())["wise-ft"][target]) == 8
    assert read_trials(out)[0].targets.keys() == {target}
    assert "| pictures |" in (out / "result.md").read_text()


def test_class_specific_context_is_not_tested_on_new_classes(common, tmp_path):
    result = baseline("coop", *common, "--set", "epochs=1", "--set", "class_specific=true", "--out", tmp_path / "run")
    assert result["predictors"]["coop"]["new"] is None
    assert result["predictors"]["coop"]["H"] is None


@pytest.mark.parametrize("name", ["zero-shot", "ensemble-7", "ensemble-80", "select-80"])
def test_prompt_sets_run_without_a_curve(common, tmp_path, name):
    result = baseline(name, *common, "--out", tmp_path / "run")
    assert result["predictors"][name]["prompts"]
    assert not (tmp_path / "run" / "curves.jsonl").exists()
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ([], ConfigError, "give a method"),
        (["coopp"], UnknownName, "Did you mean 'coop'"),
        (["coop", "--set", "epochz=3", "-d", ".", "--out", "../new"], ConfigError, "unknown key 'epochz'"),
        (["coop", "--set", "crops=3", "-d", ".", "--out", "../new"], ConfigError, "read only with augment=cached"),
        (
            ["bayesian", "--set", "hidden=3", "-d", ".", "--out", "../new"],
            ConfigError,
            "read only with conditional=true",
        ),
        (["coop"], ConfigError, "no dataset is named"),
        (["coop", "-d", ".", "--set", "search.steps=3"], ConfigError, "does not read the setting 'search.steps'"),
        (["coop", "-d", ".", "--set", "llm.spec=gpt-4o"], ConfigError, "does not read the setting 'llm.spec'"),
        (["coop", "-d", ".", "--out", "../new", "--set", "tracker=wandb"], ConfigError, "tracker 'wandb' is not"),
        (["coop", "--set", "search.stepz=3"], ConfigError, "unknown key 'search.stepz'"),
        (["--resume", "nowhere"], RunError, "nowhere"),
        (["--resume", "nowhere", "--seed", "2"], RunError, "no run here"),
        (["--resume", "nowhere", "--out", "x"], ConfigError, "takes no --out"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(arguments, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["baseline", *arguments, "--offline"] if "--resume" not in arguments else ["baseline", *arguments]
    )
    assert isinstance(result.exception, error)
    assert isinstance(result.exception, IpoError)
    assert words in str(result.exception)
    assert list(Path.cwd().iterdir()) == []


def test_the_list_names_every_method_and_the_options_of_one():
    text = CliRunner().invoke(app, ["baseline", "--list"], env={"COLUMNS": "200"}).output
    for name in ("zero-shot", "coop", "bayesian", "lipsum-ft", "2109.01134", "2404.00860"):
        assert name in text
    options = CliRunner().invoke(app, ["baseline", "coop", "--list"], env={"COLUMNS": "200"}).output
    assert "n_ctx" in options
    assert "Momentum of SGD" in options


def test_a_tracker_follows_any_method_and_each_result_tells_usage_and_cost(common, tmp_path, monkeypatch):
    rows, ended = [], []
    run = SimpleNamespace(log=lambda figures, step: rows.append((step, figures)), finish=lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **_: run))
    monkeypatch.setattr("ipo.runs.tracker.is_installed", lambda _: True)
    options = ["--set", "epochs=2", "--set", "tracker=trackio"]
    result = baseline("coop", *common, *options, "--out", tmp_path / "run")
    assert [step for step, _ in rows] == [1, 2]
    assert all("loss" in figures for _, figures in rows)
    assert ended == [True]
    assert (result["cost"], result["usage"]["proposals"]) == (0.0, 0)


def test_the_search_is_run_as_any_method_is(common, tmp_path):
    """The same run as by `ipo optimize`, which has more flags for it."""
    search = ["--set", "strategy.name=random", "--set", "search.steps=2", "--set", "search.controls=false"]
    options = [*common, *search, "--set", "search.class_names_allowed=true"]
    result = baseline("ipo", *options, "--out", tmp_path / "run")
    assert (result["method"], result["strategy"], result["stopped"]) == ("ipo", "random", "all 2 steps done")
    arguments = ["optimize", *map(str, options), "--out", str(tmp_path / "other"), "--json"]
    other = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert other["predictors"] == result["predictors"]
    histories = [(tmp_path / name / "history.jsonl").read_bytes() for name in ("run", "other")]
    assert histories[0] == histories[1]
    again = baseline("--resume", tmp_path / "run")
    assert again["predictors"] == result["predictors"]
    with pytest.raises(ConfigError, match="'steps' is no setting"):
        baseline("ipo", *common, "--set", "steps=2", "--out", tmp_path / "wrong")
