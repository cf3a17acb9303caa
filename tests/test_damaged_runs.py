"""Every file of a run, damaged in every way: each command ends well and with the same figures, or with one error."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ipo.cli.compare import compare
from ipo.cli.history import history
from ipo.errors import IpoError
from tests.baselines.tiny import save_openclip
from tests.disk import draw, fit_coop, fit_settings, one_error, resume, search, settings_of, stand_in

EVERY = int(os.environ.get("IPO_TEST_EVERY", "149"))
"""Of how many kinds of damage one is tried."""
OTHER_VALUES: tuple[Any, ...] = (None, True, 7, -1.5, "other", [], ["other"], {}, {"other": 1})
DEEP = b"[" * 100_000

Damage = Callable[[Path], None]


def put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def put_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def to_bytes(path: Path) -> Iterator[tuple[str, Damage]]:
    """Damage that any file can take."""
    whole = path.read_bytes()
    for size in sorted({0, 1, len(whole) // 3, len(whole) // 2, max(0, len(whole) - 2)}):
        yield f"cut after {size}", partial(put, whole[:size])
    yield "binary", partial(put, bytes(range(256)) * 4)
    yield "not UTF-8", partial(put, whole[: len(whole) // 2] + b"\xff\xfe" + whole[len(whole) // 2 :])
    yield "not UTF-8 at the end", partial(put, whole + b'"\xff"\n')
    yield "nested deep", partial(put, DEEP + b"\n")
    yield "nested deep in a value", partial(put, b'{"a": ' + DEEP + b"\n")
    yield "twice", partial(put, whole + whole)
    yield "a folder", put_folder
    yield "a loop", put_loop
    yield "removed", Path.unlink


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value inside a JSON value; of a long list only the first."""
    yield above
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*above, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*above, 0))


def value_at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def can_be_missed(place: tuple[Any, ...]) -> bool:
    """Whether it can be told that a value is not there: a list may be shorter, and an entry without a parent."""
    return bool(place) and isinstance(place[-1], str) and place[-1] != "parent"


def is_other(value: Any, other: Any) -> bool:
    """Whether a change can be told: another figure or text in the place of one is one that might have been."""
    alike = ({int, float}, {str})
    return other != value and not any({type(value), type(other)} <= kinds for kinds in alike)


def with_other(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    if not place:
        return other
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = other
    return changed


def without(value: Any, place: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return changed


def to_values(path: Path) -> Iterator[tuple[str, Damage]]:
    """Another type for each value, and each key missing, in a JSON file or in the first and the last line of a log."""
    if path.suffix not in (".json", ".jsonl"):
        return
    lines = path.read_text().split("\n")[:-1] if path.suffix == ".jsonl" else [path.read_text()]
    for number in sorted({0, len(lines) - 1}):
        row = json.loads(lines[number])
        for place in places(row):
            name = f"line {number} {'.'.join(map(str, place))}"
            others = [with_other(row, place, other) for other in OTHER_VALUES if is_other(value_at(row, place), other)]
            for other in [*others, *([without(row, place)] if can_be_missed(place) else [])]:
                text = "\n".join([*lines[:number], json.dumps(other), *lines[number + 1 :]]) + "\n"
                yield f"{name} {json.dumps(other)[:40]}", partial(put, text.encode())


def damages(run: Path) -> list[tuple[str, str, Damage]]:
    files = sorted(path for path in run.iterdir() if path.is_file() and path.name != "report.html")
    return [(p.name, what, act) for p in files for what, act in (*to_bytes(p), *to_values(p))]


def figures(run: Path) -> Any:
    result = json.loads((run / "result.json").read_text())
    log = run / "history.jsonl"
    return log.read_bytes() if log.exists() else b"", result["predictors"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    monkeypatch.setenv("IPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return draw(tmp_path / "pictures")


def shown(run: Path, act: Callable[[Path], object]) -> IpoError | None:
    return one_error(lambda: act(run))  # type: ignore[arg-type]


def compared(run: Path) -> None:
    compare([run], None, "text", None, False, False, True, None, False)


def try_all(run: Path, go_on: Callable[[Path], object], expected: Any, also: list[Callable[[Path], object]]) -> None:
    failures, tried = [], run.parent / "damaged"
    for name, what, damage in damages(run)[::EVERY]:
        for act in (go_on, *also):
            shutil.rmtree(tried, ignore_errors=True)
            shutil.copytree(run, tried)
            damage(tried / name)
            try:
                error = shown(tried, act)
                if error is None and act is go_on and figures(tried) != expected:
                    failures.append(f"{name}: {what}: other figures")
            except Exception as error:  # noqa: BLE001 - what no command may end with
                failures.append(
                    f"{name}: {what}: {getattr(act, '__name__', act)}: {type(error).__name__}: {error}"[:300]
                )
    assert failures == []


def listed(run: Path) -> None:
    history([run], "score", None, False, None, False, False)
    history([run], "step", 3, True, None, False, True)


def test_a_finished_search(pictures, tmp_path, capsys):
    search(settings_of(pictures), run := tmp_path / "run")
    try_all(run, resume, figures(run), [listed, compared])


def test_a_search_that_was_broken_off(pictures, tmp_path, capsys):
    search(settings_of(pictures), run := tmp_path / "run")
    expected = figures(run)
    for name in ("result.json", "correct.json", "report.html", "history.md"):
        (run / name).unlink()
    lines = (run / "history.jsonl").read_bytes().splitlines(keepends=True)
    (run / "history.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    try_all(run, resume, expected, [listed])


def test_a_fit(pictures, tmp_path, capsys):
    fit_coop(fit_settings(pictures, save_openclip(tmp_path / "model")), run := tmp_path / "run")
    try_all(run, resume, figures(run), [compared])
