"""Tests know the public names of the project alone: renaming a private one breaks no test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipo
import ipo_baselines

TESTS = Path(__file__).parent
PACKAGES = [Path(package.__file__ or "").parent for package in (ipo, ipo_baselines)]


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def made(path: Path) -> set[str]:
    """The private names that a file makes: functions, classes, variables and what objects hold."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.endswith("_")}


def used(path: Path, private: set[str]) -> list[str]:
    """Lines of a test and the names of `private` there: imported, read, or in a string, as `monkeypatch` has it."""
    found = list[tuple[int, str]]()
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value.rpartition(".")[2]))
    own = made(path)
    return [f"{line}: {name}" for line, name in found if name in private - own]


@pytest.fixture(scope="module", name="private")
def of_the_project() -> set[str]:
    return {name for package in PACKAGES for path in package.rglob("*.py") for name in made(path)}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_uses_a_private_name(path: Path, private: set[str]) -> None:
    assert used(path, private) == []


@pytest.mark.parametrize(
    "line",
    ["from ipo.clip.load import _hidden", "load._hidden()", 'setattr(load, "_hidden", 1)', 'patch("ipo.load._hidden")'],
)
def test_each_way_to_a_private_name_is_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(line)
    assert used(tmp_path / "test_it.py", {"_hidden"}) == ["1: _hidden"]
