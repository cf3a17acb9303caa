"""Modules import only what stands above them, `ipo` never imports the baselines, and the command starts light."""

import ast
import sys
from pathlib import Path

import pytest

import ipo
from tests.processes import run_process

PACKAGE = Path(ipo.__file__).parent
LAYERS = [
    "screen", "packages", "errors", "store", "net", "progress", "config", "prompt", "naming", "seeds", "render", "data",
    "clip", "llm", "captions", "descriptions", "metrics", "scoring", "task", "draws", "registry", "methods", "search",
    "runs", "comparison", "export", "predict", "report", "run", "fixed_prompts", "api", "serve", "cli", "__main__",
]  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer(path: Path) -> int:
    return LAYERS.index(path.relative_to(PACKAGE).with_suffix("").parts[0])


def imported(path: Path) -> set[str]:
    """Names of the project's own modules that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("ipo", "ipo_baselines")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_modules_above_it(path):
    for name in imported(path):
        top, _, rest = name.partition(".")
        assert top == "ipo", f"{path.name} imports {name}"
        first = rest.split(".")[0]
        if first in LAYERS:
            assert LAYERS.index(first) <= layer(path), f"{path.name} imports {name}, which stands below it"


def test_pages_and_tables_of_runs_need_no_torch():
    code = "import sys, ipo.report.pages, ipo.comparison.tables; print('torch' in sys.modules)"
    assert run_process([sys.executable, "-c", code], check=True).stdout.strip() == "False"


def test_help_needs_no_heavy_package():
    heavy = ("torch", "transformers", "open_clip", "openai", "timm")
    code = f"import sys, ipo.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = run_process([sys.executable, "-c", code], check=True)
    assert done.stdout.strip() == "[]"
