"""What tests `mini` never trained it: by content, the stamps, Caltech101 and PACS are not among its pictures."""

import hashlib
import importlib
import tarfile
from pathlib import Path

import pytest

from ipo.data.benchmarks.locate import data_root

DATA = data_root()
"""Where datasets lie for whoever runs the tests; the tests themselves are given an empty place."""

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIGESTS = BENCHMARKS / "mini_training" / "pictures.txt"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def trained_on():
    found = set(DIGESTS.read_text().split())
    assert len(found) > 10_000
    return found


@pytest.mark.real_data
def test_no_picture_that_a_test_uses_was_trained_on(real_data):
    seen, count = trained_on(), 0
    for archive in ("pacs-sample/pacs.tar.gz", "caltech-101/101_ObjectCategories.tar.gz"):
        with tarfile.open(real_data / archive) as files:
            for member in files:
                if member.isfile() and member.name.endswith(".jpg"):
                    content = files.extractfile(member)
                    assert content is not None
                    assert hashlib.sha256(content.read()).hexdigest()[:16] not in seen, member.name
                    count += 1
    assert count > 8_000


@pytest.mark.parametrize(("name", "least"), [("stamps", 300), ("looks", 400)])
def test_no_picture_of_the_demo_was_trained_on(name, least):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the pictures are not here: ipo datasets prepare {name}")
    pictures = list(folder.rglob("*.png"))
    assert len(pictures) > least
    assert not {digest(path) for path in pictures} & trained_on()


def test_the_packages_of_the_demo_are_none_of_those_that_were_trained_on(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sources = importlib.import_module("mini_training.sources")
    names = {source.package for source in (*sources.ICON_SETS, *sources.DEBIAN)}
    assert not [name for name in names if "openmoji" in name or "tuxpaint" in name]
