"""A disk that fails at any change of a run: one error, and the run goes on to the same result, byte for byte."""

from __future__ import annotations

import os
from functools import partial

import pytest

from ipo.store.tensors import load_tensors
from tests.baselines.tiny import save_openclip
from tests.disk import (
    ERRORS,
    FailingDisk,
    draw,
    fit_coop,
    fit_settings,
    one_error,
    resume,
    search,
    settings_of,
    stand_in,
)

EVERY = int(os.environ.get("IPO_TEST_EVERY", "97"))
"""Of how many faults one is tried."""


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    return draw(tmp_path / "pictures")


def cases(changes: int) -> list[tuple[int, int]]:
    """A sample of all first failures with all errors."""
    return [(first, code) for first in range(1, changes + 1) for code in ERRORS][::EVERY]


def test_a_search_that_a_disk_ends_can_be_brought_to_its_end(pictures, tmp_path, monkeypatch):
    chosen = settings_of(pictures)
    with FailingDisk().installed() as disk:
        search(chosen, tmp_path / "whole")
    expected = (tmp_path / "whole" / "history.jsonl").read_bytes()
    ended = []
    for first, code in cases(disk.changes):
        run = tmp_path / f"run-{first}-{code}"
        monkeypatch.setenv("IPO_CACHE", str(tmp_path / f"cache-{first}-{code}"))
        with FailingDisk(first, code).installed():
            ended.append(one_error(partial(search, chosen, run)))
        resume(run) if (run / "run.json").exists() else search(chosen, run)
        assert (run / "history.jsonl").read_bytes() == expected
        assert not list(run.glob(".ipo-*.tmp"))
    assert all(error is not None and error.where and error.remedy for error in ended[len(ended) // 4 :])


def test_a_resume_that_a_disk_ends_can_be_repeated(pictures, tmp_path):
    search(settings_of(pictures), run := tmp_path / "run")
    expected = (run / "history.jsonl").read_bytes()
    with (run / "history.jsonl").open("r+b") as log:
        log.truncate(log.seek(-3, os.SEEK_END))
    torn = {path: path.read_bytes() for path in run.iterdir()}
    with FailingDisk().installed() as disk:
        resume(run)
    for first, code in cases(disk.changes):
        for path, content in torn.items():
            path.write_bytes(content)
        with FailingDisk(first, code).installed():
            one_error(partial(resume, run))
        resume(run)
        assert (run / "history.jsonl").read_bytes() == expected


def test_a_fit_that_a_disk_ends_can_be_brought_to_its_end(pictures, tmp_path):
    chosen = fit_settings(pictures, save_openclip(tmp_path / "model"))
    with FailingDisk().installed() as disk:
        fit_coop(chosen, tmp_path / "whole")
    curve, learned = (tmp_path / "whole" / "curves.jsonl").read_bytes(), tmp_path / "whole" / "learned.safetensors"
    for first, code in cases(disk.changes):
        run = tmp_path / f"run-{first}-{code}"
        with FailingDisk(first, code).installed():
            error = one_error(partial(fit_coop, chosen, run))
        resume(run) if (run / "run.json").exists() else fit_coop(chosen, run)
        assert (run / "curves.jsonl").read_bytes() == curve, error
        assert load_tensors(run / learned.name)[0]["context"].equal(load_tensors(learned)[0]["context"])
