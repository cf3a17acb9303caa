"""Split files, seeded splits and the hash that names a split."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipo.data.splits import assemble, hold_out, read_split_file, readable_name, seeded_split, split_hash
from ipo.data.types import Item
from ipo.errors import DataError
from tests.data.builders import split_file, text

counts = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def items_of(sizes):
    return [Item(Path(f"{label}/{index}.jpg"), label) for label, size in enumerate(sizes) for index in range(size)]


@settings(deadline=None)
@given(counts, st.integers(0, 1000))
def test_a_seeded_split_uses_every_image_once_and_every_class_for_training(sizes, seed):
    parts = seeded_split(items_of(sizes), seed)
    assert sorted(str(item.path) for part in parts.values() for item in part) == sorted(
        str(item.path) for item in items_of(sizes)
    )
    for label, size in enumerate(sizes):
        train, val, test = (sum(item.label == label for item in parts[split]) for split in ("train", "val", "test"))
        assert train >= 1
        assert (test >= 1) == (size >= 2)
        assert (val >= 1) == (size >= 3)


@pytest.mark.parametrize("size", [10, 31, 40, 64, 128, 800])
def test_a_seeded_split_has_coops_proportions(size):
    parts = seeded_split(items_of([size]), 1)
    assert len(parts["train"]) == round(0.5 * size)
    assert len(parts["val"]) == round(0.2 * size)


def test_a_seeded_split_depends_on_the_seed_and_on_nothing_else():
    items = items_of([20, 20])
    first = seeded_split(items, 1)
    assert seeded_split(items, 1) == first
    assert seeded_split(items, 0) != first
    assert seeded_split(items, 0) == seeded_split(items, 0)


def test_pictures_added_to_one_class_leave_the_others_as_they_are():
    before, after = seeded_split(items_of([20, 20]), 1), seeded_split(items_of([20, 25]), 1)
    for split in ("train", "val", "test"):
        assert [i for i in before[split] if i.label == 0] == [i for i in after[split] if i.label == 0]


@given(counts)
@settings(deadline=None)
def test_hold_out_keeps_at_least_one_of_a_class(sizes):
    kept, held = hold_out(items_of(sizes), 0.2, 1)
    assert Counter(item.label for item in kept + held) == Counter(dict(enumerate(sizes)))
    for label, size in enumerate(sizes):
        assert sum(item.label == label for item in held) == min(max(1, round(0.2 * size)), size - 1)


def test_labels_and_names_come_from_the_file_whatever_its_order(tmp_path):
    file = split_file(
        tmp_path / "split.json",
        train=[("b/1.jpg", 1, "bee")],
        val=[("a/1.jpg", 0, "ant")],
        test=[("b/2.jpg", 1, "bee")],
    )
    names, parts = read_split_file(file, tmp_path / "images")
    assert names == ["ant", "bee"]
    assert parts["train"] == [Item(tmp_path / "images" / "b" / "1.jpg", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read split file"),
        ("[]", "not a split file"),
        ('{"train": []}', "not a split file"),
        ('{"train": [["a.jpg", 0]], "val": [], "test": []}', "not a split file"),
        ('{"train": [[7, 0, "a"]], "val": [], "test": []}', "not a split file"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 0, "b"]], "val": [], "test": []}', "label 0 is both 'a' and 'b'"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 2, "b"]], "val": [], "test": []}', "without gaps"),
        ('{"train": [["../a.jpg", 0, "a"]], "val": [], "test": []}', "leaves the image folder"),
        ('{"train": [["/etc/passwd", 0, "a"]], "val": [], "test": []}', "leaves the image folder"),
    ],
)
def test_broken_split_files_are_named(content, message, tmp_path):
    file = text(tmp_path / "split.json", content)
    with pytest.raises(DataError, match=message) as caught:
        read_split_file(file, tmp_path)
    assert str(file) in str(caught.value)


def test_a_missing_or_binary_split_file_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read split file"):
        read_split_file(tmp_path / "none.json", tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="cannot read split file"):
        read_split_file(tmp_path / "binary.json", tmp_path)


def test_the_hash_names_a_split_and_not_its_place():
    def digest(root, label=0, split=0):
        parts: list[list[Item]] = [[], [], []]
        parts[split] = [Item(root / "a.jpg", label)]
        return split_hash(root, parts)

    here = digest(Path("/here"))
    assert digest(Path("/there")) == here
    assert len({here, digest(Path("/here"), label=1), digest(Path("/here"), split=2)}) == 3


def test_rewriting_the_json_leaves_the_hash(tmp_path):
    rows = {"train": [["a.jpg", 0, "a"]], "val": [], "test": [["b.jpg", 1, "b"]]}
    hashes = set()
    for indent in (None, 4):
        file = text(tmp_path / "split.json", json.dumps(rows, indent=indent))
        names, parts = read_split_file(file, tmp_path)
        hashes.add(assemble("x", tmp_path, names, parts, prompt="<CLASS>", source="test").split_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("stored", "shown"),
    [("baby_back_ribs", "baby back ribs"), ("Yo__Yo", "Yo Yo"), ("cafe\u0301", "caf\u00e9"), ("日本_犬", "日本 犬")],
)
def test_class_names_are_shown_with_spaces_and_composed_letters(stored, shown):
    assert readable_name(stored) == shown
