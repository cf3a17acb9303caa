"""The benchmarks can be imported and are described; none of them is run here."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a script as its own command line does: with its folder on the path, and for this test only."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in (*SCRIPTS, "common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_can_be_imported_and_names_its_command(script, load):
    module = load(script)
    assert callable(module.main)
    assert f"python benchmarks/{script}.py [--quick]" in module.__doc__


def test_the_readme_lists_the_scripts_that_are_there():
    listed = re.findall(r"^\| `(\w+)\.py` \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == SCRIPTS


def test_classnames_come_in_label_order_from_the_split_or_are_plain_words(load, tmp_path):
    common = load("common")
    names, source = common.classnames(tmp_path)
    assert (len(set(names)), source) == (100, "100 plain words")
    (tmp_path / "caltech-101").mkdir()
    rows = [["b/1.jpg", 1, "bass_drum"], ["a/1.jpg", 0, "ant"], ["a/2.jpg", 0, "ant"]]
    (tmp_path / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps({"train": rows}))
    assert common.classnames(tmp_path) == (["ant", "bass drum"], "2 Caltech101 names")


def test_a_positions_count_is_that_of_distinct_prefixes(load):
    # [start] cat [end], and dog [end] behind the same start.
    assert load("common").computed_positions(["cat", "dog", "cat"]) == 5
