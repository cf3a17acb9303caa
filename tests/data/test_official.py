"""Benchmarks without their published split file: the official lists where there are some, else seeded re-splits."""

import json
from collections import Counter

import numpy as np
import pytest

from ipo.data.load import load_dataset
from ipo.errors import DataError
from tests.data.builders import class_tree, picture, text


def labels_by_stem(dataset):
    return {item.path.stem: item.label for item in (*dataset.train, *dataset.val, *dataset.test)}


def test_caltech_takes_its_names_and_order_from_folders(tmp_path):
    classes = {"accordion": 10, "Faces": 10, "Faces_easy": 5, "BACKGROUND_Google": 5, "Motorbikes": 20, "airplanes": 10}
    class_tree(tmp_path / "caltech-101" / "101_ObjectCategories", classes)
    dataset = load_dataset("caltech101", tmp_path)
    assert dataset.classnames == ("face", "motorbike", "accordion", "airplane")
    assert dataset.split_source == "seeded (1)"
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (25, 10, 15)
    assert load_dataset("caltech101", tmp_path, seed=2).split_source == "seeded (2)"


def test_eurosat_takes_readable_names(tmp_path):
    class_tree(tmp_path / "eurosat" / "2750", {"SeaLake": 4, "AnnualCrop": 4, "River": 4})
    assert load_dataset("eurosat", tmp_path).classnames == ("Annual Crop Land", "River", "Sea or Lake")


def test_pets_keep_their_official_test_images(tmp_path):
    folder = tmp_path / "oxford_pets"
    stems = [f"{breed}_{number}" for breed in ("Abyssinian", "american_bulldog") for number in range(10)]
    for stem in stems:
        picture(folder / "images" / f"{stem}.jpg")
    rows = {stem: f"{stem} {1 if stem[0] == 'A' else 2} 1 1" for stem in stems}
    text(folder / "annotations" / "trainval.txt", *(row for stem, row in rows.items() if int(stem[-1]) < 5))
    text(folder / "annotations" / "test.txt", *(row for stem, row in rows.items() if int(stem[-1]) >= 5))
    dataset = load_dataset("oxford_pets", tmp_path)
    assert dataset.classnames == ("abyssinian", "american bulldog")
    assert dataset.split_source == "official test, seeded val (1)"
    assert {item.path.stem for item in dataset.test} == {stem for stem in stems if int(stem[-1]) >= 5}
    assert Counter(item.label for item in dataset.train) == {0: 4, 1: 4}
    assert Counter(item.label for item in dataset.val) == {0: 1, 1: 1}


def test_sun_reverses_the_parts_of_a_name(tmp_path):
    folder = tmp_path / "sun397"
    text(folder / "ClassName.txt", "/a/abbey", "/a/athletic_field/outdoor")
    for part, number in (("Training_01.txt", 1), ("Testing_01.txt", 2)):
        paths = [f"/a/abbey/sun_{number}.jpg", f"/a/athletic_field/outdoor/sun_o{number}.jpg"]
        text(folder / part, *paths)
        for path in paths:
            picture(folder / "SUN397" / path[1:])
    dataset = load_dataset("sun397", tmp_path)
    assert dataset.classnames == ("abbey", "outdoor athletic field")
    assert [(item.path.stem, item.label) for item in dataset.test] == [("sun_2", 0), ("sun_o2", 1)]
    assert all(item.path.is_file() for item in dataset.train + dataset.test)


def test_ucf_separates_the_words_of_an_action(tmp_path):
    folder = tmp_path / "ucf101"
    text(folder / "ucfTrainTestlist" / "classInd.txt", "1 ApplyEyeMakeup", "2 YoYo")
    text(folder / "ucfTrainTestlist" / "trainlist01.txt", "ApplyEyeMakeup/v_A_g08.avi 1", "YoYo/v_Y_g08.avi 2")
    text(folder / "ucfTrainTestlist" / "testlist01.txt", "ApplyEyeMakeup/v_A_g01.avi", "YoYo/v_Y_g01.avi")
    for path in ("Apply_Eye_Makeup/v_A_g08", "Apply_Eye_Makeup/v_A_g01", "Yo_Yo/v_Y_g08", "Yo_Yo/v_Y_g01"):
        picture(folder / "UCF-101-midframes" / f"{path}.jpg")
    dataset = load_dataset("ucf101", tmp_path)
    assert dataset.classnames == ("Apply Eye Makeup", "Yo Yo")
    assert labels_by_stem(dataset) == {"v_A_g08": 0, "v_Y_g08": 1, "v_A_g01": 0, "v_Y_g01": 1}
    assert all(item.path.is_file() for item in dataset.train + dataset.test)


def test_cars_move_the_year_to_the_front(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("fname", object), ("class", object)]
    for file, rows in (
        ("devkit/cars_train_annos.mat", [("00001.jpg", 2), ("00002.jpg", 1)]),
        ("cars_test_annos_withlabels.mat", [("00001.jpg", 1)]),
    ):
        savemat(folder / file, {"annotations": np.array([rows], dtype=kinds)})
    for path in ("cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg"):
        picture(folder / path)
    dataset = load_dataset("stanford_cars", tmp_path)
    assert dataset.classnames == ("2000 AM General Hummer SUV", "2012 Acura RL Sedan")
    train = {item.path.relative_to(folder).as_posix(): item.label for item in dataset.train}
    assert train == {"cars_train/00001.jpg": 1, "cars_train/00002.jpg": 0}
    assert [(item.path.parent.name, item.label) for item in dataset.test] == [("cars_test", 0)]


def test_flowers_are_split_anew_since_their_official_split_is_not_the_benchmarks(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "oxford_flowers"
    for number in range(1, 21):
        picture(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[2] * 10 + [1] * 10])})
    text(folder / "cat_to_name.json", json.dumps({"2": "hard-leaved pocket orchid", "1": "pink primrose"}))
    dataset = load_dataset("oxford_flowers", tmp_path)
    assert dataset.classnames == ("pink primrose", "hard-leaved pocket orchid")
    assert labels_by_stem(dataset)["image_00001"] == 1
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (10, 4, 6)
    assert dataset.split_source == "seeded (1)"


@pytest.mark.parametrize(
    ("name", "images", "missing"),
    [
        ("oxford_pets", "images", "annotations/trainval.txt"),
        ("sun397", "SUN397", "ClassName.txt"),
        ("ucf101", "UCF-101-midframes", "ucfTrainTestlist/classInd.txt"),
        ("stanford_cars", "cars_train", "devkit/cars_meta.mat"),
        ("oxford_flowers", "jpg", "imagelabels.mat"),
    ],
)
def test_a_missing_list_is_named(name, images, missing, tmp_path):
    folder = {"sun397": "sun397", "ucf101": "ucf101"}.get(name, name)
    picture(tmp_path / folder / images / "1.jpg")
    with pytest.raises(DataError, match=f"missing {missing}"):
        load_dataset(name, tmp_path)


def test_a_broken_matlab_file_is_named(tmp_path):
    pytest.importorskip("scipy.io")
    folder = tmp_path / "oxford_flowers"
    picture(folder / "jpg" / "image_00001.jpg")
    text(folder / "imagelabels.mat", "not a MATLAB file")
    with pytest.raises(DataError, match=r"cannot read MATLAB file.*imagelabels\.mat"):
        load_dataset("oxford_flowers", tmp_path)
