"""Nothing in `ipo` or the baselines changes the disk where an `OSError` could get out of it as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipo

ROOT = Path(ipo.__file__).parents[1]
SOURCES = sorted([*ROOT.glob("ipo/**/*.py"), *ROOT.glob("baselines/**/*.py")])
GUARDS = {"writing", "locked", "staging"}
CAUGHT = {"OSError", "sqlite3"}
METHODS = {
    *("write_text", "write_bytes", "mkdir", "rmdir", "unlink", "rename", "touch", "chmod", "symlink_to", "hardlink_to"),
    *("truncate", "save_pretrained", "rmtree", "copyfile", "copy2", "copytree", "mkstemp", "mkdtemp", "makedirs"),
    *("NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "save_file", "fsync", "acquire"),
}
OF_MODULES = {
    "os": {"open", "write", "replace", "remove", "link", "symlink"},
    "shutil": {"copy", "move"},
    "sqlite3": {"connect"},
}
"""Names that other things than files have, too: they count where they are called on these modules."""

Parents = dict[ast.AST, ast.AST]


def writes(call: ast.Call) -> bool:
    """Whether a call changes the disk."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id == "open" and opens_to_write(call)
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    of_path = function.attr == "replace" and len(call.args) == 1 and not call.keywords  # a text is given two arguments
    to_write = function.attr == "open" and opens_to_write(call)
    return of_path or to_write or function.attr in METHODS or function.attr in OF_MODULES.get(owner, ())


def opens_to_write(call: ast.Call) -> bool:
    """Whether one of the arguments is a mode that writes."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = [part.value for value in given for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return any(isinstance(text, str) and set(text) <= set("rwabxt+") and set(text) & set("wax+") for text in texts)


def names_in(node: ast.AST | None) -> set[str]:
    """Names in an expression; a handler without one catches everything."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node else CAUGHT


def guards(item: ast.withitem) -> bool:
    """Whether a context manager lets no `OSError` out of what comes behind it."""
    called = item.context_expr
    if not isinstance(called, ast.Call):
        return False
    names = names_in(called)
    return bool(names_in(called.func) & GUARDS) or {"suppress", "OSError"} <= names


def is_guarded(node: ast.AST, parents: Parents) -> bool:
    """Whether an `OSError` raised at a node is caught in its own function."""
    child, place = node, parents.get(node)
    while place is not None and not isinstance(place, ast.FunctionDef):
        if isinstance(place, ast.With):
            before = place.items[: place.items.index(child)] if isinstance(child, ast.withitem) else place.items
            if any(map(guards, before)):
                return True
        if isinstance(place, ast.Try) and child in place.body:
            caught = [names_in(handler.type) for handler in place.handlers if handler.type]
            if any(names & CAUGHT for names in caught):
                return True
        child, place = place, parents.get(place)
    return False


def function_of(node: ast.AST, parents: Parents) -> ast.FunctionDef | None:
    place = parents.get(node)
    while place is not None and not isinstance(place, ast.FunctionDef):
        place = parents.get(place)
    return place


def uses(tree: ast.AST, name: str) -> list[ast.AST]:
    return [n for n in ast.walk(tree) if name in (getattr(n, "attr", ""), getattr(n, "id", ""))]


def unguarded(source: str) -> Iterator[str]:
    """Calls that change the disk and are not guarded, neither where they stand nor wherever their function is used.

    Only for a private function all uses are known.
    """
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and writes(node)]
    left: list[tuple[ast.AST, ast.Call]] = [(node, node) for node in calls if not is_guarded(node, parents)]
    seen = set()
    while left:
        node, call = left.pop()
        function = function_of(node, parents)
        if (function, call) in seen:
            continue
        seen.add((function, call))
        name = function.name if function else ""
        if not name.startswith("_") or name.endswith("__") or not uses(tree, name):
            yield f"line {call.lineno}: {ast.unparse(call)[:80]} in {name or 'the module'}"
        else:
            left += [(use, call) for use in uses(tree, name) if not is_guarded(use, parents)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_change_of_the_disk_is_guarded(path):
    assert list(unguarded(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(p):\n    p.write_text('x')", 1),
        ("def f(p):\n    with writing(p):\n        p.write_text('x')", 0),
        ("def f(p):\n    with p.open('wb') as file, writing(p):\n        file.write(b'')", 1),
        ("def f(p):\n    try:\n        p.unlink()\n    except ValueError:\n        pass", 1),
        ("def f(p):\n    try:\n        p.unlink()\n    except (ValueError, OSError):\n        pass", 0),
        ("def _f(p):\n    p.mkdir()\ndef g(p):\n    with locked(p):\n        _f(p)", 0),
        ("def _f(p):\n    p.mkdir()\ndef g(p):\n    with locked(p):\n        _f(p)\ndef h(p):\n    _f(p)", 1),
        ("def f(p, t):\n    p.open('ab' if t else 'wb')", 1),
        ("def f(p, t):\n    p.open('rb')\n    t.replace('a', 'b')", 0),
    ],
)
def test_what_counts_as_guarded(source, found):
    assert len(list(unguarded(source))) == found
