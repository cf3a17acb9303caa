"""`ipo verify`: agreement within half a point, and silence about what cannot be compared."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor
from typer.testing import CliRunner

from ipo.cli.main import app
from ipo.config import DataSettings
from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.fewshot import class_half
from ipo.data.load import load_dataset
from ipo.data.types import Item
from ipo.fixed_prompts import TOLERANCE, Verdict, not_comparable, published_figures, read_datasets, verify_dataset
from ipo.task import FeatureStore
from tests.data.builders import class_tree, picture, split_file
from tests.fakes import FakeClip

NAMES = ("ant", "bee", "cow", "dog")
MODEL = "ViT-B-16-quickgelu/openai"


class Store(FeatureStore):
    """Features of an image are the text features of its true class name, or of the next class for each third image."""

    def __init__(self, clip: FakeClip) -> None:
        self.clip = clip

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        names = list(dict.fromkeys(item.path.parent.name for item in items))
        shown = [names[(item.label + (index % 3 == 0)) % len(names)] for index, item in enumerate(items)]
        return tuple(items), self.clip.encode_texts(shown)


def one_by_one(clip, store, dataset, half, prompt):
    """Accuracy in percent, image by image and class by class."""
    classes = class_half(dataset, half)
    items, features = store.load(classes.take(dataset.test))
    hits = 0
    for item, feature in zip(items, features, strict=True):
        cosines = [float(feature @ clip.encode_texts([prompt.replace("<CLASS>", n)])[0]) for n in classes.classnames]
        hits += cosines.index(max(cosines)) == item.label
    return 100 * hits / len(items)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [(f"{name}/{index}.jpg", label, name) for label, name in enumerate(NAMES) for index in range(3)]
    split_file(tmp_path / "food-101" / CATALOGUE["food101"].split_file, train=rows, val=rows, test=rows)
    for path, _, _ in rows:
        picture(tmp_path / "food-101" / "images" / path)
    return tmp_path


def test_each_published_figure_stands_beside_ours(root):
    clip, data = FakeClip(), DataSettings(root=root)
    dataset = load_dataset("food101", root)
    verdicts = list(verify_dataset(read_datasets(["food101"], data, seed=1)[0], clip, Store(clip)))
    rows = published_figures()["food101"]
    assert [(v.prompt, v.half) for v in verdicts] == [(row["prompt"], half) for half in ("base", "new") for row in rows]
    assert [v.expected for v in verdicts] == [row[half] for half in ("base", "new") for row in rows]
    oracle = [one_by_one(clip, Store(clip), dataset, verdict.half, verdict.prompt) for verdict in verdicts]
    assert [verdict.got for verdict in verdicts] == pytest.approx(oracle)
    assert all(v.note == f"not comparable: measured with {MODEL}, not fake" for v in verdicts)


@pytest.mark.parametrize(
    ("got", "note", "agrees"),
    [(96.84, "", True), (96.35, "", True), (97.33, "", True), (96.33, "", False), (97.35, "", False), (10, "n", True)],
)
def test_half_a_point_is_the_tolerance(got, note, agrees):
    verdict = Verdict("caltech101", "<CLASS>", "base", 96.84, got, note)
    assert verdict.agrees is agrees
    assert verdict.to_json()["difference"] == round(got - 96.84, 2)
    assert TOLERANCE == 0.5


def test_other_models_and_other_splits_are_not_comparable(root, tmp_path):
    dataset = load_dataset("food101", root)
    assert not_comparable(dataset, "mini") == f"not comparable: measured with {MODEL}, not mini"
    assert not_comparable(dataset, MODEL).startswith("not comparable: 4 classes, published 101")
    class_tree(tmp_path / "other" / "dtd" / "images", {"banded": 4, "dotted": 4})
    assert not_comparable(load_dataset("dtd", tmp_path / "other"), MODEL) == "not comparable: split seeded (1)"


@pytest.mark.parametrize(("points", "status"), [(0.0, 0), (0.4, 0), (0.6, 1)])
def test_the_exit_status_says_whether_all_figures_agree(points, status, monkeypatch):
    verdict = Verdict("caltech101", "<CLASS>", "base", 90.0, 90.0 + points)
    monkeypatch.setattr("ipo.fixed_prompts.present_datasets", lambda _: ["caltech101"])
    monkeypatch.setattr("ipo.fixed_prompts.read_datasets", lambda *_: [None])
    monkeypatch.setattr("ipo.fixed_prompts.verify_dataset", lambda *_: [verdict])
    monkeypatch.setattr("ipo.clip.load.load_clip", lambda *_, **__: FakeClip())
    monkeypatch.setattr("ipo.clip.features.feature_store", lambda *_, **__: None)
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == status
    assert f"{1 - status} of 1 comparable figures agree" in done.output
    shown = CliRunner().invoke(app, ["verify", "--json"])
    assert shown.exit_code == status
    assert json.loads(shown.output)[0]["difference"] == points


def test_without_any_dataset_there_is_nothing_to_verify(tmp_path):
    done = CliRunner().invoke(app, ["verify", "--data-root", str(tmp_path)])
    assert "none of the datasets with published figures is here" in str(done.exception)
