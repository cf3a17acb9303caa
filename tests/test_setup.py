"""Set-up that repeats: the lock, the ranges of the wheel, `make`, and the advice to install something."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from ipo.packages import DISTRIBUTION, OFFLINE_REMEDY, Extra, dependency_remedy, extra_remedy

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pinned(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """The requirements of a file in `requirements/`, each with its hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / "requirements" / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split(" --hash=")
        yield Requirement(requirement.strip()), [text.strip() for text in hashes]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not one version"
    return Version(specifier.version)


@pytest.mark.parametrize("name", ["lock.txt", "offline.txt"])
def test_everything_that_make_installs_has_one_version_and_hashes(name):
    found = list(pinned(name))
    assert len(found) >= 3
    for requirement, hashes in found:
        assert version(requirement)
        assert hashes, requirement.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes)


def test_the_lock_answers_pyproject():
    """Fails after a change of dependencies until `make lock` has renewed the lock."""
    locked = {normal(requirement.name): requirement for requirement, _ in pinned("lock.txt")}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for text in [*PROJECT["dependencies"], *EXTRAS["dev"], *build]:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        assert normal(wanted.name) in locked, f"{wanted.name} is not in the lock: run make lock"
        assert version(locked[normal(wanted.name)]) in wanted.specifier, f"{text}: run make lock"
    for held, _ in pinned("hold.txt"):
        assert version(locked[normal(held.name)]) == version(held)


def test_dependencies_have_a_lower_bound_and_an_upper_one_where_interfaces_break_often():
    often = {"transformers", "openai", "huggingface_hub", "typer", "open_clip_torch", "timm", "tokenizers"}
    for text in PROJECT["dependencies"]:
        operators = {specifier.operator for specifier in Requirement(text).specifier}
        assert ">=" in operators, text
        assert "<" in operators or Requirement(text).name not in often, text


def test_advice_names_this_distribution_and_its_extras():
    assert PROJECT["name"] == DISTRIBUTION
    words = re.compile(r"pip install[^\n]*?\bipo(?![-\w.])|\bipo\[")
    folders = ("ipo", "baselines", "templates", "docs", "benchmarks")
    for path in [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]:
        if path.is_file() and path.suffix in (".py", ".md", ".j2", ".toml"):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert not words.search(line) or "somebody else" in line, f"{path}: {line}"
    for extra in EXTRAS:
        assert extra_remedy(extra) == f"pip install '{DISTRIBUTION}[{extra}]'"
    assert set(get_args(Extra)) == set(EXTRAS) - {"dev", "docs"}


def test_advice_for_the_offline_models_names_the_versions_that_make_installs():
    for requirement, _ in pinned("offline.txt"):
        assert str(requirement) in OFFLINE_REMEDY
    assert len(list(pinned("offline.txt"))) == OFFLINE_REMEDY.count("==")


def test_advice_for_a_dependency_names_the_range_of_pyproject(monkeypatch):
    (wanted,) = (text for text in PROJECT["dependencies"] if Requirement(text).name == "transformers")
    monkeypatch.setattr("ipo.packages.requires", lambda _: [f"{wanted}", "torch<3,>=2", "torchvision>=1"])
    assert dependency_remedy("transformers") == f"pip install '{wanted}'"
    assert dependency_remedy("torch") == "pip install 'torch<3,>=2'"
    monkeypatch.setattr("ipo.packages.requires", lambda _: None)
    assert dependency_remedy("torch") == "pip install 'torch'"
