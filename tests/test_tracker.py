import sys
from types import SimpleNamespace

import pytest

from ipo.errors import ConfigError
from ipo.runs.tracker import Tracker, require_tracker
from ipo.search.loop import optimize
from ipo.search.method import step_figures
from ipo.search.record import Record
from tests.fakes import ScriptedLLM
from tests.test_optimize import SCRIPT, make_search, score_of


def test_a_tracker_gets_one_row_a_step_and_is_closed(monkeypatch):
    rows, closed = [], []
    run = SimpleNamespace(log=lambda figures, step: rows.append((step, figures)), finish=lambda: closed.append(True))
    module = SimpleNamespace(init=lambda **settings: run)
    monkeypatch.setitem(sys.modules, "trackio", module)
    tracker, record = Tracker.start("trackio", "name", {"seed": 1}), Record("accuracy")
    optimize(make_search(ScriptedLLM(SCRIPT)), record, lambda state: tracker.log(state.last_step, step_figures(state)))
    tracker.finish()
    assert [step for step, _ in rows] == [0, 1, 2, 3]
    assert rows[-1][1]["scored"] + rows[-1][1]["rejected"] == len(record.history)
    assert rows[-1][1]["best_training_accuracy"] == score_of(record.history.best()).accuracy
    assert closed == [True]


def test_a_tracker_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        require_tracker("wandb")
    assert require_tracker("none") is None


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_left_alone_with_one_warning(monkeypatch, caplog, fails):
    def act(*_, **__):
        raise OSError(28, "No space left on device")

    run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    module = SimpleNamespace(init=lambda **_: run)
    setattr(module if fails == "init" else run, fails, act)
    monkeypatch.setitem(sys.modules, "trackio", module)
    tracker, record = Tracker.start("trackio", "name", {}), Record("accuracy")
    optimize(make_search(ScriptedLLM(SCRIPT)), record, lambda state: tracker.log(state.last_step, step_figures(state)))
    tracker.finish()
    assert len(record.history.scored()) > 0
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker failed and follows no longer: [Errno 28] No space left on device"
    ]
