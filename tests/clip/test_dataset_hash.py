"""The hash that tells a dataset from others: by content, class names and paths, not by split or place."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from ipo.clip import hashes as contents
from ipo.clip.hashes import ContentHashes, dataset_hash
from ipo.data.own.load import read_folder


@pytest.fixture
def place(tmp_path):
    for name in ("apple", "pear"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            (tmp_path / "photos" / name / f"{index}.png").write_bytes(f"{name} {index}".encode())
    return tmp_path / "photos"


@pytest.fixture
def memory(tmp_path):
    return ContentHashes(tmp_path / "memory.json")


def test_it_is_the_same_for_every_seed_and_place(place, memory):
    first = dataset_hash(read_folder(str(place), 1), memory)
    other_seed = read_folder(str(place), 2)
    assert other_seed.split_hash != read_folder(str(place), 1).split_hash
    assert dataset_hash(other_seed, memory) == first
    shutil.copytree(place, place.parent / "moved" / "renamed")
    assert dataset_hash(read_folder(str(place.parent / "moved" / "renamed"), 1), memory) == first


def test_another_content_of_one_picture_another_name_or_another_picture_is_another(place, memory):
    found = {dataset_hash(read_folder(str(place), 1), memory)}
    renamed = replace(read_folder(str(place), 1), classnames=("apple", "quince"))
    found.add(dataset_hash(renamed, memory))
    (place / "pear" / "7.png").write_bytes(b"pear 8")  # of the same size
    found.add(dataset_hash(read_folder(str(place), 1), memory))
    (place / "pear" / "8.png").write_bytes(b"pear 9")
    found.add(dataset_hash(read_folder(str(place), 1), memory))
    (place / "pear" / "8.png").rename(place / "pear" / "9.png")
    found.add(dataset_hash(read_folder(str(place), 1), memory))
    assert len(found) == 5


def test_of_a_large_dataset_no_more_than_a_sample_is_read(place, memory, monkeypatch):
    asked = []

    def of(paths):
        asked.extend(paths)
        return {}, {}

    monkeypatch.setattr(memory, "of", of)
    monkeypatch.setattr(contents, "SAMPLE", 5)
    dataset_hash(read_folder(str(place), 1), memory)
    assert 1 < len(asked) <= 5
