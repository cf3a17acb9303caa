"""Few-shot draws and class halves, against CoOp's published draws and against its algorithm written out again."""

import functools
import hashlib
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipo.data.fewshot import class_half, draw_shots
from ipo.data.load import load_listing
from ipo.data.splits import relative
from tests.data.builders import toy_dataset

PUBLISHED_DRAWS = [
    ("caltech101", 1, 1, 100, "c006c01edc0945fe890ab780f631d522"),
    ("caltech101", 1, 2, 100, "d90082c57ace94db85a11de9972f32e9"),
    ("caltech101", 1, 3, 100, "f2854381f7e2c1564fb685cb4b0701df"),
    ("caltech101", 16, 1, 1600, "cec8a6b8550ca169792cf0bc3c9545d3"),
    ("caltech101", 16, 2, 1600, "339731e9faf98de734e3e942c1783a9e"),
    ("caltech101", 16, 3, 1600, "7cbb0cd9f2b70fd4a043a9cab400254c"),
    ("dtd", 1, 1, 47, "ab22a4b906922e0740f8929ea97b016b"),
    ("dtd", 1, 2, 47, "6924d4d884f31d9f9252ee3fb689e723"),
    ("dtd", 1, 3, 47, "4e4fdf6473fae196f03e73c40eb29e76"),
    ("dtd", 16, 1, 752, "775370d9c2363b396c36c1d9a760f51c"),
    ("dtd", 16, 2, 752, "9e918426ad6d0cb42d3eae1e88c0f057"),
    ("dtd", 16, 3, 752, "65bfa263d2b384c07f68402718a228cf"),
    ("eurosat", 1, 1, 10, "77a71f8d8bd39e9a139812ece05c9bad"),
    ("eurosat", 1, 2, 10, "f3c8433505fcf44f7cac6237b7c68130"),
    ("eurosat", 1, 3, 10, "f364aead57e80dca83f6e3e4de6627c6"),
    ("eurosat", 16, 1, 160, "e092ea7c8a2681facac1b2deb87ce32a"),
    ("eurosat", 16, 2, 160, "9109685e87d89dfdee6a31e7c0cb1b0e"),
    ("eurosat", 16, 3, 160, "df6dcef4f5838a0fe7bd9a14bdf4b200"),
    ("oxford_flowers", 1, 1, 102, "df02410e3450cf101c24765f07343a5d"),
    ("oxford_flowers", 1, 2, 102, "ea515bc908b9681ed7a169ff8c017c16"),
    ("oxford_flowers", 1, 3, 102, "1d27e8ada9d0c412d2f4c6952cd79782"),
    ("oxford_flowers", 16, 1, 1632, "08248b0f985fa19b44017d83169facbc"),
    ("oxford_flowers", 16, 2, 1632, "cfe24c1f702cb6e9b99471294dc5da78"),
    ("oxford_flowers", 16, 3, 1632, "41fbf136e22ffd7866c618597db6ccad"),
    ("oxford_pets", 1, 1, 37, "b9fb8c43f393b6af330006450bdc0b62"),
    ("oxford_pets", 1, 2, 37, "1e1c9b9f8447ffeb2e6d9895ed5993ca"),
    ("oxford_pets", 1, 3, 37, "669c08718bcfe38a8e8e5f2377129e66"),
    ("oxford_pets", 16, 1, 592, "097d04cb77d5b9df8d75bab59438e2e2"),
    ("oxford_pets", 16, 2, 592, "391876cd93720acfde8960fc6815e7cb"),
    ("oxford_pets", 16, 3, 592, "65155a9f9a1cc062054c7ff815d18aa8"),
    ("stanford_cars", 1, 1, 196, "8e23ec5cbab0e580f741019c01b59791"),
    ("stanford_cars", 1, 2, 196, "7bd6f27300b7bcefc3597e5d7f8955f8"),
    ("stanford_cars", 1, 3, 196, "cb4d54e983bc6829874d8d2c32d5a688"),
    ("stanford_cars", 16, 1, 3136, "69bf8d98979f2e71f1fec1e7eb5ad75c"),
    ("stanford_cars", 16, 2, 3136, "4935a245862ff7ebcaf8248826f7b358"),
    ("stanford_cars", 16, 3, 3136, "b6870f19a6ebe7f7064e3a5036499e1c"),
    ("ucf101", 1, 1, 101, "d8d114cef1ae06df760a4addba1fbcbe"),
    ("ucf101", 1, 2, 101, "a4d9a57b7fe672c0afdcccacdee303d9"),
    ("ucf101", 1, 3, 101, "2878466c4d6effae088414f66e40bfbb"),
    ("ucf101", 16, 1, 1616, "9ad5250945f22be6680591c8bd9b2078"),
    ("ucf101", 16, 2, 1616, "99dc6d066a874f0c5ce18ebd1db90918"),
    ("ucf101", 16, 3, 1616, "3dd9ec35ab4fc5de43c0279ff7c6175b"),
]
"""Dataset, shots, seed, number of images, md5 of the relative paths in drawn order joined by newlines."""


