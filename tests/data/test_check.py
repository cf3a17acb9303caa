"""What `ipo datasets check` finds, and the contact sheet."""

import hashlib
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ipo.data.benchmarks.catalogue import CATALOGUE
from ipo.data.check import looked_at, problems
from ipo.data.load import load_dataset
from ipo.data.sheet import MARGIN, NAME_WIDTH, THUMBNAIL, contact_sheet, save_sheet
from tests.data.builders import class_tree, picture, split_file, text


@pytest.fixture
def photos(tmp_path):
    return class_tree(tmp_path / "photos", {"a": 6, "b": 6})


def test_a_sound_dataset_has_no_problems(photos):
    assert list(problems(load_dataset(f"folder:{photos}"))) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_each_unreadable_image_is_named_in_order(workers, photos):
    (photos / "a" / "001.jpg").write_bytes(b"")
    (photos / "b" / "002.jpg").write_bytes(b"junk")
    paths = sorted(photos.rglob("*.jpg"))
    found = list(looked_at(paths, workers))
    assert [digest for _, digest in found] == [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    first, second = [problem for problem, _ in found if problem]
    assert "the file is empty" in first
    assert str(photos / "a" / "001.jpg") in first
    assert "no known image format" in second


def test_an_image_in_two_splits_and_classes_without_images_are_named(photos):
    rows = ["a/000.jpg,a,train", "a/000.jpg,a,test", "b/000.jpg,b,train", "a/001.jpg,c,test"]
    text(photos / "data.csv", "path,label,split", *rows)
    found = list(problems(load_dataset(f"csv:{photos / 'data.csv'}")))
    assert len(found) == 3
    for words in ("a/000.jpg is listed twice", "class 'c' has no training images", "class 'b' has no test images"):
        assert any(words in problem for problem in found)


@pytest.mark.parametrize("how", [os.link, os.symlink, shutil.copy])
def test_a_picture_in_two_classes_or_splits_is_named_with_both_places(how, tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"a": 3, "b": 3})
    for source, target in (("train/a/000.jpg", "train/b/x.jpg"), ("test/b/001.jpg", "train/b/y.jpg")):
        how(tmp_path / source, tmp_path / target)
    how(tmp_path / "train/a/001.jpg", tmp_path / "train/a/same-class-and-split.jpg")
    assert list(problems(load_dataset(f"folder:{tmp_path}"))) == [
        "train/a/000.jpg (train, class 'a') and train/b/x.jpg (train, class 'b') are the same picture",
        "train/b/y.jpg (train, class 'b') and test/b/001.jpg (test, class 'b') are the same picture",
    ]


def test_a_folder_linked_into_another_class_or_split_is_a_problem(tmp_path):
    for split in ("train", "test"):
        class_tree(tmp_path / split, {"a": 3, "b": 3})
    (tmp_path / "train/a/of-b").symlink_to(tmp_path / "train/b")
    (tmp_path / "train/b/tests").symlink_to(tmp_path / "test")
    (tmp_path / "train/b/loop").symlink_to(tmp_path / "train")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert len(dataset.train) == len(dataset.test) == 6
    assert list(problems(dataset)) == [
        "passed over train/a/of-b, which is train/b again",
        "passed over train/b/tests, which is test again",
    ]
    assert dataset.notes == ("passed over train/b/loop, which is train again",)


def test_counts_and_missing_domains_of_a_benchmark_are_named(tmp_path):
    entry = CATALOGUE["oxford_pets"]
    split_file(tmp_path / "oxford_pets" / entry.split_file, train=[("a_1.jpg", 0, "a"), ("b_1.jpg", 1, "b")])
    picture(tmp_path / "oxford_pets" / "images" / "a_1.jpg")
    found = list(problems(load_dataset("oxford_pets", tmp_path)))
    assert found[:2] == ["2 classes, published 37", "train/val/test 2/0/0, published 2944/736/3669"]
    assert "no such file" in found[2]
    class_tree(tmp_path / "pacs" / "photo", {"dog": 4})
    found = list(problems(load_dataset("pacs", tmp_path)))
    assert found[0] == "1 class, published 7"
    assert {f"domain {domain} is not there" for domain in ("art_painting", "cartoon", "sketch")} <= set(found)


def test_a_contact_sheet_has_one_row_a_class(tmp_path):
    for name, colour in (("red", "red"), ("blue", "blue")):
        for index in range(3):
            picture(tmp_path / name / f"{index}.png", colour)
    (tmp_path / "red" / "0.png").write_bytes(b"")
    dataset = load_dataset(f"folder:{tmp_path}")
    sheet = contact_sheet(dataset, each=3)
    step = THUMBNAIL + MARGIN
    assert sheet.size == (NAME_WIDTH + 3 * step, 2 * step)
    rows = np.asarray(sheet)
    assert (rows[1, NAME_WIDTH + 1] == (0, 0, 255)).all()
    seen = {tuple(rows[step + 1, NAME_WIDTH + column * step + 1]) for column in range(3)}
    assert seen == {(255, 0, 0), (211, 211, 211)}
    assert (rows[:, :NAME_WIDTH] < 128).any()
    assert contact_sheet(dataset, each=1, classes=1).size == (NAME_WIDTH + step, step)
    with Image.open(save_sheet(sheet, tmp_path / "sheet.png")) as saved:
        assert saved.size == sheet.size
