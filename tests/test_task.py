from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.config import DataSettings
from ipo.data.listing import Listing, read_listing, read_target
from ipo.data.types import Item
from ipo.errors import DataError
from ipo.metrics import harmonic_mean, wilson_interval
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, Predictor, PromptPredictor, evaluate_on
from ipo.task import FeatureStore, evaluate_base_to_new, load_target, load_task
from tests.baselines.tiny import TinyClip

NAMES = ("blue", "green", "grey", "red", "stone")


class RecordingStore(FeatureStore):
    """Features of image files under a model, and a list of all files that were ever asked for."""

    def __init__(self, clip: ClipModel, unreadable: Sequence[str] = ()) -> None:
        self.clip, self.unreadable = clip, unreadable
        self.asked: list[Path] = []

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        self.asked += [item.path for item in items]
        kept = tuple(item for item in items if item.path.parent.name not in self.unreadable)
        pixels = [self.clip.preprocess(Image.open(item.path)) for item in kept]
        return kept, self.clip.encode_images(torch.stack(pixels)) if kept else torch.empty(0, self.clip.dim)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five classes of eight pictures with their splits in folders."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in NAMES:
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def listing(pictures: Path, **data: object) -> Listing:
    mine = {"dataset": f"folder:{pictures}", "shots": 2, "classes": "base", **data}
    return read_listing(DataSettings.model_validate(mine), seed=1)


def test_fit_sees_training_and_validation_shots_and_test_images_are_read_at_the_end_only(pictures):
    clip = TinyClip()
    store = RecordingStore(clip)
    protocol = load_task(listing(pictures), clip, store)
    test = {item.path for held_out in protocol.test_sets().values() for item in held_out.items}
    assert len(test) == 10
    assert len(protocol.task.train) == 2 * 3
    assert not test & set(store.asked)
    assert not test & {item.path for images in (protocol.task.train, protocol.task.val) for item in images.items}
    before = len(store.asked)
    predictor = PromptPredictor(clip, (Prompt("a photo of a <CLASS>."),))
    evaluate_base_to_new(predictor, protocol)
    evaluate_base_to_new(predictor, protocol)
    assert sorted(store.asked[before:]) == sorted(test)


def test_base_and_new_partition_the_classes_and_are_labelled_from_0(pictures):
    clip = TinyClip()
    protocol = load_task(listing(pictures), clip, RecordingStore(clip))
    assert protocol.new is not None
    assert protocol.base.classnames + protocol.new.classnames == NAMES
    assert protocol.task.classnames == protocol.base.classnames == NAMES[:3]
    for held_out in (protocol.base, protocol.new):
        for item in held_out.images.items:
            assert held_out.classnames[item.label] == item.path.parent.name
    assert protocol.classes == "base"


def test_own_data_has_all_classes_and_one_test_set_unless_asked_otherwise(pictures):
    clip = TinyClip()
    protocol = load_task(listing(pictures, classes="auto"), clip, RecordingStore(clip))
    assert (protocol.classes, protocol.new, len(protocol.task.classnames)) == ("all", None, 5)


class NamedPredictor(Predictor):
    """Predicts the class in whose folder an image lies, if it is among the names, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        self.asked.append(tuple(classnames))
        rows = [[float(item.path.parent.name == name) for name in classnames] for item in images.items]
        return torch.tensor(rows)


def test_each_half_is_scored_against_its_own_names_only(pictures):
    clip, predictor = TinyClip(), NamedPredictor()
    result = evaluate_base_to_new(predictor, load_task(listing(pictures), clip, RecordingStore(clip)))
    assert predictor.asked == [NAMES[:3], NAMES[3:]]
    assert result.new is not None
    assert result.base.value == result.new.value == result.harmonic_mean == 1.0
    assert (result.base.n, result.new.n) == (6, 4)


def test_evaluation_agrees_with_counting_image_by_image():
    labels = [0, 0, 1, 2, 2, 2]
    images = ImageSet(tuple(Item(Path(f"{i}.png"), label) for i, label in enumerate(labels)), torch.zeros(6, 2))

    class Fixed(Predictor):
        def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
            return torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2, 2, 0]), 4).float()

    found = evaluate_on(Fixed(), images, ["a", "b", "c", "d"])
    assert found.correct == "101110"
    assert found.value == pytest.approx(4 / 6)
    assert (found.low, found.high) == wilson_interval(found.value, 6)
    assert found.per_class[3] is None
    assert found.per_class[:3] == pytest.approx((0.5, 1.0, 2 / 3))


def test_result_has_h_and_the_figures_of_both_halves(pictures):
    clip = TinyClip()
    protocol = load_task(listing(pictures), clip, RecordingStore(clip))
    result = evaluate_base_to_new(PromptPredictor(clip, (Prompt("<CLASS>"),)), protocol)
    row = result.to_json()
    assert row["H"] == harmonic_mean(row["base"]["accuracy"], row["new"]["accuracy"])
    assert set(row["base"]) == {"accuracy", "low", "high", "n"}


def test_paths_go_with_verdicts_where_an_image_was_left_out(pictures):
    clip = TinyClip()
    protocol = load_task(listing(pictures), clip, RecordingStore(clip, unreadable=["green"]))
    assert protocol.base.paths == ["test/blue/0.png", "test/blue/1.png", "test/grey/0.png", "test/grey/1.png"]
    assert len(evaluate_on(NamedPredictor(), protocol.base.images, NAMES[:3]).correct) == 4


def test_no_readable_training_image_is_an_error(pictures):
    clip = TinyClip()
    with pytest.raises(DataError, match="none of the 6 training"):
        load_task(listing(pictures), clip, RecordingStore(clip, unreadable=NAMES))


def test_a_class_without_training_images_is_an_error_that_names_it(pictures):
    (pictures / "train" / "empty").mkdir()
    with pytest.raises(DataError, match=r"no training images of empty .*\.png"):
        listing(pictures, classes="all")


def test_another_dataset_is_a_target_under_its_own_names(pictures):
    clip = TinyClip()
    target = load_target(read_target(f"folder:{pictures}", None, seed=1), RecordingStore(clip))
    assert target.classnames == NAMES
    assert {item.path.parts[-3] for item in target.items} == {"test"}


def test_a_domain_as_target_has_all_its_images_and_only_them(tmp_path):
    for domain, count in (("photo", 10), ("art_painting", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pacs" / domain / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / f"{index}.png")
    clip = TinyClip()
    data = DataSettings(dataset="pacs", root=tmp_path, domains=("photo",), shots=2, classes="all")
    store = RecordingStore(clip)
    protocol = load_task(read_listing(data, seed=1), clip, store)
    target = load_target(read_target("pacs@art_painting", tmp_path, seed=1), store)
    assert [item.domain for item in target.items] == ["art_painting"] * 12
    assert target.classnames == protocol.task.classnames == ("cat", "dog")
    assert {item.domain for item in (*protocol.task.train.items, *protocol.base.items)} == {"photo"}
    both = data.model_copy(update={"targets": ("pacs@art_painting", "pacs@photo")})
    with pytest.raises(DataError, match=r"8 of the 20 images of pacs@photo are shots of the fit"):
        read_listing(both, seed=1)
    other = read_listing(data.model_copy(update={"targets": ("pacs@art_painting",)}), seed=1)
    assert list(load_task(other, clip, store).test_sets()) == ["base", "pacs@art_painting"]
