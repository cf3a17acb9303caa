"""Damaged results: a comparison shows the others, and names each of them in one line."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import pytest
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.comparison.trials import read_trials
from ipo.errors import RunError
from tests.test_compare import write_run

OTHERS: tuple[Any, ...] = (None, True, 3, -1, 2.5, math.nan, math.inf, "text", "", [], ["x"], {}, {"x": 1}, 10**400)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with everything that a result can hold."""
    score = {"accuracy": 0.5, "loss": 1.0}
    figures = {"accuracy": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    more = {
        "best": {"id": 0, "text": "a <CLASS>.", "score": score},
        "ensemble": {"prompts": ["a <CLASS>."], "score": score},
        "usage": {"steps": 1, "proposals": 2, "prompt_tokens": 3, "completion_tokens": 4, "captions": {"model": ""}},
        "clip": {"name": "mini", "weights": "0", "preprocessing": "p", "precision": "float32"},
        "per_class_gain": [{"class": "x", "first": 0.5, "best": 0.5, "gain": 0.0}],
        "split_hash": "0", "split_source": "folders", "dataset_hash": "1", "test_hashes": {"base": "2"},
        "class_count": 2, "ipo": "0.1.0", "llm": "l", "captioner": "none", "stopped": "done",
        "targets": [], "figures": {"reading": {"sentence": "s"}},
    }  # fmt: skip
    folder = write_run(tmp_path_factory.mktemp("runs") / "good", "ipo", ["ipo"], **more)
    result = json.loads((folder / "result.json").read_text())
    result["predictors"]["ipo"] |= {"new": figures, "H": 0.5, "H_interval": [0.1, 0.9], "targets": {"t": figures}}
    (folder / "result.json").write_text(json.dumps(result))
    paths = {"base": ["x", "y"], "new": ["x", "y"], "t": ["x", "y"]}
    verdicts = {"images": paths, "ipo": {"base": "10", "new": "01", "t": "10"}}
    (folder / "correct.json").write_text(json.dumps(verdicts))
    return folder


def places(value, at=()):
    """Every place inside a JSON value."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*at, key))


def refusal(folder):
    """Why a run is not read, or nothing; its figures are finite then."""
    try:
        (trial,) = read_trials(folder, every=True)
    except RunError as error:
        return str(error)
    assert all(
        map(math.isfinite, (trial.base, trial.new or 0, trial.seconds, trial.cost or 0.0, *trial.targets.values()))
    )
    return ""


def put(value, at, other):
    """A copy of the value with another one in a place."""
    if not at:
        return other
    copied = value.copy()
    copied[at[0]] = put(value[at[0]], at[1:], other)
    return copied


@pytest.mark.parametrize(("name", "least"), [("result.json", 300), ("correct.json", 150)])
def test_any_value_of_another_type_is_read_or_refused_in_one_line(run, tmp_path, name, least):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    good = json.loads((run / name).read_text())
    reasons: list[str] = []
    for at in places(good):
        for other in OTHERS:
            (folder / name).write_text(json.dumps(put(good, at, other)))
            reasons += filter(None, [refusal(folder)])
    assert len(reasons) > least
    assert max(map(len, reasons)) < 400 + len(str(folder))
    assert not any("\n" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["result.json", "correct.json"])
def test_any_key_that_is_missing_is_read_or_refused(run, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    good = json.loads((run / name).read_text())
    reasons: list[str] = []
    for at in places(good):
        if at and isinstance(at[-1], str):
            parent = good
            for key in at[:-1]:
                parent = parent[key]
            less = {key: value for key, value in parent.items() if key != at[-1]}
            (folder / name).write_text(json.dumps(put(good, at[:-1], less)))
            reasons.append(refusal(folder))
    assert any(reasons)
    assert not any("\n" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["result.json", "correct.json", "config.toml"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, None],
    ids=["empty", "bytes", "deep", "deeper", "folder"],
)
def test_files_that_are_none_are_refused_in_one_line(run, tmp_path, name, content):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / name).unlink()
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    if name == "config.toml" and content == b"":
        assert read_trials(folder)
        return
    with pytest.raises(RunError, match=r"^[^\n]{1,600}$"):
        read_trials(folder)


def test_verdicts_of_another_run_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    verdicts = json.loads((run / "correct.json").read_text())
    for bits in ("11", "1", "", None):
        changed = verdicts | {"ipo": verdicts["ipo"] | {"new": bits}}
        (tmp_path / "run" / "correct.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match="do not belong together"):
            read_trials(tmp_path / "run")


def test_the_good_runs_are_shown_and_each_other_folder_is_named_once(run, tmp_path):
    shutil.copytree(run, tmp_path / "good")
    write_run(tmp_path / "also good", "zero-shot", ["zero-shot"], options={})
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "result.json").write_text('{"method": NaN}')
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    (tmp_path / "foreign").mkdir()
    done = CliRunner().invoke(app, ["compare", str(tmp_path), str(tmp_path / "good"), str(tmp_path / "foreign")])
    assert done.exit_code == 1
    assert "zero-shot" in done.stdout
    assert sum(line.startswith("own") and " │ " in line for line in done.stdout.splitlines()) == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for name in ("damaged", "unfinished", "foreign"):
        assert sum(f"/{name})" in line for line in lines) == 1, lines
