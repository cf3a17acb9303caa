"""The notebook in `docs` runs from its first cell to its last, in silence, and with the outputs that it shows."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run_process

BOOK = Path(__file__).parent.parent / "docs" / "first_steps.ipynb"

KERNEL = """
import ast, json, sys
names = {}
for source in json.load(sys.stdin):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    print(json.dumps(None if value is None else repr(value)))
"""
"""What a kernel does with cells: it runs them in one place, and shows the value of a last expression."""


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(BOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.offline_models
def test_every_cell_runs_and_says_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sources = ["".join(cell["source"]) for cell in cells()]
    done = run_process([sys.executable, "-c", KERNEL], input=json.dumps(sources), check=True, cwd=tmp_path)
    assert done.stderr == ""
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shown) == len(sources)
    for cell, value in zip(cells(), shown, strict=True):
        assert (value is None) == (not cell["outputs"]), "".join(cell["source"])
    predicted, likeliest = [ast.literal_eval(value) for value in shown if value and value.startswith("[('")]
    assert {name for name, _ in predicted} <= {"balloon", "envelope", "tree"}
    assert all(0 <= confidence <= 1 for _, confidence in predicted)
    assert sum(share for _, share in likeliest) == pytest.approx(1)


def test_its_outputs_are_those_of_a_run_without_an_error():
    for cell in cells():
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert set(kinds) <= {"execute_result"}, "".join(cell["source"])
        assert cell["execution_count"] is not None