listing = functools.cache(load_listing)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "shots", "seed", "count", "checksum"), PUBLISHED_DRAWS)
def test_draws_are_those_of_coop(name, shots, seed, count, checksum, real_data):
    dataset = listing(name, real_data)
    assert dataset.split_source.startswith("published (split_zhou_")
    train, _ = draw_shots(dataset, shots, seed)
    paths = "\n".join(relative(item.path, dataset.root) for item in train)
    assert len(train) == count
    assert hashlib.md5(paths.encode()).hexdigest() == checksum


def coop_draw(train, val, shots, seed):
    """CoOp's and Dassl's code: the global generator, a dictionary of lists, one call for each split."""
    random.seed(seed)
    outputs = []
    for source, count in ((train, shots), (val, min(shots, 4))):
        tracker = defaultdict(list)
        for item in source:
            tracker[item.label].append(item)
        output = []
        for items in tracker.values():
            output.extend(random.sample(items, count) if len(items) >= count else items)
        outputs.append(output)
    return outputs


labels = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(train=labels, val=labels, shots=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_draws_agree_with_coops_algorithm_for_any_order_of_classes(train, val, shots, seed):
    dataset = toy_dataset(train, val)
    drawn = draw_shots(dataset, shots, seed)
    expected = coop_draw(dataset.train, dataset.val, shots, seed)
    assert [list(part) for part in drawn] == expected


def test_a_class_with_fewer_images_gives_all_it_has():
    dataset = toy_dataset([0] * 20 + [1] * 3 + [2], [0] * 9 + [2] * 2)
    train, val = draw_shots(dataset, 16, 1)
    assert Counter(item.label for item in train) == {0: 16, 1: 3, 2: 1}
    assert Counter(item.label for item in val) == {0: 4, 2: 2}
    assert len(set(train)) == len(train)


def test_seed_0_is_a_seed_and_not_unseeded():
    dataset = toy_dataset([0] * 200)
    first = draw_shots(dataset, 16, 0)
    random.seed(1234)
    assert draw_shots(dataset, 16, 0) == first
    assert draw_shots(dataset, 16, 1) != first


def test_a_draw_neither_reads_nor_moves_the_global_generator():
    dataset = toy_dataset([0] * 200)
    random.seed(5)
    state = random.getstate()
    first = draw_shots(dataset, 4, 1)
    assert random.getstate() == state
    random.random()
    assert draw_shots(dataset, 4, 1) == first


def test_the_order_of_calls_does_not_matter():
    dataset = toy_dataset([0, 1] * 50)
    alone = draw_shots(dataset, 2, 3)
    draw_shots(dataset, 16, 1)
    assert draw_shots(dataset, 2, 3) == alone


def test_shots_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        draw_shots(toy_dataset([0]), 0, 1)


@given(st.integers(1, 40))
@settings(deadline=None)
def test_base_and_new_partition_the_classes_and_base_has_the_odd_one(count):
    dataset = toy_dataset(list(range(count)))
    base, new = class_half(dataset, "base"), class_half(dataset, "new")
    assert base.labels + new.labels == tuple(range(count)) == class_half(dataset, "all").labels
    assert len(base.labels) == -(-count // 2)
    kept = base.take(dataset.train) + new.take(dataset.train)
    assert [item.path for item in kept] == [item.path for item in dataset.train]
    assert [item.label for item in new.take(dataset.train)] == list(range(len(new.labels)))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "last_base", "first_new", "test_sizes"),
    [
        ("caltech101", "helicopter", "ibis", (1549, 916)),
        ("oxford_pets", "keeshond", "leonberger", (1881, 1788)),
        ("stanford_cars", "1998 Eagle Talon Hatchback", "2012 FIAT 500 Abarth", (4002, 4039)),
        ("oxford_flowers", "petunia", "wild pansy", (1053, 1410)),
        ("dtd", "marbled", "matted", (864, 828)),
        ("eurosat", "Industrial Buildings", "Pasture Land", (4200, 3900)),
        ("ucf101", "Long Jump", "Lunges", (1934, 1849)),
    ],
)
def test_halves_are_those_of_cocoop(name, last_base, first_new, test_sizes, real_data):
    dataset = listing(name, real_data)
    base, new = class_half(dataset, "base"), class_half(dataset, "new")
    assert (base.classnames[-1], new.classnames[0]) == (last_base, first_new)
    assert (len(base.take(dataset.test)), len(new.take(dataset.test))) == test_sizes


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "classes", "sizes"),
    [
        ("oxford_pets", 37, (2944, 736, 3669)),
        ("stanford_cars", 196, (6509, 1635, 8041)),
        ("oxford_flowers", 102, (4093, 1633, 2463)),
        ("dtd", 47, (2820, 1128, 1692)),
        ("eurosat", 10, (13_500, 5400, 8100)),
        ("ucf101", 101, (7639, 1898, 3783)),
    ],
)
def test_the_published_split_files_are_known_by_their_content(name, classes, sizes, real_data):
    dataset = listing(name, real_data)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == sizes
    assert len(dataset.classnames) == classes
    assert dataset.split_source.startswith("published")
