"""The wheel: all of the two packages and nothing else, and the command from another folder with it alone."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import ipo
from tests.processes import run_process
from tests.test_cli import pictures  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
TOPS = {"ipo": "ipo", "baselines": "ipo_baselines", "templates": "ipo/templates"}
"""Folders of the tree, and where they lie once installed."""


def build(tree: Path, kind: str, out: Path) -> Path:
    """Build an `sdist` or `wheel` of a tree, without pip and without a network."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = run_process([sys.executable, "-c", code, str(out)], cwd=tree)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source distribution that was built from the tree, so that both are whole."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in TOPS:
        shutil.copytree(ROOT / name, tree / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    with tarfile.open(build(tree, "sdist", folder)) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):  # extractall warns or not, as the Python is
            place = folder / "sdist" / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            place.write_bytes(content.read())
    (unpacked,) = (folder / "sdist").iterdir()
    return build(unpacked, "wheel", folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An empty place with the wheel in it, and nothing of the tree."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    run_process([*pip, "--target", str(place), str(wheel)], check=True)
    return place


def files_of_the_tree() -> set[str]:
    found = set()
    for top, installed in TOPS.items():
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(f"{installed}/{path.relative_to(ROOT / top).as_posix()}")
    return found


def test_the_wheel_holds_every_file_of_both_packages_and_no_other(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packed == files_of_the_tree()
    assert {name.split("/")[0] for name in packed} == {"ipo", "ipo_baselines"}
    assert {
        "ipo/py.typed",
        "ipo_baselines/py.typed",
        "ipo/templates/ipo.j2",
        "ipo/search/wordlists/english.txt",
    } <= packed
    assert wheel.name.startswith(f"ipo_prompts-{ipo.__version__}-py3-none-any")


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A folder where other things are called as ours are."""
    for name in ("baselines", "ipo_baselines", "ipo", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger was imported')")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "ipo.j2").write_text("{{ a stranger }}")
    return tmp_path


def run(place: Path, folder: Path, *words: str) -> CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(place / "bin" / "ipo"), *words]
    return run_process(command, cwd=folder, env=environment)


@pytest.mark.offline_models
@pytest.mark.slow
def test_a_search_from_another_folder(installed, elsewhere, pictures):  # noqa: F811
    common = ["--dataset", f"folder:{pictures}", "--offline", "--shots", "2"]
    search = ["optimize", *common, "--steps", "1", "--candidates", "2", "--captioner", "none", "--no-controls"]
    done = run(installed, elsewhere, *search, "--out", "found", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictors"]["ipo"]["base"]
    assert (elsewhere / "found" / "report.html").is_file()
    done = run(installed, elsewhere, "baseline", "ensemble-seven", *common)
    assert "Did you mean 'ensemble-7'?" in done.stderr  # the methods are found, by their entry points


def test_what_runs_is_what_was_installed(installed, elsewhere):
    code = "import ipo, ipo_baselines; print(ipo.__file__, ipo_baselines.__file__)"
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run_process(command, cwd=elsewhere, env=environment, check=True)
    assert done.stdout.split() == [str(installed / name / "__init__.py") for name in ("ipo", "ipo_baselines")]
    assert run(installed, elsewhere, "--version").stdout == f"ipo {ipo.__version__}\n"
