"""The real archives: Caltech101 with nothing unpacked beforehand, and the sample of PACS."""

from collections import Counter

import pytest

from ipo.data.benchmarks.prepare import prepare
from ipo.data.check import all_items, missing_images
from ipo.data.images import load_image
from ipo.data.load import load_dataset
from ipo.fixed_prompts import COMPARABLE_MODEL, not_comparable

pytestmark = pytest.mark.real_data


def test_caltech101_is_prepared_from_its_original_archive(real_data, tmp_path):
    archive = real_data / "caltech-101" / "101_ObjectCategories.tar.gz"
    dataset = prepare("caltech101", tmp_path, archive.as_uri())
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)
    assert len(dataset.classnames) == 100
    assert dataset.classnames[:3] == ("face", "leopard", "motorbike")
    assert dataset.split_source == "published (split_zhou_Caltech101.json)"
    assert missing_images(dataset) == []
    assert load_image(dataset.train[0].path).mode == "RGB"
    assert load_dataset("caltech101", tmp_path) == dataset


def test_caltech101_loads_from_a_folder_that_holds_the_archive_only(real_data):
    dataset = load_dataset("caltech101", real_data)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)
    assert missing_images(dataset) == []
    assert not_comparable(dataset, COMPARABLE_MODEL) == ""
    assert sorted(path.name for path in (real_data / "caltech-101").iterdir()) == [
        "101_ObjectCategories.tar.gz",
        "split_zhou_Caltech101.json",
    ]


def test_the_sample_of_pacs_has_two_domains_and_seven_classes(real_data, tmp_path):
    dataset = prepare("pacs", tmp_path, str(real_data / "pacs-sample" / "pacs.tar.gz"))
    assert dataset.classnames == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    assert Counter(item.domain for item in all_items(dataset)) == {"art_painting": 210, "photo": 210}
    photos = load_dataset("pacs", tmp_path, domains=("photo",))
    assert {item.domain for item in all_items(photos)} == {"photo"}
    assert (len(photos.train), len(photos.val), len(photos.test)) == (105, 42, 63)
